//! The queue of the pipeline: messages without a stream, each for a request of its own.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use crate::{telemetry::MessageSpan, wire::raftpb::Message};

/// How many requests are under way at a time: etcd's `connPerPipeline`.
const WORKERS: usize = 4;

/// The messages that wait for a worker, and those that a worker holds.
#[derive(Default)]
pub(crate) struct Pipeline {
    queue: VecDeque<Posting>,
    bytes: usize,
    in_flight: usize,
    workers: usize,
}

/// A message on its way through the pipeline.
pub(crate) struct Posting {
    pub(crate) message: Message,
    pub(crate) size: usize,
    pub(crate) since: Instant,
    pub(crate) span: Option<MessageSpan>,
}

impl Posting {
    /// The time since it was queued.
    pub(crate) fn waited(&self) -> Duration {
        self.since.elapsed()
    }
}

impl Pipeline {
    /// Queues a message. Returns whether one more worker has to be started.
    pub(crate) fn push(&mut self, posting: Posting) -> bool {
        self.bytes += posting.size;
        self.queue.push_back(posting);
        let start = self.workers < WORKERS;
        self.workers += usize::from(start);
        start
    }

    /// The next message for a worker. `None` if there is none, and the worker ends.
    pub(crate) fn next(&mut self) -> Option<Posting> {
        let posting = self.queue.pop_front();
        match posting {
            Some(_) => self.in_flight += 1,
            None => self.workers -= 1,
        }
        posting
    }

    /// A worker has finished its message.
    pub(crate) fn ended(&mut self, posting: &Posting) {
        self.in_flight -= 1;
        self.bytes -= posting.size;
    }

    /// Removes all waiting messages. Those that workers hold are ended by the workers.
    pub(crate) fn clear(&mut self) -> VecDeque<Posting> {
        let waiting = std::mem::take(&mut self.queue);
        self.bytes -= waiting.iter().map(|posting| posting.size).sum::<usize>();
        waiting
    }

    /// The number of messages, including those on their way.
    pub(crate) fn messages(&self) -> usize {
        self.queue.len() + self.in_flight
    }

    /// Whether there are neither messages nor workers.
    pub(crate) fn is_idle(&self) -> bool {
        self.workers == 0 && self.messages() == 0
    }

    /// The size of the messages, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
