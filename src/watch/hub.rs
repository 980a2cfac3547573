//! The state that all watchers share: the client, the book of members, and the targets that follow from it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{WatchConfig, book::Book, fault::WatchFault, members::MemberList, question::Wanted, target::Target};
use crate::{
    dial::{client::Client, urls::PeerUrl},
    id::{ClusterId, MemberId},
    telemetry::Events,
    tls::Tls,
    transport::status::TransportStatus,
    world::{LONGEST, World},
};

/// Up to this many members are asked for their members in each interval. etcd itself recommends at most seven members.
const ASKED_EACH_TIME: u32 = 10;
/// With more members, this many are asked per second. Their lists are long, and some fifteen answers arrive while a
/// vote counts.
const MEMBERS_PER_SECOND: u32 = 4;
/// Probes start on a common beat. At a thousand members, ten probes share one wake-up of the process, which costs more
/// than a probe. More probes per beat would show in the round trips; these ten are sent within some 100 µs.
const BEAT: Duration = Duration::from_millis(10);
/// How many parsed lists are kept. Members answer with the same list again and again, and rarely with more than one.
const READ_LISTS: usize = 4;
/// The seeds' vote in the book. No member has this ID.
pub(super) const SEED: MemberId = MemberId(0);

pub(super) struct Hub {
    pub(super) client: Client,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) events: Events,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) seeds: Vec<PeerUrl>,
    tls: Option<Tls>,
    started: SystemTime,
    begun: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    book: Book,
    targets: BTreeMap<MemberId, Arc<Target>>,
    stopped: bool,
    /// The lists that were parsed last, by the hash of their text.
    read: VecDeque<(u128, Arc<MemberList>)>,
}

impl Hub {
    pub(super) fn new(config: WatchConfig) -> Arc<Self> {
        let WatchConfig { seeds, tls, interval, timeout, world } = config;
        let (interval, timeout) = (interval.min(LONGEST), timeout.min(LONGEST));
        let events = Events::default();
        // The watcher is no member.
        events.speak_as(MemberId::default(), &world);
        if let Some(tls) = &tls {
            tls.tell(&events);
        }
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        if let Some(tls) = tls.clone() {
            tasks.spawn(stop.clone().run_until_cancelled_owned(tls.watch()));
        }
        Arc::new(Self {
            client: Client::anonymous(tls.clone(), timeout, &world),
            interval,
            timeout,
            events,
            tasks,
            stop,
            seeds,
            tls,
            started: world.now(),
            begun: Instant::now(),
            state: Mutex::default(),
        })
    }

    pub(super) fn world(&self) -> &World {
        self.client.world()
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The watched cluster. `None` until a seed has answered.
    pub(super) fn cluster(&self) -> Option<ClusterId> {
        self.state().book.cluster
    }

    /// The watched cluster, for checking answers.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted { cluster: self.cluster(), role: "watched" }
    }

    /// The first beat at or after this time.
    pub(super) fn beat(&self, at: Instant) -> Instant {
        let beat = BEAT.as_micros();
        let since = at.saturating_duration_since(self.begun).as_micros().div_ceil(beat) * beat;
        self.begun + Duration::from_micros(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// The time over which the first probes of new targets are spread.
    pub(super) fn spread(&self) -> Duration {
        let targets = u32::try_from(self.state().targets.len()).unwrap_or(u32::MAX);
        Duration::from_millis(10).saturating_mul(targets).min(self.interval)
    }

    /// How often each member is asked who the members are.
    pub(super) fn members_every(&self) -> Duration {
        let targets = u32::try_from(self.state().targets.len()).unwrap_or(u32::MAX);
        if targets <= ASKED_EACH_TIME {
            return self.interval;
        }
        (Duration::from_secs(1) / MEMBERS_PER_SECOND).saturating_mul(targets).max(self.interval)
    }

    /// How long a vote counts.
    fn fresh(&self) -> Duration {
        (self.interval * 3 + self.timeout).max(Duration::from_secs(3))
    }

    /// A member of the cluster answered who its members are. Returns the new targets, which are not watched yet.
    pub(super) fn told(&self, by: MemberId, cluster: ClusterId, body: &Bytes) -> Result<Vec<Arc<Target>>, WatchFault> {
        let list = self.read(body)?;
        let mut state = self.state();
        if by != SEED && !state.targets.contains_key(&by) {
            // The member was removed while it answered.
            return Ok(Vec::new());
        }
        state.book.cluster.get_or_insert(cluster);
        let elected = state.book.vote(by, list, Instant::now(), self.fresh());
        Ok(elected.map(|list| self.adopt(&mut state, &list)).unwrap_or_default())
    }

    /// The list in a body. A list that was parsed recently is not parsed again.
    fn read(&self, body: &Bytes) -> Result<Arc<MemberList>, WatchFault> {
        let hash = xxhash_rust::xxh3::xxh3_128(body);
        let known = self.state().read.iter().find(|(known, _)| *known == hash).map(|(_, list)| list.clone());
        if let Some(list) = known {
            return Ok(list);
        }
        let list = MemberList::parse(body)?;
        let mut state = self.state();
        if state.read.len() >= READ_LISTS {
            state.read.pop_front();
        }
        state.read.push_back((hash, list.clone()));
        Ok(list)
    }

    /// A member does not answer, or answers for another cluster. Returns the new targets, which are not watched yet.
    #[must_use]
    pub(super) fn silent(&self, member: MemberId) -> Vec<Arc<Target>> {
        let mut state = self.state();
        let elected = state.book.withdraw(member);
        elected.map(|list| self.adopt(&mut state, &list)).unwrap_or_default()
    }

    /// Removes the votes that are too old.
    pub(super) fn expire_votes(&self) {
        self.state().book.expire(Instant::now(), self.fresh());
    }

    /// Whether the seeds have to be asked, because no member has answered with a list recently.
    pub(super) fn needs_seeds(&self) -> bool {
        !self.state().book.is_told()
    }

    /// Stops every watcher, and lets none start.
    pub(super) fn stop_watchers(&self) {
        let mut state = self.state();
        state.stopped = true;
        state.targets.values().for_each(|target| target.stop());
    }

    /// Makes the targets those of the list, and returns the new ones.
    fn adopt(&self, state: &mut State, list: &MemberList) -> Vec<Arc<Target>> {
        if state.stopped {
            return Vec::new();
        }
        let mut new = Vec::new();
        let gone = |id: &MemberId| list.members.binary_search_by_key(id, |member| member.id).is_err();
        for (id, target) in state.targets.extract_if(.., |id, _| gone(id)) {
            target.stop();
            state.book.forget(id);
            self.events.peer_removed(id);
        }
        for listed in &list.members {
            if let Some(target) = state.targets.get(&listed.id) {
                if target.update(listed) {
                    self.events.peer_updated(listed.id, &listed.urls);
                }
                continue;
            }
            let target = Arc::new(Target::new(listed));
            state.targets.insert(listed.id, target.clone());
            self.events.peer_added(listed.id, &listed.urls);
            new.push(target);
        }
        new
    }

    pub(super) fn status(&self) -> TransportStatus {
        let (cluster, targets) = {
            let state = self.state();
            (state.book.cluster, state.targets.values().cloned().collect::<Vec<_>>())
        };
        TransportStatus {
            cluster,
            time: Some(self.world().now()),
            started: Some(self.started),
            probe: Some((self.interval, self.timeout)),
            peers: targets.iter().map(|target| target.status()).collect(),
            tls: self.tls.as_ref().map(Tls::status),
            ..TransportStatus::default()
        }
    }
}
