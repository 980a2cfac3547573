//! The ledgers of all members.

use std::{collections::BTreeMap, fmt::Write};

use rafthttp::{PeerStatus, TransportStatus};

use super::cluster::DemoCluster;

/// The ledgers of all members, read one after the other, each in one go.
pub(super) struct Ledger(Vec<(String, TransportStatus)>);

impl Ledger {
    pub(super) fn of(cluster: &DemoCluster) -> Self {
        let read = cluster.members().iter().map(|member| (member.name.clone(), member.node.transport().status()));
        Self(read.collect())
    }

    /// A summary for a line of progress.
    pub(super) fn line(&self) -> String {
        let sent: u64 = self.peers().map(|(_, peer)| peer.outgoing.sent.total()).sum();
        let dropped: u64 = self.peers().map(|(_, peer)| peer.outgoing.dropped.total()).sum();
        let balance = if self.imbalance().is_none() { "balanced" } else { "NOT BALANCED" };
        format!("{sent} messages sent, {dropped} dropped, ledger {balance}")
    }

    /// A table with one row for each member, and the messages that were dropped or rejected, by reason.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{:<8} {:>10} {:>10} {:>8} {:>7} {:>10} {:>10} {:>9} {:>8}",
            "member", "offered", "sent", "dropped", "queued", "received", "processed", "rejected", "waiting"
        );
        for (name, status) in &self.0 {
            let sum = |part: fn(&PeerStatus) -> u64| status.peers.iter().map(part).sum::<u64>();
            let _ = writeln!(
                text,
                "{name:<8} {:>10} {:>10} {:>8} {:>7} {:>10} {:>10} {:>9} {:>8}",
                sum(|peer| peer.outgoing.offered.total()),
                sum(|peer| peer.outgoing.sent.total()),
                sum(|peer| peer.outgoing.dropped.total()),
                sum(|peer| peer.outgoing.queued.total()),
                sum(|peer| peer.incoming.received.total()),
                sum(|peer| peer.incoming.processed.total()),
                sum(|peer| peer.incoming.rejected.total()),
                sum(|peer| peer.incoming.waiting),
            );
        }
        for (what, reasons) in [("dropped", self.dropped()), ("rejected", self.rejected())] {
            let _ = writeln!(text, "{what}: {}", listed(&reasons));
        }
        text
    }

    /// The first peer whose ledger does not balance.
    pub(super) fn imbalance(&self) -> Option<String> {
        let (name, peer) = self.peers().find(|(_, peer)| !(peer.outgoing.balances() && peer.incoming.balances()))?;
        let side = if peer.outgoing.balances() { "what came from" } else { "what went to" };
        Some(format!("of member {name}, {side} peer {}", peer.id))
    }

    fn peers(&self) -> impl Iterator<Item = (&str, &PeerStatus)> {
        self.0.iter().flat_map(|(name, status)| status.peers.iter().map(move |peer| (name.as_str(), peer)))
    }

    fn dropped(&self) -> BTreeMap<&'static str, u64> {
        let mut reasons = BTreeMap::new();
        for ((_, _, reason), count) in self.peers().flat_map(|(_, peer)| peer.outgoing.dropped.iter()) {
            *reasons.entry(reason.label()).or_default() += count;
        }
        reasons
    }

    fn rejected(&self) -> BTreeMap<&'static str, u64> {
        let mut reasons = BTreeMap::new();
        for ((_, reason), count) in self.peers().flat_map(|(_, peer)| peer.incoming.rejected.iter()) {
            *reasons.entry(reason.label()).or_default() += count;
        }
        reasons
    }
}

fn listed(reasons: &BTreeMap<&'static str, u64>) -> String {
    if reasons.is_empty() {
        return "none".to_owned();
    }
    reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect::<Vec<_>>().join(", ")
}
