//! The text of `/metrics`, written piece by piece.

use std::fmt::Write;

use bytes::Bytes;

use super::{
    Options,
    family::{Family, Kind, Samples},
    options,
};
use crate::{ledger::Histogram, transport::status::TransportStatus};

/// A piece is given away once it is this long. Large enough to be worth a write, small enough to be nothing beside a
/// status of a thousand peers, whose text is some 30 MB.
const PIECE_BYTES: usize = 32 << 10;

/// The text exposition of a transport (format 0.0.4), as an iterator over pieces.
///
/// A status is read once and written from, so that the ledger's laws hold in the text; the text never exists as a
/// whole. `prometheus`' own way, through [`Collector`](super::Collector) and `TextEncoder`, says the same and takes
/// some twenty times the memory.
pub struct Exposition {
    status: TransportStatus,
    families: Box<dyn Iterator<Item = &'static Family> + Send>,
    family: Option<&'static Family>,
    turn: usize,
    headed: bool,
}

impl Exposition {
    /// The text of this status.
    pub fn new(status: TransportStatus, options: &Options) -> Self {
        let mut families = Box::new(options::all(options));
        let family = families.next();
        Self { status, families, family, turn: 0, headed: false }
    }
}

impl Iterator for Exposition {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let mut text = String::new();
        while let Some(family) = self.family
            && text.len() < PIECE_BYTES
        {
            if self.turn < family.turns(&self.status) {
                let mut sink = Text { family, text: &mut text, headed: &mut self.headed };
                family.write(&self.status, self.turn, &mut sink);
                self.turn += 1;
            } else {
                self.family = self.families.next();
                (self.turn, self.headed) = (0, false);
            }
        }
        (!text.is_empty()).then(|| Bytes::from(text))
    }
}

struct Text<'a> {
    family: &'static Family,
    text: &'a mut String,
    headed: &'a mut bool,
}

impl Text<'_> {
    /// A family without samples has no head either.
    fn head(&mut self) {
        if std::mem::replace(self.headed, true) {
            return;
        }
        let Family { name, help, kind, .. } = self.family;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
    }

    /// One sample: `name_suffix{label="value",…,le="bound"} value`.
    fn sample(&mut self, suffix: &str, labels: &[&str], le: Option<&str>, value: impl std::fmt::Display) {
        self.head();
        let pairs = self.family.labels.iter().copied().zip(labels.iter().copied()).chain(le.map(|bound| ("le", bound)));
        self.text.push_str(self.family.name);
        self.text.push_str(suffix);
        let mut before = '{';
        for (name, value) in pairs {
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
        self.line(format_args!(" {value}\n"));
    }

    fn line(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.text.write_fmt(arguments).expect("a string takes what is written to it");
    }
}

impl Samples for Text<'_> {
    fn count(&mut self, labels: &[&str], value: u64) {
        self.sample("", labels, None, value);
    }

    fn gauge(&mut self, labels: &[&str], value: f64) {
        self.sample("", labels, None, value);
    }

    fn histogram(&mut self, labels: &[&str], histogram: &Histogram, bounds: &[f64]) {
        for (bound, count) in histogram.cumulative().filter(|(bound, _)| bounds.contains(bound)) {
            self.sample("_bucket", labels, Some(&bound.to_string()), count);
        }
        self.sample("_bucket", labels, Some("+Inf"), histogram.count());
        self.sample("_sum", labels, None, histogram.sum());
        self.sample("_count", labels, None, histogram.count());
    }
}

/// A label's value as the format wants it: backslash, quote and line feed escaped.
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
