//! The two formats of `/metrics`, and the choice between them.

use http::{HeaderMap, header::ACCEPT};
use prometheus::TEXT_FORMAT;

/// A format of `/metrics`. A scrape stores the same series in either format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Prometheus' text, version 0.0.4.
    #[default]
    Text,
    /// OpenMetrics 1.0. It has exemplars and units.
    OpenMetrics,
}

impl Format {
    /// The format that the header `Accept` asks for: OpenMetrics if it is named and text is not preferred, and text
    /// otherwise. Without the header, text.
    pub fn asked_for(headers: &HeaderMap) -> Self {
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges: Vec<MediaRange<'_>> = values.flat_map(|value| value.split(',').map(MediaRange)).collect();
        let open_metrics = best(&ranges, MediaRange::is_open_metrics).unwrap_or(0.0);
        // The most specific range that matches text says how much text is wanted.
        let text = best(&ranges, MediaRange::is_text)
            .or_else(|| best(&ranges, |range| range.is("text/*")))
            .or_else(|| best(&ranges, |range| range.is("*/*")))
            .unwrap_or(0.0);
        if open_metrics > 0.0 && open_metrics >= text { Self::OpenMetrics } else { Self::Text }
    }

    /// The value of the header `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => TEXT_FORMAT,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The text after the last family of an answer, by which a client recognizes a complete answer.
    pub const fn end(self) -> &'static str {
        match self {
            Self::Text => "",
            Self::OpenMetrics => "# EOF\n",
        }
    }
}

/// The highest weight among the ranges that `wanted` selects. `None` if there is none.
fn best<'a>(ranges: &[MediaRange<'a>], wanted: impl Fn(&MediaRange<'a>) -> bool) -> Option<f32> {
    ranges.iter().filter(|range| wanted(range)).map(MediaRange::weight).reduce(f32::max)
}

/// One of the media ranges in `Accept`: `type/subtype;name=value;q=0.5`. A quoted value that contains separators is
/// split like any other, and then matches neither format.
struct MediaRange<'a>(&'a str);

impl<'a> MediaRange<'a> {
    fn is(&self, kind: &str) -> bool {
        self.0.split(';').next().is_some_and(|found| found.trim().eq_ignore_ascii_case(kind))
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        let mut pairs = self.0.split(';').skip(1).filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(found, _)| found.trim().eq_ignore_ascii_case(name))?;
        Some(value.trim().trim_matches('"'))
    }

    /// OpenMetrics in the version that is written here, or in any. The range may also ask for an escaping of names: the
    /// names here need none.
    fn is_open_metrics(&self) -> bool {
        self.is("application/openmetrics-text") && self.parameter("version").is_none_or(|version| version == "1.0.0")
    }

    /// Version 1.0.0 is 0.0.4 with more characters allowed in names.
    fn is_text(&self) -> bool {
        self.is("text/plain") && self.parameter("version").is_none_or(|version| ["0.0.4", "1.0.0"].contains(&version))
    }

    /// The weight of the range. A value that is not a number from 0 to 1 counts as 0.
    fn weight(&self) -> f32 {
        let weight = self.parameter("q").map_or(Ok(1.0), str::parse);
        weight.ok().filter(|weight| (0.0..=1.0).contains(weight)).unwrap_or(0.0)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn asked(values: &[&'static str]) -> Format {
        let values = values.iter().map(|value| (ACCEPT, HeaderValue::from_static(value)));
        Format::asked_for(&values.collect())
    }

    #[test]
    fn open_metrics_is_for_those_who_ask_for_it() {
        for accept in [
            // Sent by Prometheus 2.42, 2.53 and 3, and by OpenTelemetry's collector.
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
             text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
             application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            "application/openmetrics-text",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "Application/OpenMetrics-Text; Version=\"1.0.0\" ; Q=0.5 , text/plain ; q=0.4",
            "application/openmetrics-text;version=1.0.0, text/plain;version=0.0.4",
            "application/openmetrics-text;q=0.001,*/*;q=0.001",
        ] {
            assert_eq!(asked(&[accept]), Format::OpenMetrics, "{accept}");
        }
        assert_eq!(asked(&["text/plain;q=0.5", "application/openmetrics-text"]), Format::OpenMetrics, "two headers");
    }

    #[test]
    fn everybody_else_gets_text() {
        for accept in [
            "",
            "*/*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "application/*",
            "text/plain;version=0.0.4;q=1,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;q=0.2,text/plain;version=0.0.4;q=0.5",
            "application/openmetrics-text;q=0.2,text/*",
            "application/openmetrics-text;q=0.2,*/*",
            "application/openmetrics-text;q=0,text/plain;q=0",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;version=2.0.0;q=0.9,text/plain;q=0.1",
            "application/openmetrics-text;q=much",
            "application/openmetrics-text;q=-1",
            "application/openmetrics-text;q=7",
            "application/openmetrics-text;q=NaN",
            "application/openmetrics",
            "openmetrics",
            ";;;,,,/,=\"",
            "text/html;note=\"application/openmetrics-text,application/openmetrics-text\"",
        ] {
            assert_eq!(asked(&[accept]), Format::Text, "{accept}");
        }
        assert_eq!(asked(&[]), Format::Text);
        let strange = HeaderValue::from_bytes(b"application/openmetrics-text\xff").expect("it is no control character");
        assert_eq!(Format::asked_for(&HeaderMap::from_iter([(ACCEPT, strange)])), Format::Text);
    }

    #[test]
    fn a_range_that_cannot_be_read_hides_no_other() {
        assert_eq!(asked(&["text/, ;q=1, application/openmetrics-text, text/plain;q"]), Format::OpenMetrics);
    }
}
