//! A family of series: its name, its labels, and how its samples are read from a status.

use crate::{
    ledger::{Histogram, Incoming, Outgoing},
    transport::status::{PeerStatus, TransportStatus},
};

/// The value of the label `peer` for all senders that are no peers: strangers, and remotes until the membership
/// confirms them.
pub(crate) const STRANGERS: &str = "other";

/// One family: all series with one name.
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) kind: MetricKind,
    pub(crate) labels: &'static [&'static str],
    pub(crate) of: Of,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

impl MetricKind {
    /// The name of the type in Prometheus' text.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The subjects that a family has samples of. A function writes the samples of one subject.
pub(crate) enum Of {
    /// Peers.
    Peers(fn(&LabelledMember<'_>, &mut dyn Samples)),
    /// All members that are probed: peers, and members that are watched from outside.
    Probed(fn(&LabelledMember<'_>, &mut dyn Samples)),
    /// Peers, and all others together as one. The `&str` is the label `peer`.
    Senders(fn(&Incoming, &str, &mut dyn Samples)),
    /// As `Senders`, for messages that go out.
    Receivers(fn(&Outgoing, &str, &mut dyn Samples)),
    /// The transport itself.
    Transport(fn(&TransportStatus, &mut dyn Samples)),
}

/// A peer or a watched member, with the IDs as label values.
pub(crate) struct LabelledMember<'a> {
    pub(crate) local: &'a str,
    pub(crate) id: &'a str,
    pub(crate) status: &'a PeerStatus,
}

/// Receives samples. The label values are in the order of [`Family::labels`].
pub(crate) trait Samples {
    fn count(&mut self, labels: &[&str], value: u64);
    fn gauge(&mut self, labels: &[&str], value: f64);
    /// `bounds` are the edges to show. Each must be an edge of the histogram.
    fn histogram(&mut self, labels: &[&str], histogram: &Histogram, bounds: &[f64]);
}

impl Family {
    /// How many turns [`Self::write`] has: one for each subject.
    pub(crate) fn turns(&self, status: &TransportStatus) -> usize {
        match self.of {
            Of::Peers(_) | Of::Probed(_) => status.peers.len(),
            Of::Senders(_) | Of::Receivers(_) => status.peers.len() + 1,
            Of::Transport(_) => 1,
        }
    }

    /// Writes the samples of one subject.
    pub(crate) fn write(&self, status: &TransportStatus, turn: usize, samples: &mut dyn Samples) {
        if let Of::Transport(write) = &self.of {
            return write(status, samples);
        }
        let Some(peer) = status.peers.get(turn) else {
            match (&self.of, &status.strangers, &status.others) {
                (Of::Senders(write), Some(strangers), _) => write(strangers, STRANGERS, samples),
                (Of::Receivers(write), _, Some(others)) => write(others, STRANGERS, samples),
                _ => {}
            }
            return;
        };
        if peer.is_remote() {
            return;
        }
        let is_peer = peer.is_peer();
        let (local, id) = (status.local.to_string(), peer.id.to_string());
        let member = LabelledMember { local: &local, id: &id, status: peer };
        match &self.of {
            Of::Senders(write) if is_peer => write(&peer.incoming, &id, samples),
            Of::Receivers(write) if is_peer => write(&peer.outgoing, &id, samples),
            Of::Peers(write) if is_peer => write(&member, samples),
            Of::Probed(write) => write(&member, samples),
            _ => {}
        }
    }
}
