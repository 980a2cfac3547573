//! The last transitions of a member: peers added and removed, streams opened and lost, and so on. The source of
//! `/api/events`.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::SystemTime,
};

use super::damper::Damper;
use crate::{
    id::MemberId,
    ledger::{Channel, Direction},
    world::World,
};

/// How many events are kept.
const KEPT: usize = 256;
/// How many of them may be about remotes. A stranger that invents members must not push out the events of the real
/// ones.
const KEPT_OF_REMOTES: usize = 32;
/// At this number of dampers, those that have recovered their burst are removed. Otherwise, a damper that was made for
/// a member after it was forgotten would stay for ever.
const DAMPERS: usize = 128;
/// The longest detail of an event, in bytes. The text may come from another member.
const DETAIL_BYTES: usize = 240;

/// What happened: a closed set. `/api/events` has these names in snake case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// A member was added as a peer.
    PeerAdded,
    /// The URLs of a peer changed.
    PeerUpdated,
    /// A peer was removed.
    PeerRemoved,
    /// A member that is no peer sent a request, and is remembered as a remote.
    RemoteAdded,
    /// A remote was forgotten.
    RemoteRemoved,
    /// A probe of a peer succeeded after one that failed, or was the first.
    PeerReachable,
    /// A probe of a peer failed after one that succeeded, or was the first.
    PeerUnreachable,
    /// A stream or request of a peer succeeded after one that failed (etcd's notion of active).
    PeerActive,
    /// A stream or request of a peer failed after one that succeeded (etcd's notion of inactive).
    PeerInactive,
    /// A stream is open.
    StreamAttached,
    /// An open stream ended.
    StreamLost,
    /// The transfer of a snapshot began.
    SnapshotStarted,
    /// The transfer of a snapshot ended: the reason is `ok`, `failed`, or `broken_off` if the part that has arrived is kept.
    SnapshotEnded,
    /// The transfer of a snapshot continues where it broke off.
    SnapshotResumed,
    /// A snapshot that had broken off starts over: the reason says why.
    SnapshotRestarted,
    /// Changed certificate files were read again: the reason is `ok` or `failed`.
    TlsReloaded,
    /// Open connections were closed, because the peer's certificate no longer verifies.
    TlsConnectionsClosed,
    /// A request claimed to be from a member that its certificate is not for: the reason is `taken` or `refused`.
    IdentityMismatch,
    /// A peer says that this member was removed from the cluster.
    MemberRemoved,
    /// A peer came back from another data directory, or from an old copy, and is not heard. The reason says which.
    IncarnationRefused,
    /// A peer that was refused is heard again.
    IncarnationHeard,
    /// A peer refuses this member in this way.
    MemberRefused,
    /// The leader changed, or there is none now.
    LeaderChanged,
    /// The role of this member changed: the reason is the new role.
    RoleChanged,
    /// The history of another member contradicts that of this member.
    TwoHistories,
    /// This member takes no part, because its disk cannot be written.
    Suspended,
    /// The disk of this member can be written again, and the member takes part.
    Resumed,
    /// The data of a member exceed its quota: the cluster refuses puts.
    NoSpace,
    /// The data no longer exceed the quota, or the member was removed.
    SpaceAgain,
    /// A member needs another snapshot, because the log was compacted past the one that it was sent.
    SnapshotOvertaken,
    /// A snapshot for a member that is behind could not be written to the disk, from where it would be sent.
    SnapshotNotSpooled,
}

impl EventKind {
    fn is_of_remotes(self) -> bool {
        matches!(self, Self::RemoteAdded | Self::RemoteRemoved)
    }
}

/// One transition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// Grows by one with each event of a member, and is never reused.
    pub id: u64,
    /// When it happened, by this member's clock.
    pub time: SystemTime,
    /// What happened.
    pub kind: EventKind,
    /// The other member that it is about, if any.
    pub peer: Option<MemberId>,
    /// The channel, if it is about a stream.
    pub channel: Option<Channel>,
    /// The direction, if it is about a stream or a snapshot.
    pub direction: Option<Direction>,
    /// The reason or result, from a closed set for each kind.
    pub reason: Option<&'static str>,
    /// More details, as text.
    pub detail: Option<String>,
}

impl Event {
    pub(crate) fn new(kind: EventKind) -> Self {
        // The number and the time are set when the event is recorded.
        Self {
            id: 0,
            time: SystemTime::UNIX_EPOCH,
            kind,
            peer: None,
            channel: None,
            direction: None,
            reason: None,
            detail: None,
        }
    }

    pub(crate) fn about(kind: EventKind, peer: MemberId) -> Self {
        Self { peer: Some(peer), ..Self::new(kind) }
    }

    pub(crate) fn stream(self, channel: Channel, direction: Direction) -> Self {
        Self { channel: Some(channel), direction: Some(direction), ..self }
    }

    pub(crate) fn direction(self, direction: Direction) -> Self {
        Self { direction: Some(direction), ..self }
    }

    pub(crate) fn reason(self, reason: &'static str) -> Self {
        Self { reason: Some(reason), ..self }
    }

    pub(crate) fn detail(self, words: impl Into<String>) -> Self {
        let mut words = words.into();
        words.truncate(words.floor_char_boundary(DETAIL_BYTES));
        Self { detail: Some(words), ..self }
    }
}

/// The last 256 events. Cheap to clone: all clones share one list.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Mutex<Ring>>);

/// A weak reference to a list of events.
#[derive(Clone, Debug)]
pub(crate) struct WeakEvents(Weak<Mutex<Ring>>);

/// The topics of the lines about a peer; each has its own limit. Streams that flap and snapshots that fail must not
/// suppress the lines about the peer itself. Snapshots that begin again and again must not suppress the reason why they
/// fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Topic {
    Member,
    Streams,
    Snapshots,
    FailedSnapshots,
}

impl Topic {
    const ALL: [Self; 4] = [Self::Member, Self::Streams, Self::Snapshots, Self::FailedSnapshots];
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Event>,
    recorded: u64,
    /// The member that records the events.
    member: MemberId,
    /// The world of that member.
    world: World,
    /// Limits the log lines about each peer, and about all others together.
    lines: HashMap<(Option<MemberId>, Topic), Damper>,
}

impl Events {
    /// The events with an ID above `id`, oldest first. With 0, all that are kept.
    pub fn after(&self, id: u64) -> Vec<Event> {
        self.lock().events.iter().filter(|event| event.id > id).cloned().collect()
    }

    pub(crate) fn record(&self, event: Event) {
        let mut ring = self.lock();
        ring.recorded += 1;
        let event = Event { id: ring.recorded, time: ring.world.now(), ..event };
        ring.make_room_for(event.kind);
        ring.events.push_back(event);
    }

    /// Sets the member that records the events, and its world. Several members may run in one process.
    pub(crate) fn speak_as(&self, member: MemberId, world: &World) {
        let mut ring = self.lock();
        (ring.member, ring.world) = (member, world.clone());
    }

    /// Returns the recording member if one more line about this peer may be written. With `None`, the line is about
    /// senders that are no peers.
    pub(super) fn line(&self, peer: Option<MemberId>) -> Option<MemberId> {
        self.line_on(peer, Topic::Member)
    }

    /// As [`Self::line`], for a line about a stream of the peer.
    pub(super) fn stream_line(&self, peer: MemberId) -> Option<MemberId> {
        self.line_on(Some(peer), Topic::Streams)
    }

    /// As [`Self::line`], for a line about a snapshot of the peer.
    pub(super) fn snapshot_line(&self, peer: Option<MemberId>, failed: bool) -> Option<MemberId> {
        self.line_on(peer, if failed { Topic::FailedSnapshots } else { Topic::Snapshots })
    }

    /// Why the last received snapshot of this peer failed, if it did.
    #[cfg_attr(not(feature = "node"), allow(dead_code, reason = "a node alone says what it lacks"))]
    pub(crate) fn snapshot_not_taken(&self, peer: MemberId) -> Option<String> {
        let ring = self.lock();
        let last = ring.events.iter().rev().find(|event| {
            event.kind == EventKind::SnapshotEnded && event.peer == Some(peer) && event.direction == Some(Direction::In)
        });
        last.filter(|event| event.reason == Some("failed")).and_then(|event| event.detail.clone())
    }

    fn line_on(&self, peer: Option<MemberId>, topic: Topic) -> Option<MemberId> {
        let (key, mut ring) = ((peer, topic), self.lock());
        let member = ring.member;
        if ring.lines.len() >= DAMPERS && !ring.lines.contains_key(&key) {
            ring.lines.retain(|_, damper| !damper.is_rested());
        }
        ring.lines.entry(key).or_default().admits().then_some(member)
    }

    /// How many lines about this peer were withheld.
    pub(crate) fn withheld(&self, peer: Option<MemberId>) -> u64 {
        let ring = self.lock();
        Topic::ALL.iter().filter_map(|topic| ring.lines.get(&(peer, *topic))).map(Damper::withheld).sum()
    }

    /// Removes the dampers of a member that is no peer any more.
    pub(super) fn forget(&self, peer: MemberId) {
        let mut ring = self.lock();
        for topic in Topic::ALL {
            ring.lines.remove(&(Some(peer), topic));
        }
    }

    pub(crate) fn downgrade(&self) -> WeakEvents {
        WeakEvents(Arc::downgrade(&self.0))
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WeakEvents {
    pub(crate) fn upgrade(&self) -> Option<Events> {
        self.0.upgrade().map(Events)
    }
}

impl Ring {
    fn make_room_for(&mut self, kind: EventKind) {
        if kind.is_of_remotes() {
            let mut places =
                self.events.iter().enumerate().filter(|(_, event)| event.kind.is_of_remotes()).map(|(place, _)| place);
            if let (Some(oldest), Some(_)) = (places.next(), places.nth(KEPT_OF_REMOTES - 2)) {
                self.events.remove(oldest);
            }
        }
        if self.events.len() >= KEPT {
            self.events.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::SnapshotPoint;

    fn kinds(events: &Events) -> Vec<(u64, EventKind)> {
        events.after(0).into_iter().map(|event| (event.id, event.kind)).collect()
    }

    #[test]
    fn streams_that_flap_do_not_silence_what_is_told_of_their_peer() {
        let (events, peer) = (Events::default(), MemberId(2));
        while events.stream_line(peer).is_some() {}
        assert!(events.line(Some(peer)).is_some());
        assert_eq!(events.withheld(Some(peer)), 1);
        events.forget(peer);
        assert!(events.stream_line(peer).is_some() && events.withheld(Some(peer)) == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn why_a_snapshot_fails_is_told_again_and_again_though_each_begins_and_it_alone_is_withheld() {
        let (events, peer) = (Events::default(), MemberId(2));
        let withheld = |topic| events.lock().lines.get(&(Some(peer), topic)).map_or(0, Damper::withheld);
        let mut told = 0;
        for _ in 0..600 {
            events.snapshot_started(Some(peer), Direction::In, SnapshotPoint { index: 1, term: 1 });
            let before = withheld(Topic::FailedSnapshots);
            events.snapshot_ended(Some(peer), Direction::In, 0, Duration::ZERO, Some("no room"));
            told += u64::from(withheld(Topic::FailedSnapshots) == before);
            tokio::time::advance(Duration::from_millis(200)).await;
        }
        assert!((60..100).contains(&told), "{told} of two minutes");
        assert_eq!(withheld(Topic::Member), 0);
        assert_eq!(events.snapshot_not_taken(peer).as_deref(), Some("no room"));
        events.snapshot_ended(Some(peer), Direction::Out, 0, Duration::ZERO, Some("not ours"));
        events.snapshot_ended(Some(MemberId(3)), Direction::In, 0, Duration::ZERO, Some("not its"));
        assert_eq!(events.snapshot_not_taken(peer).as_deref(), Some("no room"));
        events.snapshot_ended(Some(peer), Direction::In, 9, Duration::ZERO, None);
        assert_eq!(events.snapshot_not_taken(peer), None);
    }

    #[test]
    fn the_last_256_are_kept_and_no_id_is_used_again() {
        let events = Events::default();
        for peer in 1..=300 {
            events.record(Event::about(EventKind::PeerAdded, MemberId(peer)));
        }
        let ids: Vec<u64> = events.after(0).iter().map(|event| event.id).collect();
        assert_eq!(ids, (45..=300).collect::<Vec<_>>());
        assert_eq!(events.after(298).iter().map(|event| event.id).collect::<Vec<_>>(), [299, 300]);
        assert_eq!(events.after(300), []);
        assert_eq!(events.after(u64::MAX), []);
    }

    #[test]
    fn invented_members_do_not_wash_away_what_happened_to_real_ones() {
        let events = Events::default();
        events.record(Event::about(EventKind::PeerAdded, MemberId(2)));
        for stranger in 0..1000 {
            events.record(Event::about(EventKind::RemoteAdded, MemberId(stranger + 3)));
        }
        let kept = kinds(&events);
        assert_eq!(kept.len(), 1 + KEPT_OF_REMOTES);
        assert_eq!(kept[0], (1, EventKind::PeerAdded));
        assert_eq!(kept[1].0, 1002 - KEPT_OF_REMOTES as u64);
        assert_eq!(kept.last(), Some(&(1001, EventKind::RemoteAdded)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_of_members_that_are_gone_takes_no_memory_for_long() {
        let events = Events::default();
        for stranger in 0..10_000 {
            events.snapshot_ended(Some(MemberId(stranger)), Direction::In, 0, Duration::ZERO, Some("cut"));
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        assert!(events.lock().lines.len() <= 2 * DAMPERS);
    }

    #[test]
    fn words_are_cut_where_a_character_ends() {
        let event = Event::new(EventKind::PeerInactive).detail("ä".repeat(1000));
        assert_eq!(event.detail.map(|words| words.len()), Some(DETAIL_BYTES));
        let event = Event::new(EventKind::PeerInactive).detail(format!("a{}", "ä".repeat(1000)));
        assert_eq!(event.detail.map(|words| words.len()), Some(DETAIL_BYTES - 1));
    }
}
