//! The quota: a member whose data exceed its quota says so in the log, and all members refuse puts until the data no
//! longer exceed it (etcd's `NOSPACE` alarm). Deletes are accepted.
//!
//! The size of the data after an entry is the same on every member, but each member has its own quota. So the alarm
//! carries the quota, and any leader can clear the alarm of a member that is away. An alarm ends when its member is
//! removed.
//!
//! Puts are refused when they are requested, not when they are applied. Puts that were proposed before the alarm was
//! known are applied everywhere, whatever a member knows of quotas. Their size is limited by what may be under way.

use tokio::{sync::oneshot, time::Instant};

use super::Core;
use crate::{
    id::MemberId,
    node::{
        members::Membership,
        proposals::{Payload, Proposal, ProposalResult},
        request::{Command, Request},
    },
};

/// Puts are accepted again once the data are at most this percentage of the quota, so that a cluster at its quota does
/// not change back and forth with every write.
pub(in crate::node) const CLEARED_AT_PER_CENT: u64 = 90;

/// A report about the quota whose outcome is not known yet.
pub(super) type PendingProposal = Option<oneshot::Receiver<ProposalResult>>;

impl Core {
    /// Reports in the log if the space of this member has changed, or that of a member that is away.
    pub(super) fn watch_quota(&mut self, now: Instant) {
        if let Some(asked) = &mut self.asked_of_space {
            // The report was lost with its leader, or refused, so it is repeated.
            if matches!(asked.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
                return;
            }
            self.asked_of_space = None;
        }
        let (own, data) = (self.settings.member, self.raw.store().data_bytes());
        let said = changed(&self.membership, own, self.settings.quota, data, self.is_leader());
        let Some((member, over)) = said else { return };
        let (reply, answer) = oneshot::channel();
        let request = Request { id: self.ids.next(), command: Command::Space { member: member.0, over } };
        self.propose(now, Proposal { payload: Payload::Request(request.id, request.encode()), reply });
        self.asked_of_space = Some(answer);
    }
}

/// The report that is due: whose data exceed its quota, or no longer do.
fn changed(
    membership: &Membership,
    own: MemberId,
    quota: Option<u64>,
    data: u64,
    leads: bool,
) -> Option<(MemberId, Option<u64>)> {
    // A member that is not in the membership yet would be ignored.
    membership.get(own)?;
    let said = membership.over_quota();
    if let Some(quota) = quota.filter(|quota| data > *quota) {
        return (said.get(&own) != Some(&quota)).then_some((own, Some(quota)));
    }
    let is_cleared = |quota: u64| u128::from(data) * 100 <= u128::from(quota) * u128::from(CLEARED_AT_PER_CENT);
    if said.contains_key(&own) && quota.is_none_or(is_cleared) {
        return Some((own, None));
    }
    let others = said.iter().filter(|(member, quota)| leads && **member != own && is_cleared(**quota));
    others.map(|(member, _)| (*member, None)).next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        node::members::MemberRecord,
        wire::raftpb::{ConfChange, ConfChangeType},
    };

    const OWN: MemberId = MemberId(1);
    const OTHER: MemberId = MemberId(2);

    fn membership(over: &[(MemberId, u64)]) -> Membership {
        let mut membership = Membership::default();
        for id in [OWN, OTHER] {
            let record =
                MemberRecord { id: id.0, peer_urls: vec![format!("http://h:{}", id.0)], ..MemberRecord::default() };
            let kind = ConfChangeType::ConfChangeAddNode as i32;
            membership
                .apply(&ConfChange { id: 0, r#type: kind, node_id: id.0, context: record.to_json() })
                .expect("a new member");
        }
        for (id, quota) in over {
            assert!(membership.apply_space(*id, Some(*quota)));
        }
        membership
    }

    #[test]
    fn an_alarm_is_raised_above_the_quota_once_and_cleared_well_below_it() {
        let said = |over: &[_], data| changed(&membership(over), OWN, Some(1000), data, false);
        assert_eq!(said(&[], 1000), None);
        assert_eq!(said(&[], 1001), Some((OWN, Some(1000))));
        assert_eq!(said(&[(OWN, 1000)], 1001), None);
        assert_eq!(said(&[(OWN, 1000)], 901), None);
        assert_eq!(said(&[(OWN, 1000)], 900), Some((OWN, None)));
    }

    #[test]
    fn another_quota_counts_from_the_start_on() {
        let said = |quota, data| changed(&membership(&[(OWN, 1000)]), OWN, quota, data, false);
        assert_eq!(said(Some(500), 1001), Some((OWN, Some(500))));
        assert_eq!(said(Some(2000), 1001), Some((OWN, None)));
        assert_eq!(said(None, 1001), Some((OWN, None)));
    }

    #[test]
    fn who_leads_takes_back_the_alarm_of_who_is_away_and_nobody_else_does() {
        let said = |leads, data| changed(&membership(&[(OTHER, 1000)]), OWN, Some(5000), data, leads);
        assert_eq!(said(true, 901), None);
        assert_eq!(said(true, 900), Some((OTHER, None)));
        assert_eq!(said(false, 900), None);
        assert_eq!(changed(&Membership::default(), OWN, Some(1), 2, true), None, "nobody knows it yet");
    }
}
