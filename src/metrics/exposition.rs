//! The text of `/metrics`, written piece by piece.

use std::fmt::Display;

use bytes::Bytes;

use super::{
    Options,
    family::{Family, Samples},
    format::Format,
    lines::Lines,
    options,
};
use crate::{
    ledger::{Exemplar, Histogram},
    transport::status::TransportStatus,
};

/// The length at which a piece is handed out, in bytes. It is large enough to be worth a write, and small compared to a
/// status of a thousand peers, whose text is some 30 MB.
const PIECE_BYTES: usize = 32 << 10;

/// The text of a transport's metrics, as an iterator over pieces.
///
/// A status is read once and written from, so the ledger's laws hold in the text. The text is never in memory as a
/// whole. The usual way of `prometheus`, by [`Collector`](super::Collector) and `TextEncoder`, gives the same samples,
/// takes some twenty times the memory, and has no exemplars.
pub struct Exposition {
    format: Format,
    status: TransportStatus,
    families: Box<dyn Iterator<Item = &'static Family> + Send>,
    family: Option<&'static Family>,
    turn: usize,
    headed: bool,
}

impl Exposition {
    /// The text of this status in [`Format::Text`].
    pub fn new(status: TransportStatus, options: &Options) -> Self {
        let mut families = Box::new(options::all(options));
        let family = families.next();
        Self { format: Format::default(), status, families, family, turn: 0, headed: false }
    }

    /// Changes the format. After the last piece, the caller adds [`Format::end`].
    #[must_use]
    pub fn format(self, format: Format) -> Self {
        Self { format, ..self }
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
                let lines = Lines { format: self.format, name: family.name, text: &mut text };
                let mut sink = ExpositionText { family, lines, headed: &mut self.headed };
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

struct ExpositionText<'a> {
    family: &'static Family,
    lines: Lines<'a>,
    headed: &'a mut bool,
}

impl ExpositionText<'_> {
    /// One sample: `name_suffix{label="value",…,le="edge"} value`.
    fn sample(&mut self, suffix: &str, labels: &[&str], le: Option<&str>, value: impl Display) {
        self.bucket(suffix, labels, le, value, None);
    }

    fn bucket(
        &mut self,
        suffix: &str,
        labels: &[&str],
        le: Option<&str>,
        value: impl Display,
        exemplar: Option<&Exemplar>,
    ) {
        // A family without samples has no head either.
        if !std::mem::replace(self.headed, true) {
            self.lines.head(self.family.help, self.family.kind.label());
        }
        let pairs = self.family.labels.iter().copied().zip(labels.iter().copied()).chain(le.map(|edge| ("le", edge)));
        self.lines.sample(suffix, pairs, value);
        if let Some(exemplar) = exemplar {
            self.lines.exemplar(exemplar);
        }
        self.lines.end();
    }

    /// The exemplar of the bucket between two edges, if the format has exemplars.
    fn exemplar<'h>(&self, histogram: &'h Histogram, above: f64, edge: f64) -> Option<&'h Exemplar> {
        let here = |exemplar: &&Exemplar| above < exemplar.seconds && exemplar.seconds <= edge;
        histogram.exemplars().find(here).filter(|_| self.lines.format == Format::OpenMetrics)
    }
}

impl Samples for ExpositionText<'_> {
    fn count(&mut self, labels: &[&str], value: u64) {
        self.sample("", labels, None, value);
    }

    fn gauge(&mut self, labels: &[&str], value: f64) {
        self.sample("", labels, None, value);
    }

    fn histogram(&mut self, labels: &[&str], histogram: &Histogram, bounds: &[f64]) {
        let mut above = f64::NEG_INFINITY;
        for (bound, count) in histogram.cumulative().filter(|(bound, _)| bounds.contains(bound)) {
            let exemplar = self.exemplar(histogram, above, bound);
            self.bucket("_bucket", labels, Some(&self.lines.edge(bound)), count, exemplar);
            above = bound;
        }
        let exemplar = self.exemplar(histogram, above, f64::INFINITY);
        self.bucket("_bucket", labels, Some("+Inf"), histogram.count(), exemplar);
        self.sample("_sum", labels, None, histogram.sum());
        self.sample("_count", labels, None, histogram.count());
    }
}
