//! The queues to remotes, which are members known only from their requests, and one ledger for all of them, behind one
//! lock. Any client that claims to be a member becomes one, so each must cost little: its queue and its URLs. Their
//! messages are counted under the peer `other`, until the membership confirms a remote.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

use super::{
    limits::Limits,
    outbox::{Handover, Notices, Pipeline, Posting},
};
use crate::{
    ledger::{Channel, DropReason, Live, MessageKind, Outgoing, PerChannel, PerStream},
    wire::{message::message_size, raftpb::Message},
};

/// The queues to all remotes, and their ledger.
#[derive(Default)]
pub(super) struct Others(Mutex<State>);

#[derive(Default)]
struct State {
    ledger: Live<Outgoing>,
    /// The queues by number. A remote that comes again gets a new queue, while the last requests of the old one end.
    queues: HashMap<u64, RemoteQueue>,
    opened: u64,
    paused: bool,
}

#[derive(Default)]
struct RemoteQueue {
    pipeline: Pipeline,
    closed: Option<DropReason>,
}

impl Others {
    fn lock(&self) -> MutexGuard<'_, State> {
        // As in the outbox, the counters are complete after every critical section.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a queue for one more remote, and returns its number.
    pub(super) fn open(&self) -> u64 {
        let mut state = self.lock();
        state.opened += 1;
        let number = state.opened;
        state.queues.insert(number, RemoteQueue::default());
        number
    }

    /// Queues messages in their order.
    pub(super) fn push(&self, queue: u64, messages: &[Message], limits: &Limits) -> Handover {
        let (mut handover, now) = (Handover::default(), Instant::now());
        let mut state = self.lock();
        for message in messages {
            state.push(queue, message, now, limits, &mut handover);
        }
        handover
    }

    /// The next message for a worker. `None` if there is none, and the worker ends.
    pub(super) fn next(&self, queue: u64) -> Option<Posting> {
        let mut state = self.lock();
        let posting = state.queues.get_mut(&queue)?.pipeline.next();
        state.forget_if_idle(queue);
        posting
    }

    /// A posting has ended: sent or given up.
    pub(super) fn posted(&self, queue: u64, posting: &Posting, outcome: Result<(), DropReason>) {
        let kind = MessageKind::of(posting.message.r#type);
        let mut state = self.lock();
        let State { ledger, queues, .. } = &mut *state;
        let mut torn = None;
        if let Some(queue) = queues.get_mut(&queue) {
            queue.pipeline.ended(posting);
            torn = queue.closed.filter(|reason| *reason != DropReason::Promoted);
        }
        match outcome {
            Ok(()) => {
                let size = posting.size as u64;
                ledger.wrote(Channel::Pipeline, size);
                ledger.sent(Channel::Pipeline, kind, 1, size, posting.waited());
            }
            // A request that was cut off by the end of the remote is counted under the reason for that end.
            Err(reason) => ledger.dropped(Channel::Pipeline, kind, torn.unwrap_or(reason), 1),
        }
        state.forget_if_idle(queue);
    }

    /// Closes a queue and takes out the waiting messages, which are dropped for this reason. Later messages are dropped
    /// too.
    pub(super) fn close(&self, queue: u64, reason: DropReason) -> (VecDeque<Posting>, Notices) {
        let mut notices = Notices::default();
        let mut state = self.lock();
        let State { ledger, queues, .. } = &mut *state;
        let Some(open) = queues.get_mut(&queue).filter(|queue| queue.closed.is_none()) else {
            return (VecDeque::new(), notices);
        };
        open.closed = Some(reason);
        let waiting = open.pipeline.clear();
        for posting in &waiting {
            let kind = MessageKind::of(posting.message.r#type);
            ledger.dropped(Channel::Pipeline, kind, reason, 1);
            notices.given_up(kind);
        }
        state.forget_if_idle(queue);
        (waiting, notices)
    }

    /// Sets whether messages are dropped from now on.
    pub(super) fn set_paused(&self, paused: bool) {
        self.lock().paused = paused;
    }

    /// Whether messages are dropped.
    pub(super) fn is_paused(&self) -> bool {
        self.lock().paused
    }

    /// A copy of the ledger, with the queued messages as they are now.
    pub(super) fn ledger(&self) -> Outgoing {
        let state = self.lock();
        let messages: usize = state.queues.values().map(|queue| queue.pipeline.messages()).sum();
        let queued = PerChannel::new(|channel| if channel == Channel::Pipeline { messages as u64 } else { 0 });
        state.ledger.copy(queued, PerStream::default(), PerStream::default())
    }
}

impl State {
    fn push(&mut self, queue: u64, message: &Message, now: Instant, limits: &Limits, handover: &mut Handover) {
        let kind = MessageKind::of(message.r#type);
        let size = message_size(message);
        self.ledger.offered(kind);
        if let Err(reason) = self.admit(queue, message, size, limits) {
            self.ledger.dropped(Channel::Pipeline, kind, reason, 1);
            if reason != DropReason::Paused {
                handover.notices.given_up(kind);
            }
        } else if let Some(queue) = self.queues.get_mut(&queue) {
            let posting = Posting { message: message.clone(), size, since: now, span: None };
            handover.workers += usize::from(queue.pipeline.push(posting));
        }
    }

    fn admit(&self, queue: u64, message: &Message, size: usize, limits: &Limits) -> Result<(), DropReason> {
        let Some(RemoteQueue { pipeline, closed: None }) = self.queues.get(&queue) else {
            let closed = self.queues.get(&queue).and_then(|queue| queue.closed);
            return Err(closed.unwrap_or(DropReason::PeerRemoved));
        };
        if self.paused {
            return Err(DropReason::Paused);
        }
        if size as u64 > limits.message_bytes || message.entries.len() as u64 > limits.entries {
            return Err(DropReason::TooLarge);
        }
        // All remotes together may queue as many bytes as one peer.
        let bytes: usize = self.queues.values().map(|queue| queue.pipeline.bytes()).sum();
        let is_full = pipeline.messages() >= limits.pipeline_queue || (bytes > 0 && bytes + size > limits.queue_bytes);
        if is_full { Err(DropReason::QueueFull) } else { Ok(()) }
    }

    /// Removes a closed queue once its last worker has ended.
    fn forget_if_idle(&mut self, number: u64) {
        if self.queues.get(&number).is_some_and(|queue| queue.closed.is_some() && queue.pipeline.is_idle()) {
            self.queues.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::raftpb::MessageType;

    fn heartbeats(count: usize) -> Vec<Message> {
        vec![Message { r#type: MessageType::MsgHeartbeat as i32, from: 1, to: 2, ..Message::default() }; count]
    }

    fn dropped(others: &Others, reason: DropReason) -> u64 {
        others.ledger().dropped.iter().filter(|((.., why), _)| *why == reason).map(|(_, count)| count).sum()
    }

    #[test]
    fn what_goes_to_remotes_balances_whoever_comes_and_goes() {
        let (others, limits) = (Others::default(), Limits { pipeline_queue: 8, ..Limits::default() });
        let queues = [others.open(), others.open()];
        for queue in queues {
            assert_eq!(others.push(queue, &heartbeats(10), &limits).workers, 4);
            assert!(others.ledger().balances());
        }
        assert_eq!(dropped(&others, DropReason::QueueFull), 4);
        let [one, two] = queues.map(|queue| others.next(queue).expect("it waits"));
        others.posted(queues[0], &one, Ok(()));
        assert!(others.ledger().balances());
        let (waiting, _) = others.close(queues[0], DropReason::Promoted);
        assert_eq!((waiting.len(), dropped(&others, DropReason::Promoted)), (7, 7));
        others.close(queues[1], DropReason::PeerRemoved);
        assert!(others.ledger().balances(), "one is still on its way");
        assert_eq!(others.ledger().queued.total(), 1);
        others.posted(queues[1], &two, Err(DropReason::PostFailed));
        assert_eq!(dropped(&others, DropReason::PeerRemoved), 8, "what ended the remote tore it down");
        assert!(others.push(queues[1], &heartbeats(1), &limits).notices.unreachable, "there is no such queue");
        assert!(others.ledger().balances() && others.ledger().queued.total() == 0);
        for queue in queues {
            for _ in 0..4 {
                assert!(others.next(queue).is_none());
            }
        }
        assert!(others.lock().queues.is_empty(), "nothing is left of them");
    }

    #[test]
    fn all_remotes_together_hold_what_one_peers_queue_does() {
        let (others, limits) = (Others::default(), Limits { queue_bytes: 1000, ..Limits::default() });
        let large = Message { context: vec![0; 400].into(), ..heartbeats(1).remove(0) };
        for _ in 0..5 {
            others.push(others.open(), std::slice::from_ref(&large), &limits);
        }
        assert_eq!((others.ledger().queued.total(), dropped(&others, DropReason::QueueFull)), (2, 3));
    }
}
