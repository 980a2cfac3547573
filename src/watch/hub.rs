//! What all watchers share: the client, the book of members, and the targets that follow from it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    WatchConfig,
    book::Book,
    members::{Fault, List, MEMBERS_BYTES, Told},
    target::Target,
    watcher::Watcher,
};
use crate::{
    id::{ClusterId, MemberId},
    telemetry::Events,
    tls::Tls,
    transport::{
        client::Client,
        prober::probe::Probe,
        status::TransportStatus,
        urls::{PeerUrl, UrlPicker},
    },
    wire::headers,
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
const SEED: MemberId = MemberId(0);

pub(super) struct Hub {
    pub(super) client: Client,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) events: Events,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    seeds: Vec<PeerUrl>,
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
        let WatchConfig { seeds, tls, interval, timeout } = config;
        let events = Events::default();
        if let Some(tls) = &tls {
            tls.tell(&events);
        }
        Arc::new(Self {
            client: Client::anonymous(tls.clone(), timeout),
            interval,
            timeout,
            events,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            seeds,
            tls,
            started: SystemTime::now(),
            begun: Instant::now(),
            state: Mutex::default(),
        })
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

    /// A member of the cluster told who its members are.
    pub(super) fn told(self: &Arc<Self>, by: MemberId, cluster: ClusterId, body: &Bytes) -> Result<(), Fault> {
        let list = self.read(body)?;
        let mut state = self.state();
        if by != SEED && !state.targets.contains_key(&by) {
            // It was removed while it answered.
            return Ok(());
        }
        state.book.cluster.get_or_insert(cluster);
        if let Some(list) = state.book.vote(by, list, Instant::now(), self.fresh()) {
            self.adopt(&mut state, &list);
        }
        Ok(())
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

    /// A member does not answer, or not as one of the cluster.
    pub(super) fn silent(self: &Arc<Self>, member: MemberId) {
        let mut state = self.state();
        if let Some(list) = state.book.withdraw(member) {
            self.adopt(&mut state, &list);
        }
    }

    /// Whether seeds have to be asked: no member has told a list of late.
    fn needs_seeds(&self) -> bool {
        !self.state().book.is_told(Instant::now(), self.fresh())
    }

    /// Ends every watcher, and lets none begin.
    fn stop_watchers(&self) {
        let mut state = self.state();
        state.stopped = true;
        state.targets.values().for_each(|target| target.stop());
    }

    /// Makes the targets those of a list.
    fn adopt(self: &Arc<Self>, state: &mut State, list: &List) {
        if state.stopped {
            return;
        }
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
            let watcher = self.tasks.spawn(Watcher::new(self.clone(), target.clone()).run());
            target.runs(watcher.abort_handle());
        }
    }

    pub(super) fn status(&self) -> TransportStatus {
        let (cluster, targets) = {
            let state = self.state();
            (state.book.cluster, state.targets.values().cloned().collect::<Vec<_>>())
        };
        TransportStatus {
            cluster,
            started: Some(self.started),
            probe: Some((self.interval, self.timeout)),
            peers: targets.iter().map(|target| target.status()).collect(),
            tls: self.tls.as_ref().map(Tls::status),
            ..TransportStatus::default()
        }
    }
}

/// Asks the seeds who the members are, until one tells; and again when no member that is known does any more. Ends the
/// watchers when it is stopped.
pub(super) async fn follow_seeds(hub: Weak<Hub>, stop: CancellationToken) {
    let mut said = BTreeMap::new();
    let ask = async {
        while let Some(hub) = hub.upgrade() {
            if hub.needs_seeds() {
                ask_seeds(&hub, &mut said).await;
            }
            let interval = hub.interval;
            drop(hub);
            sleep(interval).await;
        }
    };
    stop.run_until_cancelled(ask).await;
    if let Some(hub) = hub.upgrade() {
        hub.stop_watchers();
    }
}

/// All at once; the first of them, as they were given, that answers for the cluster is believed. What is wrong with one
/// is logged when it changes.
async fn ask_seeds(hub: &Arc<Hub>, said: &mut BTreeMap<PeerUrl, Fault>) {
    let answers = join_all(hub.seeds.iter().map(|seed| ask(hub, seed))).await;
    let mut found = false;
    for (seed, answer) in hub.seeds.iter().zip(answers) {
        let checked = answer.and_then(|Told { cluster, body }| match hub.cluster() {
            Some(watched) if watched != cluster => {
                Err(format!("answers for another cluster: {cluster}, watched is {watched}"))
            }
            _ if std::mem::replace(&mut found, true) => Ok(()),
            _ => hub.told(SEED, cluster, &body),
        });
        match checked {
            Ok(()) => {
                said.remove(seed);
            }
            Err(why) => {
                if said.get(seed) != Some(&why) {
                    tracing::warn!(%seed, why, "the seed does not tell who the members are");
                    said.insert(seed.clone(), why);
                }
            }
        }
    }
}

async fn ask(hub: &Hub, seed: &PeerUrl) -> Result<Told, Fault> {
    let (mut probe, urls) = (Probe::default(), UrlPicker::new(vec![seed.clone()]));
    let reply = probe.get(&hub.client, &urls, hub.timeout, (headers::MEMBERS, MEMBERS_BYTES)).await;
    Told::read(reply.map_err(|failure| failure.why)?)
}
