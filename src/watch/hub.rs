//! What all watchers share: the client, the book of members, and the targets that follow from it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{WatchConfig, book::Book, fault::Fault, members::List, question::Wanted, target::Target};
use crate::{
    dial::{client::Client, urls::PeerUrl},
    id::{ClusterId, MemberId},
    telemetry::Events,
    tls::Tls,
    transport::status::TransportStatus,
    world::{LONGEST, World},
};

/// Up to so many members are asked in each interval who the members are. etcd's own advice is seven at the most.
const ASKED_EACH_TIME: u32 = 10;
/// Of more, so many in a second: their lists are long, and some fifteen are heard while a vote counts.
const MEMBERS_PER_SECOND: u32 = 4;
/// Probes start on a beat: at a thousand members, ten share each waking of the process, which costs more than a probe.
/// More would be seen in their round trips; these ten are asked within some 100 µs.
const BEAT: Duration = Duration::from_millis(10);
/// Members tell the same list again and again, and rarely more than one.
const READ_LISTS: usize = 4;
/// The seed's vote in the book: no member has this ID.
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
    /// The lists that were read last, by the hash of their text.
    read: VecDeque<(u128, Arc<List>)>,
}

impl Hub {
    pub(super) fn new(config: WatchConfig) -> Arc<Self> {
        let WatchConfig { seeds, tls, interval, timeout, world } = config;
        let (interval, timeout) = (interval.min(LONGEST), timeout.min(LONGEST));
        let events = Events::default();
        // Who watches is no member.
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

    /// The cluster that is watched; none until a seed has told.
    pub(super) fn cluster(&self) -> Option<ClusterId> {
        self.state().book.cluster
    }

    /// The same, as answers are held against it.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted { cluster: self.cluster(), role: "watched" }
    }

    /// The first beat at or after a time.
    pub(super) fn beat(&self, at: Instant) -> Instant {
        let beat = BEAT.as_micros();
        let since = at.saturating_duration_since(self.begun).as_micros().div_ceil(beat) * beat;
        self.begun + Duration::from_micros(u64::try_from(since).unwrap_or(u64::MAX))
    }

    /// Over how long first probes are spread.
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

    /// A member of the cluster told who its members are. The targets that follow from it and are not watched yet.
    pub(super) fn told(&self, by: MemberId, cluster: ClusterId, body: &Bytes) -> Result<Vec<Arc<Target>>, Fault> {
        let list = self.read(body)?;
        let mut state = self.state();
        if by != SEED && !state.targets.contains_key(&by) {
            // It was removed while it answered.
            return Ok(Vec::new());
        }
        state.book.cluster.get_or_insert(cluster);
        let elected = state.book.vote(by, list, Instant::now(), self.fresh());
        Ok(elected.map(|list| self.adopt(&mut state, &list)).unwrap_or_default())
    }

    /// The list of a body; those that were read of late are not read again.
    fn read(&self, body: &Bytes) -> Result<Arc<List>, Fault> {
        let hash = xxhash_rust::xxh3::xxh3_128(body);
        let known = self.state().read.iter().find(|(known, _)| *known == hash).map(|(_, list)| list.clone());
        if let Some(list) = known {
            return Ok(list);
        }
        let list = List::parse(body)?;
        let mut state = self.state();
        if state.read.len() >= READ_LISTS {
            state.read.pop_front();
        }
        state.read.push_back((hash, list.clone()));
        Ok(list)
    }

    /// A member does not answer, or not as one of the cluster. The targets that follow from it and are not watched yet.
    #[must_use]
    pub(super) fn silent(&self, member: MemberId) -> Vec<Arc<Target>> {
        let mut state = self.state();
        let elected = state.book.withdraw(member);
        elected.map(|list| self.adopt(&mut state, &list)).unwrap_or_default()
    }

    /// Votes that are too old count no longer.
    pub(super) fn expire_votes(&self) {
        self.state().book.expire(Instant::now(), self.fresh());
    }

    /// Whether seeds have to be asked: no member has told a list of late.
    pub(super) fn needs_seeds(&self) -> bool {
        !self.state().book.is_told()
    }

    /// Ends every watcher, and lets none begin.
    pub(super) fn stop_watchers(&self) {
        let mut state = self.state();
        state.stopped = true;
        state.targets.values().for_each(|target| target.stop());
    }

    /// Makes the targets those of a list; the new ones.
    fn adopt(&self, state: &mut State, list: &List) -> Vec<Arc<Target>> {
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
