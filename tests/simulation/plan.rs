//! The decisions of a seed: the number of members, the kinds of faults and how often they come, and the load of the
//! clients. Each seed picks only a few kinds, because one kind of fault can hide a bug from another.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::clock::Time;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A process is killed.
    Kill,
    /// A machine loses its power between two changes of its disk.
    PowerLoss,
    /// A machine loses its power at one of the next changes of its disk.
    PowerAtWrite,
    /// All machines lose their power.
    Blackout,
    /// A process is frozen, as by SIGSTOP.
    Freeze,
    /// The link between two members is cut, in both directions.
    CutPair,
    /// The link from one member to another is cut, in one direction.
    CutOneWay,
    /// All links to a member are cut, all links from it, or both.
    Isolate,
    /// The network is partitioned: the members are in two groups.
    Part,
    /// Connections are reset.
    Reset,
    /// Links have latency, jitter, or little bandwidth.
    Slow,
    /// A clock jumps.
    ClockJump,
    /// A disk is full.
    FullDisk,
    /// A sync of a disk fails.
    FailedSync,
    /// Names resolve late, to a wrong address, or not at all.
    Names,
    /// A member restarts on an empty disk.
    Wiped,
    /// A member restarts on an old copy of its disk.
    RolledBack,
    /// A learner is added. It joins by itself and asks to be promoted, or the operator adds and promotes it.
    Added,
    /// A member is removed.
    Removed,
    /// A member restarts, and its machine has another address.
    Moved,
    /// A process that is no member posts messages.
    Stranger,
    /// A member falls behind, and catches up over slow links.
    Behind,
}

/// The kinds that a seed picks from. Newer kinds are not in this list: they are picked from a second generator of
/// random numbers, so that the older decisions of a seed stay the same.
pub const KINDS: [Kind; 20] = [
    Kind::Kill,
    Kind::PowerLoss,
    Kind::PowerAtWrite,
    Kind::Blackout,
    Kind::Freeze,
    Kind::CutPair,
    Kind::CutOneWay,
    Kind::Isolate,
    Kind::Part,
    Kind::Reset,
    Kind::Slow,
    Kind::ClockJump,
    Kind::FullDisk,
    Kind::FailedSync,
    Kind::Names,
    Kind::Wiped,
    Kind::RolledBack,
    Kind::Added,
    Kind::Removed,
    Kind::Moved,
];

/// A bug that the simulation plants below or beside a member. The oracles must find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The disk acknowledges a sync of a file, and does not sync it.
    UnsyncedFiles,
    /// The disk acknowledges a sync of a directory, and does not sync it.
    UnsyncedNames,
    /// Clients read one member's data, and take them for a linearizable read.
    LocalReads,
}

impl Bug {
    /// Whether only the checker of linearizability can find it.
    pub fn is_for_the_checker(self) -> bool {
        self == Self::LocalReads
    }
}

pub const BUGS: [(&str, Bug); 3] =
    [("unsynced-files", Bug::UnsyncedFiles), ("unsynced-names", Bug::UnsyncedNames), ("local-reads", Bug::LocalReads)];

/// The decisions of a seed.
#[derive(Clone, Debug)]
pub struct Plan {
    pub members: usize,
    pub kinds: Vec<Kind>,
    /// The mean time from the begin of one fault to the begin of the next, in milliseconds. It is at most twice this.
    pub interval: Time,
    /// The longest duration of a fault, in milliseconds.
    pub longest: Time,
    pub clients: usize,
    /// The mean pause between two operations of a client, in milliseconds. It is at most twice this.
    pub pause: Time,
    /// How long a client waits for an answer, in milliseconds.
    pub patience: Time,
    pub snapshot_count: u64,
    /// The bytes that are added to each value. Large values make snapshots and streams large.
    pub padding: usize,
    /// Whether each message is traced, so that the order of each stream can be checked. Not in every seed, because it
    /// takes time.
    pub traces: bool,
    pub bug: Option<Bug>,
}

impl Plan {
    pub fn of(seed: u64) -> Self {
        let random = &mut StdRng::seed_from_u64(seed);
        let count = random.random_range(1..=5);
        let kinds: Vec<Kind> = KINDS.sample(random, count).copied().collect();
        let mut plan = Self {
            members: *[3, 3, 3, 3, 3, 3, 4, 5, 5, 7].choose(random).expect("some"),
            kinds,
            interval: random.random_range(500..6000),
            longest: random.random_range(200..8000),
            clients: random.random_range(2..=4),
            pause: random.random_range(60..400),
            patience: *[300, 2000, 10_000].choose(random).expect("some"),
            snapshot_count: *[5, 20, 60, 10_000].choose(random).expect("some"),
            padding: 0,
            traces: false,
            bug: None,
        };
        plan.add_what_came_later(&mut StdRng::seed_from_u64(!seed));
        plan
    }

    fn add_what_came_later(&mut self, random: &mut StdRng) {
        self.kinds.extend(random.random_bool(0.15).then_some(Kind::Stranger));
        self.padding = *[0, 0, 0, 0, 0, 8_000].choose(random).expect("some");
        self.traces = random.random_bool(0.25);
        if random.random_bool(0.1) {
            self.kinds.push(Kind::Behind);
            // The others must compact their logs while it is behind, or it would need no snapshot.
            self.snapshot_count = self.snapshot_count.min(20);
        }
    }
}
