//! What is said when something changes: one call for each transition, which writes the line of the log and the event.

use std::{fmt, time::Duration};

use super::events::{Event, EventKind, Events};
use crate::{
    id::MemberId,
    metrics::{Channel, Direction, LossReason, ProbeResult},
};

/// Peers and remotes that come and go.
impl Events {
    pub(crate) fn peer_added(&self, peer: MemberId, urls: &[impl AsRef<str> + fmt::Debug]) {
        tracing::info!(%peer, ?urls, "peer added");
        self.record(Event::about(EventKind::PeerAdded, peer).detail(joined(urls)));
    }

    pub(crate) fn peer_updated(&self, peer: MemberId, urls: &[impl AsRef<str> + fmt::Debug]) {
        tracing::info!(%peer, ?urls, "peer updated");
        self.record(Event::about(EventKind::PeerUpdated, peer).detail(joined(urls)));
    }

    pub(crate) fn peer_removed(&self, peer: MemberId) {
        tracing::info!(%peer, "peer removed");
        self.record(Event::about(EventKind::PeerRemoved, peer));
    }

    pub(crate) fn remote_added(&self, peer: MemberId, urls: &[impl AsRef<str> + fmt::Debug]) {
        tracing::info!(%peer, ?urls, "remote added");
        self.record(Event::about(EventKind::RemoteAdded, peer).detail(joined(urls)));
    }

    pub(crate) fn remote_removed(&self, peer: MemberId, why: &'static str) {
        tracing::info!(%peer, why, "remote removed");
        self.record(Event::about(EventKind::RemoteRemoved, peer).detail(why));
    }

    /// This member was removed, says a peer.
    pub(crate) fn member_removed(&self, by: MemberId) {
        self.record(Event::about(EventKind::MemberRemoved, by).detail("this member was removed from the cluster"));
    }
}

/// How a peer is reached.
impl Events {
    /// A probe succeeded. `first`: none had ended before.
    pub(crate) fn peer_reachable(&self, peer: MemberId, first: bool) {
        if first {
            tracing::debug!(%peer, "peer reachable");
        } else {
            tracing::info!(%peer, "peer reachable again");
        }
        self.record(Event::about(EventKind::PeerReachable, peer));
    }

    pub(crate) fn peer_unreachable(&self, peer: MemberId, result: ProbeResult, why: &str) {
        tracing::warn!(%peer, result = result.label(), why, "peer unreachable");
        self.record(Event::about(EventKind::PeerUnreachable, peer).reason(result.label()).detail(why));
    }

    pub(crate) fn peer_active(&self, peer: MemberId) {
        tracing::info!(%peer, "peer became active");
        self.record(Event::about(EventKind::PeerActive, peer));
    }

    pub(crate) fn peer_inactive(&self, peer: MemberId, why: &str) {
        tracing::warn!(%peer, why, "peer became inactive");
        self.record(Event::about(EventKind::PeerInactive, peer).detail(why));
    }
}

/// Streams and snapshots.
impl Events {
    /// A peer asked for a stream, and has it; `replaced`: in place of one that was open.
    pub(crate) fn stream_attached(&self, peer: MemberId, channel: Channel, replaced: bool) {
        tracing::info!(%peer, channel = channel.label(), replaced, "stream attached");
        self.record(Event::about(EventKind::StreamAttached, peer).stream(channel, Direction::Out));
    }

    /// A stream that we dialled is open.
    pub(crate) fn stream_opened(&self, peer: MemberId, channel: Channel, address: impl fmt::Display) {
        tracing::info!(%peer, channel = channel.label(), %address, "stream opened");
        self.record(Event::about(EventKind::StreamAttached, peer).stream(channel, Direction::In));
    }

    pub(crate) fn stream_lost(
        &self,
        peer: MemberId,
        (channel, direction): (Channel, Direction),
        reason: LossReason,
        why: Option<&str>,
    ) {
        let (of_channel, way) = (channel.label(), direction.label());
        if reason.is_failure() {
            tracing::warn!(%peer, channel = of_channel, direction = way, reason = reason.label(), why, "stream lost");
        } else {
            tracing::info!(%peer, channel = of_channel, direction = way, reason = reason.label(), "stream closed");
        }
        let lost = Event::about(EventKind::StreamLost, peer).stream(channel, direction).reason(reason.label());
        self.record(match why {
            Some(why) => lost.detail(why),
            None => lost,
        });
    }

    /// One that comes from a stranger (none) is no event: anyone can send it.
    pub(crate) fn snapshot_started(&self, peer: Option<MemberId>, direction: Direction, (term, index): (u64, u64)) {
        let from = peer.unwrap_or_default();
        match direction {
            Direction::Out => tracing::info!(peer = %from, index, term, "sending snapshot"),
            Direction::In => tracing::info!(peer = %from, index, term, "receiving snapshot"),
        }
        if let Some(peer) = peer {
            let started = Event::about(EventKind::SnapshotStarted, peer).direction(direction);
            self.record(started.detail(format!("index {index}, term {term}")));
        }
    }

    pub(crate) fn snapshot_ended(
        &self,
        peer: Option<MemberId>,
        direction: Direction,
        (bytes, took): (u64, Duration),
        failure: Option<&str>,
    ) {
        let from = peer.unwrap_or_default();
        match (failure, direction) {
            (None, Direction::Out) => tracing::info!(peer = %from, bytes, ?took, "snapshot sent"),
            (None, Direction::In) => tracing::info!(peer = %from, bytes, ?took, "snapshot received"),
            (Some(why), Direction::Out) => tracing::warn!(peer = %from, bytes, why, "snapshot not sent"),
            (Some(why), Direction::In) => tracing::warn!(peer = %from, bytes, why, "snapshot not taken"),
        }
        let Some(peer) = peer else { return };
        let ended = Event::about(EventKind::SnapshotEnded, peer).direction(direction);
        self.record(match failure {
            None => ended.reason("ok").detail(format!("{bytes} bytes in {took:.1?}")),
            Some(why) => ended.reason("failed").detail(why),
        });
    }
}

/// This member itself.
impl Events {
    /// What was wrong with the certificate files that were read again, or nothing.
    pub(crate) fn tls_reloaded(&self, error: Option<&str>) {
        let reloaded = Event::new(EventKind::TlsReloaded);
        self.record(match error {
            None => reloaded.reason("ok"),
            Some(error) => reloaded.reason("failed").detail(error),
        });
    }

    /// Who leads now; none while nobody does.
    #[cfg(feature = "cli")]
    pub(crate) fn leader_changed(&self, leader: Option<MemberId>, term: u64) {
        let changed = Event { peer: leader, ..Event::new(EventKind::LeaderChanged) };
        self.record(changed.detail(format!("term {term}")));
    }

    #[cfg(feature = "cli")]
    pub(crate) fn role_changed(&self, role: &'static str, term: u64) {
        self.record(Event::new(EventKind::RoleChanged).reason(role).detail(format!("term {term}")));
    }
}

fn joined(urls: &[impl AsRef<str> + fmt::Debug]) -> String {
    urls.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(",")
}
