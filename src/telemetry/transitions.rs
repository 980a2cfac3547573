//! One call for each transition, which writes the log line and records the event.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tracing::field;

use super::{
    event::SnapshotPoint,
    events::{Event, EventKind, Events},
};
use crate::{
    id::{Impostor, Incarnation, MemberId},
    ledger::{AttemptResult, Channel, Direction, DropReason, LossReason, ProbeResult, RestartReason},
};

/// Peers and remotes that are added and removed.
impl Events {
    pub(crate) fn peer_added(&self, peer: MemberId, urls: &[impl AsRef<str> + fmt::Debug]) {
        if let Some(member) = self.line(Some(peer)) {
            tracing::info!(%member, %peer, urls = joined(urls), "peer added");
        }
        self.record(Event::about(EventKind::PeerAdded, peer).detail(joined(urls)));
    }

    pub(crate) fn peer_updated(&self, peer: MemberId, urls: &[impl AsRef<str> + fmt::Debug]) {
        if let Some(member) = self.line(Some(peer)) {
            tracing::info!(%member, %peer, urls = joined(urls), "peer updated");
        }
        self.record(Event::about(EventKind::PeerUpdated, peer).detail(joined(urls)));
    }

    pub(crate) fn peer_removed(&self, peer: MemberId) {
        if let Some(member) = self.line(Some(peer)) {
            tracing::info!(%member, %peer, "peer removed");
        }
        self.forget(peer);
        self.record(Event::about(EventKind::PeerRemoved, peer));
    }

    pub(crate) fn remote_added(&self, peer: MemberId, urls: &[impl AsRef<str> + fmt::Debug]) {
        if let Some(member) = self.line(None) {
            tracing::info!(%member, %peer, urls = joined(urls), "remote added");
        }
        self.record(Event::about(EventKind::RemoteAdded, peer).detail(joined(urls)));
    }

    pub(crate) fn remote_removed(&self, peer: MemberId, why: &'static str) {
        if let Some(member) = self.line(None) {
            tracing::info!(%member, %peer, why, "remote removed");
        }
        self.forget(peer);
        self.record(Event::about(EventKind::RemoteRemoved, peer).detail(why));
    }

    /// A peer says that this member was removed.
    pub(crate) fn member_removed(&self, by: MemberId) {
        self.record(Event::about(EventKind::MemberRemoved, by).detail("this member was removed from the cluster"));
    }
}

/// Incarnations: which start of a member is heard.
impl Events {
    /// A peer came back as another incarnation, which is not heard.
    pub(crate) fn incarnation_refused(&self, peer: MemberId, told: Incarnation, why: Impostor) {
        if let Some(member) = self.line(Some(peer)) {
            tracing::error!(%member, %peer, %told, %why, "the peer is not the member that was met: it is not heard until it is removed and added anew");
        }
        let refused = Event::about(EventKind::IncarnationRefused, peer).reason(why.label());
        self.record(refused.detail(format!("it told {told}: {why}")));
    }

    /// A refused peer is again the member that was met.
    pub(crate) fn incarnation_heard(&self, peer: MemberId) {
        if let Some(member) = self.line(Some(peer)) {
            tracing::info!(%member, %peer, "the peer is the member that was met again: it is heard");
        }
        self.record(Event::about(EventKind::IncarnationHeard, peer));
    }

    /// A peer says that it refuses this start of this member.
    pub(crate) fn incarnation_refused_by(&self, by: MemberId, why: Impostor) {
        let refused = Event::about(EventKind::MemberRefused, by).reason(why.label());
        self.record(refused.detail(format!("this member was started from {why}")));
    }
}

/// The reachability of a peer.
impl Events {
    /// A probe succeeded. `first` says that it is the first probe that ended.
    pub(crate) fn peer_reachable(&self, peer: MemberId, first: bool) {
        if first {
            tracing::debug!(%peer, "peer reachable");
        } else if let Some(member) = self.line(Some(peer)) {
            tracing::info!(%member, %peer, "peer reachable again");
        }
        self.record(Event::about(EventKind::PeerReachable, peer));
    }

    pub(crate) fn peer_unreachable(&self, peer: MemberId, result: ProbeResult, why: &str) {
        if let Some(member) = self.line(Some(peer)) {
            tracing::warn!(%member, %peer, result = result.label(), why, "peer unreachable");
        }
        self.record(Event::about(EventKind::PeerUnreachable, peer).reason(result.label()).detail(why));
    }

    pub(crate) fn peer_active(&self, peer: MemberId) {
        if let Some(member) = self.line(Some(peer)) {
            tracing::info!(%member, %peer, "peer became active");
        }
        self.record(Event::about(EventKind::PeerActive, peer));
    }

    pub(crate) fn peer_inactive(&self, peer: MemberId, why: &str) {
        if let Some(member) = self.line(Some(peer)) {
            tracing::warn!(%member, %peer, why, "peer became inactive");
        }
        self.record(Event::about(EventKind::PeerInactive, peer).detail(why));
    }

    /// The peer's clock differs from ours by more than it should, or no longer does. There is no event, because there
    /// is a gauge.
    pub(crate) fn clock(&self, peer: MemberId, offset_seconds: f64, differs: bool) {
        let Some(member) = self.line(Some(peer)) else { return };
        if differs {
            tracing::warn!(%member, %peer, offset_seconds, "the peer's clock is more than a second off");
        } else {
            tracing::info!(%member, %peer, offset_seconds, "the peer's clock agrees again");
        }
    }
}

/// Streams and snapshots.
impl Events {
    /// A stream is open: one that this member dialled (`In`), or one that the peer asked for (`Out`). `replaced` says
    /// that it took the place of an open one.
    pub(crate) fn stream_opened(
        &self,
        peer: MemberId,
        channel: Channel,
        direction: Direction,
        address: Option<SocketAddr>,
        replaced: bool,
    ) {
        if let Some(member) = self.stream_line(peer) {
            tracing::info!(%member, %peer, channel = channel.label(), direction = direction.label(),
                address = address.map(field::display), replaced, "stream opened");
        }
        self.record(Event::about(EventKind::StreamAttached, peer).stream(channel, direction));
    }

    /// A dial gave no stream, for another reason than the last dial. There is no event, because no stream changed.
    pub(crate) fn stream_refused(&self, peer: MemberId, channel: Channel, url: &str, result: AttemptResult, why: &str) {
        if let Some(member) = self.stream_line(peer) {
            tracing::warn!(%member, %peer, channel = channel.label(), direction = Direction::In.label(), url,
                result = result.label(), why, "stream not opened");
        }
    }

    pub(crate) fn stream_lost(
        &self,
        peer: MemberId,
        channel: Channel,
        direction: Direction,
        reason: LossReason,
        why: Option<&str>,
    ) {
        if let Some(member) = self.stream_line(peer) {
            let (of_channel, way) = (channel.label(), direction.label());
            if reason.is_failure() {
                tracing::warn!(%member, %peer, channel = of_channel, direction = way, reason = reason.label(), why,
                    "stream lost");
            } else {
                tracing::info!(%member, %peer, channel = of_channel, direction = way, reason = reason.label(),
                    "stream closed");
            }
        }
        let lost = Event::about(EventKind::StreamLost, peer).stream(channel, direction).reason(reason.label());
        self.record(match why {
            Some(why) => lost.detail(why),
            None => lost,
        });
    }

    /// A snapshot could not be started. There is no event, because it was never under way.
    pub(crate) fn snapshot_refused(&self, peer: MemberId, reason: DropReason) {
        if let Some(member) = self.stream_line(peer) {
            tracing::warn!(%member, %peer, direction = Direction::Out.label(), reason = reason.label(),
                "snapshot not sent");
        }
    }

    /// The transfer of a snapshot began. If it comes from a stranger (`None`), there is no event, because anyone can
    /// send it.
    pub(crate) fn snapshot_started(&self, peer: Option<MemberId>, direction: Direction, point: SnapshotPoint) {
        let SnapshotPoint { index, term } = point;
        if let Some(member) = self.snapshot_line(peer, false) {
            let (peer, way) = (peer.map(field::display), direction.label());
            tracing::info!(%member, peer, direction = way, index, term, "snapshot started");
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
        bytes: u64,
        took: Duration,
        failure: Option<&str>,
    ) {
        if let Some(member) = self.snapshot_line(peer, failure.is_some()) {
            let (peer, direction, seconds) = (peer.map(field::display), direction.label(), took.as_secs_f64());
            match failure {
                None => tracing::info!(%member, peer, direction, bytes, seconds, "snapshot ended"),
                Some(why) => tracing::warn!(%member, peer, direction, bytes, seconds, why, "snapshot failed"),
            }
        }
        let Some(peer) = peer else { return };
        let ended = Event::about(EventKind::SnapshotEnded, peer).direction(direction);
        self.record(match failure {
            None => ended.reason("ok").detail(format!("{bytes} bytes in {took:.1?}")),
            Some(why) => ended.reason("failed").detail(why),
        });
    }
}

/// Snapshots that break off, and go on.
impl Events {
    /// A peer's snapshot goes on, because this many of its bytes are there.
    pub(crate) fn snapshot_resumed(&self, peer: MemberId, direction: Direction, offset: u64, length: u64) {
        if let Some(member) = self.snapshot_line(Some(peer), false) {
            tracing::info!(%member, %peer, direction = direction.label(), offset, length, "snapshot resumed");
        }
        let resumed = Event::about(EventKind::SnapshotResumed, peer).direction(direction);
        self.record(resumed.detail(format!("at {offset} of {length} bytes")));
    }

    /// A peer's snapshot starts over, although this many of its bytes were there.
    pub(crate) fn snapshot_restarted(&self, peer: MemberId, direction: Direction, reason: RestartReason, had: u64) {
        let way = direction.label();
        if let Some(member) = self.snapshot_line(Some(peer), true) {
            tracing::warn!(%member, %peer, direction = way, reason = reason.label(), had, "snapshot starts over");
        }
        let restarted = Event::about(EventKind::SnapshotRestarted, peer).direction(direction).reason(reason.label());
        self.record(restarted.detail(format!("{had} bytes were there")));
    }

    /// A snapshot from a peer broke off. This many of its bytes are kept.
    pub(crate) fn snapshot_broke_off(&self, peer: MemberId, kept: u64, why: &str) {
        if let Some(member) = self.snapshot_line(Some(peer), false) {
            tracing::info!(%member, %peer, kept, why, "snapshot broke off");
        }
        let ended = Event::about(EventKind::SnapshotEnded, peer).direction(Direction::In).reason("broken_off");
        self.record(ended.detail(format!("{kept} bytes are kept: {why}")));
    }
}

/// Events of this member itself.
impl Events {
    /// The certificate files were read again. `error` says what was wrong with them, if anything.
    pub(crate) fn tls_reloaded(&self, error: Option<&str>) {
        let reloaded = Event::new(EventKind::TlsReloaded);
        self.record(match error {
            None => reloaded.reason("ok"),
            Some(error) => reloaded.reason("failed").detail(error),
        });
    }

    /// A client's certificate is not accepted, or the client does not accept ours. There is no event, because anyone
    /// can cause it.
    pub(crate) fn handshake_refused(&self, address: IpAddr, reason: &'static str, why: &str) {
        if let Some(member) = self.line(None) {
            tracing::warn!(%member, %address, reason, why, "TLS connection refused");
        }
    }

    /// A request claimed to be from a member that its certificate is not for. `peer` is that member, if it is a peer.
    pub(crate) fn identity_mismatch(
        &self,
        peer: Option<MemberId>,
        claimed: MemberId,
        urls: &[impl AsRef<str> + fmt::Debug],
        certificate: &str,
        address: Option<SocketAddr>,
        refused: bool,
    ) {
        if let Some(member) = self.line(peer) {
            tracing::warn!(%member, %claimed, urls = joined(urls), certificate, address = address.map(field::display),
                refused, "a request names a sender for which its certificate is not valid");
        }
        let mismatch = Event { peer, ..Event::new(EventKind::IdentityMismatch) };
        let reason = if refused { "refused" } else { "taken" };
        self.record(mismatch.reason(reason).detail(format!("claimed {claimed}, by the certificate {certificate}")));
    }

    /// Connections were closed, because the certificate that the peer opened them with no longer verifies.
    pub(crate) fn tls_connections_closed(
        &self,
        direction: Direction,
        reason: &'static str,
        connections: u64,
        certificate: &str,
    ) {
        let closed = Event::new(EventKind::TlsConnectionsClosed).direction(direction).reason(reason);
        self.record(closed.detail(format!("{connections}, of certificate {certificate}")));
    }
}

/// Events of this member's raft.
#[cfg(feature = "node")]
impl Events {
    /// The leader changed. `None` while there is none.
    pub(crate) fn leader_changed(&self, leader: Option<MemberId>, term: u64) {
        let changed = Event { peer: leader, ..Event::new(EventKind::LeaderChanged) };
        self.record(changed.detail(format!("term {term}")));
    }

    pub(crate) fn role_changed(&self, role: &'static str, term: u64) {
        self.record(Event::new(EventKind::RoleChanged).reason(role).detail(format!("term {term}")));
    }

    /// The data of a member exceed its quota, and the cluster refuses puts.
    pub(crate) fn no_space(&self, of: MemberId, data_bytes: u64, quota_bytes: u64) {
        if let Some(member) = self.line(None) {
            tracing::warn!(%member, %of, data_bytes, quota_bytes, "no space: puts are refused");
        }
        let detail = format!("{data_bytes} bytes, quota {quota_bytes}");
        self.record(Event::about(EventKind::NoSpace, of).detail(detail));
    }

    /// A member needs another snapshot: while the last one was on its way, more was written than the log keeps for the
    /// member.
    pub(crate) fn snapshot_overtaken(&self, peer: MemberId, log_limit_bytes: u64) {
        if let Some(member) = self.line(Some(peer)) {
            tracing::warn!(
                %member, %peer, log_limit_bytes,
                "the member starts over with another snapshot: more was written than --log-retention-max-bytes keeps for it"
            );
        }
        let detail = format!("more was written than --log-retention-max-bytes keeps, {log_limit_bytes} bytes");
        self.record(Event::about(EventKind::SnapshotOvertaken, peer).detail(detail));
    }

    /// No member can be sent a snapshot: it cannot be written to the disk first.
    pub(crate) fn snapshot_not_spooled(&self, why: &str) {
        if let Some(member) = self.line(None) {
            tracing::warn!(%member, why, "members that are behind get no snapshot: it cannot be spooled");
        }
        self.record(Event::new(EventKind::SnapshotNotSpooled).detail(why));
    }

    /// The data of a member no longer exceed its quota, or the member was removed.
    pub(crate) fn space_again(&self, of: MemberId, data_bytes: u64) {
        if let Some(member) = self.line(None) {
            tracing::info!(%member, %of, data_bytes, "space again");
        }
        self.record(Event::about(EventKind::SpaceAgain, of).detail(format!("{data_bytes} bytes")));
    }

    /// The history of another member contradicts that of this member.
    pub(crate) fn two_histories(&self, with: MemberId, words: &str) {
        // This is always logged, however many lines there were about the peer recently.
        tracing::error!(peer = %with, "{words}");
        self.record(Event::about(EventKind::TwoHistories, with).detail(words));
    }

    /// This member takes no part until its disk can be written.
    pub(crate) fn suspended(&self, why: &str) {
        if let Some(member) = self.line(None) {
            tracing::error!(%member, why, "taking no part until the disk can be written");
        }
        self.record(Event::new(EventKind::Suspended).detail(why));
    }

    /// This member takes part again, from this applied entry on.
    pub(crate) fn resumed(&self, applied: u64) {
        if let Some(member) = self.line(None) {
            tracing::info!(%member, applied, "the disk can be written: taking part again");
        }
        self.record(Event::new(EventKind::Resumed).detail(format!("from index {applied}")));
    }
}

fn joined(urls: &[impl AsRef<str> + fmt::Debug]) -> String {
    urls.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(",")
}
