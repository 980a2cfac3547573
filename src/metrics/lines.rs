//! The lines of both formats: the head of a family, and its samples.

use std::{
    fmt::{Display, Write},
    time::UNIX_EPOCH,
};

use super::format::Format;
use crate::ledger::Exemplar;

/// The units that the name of a family may end with.
const UNITS: [&str; 3] = ["seconds", "bytes", "ratio"];

/// Writes the lines of one family.
pub(super) struct Lines<'a> {
    pub(super) format: Format,
    pub(super) name: &'a str,
    pub(super) text: &'a mut String,
}

impl Lines<'_> {
    /// Writes the head of the family. `kind` is the type as in Prometheus' text.
    pub(super) fn head(&mut self, help: &str, kind: &'static str) {
        let name = self.name;
        if self.format == Format::Text {
            return self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        }
        let (name, kind) = declared(name, kind);
        self.line(format_args!("# TYPE {name} {kind}\n"));
        let unit = UNITS.into_iter().find(|unit| name.strip_suffix(unit).is_some_and(|rest| rest.ends_with('_')));
        if let Some(unit) = unit {
            self.line(format_args!("# UNIT {name} {unit}\n"));
        }
        if !help.is_empty() {
            self.line(format_args!("# HELP {name} "));
            escape(help, self.text);
            self.text.push('\n');
        }
    }

    /// Writes a sample without the end of its line: `name_suffix{label="value",…} value`.
    pub(super) fn sample<'a>(
        &mut self,
        suffix: &str,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        value: impl Display,
    ) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        let mut before = '{';
        for (name, value) in labels {
            self.text.push(before);
            self.text.push_str(name);
            self.text.push_str("=\"");
            escape(value, self.text);
            self.text.push('"');
            before = ',';
        }
        if before == ',' {
            self.text.push('}');
        }
        self.line(format_args!(" {value}"));
    }

    /// Writes the exemplar after a bucket.
    pub(super) fn exemplar(&mut self, Exemplar { context, seconds, time }: &Exemplar) {
        let (trace, span) = (context.trace, context.span);
        self.line(format_args!(" # {{trace_id=\"{trace}\",span_id=\"{span}\"}} {seconds}"));
        if let Ok(since) = time.duration_since(UNIX_EPOCH) {
            self.line(format_args!(" {}.{:03}", since.as_secs(), since.subsec_millis()));
        }
    }

    pub(super) fn end(&mut self) {
        self.text.push('\n');
    }

    pub(super) fn line(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.text.write_fmt(arguments).expect("a string takes what is written to it");
    }

    /// An edge as it is written in the label `le` or `quantile`.
    pub(super) fn edge(&self, edge: f64) -> String {
        match self.format {
            Format::Text => edge.to_string(),
            Format::OpenMetrics => canonical(edge),
        }
    }
}

/// The name and type of a family in OpenMetrics. There, a counter's samples end in `_total` but its name does not, and
/// no gauge's name ends in `_total`. A family that is named otherwise, as six of etcd's are, has the type `unknown` and
/// keeps its name, so that the series are the same in both formats.
fn declared<'a>(name: &'a str, kind: &'static str) -> (&'a str, &'static str) {
    match (kind, name.strip_suffix("_total")) {
        ("counter", Some(family)) => (family, kind),
        ("counter", None) | ("gauge", Some(_)) => (name, "unknown"),
        _ => (name, kind),
    }
}

/// An edge in the form of OpenMetrics' "Canonical Numbers": as Go writes it by `%g`, with a point if it has neither
/// point nor exponent. The text format has no point in whole numbers. Prometheus 3 takes both forms for the same edge,
/// but Prometheus 2 does not, so no edge of this library is a whole number.
fn canonical(edge: f64) -> String {
    if edge.is_infinite() {
        return if edge > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let scientific = format!("{edge:e}");
    let exponent = scientific.split_once('e').and_then(|(digits, exponent)| Some((digits, exponent.parse().ok()?)));
    match exponent {
        Some((digits, exponent @ (..-4 | 6..))) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", i32::abs(exponent))
        }
        _ => format!("{edge:?}"),
    }
}

/// Escapes a quoted text for both formats: backslash, quote and line feed.
fn escape(value: &str, text: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str(r"\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str(r"\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Histogram;

    #[test]
    fn edges_are_written_as_the_specification_writes_them() {
        for (edge, written) in [
            (0.0, "0.0"),
            (0.001, "0.001"),
            (1.0, "1.0"),
            (1.5, "1.5"),
            (10.0, "10.0"),
            (1e-10, "1e-10"),
            (1e-9, "1e-09"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (100_000.0, "100000.0"),
            (1e6, "1e+06"),
            (1_234_567.0, "1.234567e+06"),
            (1e10, "1e+10"),
            (-2.0, "-2.0"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(canonical(edge), written);
        }
    }

    /// Prometheus 2 takes `1` and `1.0` for two series. It must store the same series for both formats.
    #[test]
    fn our_edges_are_written_alike_in_both_formats() {
        for edge in Histogram::BOUNDS.iter().chain(&Histogram::SNAPSHOT_BOUNDS) {
            assert_eq!(canonical(*edge), edge.to_string());
        }
    }
}
