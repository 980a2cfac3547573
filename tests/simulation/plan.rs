//! What a seed decides: how many members, which kinds of fault and how many of them, how busy the clients are. Each seed
//! picks a few kinds: whatever one kind hides from another comes out in another seed.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::clock::Time;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A process ends at once.
    Kill,
    /// The power of a machine goes while it does nothing.
    PowerLoss,
    /// The power goes at one of the next changes of the disk.
    PowerAtWrite,
    /// The power of all machines goes.
    Blackout,
    /// A process stands still.
    Freeze,
    /// Nothing goes between two members.
    CutPair,
    /// Nothing goes from one member to another.
    CutOneWay,
    /// Nothing goes to a member, from it, or either.
    Isolate,
    /// The members are parted into two groups.
    Part,
    /// Connections break.
    Reset,
    /// Links are slow, jitter, or have little bandwidth.
    Slow,
    /// A clock jumps.
    ClockJump,
    /// A disk is full.
    FullDisk,
    /// A sync of a disk fails.
    FailedSync,
    /// Names are resolved late, wrong, or not at all.
    Names,
    /// A member comes back without its disk.
    Wiped,
    /// A member comes back on an old copy of its disk.
    RolledBack,
    /// A member is added, as a learner that asks to be promoted, or is.
    Added,
    /// A member is removed.
    Removed,
    /// A machine has another address, after a start.
    Moved,
    /// Somebody who is no member posts messages.
    Stranger,
    /// A member falls behind, and comes back over a slow line.
    Behind,
}

/// The kinds that a seed picks from. Those that are missing were added later and are picked apart, so that what the seeds
/// had decided before stays.
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

/// A bug that is put in on purpose, through a seam: the machine must find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// What is written to files is acknowledged as synced, and is not.
    UnsyncedFiles,
    /// Names are acknowledged as lasting, and are not.
    UnsyncedNames,
    /// Clients are answered from what a member has, not from what a quorum has.
    LocalReads,
}

impl Bug {
    /// Whether only the checker of linearizability sees it.
    pub fn is_for_the_checker(self) -> bool {
        self == Self::LocalReads
    }
}

pub const BUGS: [(&str, Bug); 3] =
    [("unsynced-files", Bug::UnsyncedFiles), ("unsynced-names", Bug::UnsyncedNames), ("local-reads", Bug::LocalReads)];

/// What a seed decides.
#[derive(Clone, Debug)]
pub struct Plan {
    pub members: usize,
    pub kinds: Vec<Kind>,
    /// Between the beginnings of two faults, in milliseconds: at most twice this.
    pub interval: Time,
    /// How long a fault lasts at most, in milliseconds.
    pub longest: Time,
    pub clients: usize,
    /// Between two operations of a client, in milliseconds: at most twice this.
    pub pause: Time,
    /// How long a client waits, in milliseconds.
    pub patience: Time,
    pub snapshot_count: u64,
    /// How many bytes are added to each value.
    pub padding: usize,
    /// Whether each message is traced, and the order of each stream looked at. It takes time.
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
            // Others are cut short while it catches up.
            self.snapshot_count = self.snapshot_count.min(20);
        }
    }
}
