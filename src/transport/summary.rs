//! Sums up what happens too often for a log line each: at most once a second for each peer, and less and less often
//! while it goes on.

use std::{collections::HashMap, sync::Weak};

use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{Inner, Transport, refusals::Refusals};
use crate::{
    id::MemberId,
    ledger::{DropReason, Key, Per, PerDropReason, PerRejectReason, RejectReason},
    telemetry::{RepeatPace, SOONEST},
};

/// Messages by the reason why they were dropped.
pub(super) type DroppedByReason = PerDropReason<u64>;
/// Messages by the reason why they were rejected.
pub(super) type Rejections = PerRejectReason<u64>;

/// Writes sums until the transport is gone.
pub(super) async fn sum_up(inner: Weak<Inner>) {
    let mut summary = Summary::default();
    let mut tick = interval(SOONEST);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        summary.look(&Transport { inner });
    }
}

/// What was reported so far.
#[derive(Default)]
struct Summary {
    peers: HashMap<MemberId, PeerSummary>,
    requests: RepeatPace,
    strangers_withheld: u64,
}

/// What was reported about one peer.
#[derive(Default)]
struct PeerSummary {
    pace: RepeatPace,
    counts: PeerCounts,
}

/// The counts of one peer that are summed up.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct PeerCounts {
    dropped: DroppedByReason,
    rejected: Rejections,
    /// Log lines that were withheld.
    withheld: u64,
}

impl Summary {
    fn look(&mut self, transport: &Transport) {
        let (member, now) = (transport.identity().member, Instant::now());
        let known = transport.inner.known.load();
        self.peers.retain(|id, _| known.peers.contains_key(id));
        for (id, peer) in &known.peers {
            let told = self.peers.entry(*id).or_default();
            let counts = PeerCounts {
                dropped: peer.outbox.dropped(),
                rejected: peer.inbox.rejected(),
                withheld: transport.events().withheld(Some(*id)),
            };
            told.look(member, *id, counts, now);
        }
        let withheld = transport.events().withheld(None);
        let news = !transport.inner.refusals.is_empty() || withheld > self.strangers_withheld;
        if self.requests.is_due(news, now) {
            let lines = withheld - std::mem::replace(&mut self.strangers_withheld, withheld);
            tell_refused(member, &transport.inner.refusals.take(), lines);
        }
    }
}

impl PeerSummary {
    fn look(&mut self, member: MemberId, peer: MemberId, counts: PeerCounts, now: Instant) {
        if !self.pace.is_due(counts != self.counts, now) {
            return;
        }
        let before = std::mem::replace(&mut self.counts, counts);
        tell_dropped(member, peer, &each_since(&counts.dropped, &before.dropped));
        tell_rejected(member, peer, &each_since(&counts.rejected, &before.rejected));
        let lines = since(counts.withheld, before.withheld);
        if lines > 0 {
            tracing::warn!(%member, %peer, lines, "the peer comes and goes: log lines withheld");
        }
    }
}

/// The increase since the last report. The counts of a peer that was removed and added again start from 0.
fn since(now: u64, before: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

/// As [`since`], for each reason.
fn each_since<K: Key, const N: usize>(now: &Per<K, u64, N>, before: &Per<K, u64, N>) -> Per<K, u64, N> {
    Per::new(|reason| since(now[reason], before[reason]))
}

fn tell_dropped(member: MemberId, peer: MemberId, dropped: &DroppedByReason) {
    let messages: u64 = dropped.total();
    let of = |reason: DropReason| Some(dropped[reason]).filter(|count| *count > 0);
    if messages > 0 {
        tracing::warn!(
            %member,
            %peer,
            messages,
            queue_full = of(DropReason::QueueFull),
            stream_lost = of(DropReason::StreamLost),
            post_failed = of(DropReason::PostFailed),
            refused = of(DropReason::Refused),
            too_large = of(DropReason::TooLarge),
            paused = of(DropReason::Paused),
            peer_removed = of(DropReason::PeerRemoved),
            stopped = of(DropReason::Stopped),
            "messages dropped",
        );
    }
}

fn tell_rejected(member: MemberId, peer: MemberId, rejected: &Rejections) {
    let messages: u64 = rejected.total();
    let of = |reason: RejectReason| Some(rejected[reason]).filter(|count| *count > 0);
    if messages > 0 {
        tracing::warn!(
            %member,
            %peer,
            messages,
            queue_full = of(RejectReason::QueueFull),
            paused = of(RejectReason::Paused),
            refused = of(RejectReason::Refused),
            failed = of(RejectReason::Failed),
            stopped = of(RejectReason::Stopped),
            "messages rejected",
        );
    }
}

fn tell_refused(member: MemberId, Refusals { counts, last }: &Refusals, withheld: u64) {
    let requests = counts.total();
    let of = |reason: &'static str| Some(counts.of(reason)).filter(|count| *count > 0);
    let (from, address) = last.unwrap_or_default();
    tracing::warn!(
        %member,
        requests,
        incompatible_version = of("incompatible_version"),
        cluster_id_mismatch = of("cluster_id_mismatch"),
        removed = of("removed"),
        not_found = of("not_found"),
        to_mismatch = of("to_mismatch"),
        unreadable = of("unreadable"),
        too_large = of("too_large"),
        busy = of("busy"),
        not_taken = of("not_taken"),
        other = of("other"),
        last_from = from.map(tracing::field::display),
        last_address = address.map(tracing::field::display),
        lines_withheld = Some(withheld).filter(|lines| *lines > 0),
        "requests refused",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_was_added_anew_counts_from_nothing() {
        assert_eq!((since(5, 3), since(7, 9)), (2, 7));
    }
}
