//! The key-value state machine: the effect of committed entries. The same entries have the same effect on every member.

use super::{
    members::{ConfRefusal, Membership, PeerChange},
    proposals::{ProposalKey, ProposalOutcome},
    request::{Command, Request},
    storage::Write,
};
use crate::{
    id::MemberId,
    wire::raftpb::{ConfChange, ConfChangeType, Entry, EntryType},
};

use prost::Message as _;

/// The effect of a sequence of committed entries, collected so that it is written in one transaction.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// The index of the last entry.
    pub(super) index: u64,
    pub(super) writes: Vec<Write>,
    /// Outcomes by proposal. For a write, it is the index in `writes`, because the write shows whether its key existed.
    pub(super) outcomes: Vec<(ProposalKey, Done)>,
    pub(super) peers: Vec<PeerChange>,
    /// Whether the membership or raft's configuration changed.
    pub(super) membership_changed: bool,
    /// Whether this member was removed. Nothing after that entry is applied.
    pub(super) removed: bool,
}

/// The outcome of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    Write(usize),
    Other(ProposalOutcome),
}

impl Applied {
    /// Adds an entry. `configure` passes a ConfChange on to raft, which may refuse it.
    pub(super) fn add(
        &mut self,
        entry: Entry,
        local: MemberId,
        membership: &mut Membership,
        configure: impl FnOnce(&ConfChange) -> Result<(), ConfRefusal>,
    ) {
        self.index = entry.index;
        if entry.r#type == EntryType::EntryConfChange as i32 {
            self.add_conf_change(&entry, local, membership, configure);
        } else if !entry.data.is_empty() {
            self.add_request(entry, membership);
        }
    }

    fn add_request(&mut self, entry: Entry, membership: &mut Membership) {
        let index = entry.index;
        let request = match Request::decode(entry.data) {
            Ok(request) => request,
            // Every member has the same bytes, and ignores them too.
            Err(error) => return tracing::warn!(index, %error, "a committed entry is ignored"),
        };
        let done = match request.command {
            Command::Put { key, value } => self.write(Write::Put(key, value)),
            Command::Delete { key } => self.write(Write::Delete(key)),
            Command::Attributes { member } => {
                let known = membership.apply_attributes(&member);
                self.membership_changed |= known;
                let refused = ProposalOutcome::Refused(ConfRefusal::NotFound);
                Done::Other(if known { ProposalOutcome::Membership } else { refused })
            }
            Command::Space { member, over } => {
                self.membership_changed |= membership.apply_space(MemberId(member), over);
                Done::Other(ProposalOutcome::Membership)
            }
            Command::Refusal { conf_change, why } => {
                self.outcomes.push((ProposalKey::ConfChange(conf_change), Done::Other(ProposalOutcome::Refused(why))));
                return;
            }
        };
        self.outcomes.push((ProposalKey::Request(request.id), done));
    }

    fn write(&mut self, write: Write) -> Done {
        self.writes.push(write);
        Done::Write(self.writes.len() - 1)
    }

    fn add_conf_change(
        &mut self,
        entry: &Entry,
        local: MemberId,
        membership: &mut Membership,
        configure: impl FnOnce(&ConfChange) -> Result<(), ConfRefusal>,
    ) {
        let Ok(change) = ConfChange::decode(entry.data.as_ref()) else {
            return tracing::warn!(index = entry.index, "a committed ConfChange cannot be read and is ignored");
        };
        let made = membership.check(&change).and_then(|()| configure(&change)).and_then(|()| membership.apply(&change));
        let outcome = match made {
            Ok(peer) => {
                self.membership_changed = true;
                self.removed =
                    change.r#type == ConfChangeType::ConfChangeRemoveNode as i32 && change.node_id == local.0;
                let own =
                    |peer: &PeerChange| matches!(peer, PeerChange::Set(id, _) | PeerChange::Remove(id) if *id == local);
                self.peers.extend(peer.filter(|peer| !own(peer)));
                tracing::info!(member = %MemberId(change.node_id), change = change_name(&change), "membership changed");
                ProposalOutcome::Membership
            }
            Err(why) => {
                tracing::info!(member = %MemberId(change.node_id), change = change_name(&change), %why, "membership not changed");
                ProposalOutcome::Refused(why)
            }
        };
        self.outcomes.push((ProposalKey::ConfChange(change.id), Done::Other(outcome)));
    }
}

fn change_name(change: &ConfChange) -> &'static str {
    ConfChangeType::try_from(change.r#type).map_or("unknown", |kind| kind.as_str_name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{members::MemberRecord, request::RequestId};

    const LOCAL: MemberId = MemberId(1);

    fn request(index: u64, command: Command) -> Entry {
        let id = RequestId { member: 7, boot: 1, counter: index };
        Entry { index, term: 1, data: Request { id, command }.encode(), ..Default::default() }
    }

    fn conf_change(index: u64, kind: ConfChangeType, id: u64) -> Entry {
        let record = MemberRecord { id, peer_urls: vec![format!("http://h:{id}")], ..Default::default() };
        let change = ConfChange { id: index, r#type: kind as i32, node_id: id, context: record.to_json() };
        Entry { index, term: 1, r#type: 1, data: change.encode_to_vec().into() }
    }

    fn apply(entries: Vec<Entry>, membership: &mut Membership) -> Applied {
        let mut applied = Applied::default();
        for entry in entries {
            applied.add(entry, LOCAL, membership, |_| Ok(()));
        }
        applied
    }

    #[test]
    fn writes_keep_their_order_and_find_their_proposers() {
        let put = |value: &'static str| Command::Put { key: "k".into(), value: value.into() };
        let entries = vec![request(1, put("a")), Entry { index: 2, ..Default::default() }, request(3, put("b"))];
        let applied = apply(entries, &mut Membership::default());
        assert_eq!(applied.writes, [Write::Put("k".into(), "a".into()), Write::Put("k".into(), "b".into())]);
        let done: Vec<_> = applied.outcomes.iter().map(|(_, done)| *done).collect();
        assert_eq!((done, applied.index), (vec![Done::Write(0), Done::Write(1)], 3));
    }

    #[test]
    fn garbage_that_was_committed_is_passed_over() {
        let normal = Entry { index: 1, data: "garbage".into(), ..Default::default() };
        let change = Entry { index: 2, r#type: 1, data: "\u{7f}garbage".into(), ..Default::default() };
        let applied = apply(vec![normal, change], &mut Membership::default());
        assert!(applied.writes.is_empty() && applied.outcomes.is_empty() && !applied.membership_changed);
        assert_eq!(applied.index, 2);
    }

    #[test]
    fn others_become_peers_and_go_and_we_are_nobodys() {
        let mut membership = Membership::default();
        let add = ConfChangeType::ConfChangeAddNode;
        let applied = apply((1..=3).map(|id| conf_change(id, add, id)).collect(), &mut membership);
        let peers: Vec<_> = applied.peers.iter().map(|peer| matches!(peer, PeerChange::Set(..))).collect();
        assert_eq!(peers, [true, true]);
        let gone = apply(vec![conf_change(4, ConfChangeType::ConfChangeRemoveNode, 2)], &mut membership);
        assert_eq!((gone.peers, gone.removed), (vec![PeerChange::Remove(MemberId(2))], false));
        let gone = apply(vec![conf_change(5, ConfChangeType::ConfChangeRemoveNode, 1)], &mut membership);
        assert_eq!((gone.peers, gone.removed), (vec![], true));
    }

    #[test]
    fn what_raft_refuses_the_membership_does_not_take() {
        let mut membership = Membership::default();
        let mut applied = Applied::default();
        let entry = conf_change(1, ConfChangeType::ConfChangeAddNode, 2);
        applied.add(entry, LOCAL, &mut membership, |_| Err(ConfRefusal::Raft));
        assert_eq!(membership, Membership::default());
        let refused = Done::Other(ProposalOutcome::Refused(ConfRefusal::Raft));
        assert_eq!(applied.outcomes, [(ProposalKey::ConfChange(1), refused)]);
    }

    #[test]
    fn who_is_over_its_quota_is_known_until_it_says_otherwise_or_goes() {
        let mut membership = Membership::default();
        let space = |index, member, over| request(index, Command::Space { member, over });
        let add = ConfChangeType::ConfChangeAddNode;
        let mut entries: Vec<_> = (1..=3).map(|id| conf_change(id, add, id)).collect();
        entries.extend([space(4, 1, Some(10)), space(5, 2, Some(20)), space(6, 9, Some(30))]);
        assert!(apply(entries, &mut membership).membership_changed);
        assert_eq!(*membership.over_quota(), [(MemberId(1), 10), (MemberId(2), 20)].into(), "9 is no member");
        assert_eq!(Membership::parse(&membership.to_json()), Ok(membership.clone()));
        assert!(!apply(vec![space(7, 1, Some(10))], &mut membership).membership_changed);
        let gone = vec![space(8, 1, None), conf_change(9, ConfChangeType::ConfChangeRemoveNode, 2)];
        assert!(apply(gone, &mut membership).membership_changed);
        assert!(membership.over_quota().is_empty());
    }

    #[test]
    fn a_refusal_in_the_log_is_the_outcome_of_its_conf_change() {
        let refusal = Command::Refusal { conf_change: 99, why: ConfRefusal::NotReady };
        let applied = apply(vec![request(1, refusal)], &mut Membership::default());
        let refused = Done::Other(ProposalOutcome::Refused(ConfRefusal::NotReady));
        assert_eq!(applied.outcomes, [(ProposalKey::ConfChange(99), refused)]);
    }
}
