//! The proposals of this member's clients. They are held while there is no leader, and then wait for their outcome.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use tokio::{sync::oneshot, time::Instant};

use super::{members::ConfRefusal, request::RequestId};
use crate::wire::raftpb::ConfChange;

/// The result of a proposal.
pub(super) type ProposalResult = Result<ProposalOutcome, ProposeError>;

/// The effect of a committed proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProposalOutcome {
    /// The value was written. `found` says whether the key existed before.
    Written { found: bool },
    /// The membership was changed.
    Membership,
    /// The membership was not changed.
    Refused(ConfRefusal),
}

/// Why a proposal has no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProposeError {
    /// It was certainly not proposed.
    #[error("there is no leader")]
    NoLeader,
    /// It was certainly not proposed.
    #[error("too many requests are in progress")]
    Busy,
    /// It was certainly not proposed, because this member proposes nothing any more.
    #[error("this member takes no part any more")]
    Halted,
    /// It was certainly not proposed, because this member's disk cannot be written.
    #[error("this member's disk cannot be written")]
    Suspended,
    /// It was proposed, and may or may not be committed, now or later.
    #[error("outcome unknown")]
    Unknown,
}

/// The content of a proposal.
#[derive(Debug)]
pub(super) enum Payload {
    /// A request, encoded.
    Request(RequestId, Bytes),
    /// A change of the membership.
    ConfChange(ConfChange),
}

/// The key by which an outcome finds its proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ProposalKey {
    Request(RequestId),
    ConfChange(u64),
}

impl Payload {
    pub(super) fn key(&self) -> ProposalKey {
        match self {
            Self::Request(id, _) => ProposalKey::Request(*id),
            Self::ConfChange(change) => ProposalKey::ConfChange(change.id),
        }
    }

    pub(super) fn size(&self) -> usize {
        match self {
            Self::Request(_, bytes) => bytes.len(),
            Self::ConfChange(change) => change.context.len(),
        }
    }
}

/// A proposal on its way to raft. The client stops waiting by dropping the other end of `reply`.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) payload: Payload,
    pub(super) reply: oneshot::Sender<ProposalResult>,
}

/// The proposals of this member. Their number is limited by the number of requests that `ClientHandler` admits.
#[derive(Debug)]
pub(super) struct Proposals {
    held: VecDeque<(Instant, Proposal)>,
    /// The proposals that raft has accepted, with the term in which it did.
    proposed: BTreeMap<ProposalKey, (u64, oneshot::Sender<ProposalResult>)>,
    /// The highest term of the applied entries.
    applied_term: u64,
    patience: Duration,
    /// How many ended without an outcome.
    pub(super) failed: u64,
}

impl Proposals {
    /// Proposals are held for at most `patience` while there is no leader.
    pub(super) fn new(patience: Duration) -> Self {
        Self { held: VecDeque::new(), proposed: BTreeMap::new(), applied_term: 0, patience, failed: 0 }
    }

    pub(super) fn hold(&mut self, now: Instant, proposal: Proposal) {
        self.held.push_back((now, proposal));
    }

    /// The next proposal for raft whose client still waits.
    pub(super) fn next(&mut self) -> Option<Proposal> {
        while let Some((_, proposal)) = self.held.pop_front() {
            if !proposal.reply.is_closed() {
                return Some(proposal);
            }
            self.failed += 1;
        }
        None
    }

    /// Raft has accepted the proposal in this term. From now on, it may be committed.
    pub(super) fn proposed(&mut self, term: u64, key: ProposalKey, reply: oneshot::Sender<ProposalResult>) {
        self.proposed.insert(key, (term, reply));
    }

    /// Ends a proposal that raft does not have.
    pub(super) fn fail(&mut self, reply: oneshot::Sender<ProposalResult>, error: ProposeError) {
        self.failed += 1;
        // The client may have stopped waiting.
        let _ = reply.send(Err(error));
    }

    /// An entry was applied. If this member proposed it, the client gets the outcome.
    pub(super) fn applied(&mut self, key: ProposalKey, outcome: ProposalOutcome) {
        if let Some((_, reply)) = self.proposed.remove(&key)
            && reply.send(Ok(outcome)).is_err()
        {
            self.failed += 1;
        }
    }

    /// All entries up to one of this term were applied. A leader's own entries come after all entries that it has from
    /// its predecessors. So a proposal to an earlier leader that has not been applied is lost with that leader, or is
    /// still on its way, and its client need not wait any longer.
    pub(super) fn applied_term(&mut self, term: u64) {
        if term <= self.applied_term {
            return;
        }
        self.applied_term = term;
        for (_, (_, reply)) in self.proposed.extract_if(.., |_, (proposed, _)| *proposed < term) {
            self.failed += 1;
            let _ = reply.send(Err(ProposeError::Unknown));
        }
    }

    /// Ends proposals that were held too long, and removes those whose clients no longer wait.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.held.front().is_some_and(|(since, _)| now.duration_since(*since) >= self.patience) {
            if let Some((_, proposal)) = self.held.pop_front() {
                self.fail(proposal.reply, ProposeError::NoLeader);
            }
        }
        let before = self.proposed.len();
        self.proposed.retain(|_, (_, reply)| !reply.is_closed());
        self.failed += (before - self.proposed.len()) as u64;
    }

    /// Ends all proposals. The held ones were not proposed, for this reason; the outcome of the others is unknown.
    pub(super) fn halt(&mut self, why: ProposeError) {
        while let Some((_, proposal)) = self.held.pop_front() {
            self.fail(proposal.reply, why);
        }
        for (_, (_, reply)) in std::mem::take(&mut self.proposed) {
            self.fail(reply, ProposeError::Unknown);
        }
    }

    /// How many have no outcome yet.
    pub(super) fn pending(&self) -> usize {
        self.held.len() + self.proposed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposal(counter: u64) -> (Proposal, oneshot::Receiver<ProposalResult>) {
        let (reply, answer) = oneshot::channel();
        let id = RequestId { member: 1, boot: 1, counter };
        (Proposal { payload: Payload::Request(id, Bytes::new()), reply }, answer)
    }

    #[test]
    fn what_was_held_too_long_was_not_proposed() {
        let (start, mut proposals) = (Instant::now(), Proposals::new(Duration::from_secs(3)));
        let (one, mut answer) = proposal(1);
        proposals.hold(start, one);
        proposals.expire(start + Duration::from_secs(2));
        assert!(answer.try_recv().is_err());
        proposals.expire(start + Duration::from_secs(3));
        assert_eq!(answer.try_recv(), Ok(Err(ProposeError::NoLeader)));
        assert_eq!((proposals.pending(), proposals.failed), (0, 1));
    }

    #[test]
    fn what_nobody_waits_for_is_neither_proposed_nor_remembered() {
        let (start, mut proposals) = (Instant::now(), Proposals::new(Duration::from_secs(3)));
        let (one, answer) = proposal(1);
        proposals.hold(start, one);
        drop(answer);
        assert!(proposals.next().is_none());
        let (two, answer) = proposal(2);
        proposals.proposed(1, two.payload.key(), two.reply);
        drop(answer);
        proposals.expire(start);
        assert_eq!((proposals.pending(), proposals.failed), (0, 2));
    }

    #[test]
    fn an_outcome_finds_its_proposer_once() {
        let mut proposals = Proposals::new(Duration::from_secs(3));
        let (one, mut answer) = proposal(1);
        let key = one.payload.key();
        proposals.proposed(1, key, one.reply);
        proposals.applied(key, ProposalOutcome::Written { found: true });
        proposals.applied(key, ProposalOutcome::Written { found: false });
        assert_eq!(answer.try_recv(), Ok(Ok(ProposalOutcome::Written { found: true })));
    }

    #[test]
    fn nobody_waits_for_what_went_down_with_its_leader() {
        let mut proposals = Proposals::new(Duration::from_secs(3));
        let ((one, mut old), (two, mut new)) = (proposal(1), proposal(2));
        proposals.proposed(4, one.payload.key(), one.reply);
        proposals.proposed(5, two.payload.key(), two.reply);
        proposals.applied_term(4);
        assert!(old.try_recv().is_err(), "its own leader may still commit it");
        proposals.applied_term(5);
        assert_eq!(old.try_recv(), Ok(Err(ProposeError::Unknown)));
        assert!(new.try_recv().is_err());
    }

    #[test]
    fn at_the_end_what_was_proposed_is_unknown_and_what_was_held_is_not() {
        let mut proposals = Proposals::new(Duration::from_secs(3));
        let ((one, mut first), (two, mut second)) = (proposal(1), proposal(2));
        proposals.proposed(1, one.payload.key(), one.reply);
        proposals.hold(Instant::now(), two);
        proposals.halt(ProposeError::Halted);
        assert_eq!(first.try_recv(), Ok(Err(ProposeError::Unknown)));
        assert_eq!(second.try_recv(), Ok(Err(ProposeError::Halted)));
    }
}
