//! The families of a `prometheus::Registry`, in either format.

use prometheus::{
    TextEncoder,
    proto::{Metric, MetricFamily, MetricType},
};

use super::{format::Format, lines::Lines};

impl Format {
    /// The text of the families that a registry gathered, in this format. After it, the caller adds [`Self::end`].
    ///
    /// # Errors
    /// A family has no name.
    pub fn encode(self, families: &[MetricFamily]) -> prometheus::Result<String> {
        if self == Self::Text {
            return TextEncoder::new().encode_to_string(families);
        }
        let mut text = String::new();
        for family in families {
            let kind = match family.get_field_type() {
                MetricType::COUNTER => "counter",
                MetricType::GAUGE => "gauge",
                MetricType::HISTOGRAM => "histogram",
                MetricType::SUMMARY => "summary",
                // The crate never makes one, and offers no way to read its value.
                MetricType::UNTYPED => continue,
            };
            let mut lines = Lines { format: self, name: family.name(), text: &mut text };
            lines.head(family.help(), kind);
            for metric in family.get_metric() {
                one(&mut lines, family.get_field_type(), metric);
            }
        }
        Ok(text)
    }
}

fn one(lines: &mut Lines<'_>, kind: MetricType, metric: &Metric) {
    match kind {
        MetricType::COUNTER => sample(lines, metric, "", None, &metric.get_counter().get_value().to_string()),
        MetricType::GAUGE => sample(lines, metric, "", None, &metric.get_gauge().get_value().to_string()),
        MetricType::UNTYPED => {}
        MetricType::HISTOGRAM => {
            let histogram = metric.get_histogram();
            let count = histogram.get_sample_count().to_string();
            for bucket in histogram.get_bucket().iter().filter(|bucket| bucket.upper_bound() != f64::INFINITY) {
                let edge = lines.edge(bucket.upper_bound());
                sample(lines, metric, "_bucket", Some(("le", &edge)), &bucket.cumulative_count().to_string());
            }
            sample(lines, metric, "_bucket", Some(("le", "+Inf")), &count);
            sample(lines, metric, "_sum", None, &histogram.get_sample_sum().to_string());
            sample(lines, metric, "_count", None, &count);
        }
        MetricType::SUMMARY => {
            let summary = metric.get_summary();
            for quantile in summary.get_quantile() {
                let edge = lines.edge(quantile.quantile());
                sample(lines, metric, "", Some(("quantile", &edge)), &quantile.value().to_string());
            }
            sample(lines, metric, "_sum", None, &summary.sample_sum().to_string());
            sample(lines, metric, "_count", None, &summary.sample_count().to_string());
        }
    }
}

fn sample(lines: &mut Lines<'_>, metric: &Metric, suffix: &str, more: Option<(&str, &str)>, value: &str) {
    let labels = metric.get_label().iter().map(|pair| (pair.name(), pair.value()));
    lines.sample(suffix, labels.chain(more), value);
    let milliseconds = metric.timestamp_ms();
    if milliseconds != 0 {
        let sign = if milliseconds < 0 { "-" } else { "" };
        let (seconds, rest) = (milliseconds.unsigned_abs() / 1000, milliseconds.unsigned_abs() % 1000);
        lines.line(format_args!(" {sign}{seconds}.{rest:03}"));
    }
    lines.end();
}

#[cfg(test)]
mod tests {
    use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry, core::Collector, proto::Gauge};

    use super::*;

    fn encoded(collectors: Vec<Box<dyn Collector>>) -> String {
        let registry = Registry::new();
        for collector in collectors {
            registry.register(collector).expect("their names differ");
        }
        Format::OpenMetrics.encode(&registry.gather()).expect("they have names")
    }

    #[test]
    fn what_does_not_fit_is_of_an_unknown_type_and_keeps_its_name() {
        let counter = |name| IntCounter::new(name, "What it \"counts\".\nAll.").expect("a name");
        let gauge = |name| IntGauge::new(name, "G.").expect("a name");
        let text = encoded(vec![
            Box::new(counter("a_bytes_total")),
            Box::new(counter("b_failures")),
            Box::new(gauge("c_inflights_total")),
            Box::new(gauge("d_seconds")),
        ]);
        let expected = "# TYPE a_bytes counter\n# UNIT a_bytes bytes\n# HELP a_bytes What it \\\"counts\\\".\\nAll.\n\
                        a_bytes_total 0\n\
                        # TYPE b_failures unknown\n# HELP b_failures What it \\\"counts\\\".\\nAll.\nb_failures 0\n\
                        # TYPE c_inflights_total unknown\n# HELP c_inflights_total G.\nc_inflights_total 0\n\
                        # TYPE d_seconds gauge\n# UNIT d_seconds seconds\n# HELP d_seconds G.\nd_seconds 0\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn whole_edges_have_their_point() {
        let options = HistogramOpts::new("h", "H.").const_label("l", "v\\").buckets(vec![0.5, 1.0, 1e6]);
        let histogram = Histogram::with_opts(options).expect("edges that rise");
        histogram.observe(0.75);
        histogram.observe(1e9);
        let expected = "# TYPE h histogram\n# HELP h H.\nh_bucket{l=\"v\\\\\",le=\"0.5\"} 0\n\
                        h_bucket{l=\"v\\\\\",le=\"1.0\"} 1\nh_bucket{l=\"v\\\\\",le=\"1e+06\"} 1\n\
                        h_bucket{l=\"v\\\\\",le=\"+Inf\"} 2\nh_sum{l=\"v\\\\\"} 1000000000.75\nh_count{l=\"v\\\\\"} 2\n";
        assert_eq!(encoded(vec![Box::new(histogram)]), expected);
    }

    #[test]
    fn a_sample_with_a_time_has_it_in_seconds() {
        let mut gauge = Gauge::default();
        gauge.set_value(f64::INFINITY);
        let mut metric = Metric::from_gauge(gauge);
        metric.set_timestamp_ms(1_500);
        let mut family = MetricFamily::default();
        family.set_name("g".to_owned());
        family.set_field_type(MetricType::GAUGE);
        family.set_metric(vec![metric]);
        assert_eq!(Format::OpenMetrics.encode(&[family]).ok().as_deref(), Some("# TYPE g gauge\ng inf 1.500\n"));
    }
}
