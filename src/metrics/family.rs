//! What a family of series is: its name, its labels, and how its samples are read from a status.

use crate::{
    ledger::{Histogram, Incoming, Outgoing},
    transport::status::{PeerStatus, TransportStatus},
};

/// The value of `peer` for everyone who is no peer: strangers, and remotes until the membership confirms them.
pub(crate) const STRANGERS: &str = "other";

/// One family: everything under one name.
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) kind: Kind,
    pub(crate) labels: &'static [&'static str],
    pub(crate) of: Of,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// As Prometheus' text has it.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Whose samples a family has. A function writes the samples of one of them.
pub(crate) enum Of {
    /// Peers.
    Peers(fn(&Member<'_>, &mut dyn Samples)),
    /// Peers, and members that are watched from outside: what is probed.
    Probed(fn(&Member<'_>, &mut dyn Samples)),
    /// Peers, and everyone else together as one; the `&str` is the label `peer`.
    Senders(fn(&Incoming, &str, &mut dyn Samples)),
    /// The same, of what goes to them.
    Receivers(fn(&Outgoing, &str, &mut dyn Samples)),
    /// The transport itself.
    Transport(fn(&TransportStatus, &mut dyn Samples)),
}

/// A peer or a member that is watched, with the IDs as labels have them.
pub(crate) struct Member<'a> {
    pub(crate) local: &'a str,
    pub(crate) id: &'a str,
    pub(crate) status: &'a PeerStatus,
}

/// Takes samples; the values of labels come in the order of [`Family::labels`].
pub(crate) trait Samples {
    fn count(&mut self, labels: &[&str], value: u64);
    fn gauge(&mut self, labels: &[&str], value: f64);
    /// `bounds` are the edges to show, each an edge of the histogram.
    fn histogram(&mut self, labels: &[&str], histogram: &Histogram, bounds: &[f64]);
}

impl Family {
    /// How many turns [`Self::write`] has: one for each of those whose samples it has.
    pub(crate) fn turns(&self, status: &TransportStatus) -> usize {
        match self.of {
            Of::Peers(_) | Of::Probed(_) => status.peers.len(),
            Of::Senders(_) | Of::Receivers(_) => status.peers.len() + 1,
            Of::Transport(_) => 1,
        }
    }

    /// Writes the samples of one turn.
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
        let member = Member { local: &local, id: &id, status: peer };
        match &self.of {
            Of::Senders(write) if is_peer => write(&peer.incoming, &id, samples),
            Of::Receivers(write) if is_peer => write(&peer.outgoing, &id, samples),
            Of::Peers(write) if is_peer => write(&member, samples),
            Of::Probed(write) => write(&member, samples),
            _ => {}
        }
    }
}
