//! How long appends to a peer take: the time from sending a `MsgApp` to the `MsgAppResp` that covers its last index.
//!
//! Only unambiguous answers are measured. An append is watched if its last index is beyond all that were watched before
//! in its term: an answer to a repetition, or to a mere commit index, could as well be the answer to the first one.
//! When the peer rejects an append, when a stream ends, or when the term changes, the appends under way are no longer
//! watched: their answers may never come, and the answers to repetitions would be mistaken for them.
//!
//! Appends that are written together share one clock reading, and the last one stands for all of them. The number of
//! watched appends is limited: with more under way, only every second one is watched, then every fourth, until all are
//! answered.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::{
    id::trace::TraceContext,
    wire::raftpb::{Message, MessageType},
};

/// How many appends are watched at a time.
const WATCHED: usize = 64;

/// The last entry of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Append {
    term: u64,
    last_index: u64,
}

impl Append {
    /// `None` if the message is no append.
    #[inline]
    pub(crate) fn of(message: &Message) -> Option<Self> {
        (message.r#type == MessageType::MsgApp as i32).then(|| Self {
            term: message.term,
            last_index: message.entries.last().map_or(message.index, |entry| entry.index),
        })
    }
}

/// The combined content of the `MsgAppResp` in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acknowledgement {
    term: u64,
    /// The highest index that was accepted.
    index: u64,
    rejected: bool,
}

impl Acknowledgement {
    /// The answers among the messages that `peer` sent for itself. `None` if none of them answers an append.
    pub(crate) fn of(messages: &[Message], peer: u64) -> Option<Self> {
        let answers =
            messages.iter().filter(|message| message.r#type == MessageType::MsgAppResp as i32 && message.from == peer);
        answers.fold(None, |together: Option<Self>, answer| {
            let mut next = together.unwrap_or_default();
            if answer.term > next.term {
                next = Self { term: answer.term, ..Self::default() };
            }
            if answer.term == next.term {
                next.rejected |= answer.reject;
                if !answer.reject {
                    next.index = next.index.max(answer.index);
                }
            }
            Some(next)
        })
    }
}

/// The appends under way to one peer.
#[derive(Debug, Default)]
pub(crate) struct Appends {
    term: u64,
    /// The last index of the newest append that was watched, or skipped for lack of room.
    newest: u64,
    /// In the order of their last indexes, which is the order in which they were sent.
    under_way: VecDeque<(u64, Instant)>,
    /// The last index and trace context of the watched appends that are traced, or that stand for a traced one, in the
    /// same order.
    traced: VecDeque<(u64, TraceContext)>,
    /// How many appends are skipped between two that are watched: a power of two, less one.
    skipped: u32,
    count: u32,
}

impl Appends {
    /// An append was sent.
    pub(crate) fn sent(&mut self, append: Append, now: Instant) {
        if append.term != self.term {
            *self = Self { term: append.term, under_way: std::mem::take(&mut self.under_way), ..Self::default() };
            self.under_way.clear();
        }
        if append.last_index <= self.newest {
            return;
        }
        self.newest = append.last_index;
        self.count = self.count.wrapping_add(1);
        if self.count & self.skipped != 0 {
            return;
        }
        if self.under_way.len() == WATCHED {
            let mut kept = false;
            self.under_way.retain(|_| {
                kept = !kept;
                kept
            });
            self.traced
                .retain(|(of, _)| self.under_way.binary_search_by_key(of, |(last_index, _)| *last_index).is_ok());
            self.skipped = self.skipped << 1 | 1;
        }
        self.under_way.push_back((append.last_index, now));
    }

    /// An append that was sent at `now` is traced. If it is watched, or represented by one that was sent with it, the
    /// trace becomes the exemplar of the measured time.
    pub(crate) fn traced(&mut self, append: Append, now: Instant, context: TraceContext) {
        if append.term != self.term {
            return;
        }
        let sent_with_it = self.under_way.iter().rev().take_while(|(_, sent)| *sent == now);
        let Some((last_index, _)) = sent_with_it.take_while(|(last_index, _)| *last_index >= append.last_index).last()
        else {
            return;
        };
        match self.traced.back_mut() {
            Some((of, kept)) if of == last_index => *kept = context,
            // It repeats what was written just before.
            Some((of, _)) if *of > *last_index => {}
            _ => self.traced.push_back((*last_index, context)),
        }
    }

    /// Whether no append under way waits for an answer.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// The peer has answered. Returns the time of each append that the answer covers, and its trace context if it is
    /// traced.
    pub(crate) fn acknowledged(
        &mut self,
        by: Acknowledgement,
        now: Instant,
        mut took: impl FnMut(Duration, Option<TraceContext>),
    ) {
        if by.term < self.term {
            return;
        }
        if by.term > self.term {
            // It answers another leader, or no longer follows this one.
            return self.forget();
        }
        while let Some((last_index, sent)) = self.under_way.front().copied()
            && last_index <= by.index
        {
            let context = self.trace_of(last_index);
            took(now - sent, context);
            self.under_way.pop_front();
        }
        if by.rejected {
            self.forget();
        } else if self.under_way.is_empty() {
            self.skipped = 0;
        }
    }

    /// The trace context of the oldest watched append, if it is traced.
    fn trace_of(&mut self, last_index: u64) -> Option<TraceContext> {
        self.traced.pop_front_if(|(of, _)| *of == last_index).map(|(_, context)| context)
    }

    /// The appends under way may never be answered. Repetitions are watched anew.
    pub(crate) fn forget(&mut self) {
        self.under_way.clear();
        self.traced.clear();
        (self.newest, self.skipped) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::trace::{SpanId, TraceId},
        wire::raftpb::Entry,
    };

    fn append(term: u64, last_index: u64) -> Append {
        Append { term, last_index }
    }

    fn answer(term: u64, index: u64) -> Acknowledgement {
        Acknowledgement { term, index, rejected: false }
    }

    /// The milliseconds that the appends took which this answer covers.
    fn times(appends: &mut Appends, by: Acknowledgement, now: Instant) -> Vec<u128> {
        let mut times = Vec::new();
        appends.acknowledged(by, now, |took, _| times.push(took.as_millis()));
        times
    }

    fn later(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    #[test]
    fn an_answer_ends_every_append_that_it_covers() {
        let (mut appends, start) = (Appends::default(), Instant::now());
        for index in 1..=4 {
            appends.sent(append(1, index * 10), later(start, index));
        }
        assert_eq!(times(&mut appends, answer(1, 9), later(start, 5)), []);
        assert_eq!(times(&mut appends, answer(1, 30), later(start, 10)), [9, 8, 7]);
        assert_eq!(times(&mut appends, answer(1, 30), later(start, 11)), [], "an answer that comes twice");
        assert_eq!(times(&mut appends, answer(1, 99), later(start, 20)), [16]);
    }

    #[test]
    fn what_was_never_sent_is_never_answered() {
        let mut appends = Appends::default();
        assert_eq!(times(&mut appends, answer(1, 100), Instant::now()), []);
    }

    #[test]
    fn a_repetition_or_a_commit_index_is_not_taken_for_the_append() {
        let (mut appends, start) = (Appends::default(), Instant::now());
        appends.sent(append(1, 10), start);
        appends.sent(append(1, 10), later(start, 500));
        appends.sent(append(1, 5), later(start, 501));
        assert_eq!(times(&mut appends, answer(1, 10), later(start, 1000)), [1000]);
        appends.sent(append(1, 10), later(start, 1500));
        assert_eq!(times(&mut appends, answer(1, 10), later(start, 1501)), []);
    }

    #[test]
    fn after_a_rejection_what_is_sent_again_is_watched_anew() {
        let (mut appends, start) = (Appends::default(), Instant::now());
        appends.sent(append(1, 10), start);
        appends.sent(append(1, 20), start);
        let rejection = Acknowledgement { term: 1, index: 10, rejected: true };
        assert_eq!(times(&mut appends, rejection, later(start, 3)), [3]);
        appends.sent(append(1, 20), later(start, 5));
        assert_eq!(times(&mut appends, answer(1, 20), later(start, 6)), [1]);
    }

    #[test]
    fn another_term_begins_afresh_and_an_older_answer_says_nothing() {
        let (mut appends, start) = (Appends::default(), Instant::now());
        appends.sent(append(1, 100), start);
        appends.sent(append(3, 50), later(start, 1));
        assert_eq!(times(&mut appends, answer(1, 100), later(start, 2)), []);
        assert_eq!(times(&mut appends, answer(3, 50), later(start, 3)), [2]);
        appends.sent(append(3, 60), later(start, 4));
        assert_eq!(times(&mut appends, answer(4, 60), later(start, 5)), []);
        assert!(appends.is_idle());
    }

    #[test]
    fn what_a_stream_took_along_is_not_measured() {
        let (mut appends, start) = (Appends::default(), Instant::now());
        appends.sent(append(1, 10), start);
        appends.forget();
        appends.sent(append(1, 10), later(start, 30_000));
        assert_eq!(times(&mut appends, answer(1, 10), later(start, 30_001)), [1]);
    }

    #[test]
    fn with_many_under_way_some_stand_for_all_and_memory_stays() {
        let (mut appends, start) = (Appends::default(), Instant::now());
        for index in 1..=100_000 {
            appends.sent(append(1, index), start);
            assert!(appends.under_way.len() <= WATCHED);
        }
        let watched: Vec<u64> = appends.under_way.iter().map(|(index, _)| *index).collect();
        assert!(watched.len() >= WATCHED / 2, "{watched:?}");
        let gaps: Vec<u64> = watched.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|gap| *gap <= 8192), "spread over all: {watched:?}");
        assert_eq!(times(&mut appends, answer(1, 100_000), start).len(), watched.len());
        // Once all are answered, each append is watched again.
        for index in 100_001..=100_003 {
            appends.sent(append(1, index), start);
        }
        assert_eq!(times(&mut appends, answer(1, 200_000), start).len(), 3);
    }

    /// The traces of the appends that an answer covers, with the time of each.
    fn traces(appends: &mut Appends, by: Acknowledgement, now: Instant) -> Vec<(u128, u128)> {
        let mut traces = Vec::new();
        appends.acknowledged(by, now, |took, context| {
            traces.extend(context.map(|context| (context.trace.0, took.as_millis())));
        });
        traces
    }

    fn context(trace: u128) -> TraceContext {
        TraceContext { trace: TraceId(trace), span: SpanId(1) }
    }

    #[test]
    fn a_traced_append_is_the_exemplar_of_the_one_that_stands_for_it() {
        let (mut appends, start) = (Appends::default(), Instant::now());
        appends.sent(append(1, 10), start);
        appends.sent(append(1, 20), later(start, 1));
        appends.sent(append(1, 30), later(start, 1));
        appends.traced(append(1, 15), later(start, 1), context(15));
        appends.traced(append(1, 25), later(start, 1), context(25));
        appends.traced(append(1, 30), later(start, 1), context(30));
        assert_eq!(traces(&mut appends, answer(1, 10), later(start, 5)), []);
        assert_eq!(traces(&mut appends, answer(1, 30), later(start, 6)), [(15, 5), (30, 5)]);
        assert_eq!(traces(&mut appends, answer(1, 30), later(start, 7)), []);
    }

    #[test]
    fn what_is_not_watched_is_nobodys_exemplar() {
        let (mut appends, start) = (Appends::default(), Instant::now());
        appends.traced(append(0, 10), start, context(1));
        appends.sent(append(1, 10), start);
        // A repetition, and an append of another term.
        appends.traced(append(1, 10), later(start, 9), context(2));
        appends.traced(append(2, 10), start, context(3));
        assert_eq!(traces(&mut appends, answer(1, 10), later(start, 10)), []);
        appends.sent(append(1, 20), later(start, 11));
        appends.traced(append(1, 20), later(start, 11), context(4));
        appends.forget();
        appends.sent(append(1, 20), later(start, 12));
        assert_eq!(traces(&mut appends, answer(1, 20), later(start, 13)), []);
        assert!(appends.traced.is_empty());
    }

    #[test]
    fn an_append_that_repeats_one_written_with_it_holds_up_no_other() {
        let (mut appends, start) = (Appends::default(), Instant::now());
        appends.sent(append(1, 10), start);
        appends.sent(append(1, 20), start);
        for (trace, index) in [(1, 10), (2, 20), (3, 10)] {
            appends.traced(append(1, index), start, context(trace));
        }
        appends.sent(append(1, 30), later(start, 1));
        appends.traced(append(1, 30), later(start, 1), context(4));
        assert_eq!(traces(&mut appends, answer(1, 30), later(start, 2)), [(1, 2), (2, 2), (4, 1)]);
    }

    #[test]
    fn with_all_of_many_traced_memory_stays() {
        let (mut appends, start) = (Appends::default(), Instant::now());
        for index in 1..=10_000 {
            let now = later(start, index);
            appends.sent(append(1, index), now);
            appends.traced(append(1, index), now, context(index.into()));
            assert!(appends.traced.len() <= WATCHED);
        }
        let under_way = appends.under_way.len();
        let found = traces(&mut appends, answer(1, 10_000), later(start, 20_000));
        assert_eq!(found.len(), under_way, "each that is watched has its own");
        assert!(found.iter().all(|(index, took)| index + took == 20_000), "{found:?}");
    }

    #[test]
    fn the_answers_of_a_batch_count_together_and_only_the_peers_own() {
        let answer = |from, term, index, reject| Message {
            r#type: MessageType::MsgAppResp as i32,
            from,
            term,
            index,
            reject,
            ..Message::default()
        };
        let of = |messages: &[Message]| Acknowledgement::of(messages, 2).map(|all| (all.term, all.index, all.rejected));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[Message::default(), answer(3, 1, 9, false)]), None);
        assert_eq!(of(&[answer(2, 1, 7, false), answer(2, 1, 5, false)]), Some((1, 7, false)));
        assert_eq!(of(&[answer(2, 1, 7, false), answer(2, 1, 9, true)]), Some((1, 7, true)));
        assert_eq!(of(&[answer(2, 1, 7, true), answer(2, 2, 3, false), answer(2, 1, 8, false)]), Some((2, 3, false)));
    }

    #[test]
    fn an_append_without_entries_ends_where_it_begins() {
        let empty = Message { r#type: MessageType::MsgApp as i32, term: 1, index: 7, ..Message::default() };
        assert_eq!(Append::of(&empty), Some(append(1, 7)));
        let entries = vec![Entry { index: 8, ..Entry::default() }, Entry { index: 9, ..Entry::default() }];
        assert_eq!(Append::of(&Message { entries, ..empty.clone() }), Some(append(1, 9)));
        assert_eq!(Append::of(&Message { r#type: MessageType::MsgHeartbeat as i32, ..empty }), None);
    }
}
