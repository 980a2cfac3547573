//! How far the streams of a peer were read: what the peer's probes are told, so that it learns what became of what it
//! wrote.

use std::collections::VecDeque;

use crate::wire::{probing::ReadStream, stream::StreamKind};

/// So many ended streams of a kind are remembered. Each probe tells of them, so more would have to end between two.
const ENDED: usize = 16;

/// What was read on the streams of one kind.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    /// The stream that is read, or asked for.
    current: Option<Count>,
    /// The last that ended, of those on which something was read.
    ended: VecDeque<Count>,
}

#[derive(Clone, Copy, Debug)]
struct Count {
    name: u64,
    read: u64,
}

impl Reading {
    /// A stream of this name is asked for. To be said *before* the request leaves: once its writer can write, no
    /// answer to a probe may pass over it, or what is written would be taken for lost.
    pub(crate) fn asked_for(&mut self, name: u64) {
        self.end();
        self.current = Some(Count { name, read: 0 });
    }

    /// Messages were read on it.
    pub(crate) fn read(&mut self, messages: u64) {
        if let Some(current) = &mut self.current {
            current.read += messages;
        }
    }

    /// No more will be read on it.
    pub(crate) fn end(&mut self) {
        // Of one on which nothing was read, silence says as much.
        let Some(count) = self.current.take().filter(|count| count.read > 0) else { return };
        if self.ended.len() >= ENDED {
            self.ended.pop_front();
        }
        self.ended.push_back(count);
    }

    /// All that is known of it, the current stream first, then the newest.
    pub(crate) fn report(&self, kind: StreamKind) -> impl Iterator<Item = ReadStream> + '_ {
        let of = move |Count { name, read }: Count, open| ReadStream { kind, name, read, open };
        let current = self.current.into_iter().map(move |count| of(count, true));
        current.chain(self.ended.iter().rev().map(move |count| of(*count, false)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(reading: &Reading) -> Vec<(u64, u64, bool)> {
        reading.report(StreamKind::MsgApp).map(|stream| (stream.name, stream.read, stream.open)).collect()
    }

    #[test]
    fn a_stream_is_told_from_before_it_is_open_until_others_take_its_place() {
        let mut reading = Reading::default();
        reading.read(5);
        assert_eq!(told(&reading), []);
        reading.asked_for(7);
        assert_eq!(told(&reading), [(7, 0, true)]);
        reading.read(2);
        reading.read(1);
        reading.asked_for(8);
        assert_eq!(told(&reading), [(8, 0, true), (7, 3, false)]);
        reading.end();
        assert_eq!(told(&reading), [(7, 3, false)], "nothing was read on the second");
        for name in 100..200 {
            reading.asked_for(name);
            reading.read(1);
        }
        let told = told(&reading);
        assert_eq!(told.len(), 1 + ENDED);
        assert_eq!((told[0], told[1]), ((199, 1, true), (198, 1, false)));
    }
}
