//! How far the streams of a peer were read. The answers to the peer's probes report it, so that the peer learns which
//! of its messages arrived.

use std::collections::VecDeque;

use crate::wire::{
    probing::ReadStream,
    stream::{StreamId, StreamKind},
};

/// How many ended streams of a kind are remembered. Each probe reports them, so one would be missed only if more ended
/// between two probes.
const ENDED: usize = 16;

/// What was read on the streams of one kind.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// The stream that is being read, or asked for.
    current: Option<StreamCount>,
    /// The last ended streams, of those on which something was read.
    ended: VecDeque<StreamCount>,
}

#[derive(Clone, Copy, Debug)]
struct StreamCount {
    id: StreamId,
    read: u64,
}

impl Reading {
    /// A stream with this ID is about to be asked for. Call this *before* the request leaves: once its writer can
    /// write, every answer to a probe must mention the stream, or the peer would take its messages for lost.
    pub(crate) fn asked_for(&mut self, id: StreamId) {
        self.end();
        self.current = Some(StreamCount { id, read: 0 });
    }

    /// Messages were read on the current stream.
    pub(crate) fn read(&mut self, messages: u64) {
        if let Some(current) = &mut self.current {
            current.read += messages;
        }
    }

    /// Nothing more will be read on the current stream.
    pub(crate) fn end(&mut self) {
        // If nothing was read on it, it need not be reported: an answer that does not mention the stream says the same.
        let Some(count) = self.current.take().filter(|count| count.read > 0) else { return };
        if self.ended.len() >= ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back(count);
    }

    /// The report: the current stream first, then the ended ones, the newest first.
    pub(crate) fn report(&self, kind: StreamKind) -> impl Iterator<Item = ReadStream> + '_ {
        let of = move |StreamCount { id, read }: StreamCount, open| ReadStream { kind, id, read, open };
        let current = self.current.into_iter().map(move |count| of(count, true));
        current.chain(self.ended.iter().rev().map(move |count| of(*count, false)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(reading: &Reading) -> Vec<(u64, u64, bool)> {
        reading.report(StreamKind::MsgApp).map(|stream| (stream.id.0, stream.read, stream.open)).collect()
    }

    #[test]
    fn a_stream_is_told_from_before_it_is_open_until_others_take_its_place() {
        let mut reading = Reading::default();
        reading.read(5);
        assert_eq!(told(&reading), []);
        reading.asked_for(StreamId(7));
        assert_eq!(told(&reading), [(7, 0, true)]);
        reading.read(2);
        reading.read(1);
        reading.asked_for(StreamId(8));
        assert_eq!(told(&reading), [(8, 0, true), (7, 3, false)]);
        reading.end();
        assert_eq!(told(&reading), [(7, 3, false)], "nothing was read on the second");
        for id in 100..200 {
            reading.asked_for(StreamId(id));
            reading.read(1);
        }
        let told = told(&reading);
        assert_eq!(told.len(), 1 + ENDED);
        assert_eq!((told[0], told[1]), ((199, 1, true), (198, 1, false)));
    }
}
