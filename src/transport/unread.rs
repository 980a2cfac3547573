//! The messages that were written to a peer's streams and not read, as far as the peer has said. This is the last place
//! where a message could disappear unnoticed.
//!
//! A stream is *settled* when the peer says that it will read no more on it: messages written beyond its count are
//! lost, and counted once. A peer may not mention a stream that it must have known when it answered. Then it has read
//! nothing on the stream, or has forgotten it: it was restarted, or more streams ended than it remembers. In that case
//! its last count for the stream holds. So the number of lost messages is exact while the peer's process lives. After a
//! restart, it includes messages that were read between the peer's last answer and its end, which nobody knows any
//! more.
//!
//! Nothing in an answer is trusted: it cannot say that more was read than was written, a count that decreases is an old
//! one, and an unknown stream ID is ignored.

use std::collections::VecDeque;

use crate::wire::{
    probing::ReadStream,
    stream::{StreamId, StreamKind},
};

/// How many ended streams may wait for the peer's count.
const ENDED: usize = 16;

/// A stream whose reader has sent an ID.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tracked {
    id: StreamId,
    /// Messages given to its connection.
    pub(crate) written: u64,
    /// How many of them the peer has read, as it says. `None` before the first answer about the stream.
    read: Option<u64>,
    /// How many were written when the current probe started. `None` if the stream is younger.
    marked: Option<u64>,
}

/// The messages that are not known to be read, on the streams of one kind.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    /// Streams that have ended and are not settled.
    ended: VecDeque<Tracked>,
    lost: u64,
    unconfirmed: Option<u64>,
}

impl Tracked {
    pub(crate) fn new(id: StreamId) -> Self {
        Self { id, written: 0, read: None, marked: None }
    }

    fn mark(&mut self) {
        self.marked = Some(self.written);
    }

    /// Takes the peer's count, as far as it can be true. Returns whether the peer knows the stream and will go on
    /// reading it.
    fn hear(&mut self, kind: StreamKind, streams: &[ReadStream]) -> bool {
        let mut open = false;
        for said in streams.iter().filter(|said| said.kind == kind && said.id == self.id) {
            self.read = Some(said.read.min(self.written).max(self.read.unwrap_or(0)));
            open |= said.open;
        }
        open
    }

    /// How many were written beyond those that are known to be read.
    fn missing(&self) -> u64 {
        self.written - self.read.unwrap_or(0)
    }

    /// The same as of the start of the probe. `None` if the peer has not said anything about it.
    fn unconfirmed(&self) -> Option<u64> {
        Some(self.marked?.saturating_sub(self.read?))
    }
}

impl Unread {
    /// A stream has ended. The number of messages written to it is final.
    pub(crate) fn ended(&mut self, stream: Tracked) {
        if stream.missing() == 0 {
            return;
        }
        if self.ended.len() >= ENDED {
            self.lost += self.ended.pop_front().map_or(0, |oldest| oldest.missing());
        }
        self.ended.push_back(stream);
    }

    /// A probe starts. Its answer need not include what is written from now on.
    pub(crate) fn probe_starts(&mut self, current: Option<&mut Tracked>) {
        self.ended.iter_mut().chain(current).for_each(Tracked::mark);
    }

    /// A probe has ended. `streams` is how far the peer has read our streams, if it said so.
    pub(crate) fn probe_ended(
        &mut self,
        kind: StreamKind,
        mut current: Option<&mut Tracked>,
        streams: Option<&[ReadStream]>,
    ) {
        if let Some(streams) = streams {
            if let Some(current) = &mut current {
                current.hear(kind, streams);
            }
            let lost = &mut self.lost;
            self.ended.retain_mut(|stream| {
                let open = stream.hear(kind, streams);
                // This answer could not know a younger stream.
                let settled = !open && stream.marked.is_some();
                *lost += if settled { stream.missing() } else { 0 };
                !settled
            });
        }
        let known = self.ended.iter().chain(current.as_deref()).filter_map(Tracked::unconfirmed);
        self.unconfirmed = known.reduce(|one, other| one + other);
    }

    /// Messages that were written to streams that have ended, and were never read.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }

    /// Messages that were written when the newest probe started, and are not known to be read. `None` if the peer has
    /// said nothing about the current streams.
    pub(crate) fn unconfirmed(&self) -> Option<u64> {
        self.unconfirmed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: StreamKind = StreamKind::MsgApp;

    fn said(id: u64, read: u64, open: bool) -> ReadStream {
        ReadStream { kind: KIND, id: StreamId(id), read, open }
    }

    /// A writer of streams, and the probes of its peer.
    #[derive(Default)]
    struct Writer {
        unread: Unread,
        current: Option<Tracked>,
    }

    impl Writer {
        fn attach(&mut self, id: u64) {
            self.detach();
            self.current = Some(Tracked::new(StreamId(id)));
        }

        fn detach(&mut self) {
            if let Some(stream) = self.current.take() {
                self.unread.ended(stream);
            }
        }

        fn write(&mut self, messages: u64) {
            self.current.as_mut().expect("a stream").written += messages;
        }

        fn start(&mut self) {
            self.unread.probe_starts(self.current.as_mut());
        }

        fn end(&mut self, streams: Option<&[ReadStream]>) -> (Option<u64>, u64) {
            self.unread.probe_ended(KIND, self.current.as_mut(), streams);
            (self.unread.unconfirmed(), self.unread.lost())
        }

        /// A probe during which nothing is written.
        fn probe(&mut self, streams: &[ReadStream]) -> (Option<u64>, u64) {
            self.start();
            self.end(Some(streams))
        }

        fn failed_probe(&mut self) -> (Option<u64>, u64) {
            self.start();
            self.end(None)
        }
    }

    #[test]
    fn a_healthy_peer_has_read_what_was_written_when_the_probe_started() {
        let mut writer = Writer::default();
        assert_eq!(writer.failed_probe(), (None, 0), "no stream");
        writer.attach(1);
        writer.write(10);
        assert_eq!(writer.failed_probe(), (None, 0), "no answer yet");
        writer.start();
        writer.write(1000);
        // More was read after the probe started than was marked: the difference is not below 0.
        assert_eq!(writer.end(Some(&[said(1, 500, true)])), (Some(0), 0));
    }

    #[test]
    fn a_frozen_peer_has_more_unconfirmed_with_each_probe_that_fails() {
        let mut writer = Writer::default();
        writer.attach(1);
        writer.write(100);
        assert_eq!(writer.probe(&[said(1, 100, true)]), (Some(0), 0));
        writer.write(50);
        assert_eq!(writer.failed_probe(), (Some(50), 0));
        writer.write(50);
        assert_eq!(writer.failed_probe(), (Some(100), 0));
        // The stream is given up. Its messages are still not known to be read.
        writer.detach();
        assert_eq!(writer.failed_probe(), (Some(100), 0));
        // It wakes up, reads some of the messages in the socket, and finds that the stream has ended.
        writer.attach(2);
        assert_eq!(writer.probe(&[said(2, 0, true), said(1, 170, false)]), (Some(0), 30));
        assert_eq!(writer.probe(&[said(2, 0, true), said(1, 170, false)]), (Some(0), 30), "once");
    }

    #[test]
    fn a_peer_that_has_not_yet_noticed_the_end_is_waited_for() {
        let mut writer = Writer::default();
        writer.attach(1);
        writer.write(10);
        writer.detach();
        assert_eq!(writer.probe(&[said(1, 4, true)]), (Some(6), 0));
        assert_eq!(writer.probe(&[said(1, 9, false)]), (None, 1));
    }

    #[test]
    fn an_answer_older_than_the_stream_says_nothing_about_it() {
        let mut writer = Writer::default();
        writer.attach(1);
        writer.write(1);
        writer.start();
        writer.attach(2);
        writer.write(5);
        writer.attach(3);
        // The answer was made before the second stream was asked for.
        assert_eq!(writer.end(Some(&[said(1, 1, false)])), (None, 0));
        assert_eq!(writer.probe(&[said(3, 0, true), said(2, 5, false)]), (Some(0), 0));
    }

    #[test]
    fn of_several_streams_lost_between_two_answers_each_counts_once() {
        let mut writer = Writer::default();
        for id in 1..=5 {
            writer.attach(id);
            writer.write(10);
        }
        let streams = [said(5, 3, true), said(4, 9, false), said(3, 10, false), said(1, 7, false)];
        // The second stream is not mentioned: nothing was read on it.
        assert_eq!(writer.probe(&streams), (Some(7), 1 + 10 + 3));
        assert_eq!(writer.probe(&streams), (Some(7), 14));
    }

    #[test]
    fn of_a_peer_that_was_restarted_the_last_word_counts() {
        let mut writer = Writer::default();
        writer.attach(1);
        writer.write(100);
        assert_eq!(writer.probe(&[said(1, 90, true)]), (Some(10), 0));
        writer.write(5);
        writer.attach(2);
        assert_eq!(writer.probe(&[said(2, 0, true)]), (Some(0), 15));
    }

    #[test]
    fn what_cannot_be_is_not_believed() {
        let mut writer = Writer::default();
        writer.attach(1);
        writer.write(10);
        assert_eq!(writer.probe(&[said(1, u64::MAX, true), said(9, 5, true)]), (Some(0), 0));
        assert_eq!(writer.probe(&[said(1, 3, true)]), (Some(0), 0), "a count never falls");
        let other = ReadStream { kind: StreamKind::Message, ..said(1, 0, false) };
        writer.write(2);
        assert_eq!(writer.probe(&[other]), (Some(2), 0));
        assert_eq!(writer.probe(&[said(1, 11, true), said(1, 4, false), said(1, 12, true)]), (Some(0), 0));
        writer.detach();
        assert_eq!(writer.probe(&[]), (None, 0));
    }

    #[test]
    fn memory_is_bounded_and_nothing_is_forgotten() {
        let mut writer = Writer::default();
        for id in 0..1000 {
            writer.attach(id);
            writer.write(2);
        }
        writer.detach();
        assert_eq!(writer.unread.ended.len(), ENDED);
        assert_eq!(writer.probe(&[]), (None, 2000));
    }
}
