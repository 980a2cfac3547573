//! The part of the log that is kept in memory: the term of each entry, and the newest entries themselves.

use std::collections::VecDeque;

use protobuf::Message as _;
use raft::eraftpb::Entry;

/// The most bytes of entries in memory. Followers that keep up and the state machine read from here.
const TAIL_BYTES: u64 = 16 << 20;

/// The accuracy to which the size of a part of the log is known, in bytes.
const WEIGHED_BYTES: u64 = 64 << 10;

/// The log in the form that raft asks for. Terms are kept as the indexes at which they begin, which are few, whatever
/// the log's length.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// The index and term of the entry before the first.
    truncated: (u64, u64),
    last: u64,
    /// The first index and the term of each run of entries of one term.
    terms: VecDeque<(u64, u64)>,
    tail: VecDeque<Entry>,
    tail_bytes: u64,
    /// The index of an entry, and the bytes of all entries up to it since the log was opened, about every
    /// [`WEIGHED_BYTES`].
    weights: VecDeque<(u64, u64)>,
    /// The bytes of all entries up to the last.
    bytes: u64,
}

impl Log {
    /// An empty log after `index`, whose entry had `term`.
    pub(super) fn new(index: u64, term: u64) -> Self {
        Self { truncated: (index, term), last: index, ..Self::default() }
    }

    pub(super) fn first_index(&self) -> u64 {
        self.truncated.0 + 1
    }

    pub(super) fn last_index(&self) -> u64 {
        self.last
    }

    pub(super) fn truncated(&self) -> (u64, u64) {
        self.truncated
    }

    /// The term of an existing entry, or of the one before the first.
    pub(super) fn term(&self, index: u64) -> Option<u64> {
        if index == self.truncated.0 {
            return Some(self.truncated.1);
        }
        if index < self.truncated.0 || index > self.last {
            return None;
        }
        let run = self.terms.partition_point(|(first, _)| *first <= index);
        self.terms.get(run.checked_sub(1)?).map(|(_, term)| *term)
    }

    /// Adds an entry at the end, or in place of an existing one and all after it.
    pub(super) fn push(&mut self, entry: Entry) {
        if entry.index <= self.last {
            self.cut_after(entry.index - 1);
        }
        self.last = entry.index;
        if self.terms.back().is_none_or(|(_, term)| *term != entry.term) {
            self.terms.push_back((entry.index, entry.term));
        }
        let size = size(&entry);
        self.tail_bytes += size;
        self.weigh(entry.index, size);
        self.tail.push_back(entry);
        while self.tail_bytes > TAIL_BYTES && self.tail.len() > 1 {
            self.drop_oldest();
        }
    }

    fn weigh(&mut self, index: u64, size: u64) {
        self.bytes += size;
        if self.weights.back().is_none_or(|(_, bytes)| bytes + WEIGHED_BYTES <= self.bytes) {
            self.weights.push_back((index, self.bytes));
        }
    }

    /// A lower estimate of the bytes of all entries up to `index` since the log was opened.
    fn weight(&self, index: u64) -> u64 {
        let after = self.weights.partition_point(|(weighed, _)| *weighed <= index);
        after.checked_sub(1).and_then(|at| self.weights.get(at)).map_or(0, |(_, bytes)| *bytes)
    }

    /// The bytes of the existing entries, up to and including `index`.
    pub(super) fn bytes_up_to(&self, index: u64) -> u64 {
        self.weight(index).saturating_sub(self.weight(self.truncated.0))
    }

    /// The last entry that is followed by this many bytes. If there are fewer, the entry before the first.
    pub(super) fn last_without(&self, bytes: u64) -> u64 {
        let Some(most) = self.bytes.checked_sub(bytes) else { return self.truncated.0 };
        if bytes == 0 {
            return self.last;
        }
        let after = self.weights.partition_point(|(_, weighed)| *weighed <= most);
        after.checked_sub(1).and_then(|at| self.weights.get(at)).map_or(self.truncated.0, |(index, _)| *index)
    }

    fn cut_after(&mut self, index: u64) {
        while self.weights.back().is_some_and(|(weighed, _)| *weighed > index) {
            self.weights.pop_back();
        }
        self.bytes = self.weight(index);
        while self.terms.back().is_some_and(|(first, _)| *first > index) {
            self.terms.pop_back();
        }
        while self.tail.back().is_some_and(|entry| entry.index > index) {
            let cut = self.tail.pop_back().map_or(0, |entry| size(&entry));
            self.tail_bytes -= cut;
        }
        self.last = index;
    }

    fn drop_oldest(&mut self) {
        let dropped = self.tail.pop_front().map_or(0, |entry| size(&entry));
        self.tail_bytes -= dropped;
    }

    /// Removes everything up to `index`, whose entry has `term`.
    pub(super) fn compact(&mut self, index: u64, term: u64) {
        self.truncated = (index, term);
        while self.terms.get(1).is_some_and(|(first, _)| *first <= index + 1) {
            self.terms.pop_front();
        }
        if index >= self.last {
            self.terms.clear();
            self.last = index;
        }
        // One weight stays, for the entries before the first.
        while self.weights.get(1).is_some_and(|(weighed, _)| *weighed <= index) {
            self.weights.pop_front();
        }
        while self.tail.front().is_some_and(|entry| entry.index <= index) {
            self.drop_oldest();
        }
    }

    /// The first index from which on all entries are in memory.
    pub(super) fn tail_from(&self) -> u64 {
        self.tail.front().map_or(self.last + 1, |entry| entry.index)
    }

    /// The entries from `low` up to `high`, which must all be in memory.
    pub(super) fn tail(&self, low: u64, high: u64) -> impl Iterator<Item = Entry> + '_ {
        let skip = usize::try_from(low.saturating_sub(self.tail_from())).unwrap_or(usize::MAX);
        let take = usize::try_from(high.saturating_sub(low)).unwrap_or(usize::MAX);
        self.tail.iter().skip(skip).take(take).cloned()
    }
}

/// The bytes of an entry, as raft counts them against its limits.
pub(super) fn size(entry: &Entry) -> u64 {
    u64::from(entry.compute_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, data: vec![7; 10].into(), ..Default::default() }
    }

    fn log(terms: &[u64]) -> Log {
        let mut log = Log::new(10, 1);
        for (place, term) in terms.iter().enumerate() {
            log.push(entry(11 + place as u64, *term));
        }
        log
    }

    #[test]
    fn it_knows_the_term_of_each_entry_and_of_the_one_before() {
        let log = log(&[1, 1, 2, 5, 5]);
        let terms: Vec<_> = (9..=16).map(|index| log.term(index)).collect();
        assert_eq!(terms, [None, Some(1), Some(1), Some(1), Some(2), Some(5), Some(5), None]);
    }

    #[test]
    fn an_entry_takes_the_place_of_those_that_it_contradicts() {
        let mut log = log(&[1, 1, 2, 2, 2]);
        log.push(entry(13, 3));
        assert_eq!((log.last_index(), log.term(13), log.term(12), log.term(14)), (13, Some(3), Some(1), None));
        assert_eq!(log.tail(11, 99).map(|entry| entry.term).collect::<Vec<_>>(), [1, 1, 3]);
    }

    #[test]
    fn what_is_cut_off_in_front_leaves_its_last_term() {
        let mut log = log(&[1, 1, 2, 2, 3]);
        log.compact(13, 2);
        assert_eq!((log.first_index(), log.tail_from()), (14, 14));
        assert_eq!([12, 13, 14, 15].map(|index| log.term(index)), [None, Some(2), Some(2), Some(3)]);
        log.compact(15, 3);
        assert_eq!((log.first_index(), log.last_index(), log.term(15)), (16, 15, Some(3)));
        log.push(entry(16, 3));
        assert_eq!(log.term(16), Some(3));
    }

    #[test]
    fn what_a_part_of_it_weighs_is_known_to_64_kib() {
        let mut log = Log::new(10, 1);
        assert_eq!((log.last_without(0), log.last_without(1), log.bytes_up_to(10)), (10, 10, 0));
        let heavy = |index| Entry { index, term: 1, data: vec![0; 1000].into(), ..Default::default() };
        (11..=1010).for_each(|index| log.push(heavy(index)));
        let near = |found: u64, expected: u64| found <= expected && found + 2 * WEIGHED_BYTES / 1000 > expected;
        for bytes in [1, 100_000, 500_000, 900_000] {
            let last = log.last_without(bytes);
            assert!(near(last, 1010 - bytes.div_ceil(1010)), "{last} without {bytes}");
        }
        assert_eq!((log.last_without(0), log.last_without(2_000_000)), (1010, 10));
        log.compact(510, 1);
        assert!(log.bytes_up_to(1010).abs_diff(500 * 1010) < 2 * WEIGHED_BYTES);
        assert_eq!((log.bytes_up_to(510), log.last_without(2_000_000)), (0, 510));
        log.push(entry(600, 2));
        assert!(log.bytes_up_to(600) <= 90 * 1010 && log.last_without(0) == 600);
    }

    #[test]
    fn memory_is_bounded_whatever_the_entries() {
        let mut log = Log::new(0, 0);
        for index in 1..=40 {
            log.push(Entry { index, term: 1, data: vec![0; 1 << 20].into(), ..Default::default() });
        }
        assert!(log.tail_bytes <= TAIL_BYTES);
        assert!(log.tail_from() > 20);
        assert_eq!(log.term(1), Some(1));
    }
}
