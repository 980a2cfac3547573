//! The quota: a member whose data are over it says so by the log, and all members refuse puts until they no longer are
//! (etcd's `NOSPACE` alarm). Deletes are taken.
//!
//! How many bytes the data have is the same on every member, as of the same entry; the quota is each member's own. So the
//! alarm carries it: whoever leads can take back the alarm of a member that is away. An alarm goes with its member.
//!
//! Puts are refused where they are asked for, not where they are applied: those that were proposed before the alarm was
//! known are done everywhere, whatever a member knows of quotas. They are bounded by what may be on its way.

use tokio::{sync::oneshot, time::Instant};

use super::Core;
use crate::{
    id::MemberId,
    node::{
        members::Membership,
        proposals::{Answer, Payload, Proposal},
        request::{Command, Request},
    },
};

/// Puts are taken again once the data have so many per cent of the quota at most: a cluster at its quota must not change its
/// mind with every write.
pub(in crate::node) const CLEARED_AT_PER_CENT: u64 = 90;

/// What a member has said of its quota and not heard the outcome of.
pub(super) type Asked = Option<oneshot::Receiver<Answer>>;

impl Core {
    /// Says by the log what has changed of this member's space, or of one's that is away.
    pub(super) fn watch_quota(&mut self, now: Instant) {
        if let Some(asked) = &mut self.asked_of_space {
            // Lost with its leader, or refused: said again.
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

/// What has to be said: whose data are over its quota, or no longer are.
fn changed(
    membership: &Membership,
    own: MemberId,
    quota: Option<u64>,
    data: u64,
    leads: bool,
) -> Option<(MemberId, Option<u64>)> {
    // Whom nobody knows yet, nobody hears.
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
