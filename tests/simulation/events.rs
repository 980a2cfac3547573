//! The events of a run, in their order. They are hashed, so that two runs of a seed can be compared, and printed in
//! words on request.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, MutexGuard},
};

use xxhash_rust::xxh3::Xxh3Default;

use super::clock::Timeline;

/// The events of one run. All clones are one list.
#[derive(Clone)]
pub struct Events {
    timeline: Timeline,
    told: Arc<Mutex<Told>>,
}

struct Told {
    hash: Xxh3Default,
    count: u64,
    is_traced: bool,
    /// The last events in words, to be printed after a failure.
    last: std::collections::VecDeque<String>,
}

/// How many events in words a failure shows.
const LAST: usize = 40;

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

impl Events {
    pub fn new(timeline: Timeline, is_traced: bool) -> Self {
        let told = Told { hash: Xxh3Default::new(), count: 0, is_traced, last: std::collections::VecDeque::new() };
        Self { timeline, told: Arc::new(Mutex::new(told)) }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().expect("nobody panics while it holds this")
    }

    /// Records an event in words.
    pub fn say(&self, what: &str) {
        let now = self.timeline.now();
        let mut told = self.told();
        told.take(now, what.as_bytes());
        let mut line = String::new();
        let _ = write!(line, "{:>4}.{:03}  {what}", now / 1000, now % 1000);
        if told.is_traced {
            // Two traces of a seed differ from the first event on by which their hashes differ.
            println!("{:04x} {line}", told.hash.digest() & 0xffff);
        }
        if told.last.len() == LAST {
            told.last.pop_front();
        }
        told.last.push_back(line);
    }

    /// Records an event of which only the hash is kept: bytes on the network, or a change of a disk.
    pub fn took(&self, numbers: &[u64], bytes: &[u8]) {
        let now = self.timeline.now();
        let mut told = self.told();
        for number in numbers {
            told.hash.update(&number.to_le_bytes());
        }
        told.take(now, bytes);
    }

    /// The hash of all events until now, and their number.
    pub fn sum(&self) -> (u64, u64) {
        let told = self.told();
        (told.hash.digest(), told.count)
    }

    /// The last events, in words.
    pub fn last(&self) -> Vec<String> {
        self.told().last.iter().cloned().collect()
    }
}

impl Told {
    fn take(&mut self, now: u64, bytes: &[u8]) {
        self.hash.update(&now.to_le_bytes());
        self.hash.update(&(bytes.len() as u64).to_le_bytes());
        self.hash.update(bytes);
        self.count += 1;
    }
}
