//! The strict check of a reconfiguration (etcd's `--strict-reconfig-check`): a change of the membership is refused if
//! it would leave no quorum of connected members.
//!
//! The check is made twice. The member that gets the request makes it as etcd 3.6 does, by what its transport knows
//! (`mayAddMember`, `mayRemoveMember`, `mayPromoteMember`). The leader makes it again, by which members answer raft: a
//! member that has halted, or whose answers are refused, still has its streams.
//!
//! A cluster of one accepts any second voter, as etcd does. That is how a cluster is restored from its last member.

use std::time::Duration;

use super::members::{ConfRefusal, Membership};
use crate::{
    id::MemberId,
    transport::raft::Member,
    wire::raftpb::{ConfChange, ConfChangeType},
};

/// How long a member must have been connected before it counts (etcd's `HealthInterval`).
pub(super) const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

/// The connection to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Connectivity {
    /// It is not connected.
    None,
    /// It is connected, for less than the health interval.
    Recent,
    /// It has been connected for at least the health interval.
    Lasting,
}

impl Connectivity {
    /// The connection of a member that has been connected for this long. `None`: it is not connected.
    pub(super) fn lasting(connected: Option<Duration>) -> Self {
        match connected {
            None => Self::None,
            Some(lasts) if lasts < HEALTH_INTERVAL => Self::Recent,
            Some(_) => Self::Lasting,
        }
    }
}

/// The check by the member `own` that gets the request, by what its transport knows. As in etcd, a promotion needs no
/// connections here, because the learner itself may ask for it.
pub(super) fn check_as_asked(
    membership: &Membership,
    own: MemberId,
    change: &ConfChange,
    connection: impl Fn(MemberId) -> Connectivity,
) -> Result<(), ConfRefusal> {
    let Some(after) = After::of(membership, change) else { return Ok(()) };
    after.check_started()?;
    if matches!(after.change, VoterChange::Promotion(_)) { Ok(()) } else { after.check_connected(own, connection) }
}

/// The check by the leader `own`. `answers` says whether a member has answered it within an election timeout.
pub(super) fn check_as_leader(
    membership: &Membership,
    own: MemberId,
    change: &ConfChange,
    answers: impl Fn(MemberId) -> bool,
) -> Result<(), ConfRefusal> {
    let Some(after) = After::of(membership, change) else { return Ok(()) };
    after.check_started()?;
    after.check_connected(own, |id| if answers(id) { Connectivity::Lasting } else { Connectivity::None })
}

/// The effect of a change on the voters.
#[derive(Clone, Copy, Debug)]
enum VoterChange<'a> {
    /// A member is added.
    Addition { learner: bool },
    /// A learner becomes a voter.
    Promotion(&'a Member),
    /// A voter is removed.
    Removal(MemberId),
}

/// The voters after a change.
struct After<'a> {
    change: VoterChange<'a>,
    /// The current voters that remain.
    stay: Vec<&'a Member>,
}

impl<'a> After<'a> {
    /// `None` if the voters do not change, or if the change will be refused for another reason.
    fn of(membership: &'a Membership, change: &ConfChange) -> Option<Self> {
        let id = MemberId(change.node_id);
        let change = match (ConfChangeType::try_from(change.r#type).ok()?, membership.get(id)) {
            (ConfChangeType::ConfChangeAddNode, Some(member)) if member.is_learner => VoterChange::Promotion(member),
            (ConfChangeType::ConfChangeAddNode, None) => VoterChange::Addition { learner: false },
            (ConfChangeType::ConfChangeAddLearnerNode, None) => VoterChange::Addition { learner: true },
            (ConfChangeType::ConfChangeRemoveNode, Some(member)) if !member.is_learner => VoterChange::Removal(id),
            _ => return None,
        };
        let goes = |member: &Member| matches!(change, VoterChange::Removal(id) if member.id == id);
        let stay: Vec<_> = membership.iter().filter(|member| !member.is_learner && !goes(member)).collect();
        // Without voters there is no quorum. Another check refuses the removal of the last voter.
        (!stay.is_empty()).then_some(Self { change, stay })
    }

    /// Checks that enough voters were ever started. A started member has told its client URLs. etcd checks for a name
    /// instead, but a member here may be given a name before it starts.
    fn check_started(&self) -> Result<(), ConfRefusal> {
        let newcomer = match self.change {
            VoterChange::Addition { learner: true } => return Ok(()),
            VoterChange::Promotion(_) => true,
            VoterChange::Addition { learner: false } | VoterChange::Removal(_) => false,
        };
        let enough = self.has_quorum(|member| !member.client_urls.is_empty(), newcomer);
        if enough { Ok(()) } else { Err(ConfRefusal::NotStarted) }
    }

    /// Checks that enough voters are connected. An added member counts as not connected, even if it is a learner.
    fn check_connected(&self, own: MemberId, connection: impl Fn(MemberId) -> Connectivity) -> Result<(), ConfRefusal> {
        let lasting = |member: &Member| member.id == own || connection(member.id) == Connectivity::Lasting;
        let newcomer = match self.change {
            VoterChange::Promotion(learner) => lasting(learner),
            // A member that is down does not belong to the present quorum.
            VoterChange::Removal(id) if id != own && connection(id) == Connectivity::None => return Ok(()),
            VoterChange::Addition { .. } | VoterChange::Removal(_) => false,
        };
        if self.has_quorum(lasting, newcomer) { Ok(()) } else { Err(ConfRefusal::Unhealthy) }
    }

    /// Whether more than half of the voters meet the condition. `newcomer` is the result for the added one.
    fn has_quorum(&self, so: impl Fn(&Member) -> bool, newcomer: bool) -> bool {
        let (total, restores) = match self.change {
            VoterChange::Addition { .. } => (self.stay.len() + 1, self.stay.len() == 1),
            VoterChange::Promotion(_) => (self.stay.len() + 1, false),
            VoterChange::Removal(_) => (self.stay.len(), false),
        };
        let there = self.stay.iter().filter(|member| so(member)).count() + usize::from(newcomer);
        restores || there > total / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::members::MemberRecord;

    const OWN: MemberId = MemberId(1);

    /// Voters 1 to `voters`, all started except for those in `new`, and a learner 9.
    fn cluster(voters: u64, new: &[u64]) -> Membership {
        let mut membership = Membership::default();
        for id in (1..=voters).chain([9]) {
            let kind = if id == 9 { "learner" } else { "voter" };
            membership.apply(&change(kind, id)).expect("a new member");
            let client_urls = if new.contains(&id) { vec![] } else { vec![format!("http://c:{id}")] };
            membership.apply_attributes(&MemberRecord { id, client_urls, ..MemberRecord::default() }.to_json());
        }
        membership
    }

    fn change(kind: &str, id: u64) -> ConfChange {
        let peer_urls = vec![format!("http://h:{id}")];
        let record = MemberRecord { id, peer_urls, is_promote: kind == "promotion", ..MemberRecord::default() };
        let kind = match kind {
            "voter" | "promotion" => ConfChangeType::ConfChangeAddNode,
            "learner" => ConfChangeType::ConfChangeAddLearnerNode,
            "removal" => ConfChangeType::ConfChangeRemoveNode,
            other => panic!("{other}"),
        };
        ConfChange { id: 1, r#type: kind as i32, node_id: id, context: record.to_json() }
    }

    fn asked(membership: &Membership, change: &ConfChange, down: &[u64]) -> Result<(), ConfRefusal> {
        let connection = |id: MemberId| if down.contains(&id.0) { Connectivity::None } else { Connectivity::Lasting };
        check_as_asked(membership, OWN, change, connection)
    }

    #[test]
    fn a_voter_comes_only_where_a_quorum_with_it_has_been_started_and_is_there_without_it() {
        let voter = change("voter", 7);
        assert_eq!(asked(&cluster(1, &[1]), &voter, &[]), Ok(()), "a cluster of one is restored");
        assert_eq!(asked(&cluster(2, &[]), &voter, &[]), Ok(()));
        assert_eq!(asked(&cluster(3, &[3]), &voter, &[3]), Err(ConfRefusal::NotStarted), "the second dead URL");
        assert_eq!(asked(&cluster(3, &[]), &voter, &[3]), Err(ConfRefusal::Unhealthy), "two of four is no quorum");
        assert_eq!(asked(&cluster(4, &[]), &voter, &[4]), Ok(()), "three of five is one");
    }

    #[test]
    fn a_learner_comes_only_where_a_voter_could() {
        let learner = change("learner", 7);
        assert_eq!(asked(&cluster(3, &[3]), &learner, &[]), Ok(()), "it asks nothing of who was started");
        assert_eq!(asked(&cluster(3, &[]), &learner, &[3]), Err(ConfRefusal::Unhealthy));
    }

    #[test]
    fn a_voter_goes_where_a_quorum_stays_and_one_that_is_down_goes_always() {
        let removal = |id| change("removal", id);
        assert_eq!(asked(&cluster(3, &[]), &removal(2), &[]), Ok(()));
        assert_eq!(asked(&cluster(3, &[]), &removal(2), &[3]), Err(ConfRefusal::Unhealthy));
        assert_eq!(asked(&cluster(3, &[]), &removal(3), &[3]), Ok(()));
        assert_eq!(asked(&cluster(3, &[3]), &removal(2), &[]), Err(ConfRefusal::NotStarted));
        assert_eq!(asked(&cluster(3, &[]), &removal(1), &[2]), Err(ConfRefusal::Unhealthy), "itself");
        assert_eq!(
            asked(&cluster(1, &[]), &removal(1), &[]),
            Ok(()),
            "what is said of the last voter is said elsewhere"
        );
        assert_eq!(asked(&cluster(3, &[]), &removal(9), &[2, 3]), Ok(()), "a learner has no vote");
        assert_eq!(asked(&cluster(3, &[]), &removal(8), &[2, 3]), Ok(()), "nor has who is no member");
    }

    #[test]
    fn a_learner_that_does_not_answer_the_leader_is_not_promoted() {
        let promotion = change("promotion", 9);
        let led =
            |voters, down: &[u64]| check_as_leader(&cluster(voters, &[]), OWN, &promotion, |id| !down.contains(&id.0));
        assert_eq!(led(1, &[]), Ok(()));
        assert_eq!(led(1, &[9]), Err(ConfRefusal::Unhealthy), "alone, it would wait for it for ever");
        assert_eq!(led(2, &[9]), Ok(()), "two of three are there");
        assert_eq!(led(2, &[2]), Ok(()));
        assert_eq!(asked(&cluster(1, &[]), &promotion, &[9]), Ok(()), "the leader knows");
        assert_eq!(asked(&cluster(3, &[2, 3]), &promotion, &[]), Err(ConfRefusal::NotStarted));
    }

    #[test]
    fn who_has_halted_does_not_count() {
        let halted = |kind: &str, id, others: &[u64]| {
            check_as_leader(&cluster(3, &[]), OWN, &change(kind, id), |id| !others.contains(&id.0))
        };
        assert_eq!(halted("voter", 7, &[3]), Err(ConfRefusal::Unhealthy));
        assert_eq!(halted("removal", 2, &[3]), Err(ConfRefusal::Unhealthy));
        assert_eq!(halted("removal", 3, &[3]), Ok(()));
    }

    #[test]
    fn a_connection_counts_from_five_seconds_on() {
        let after = |seconds: u64| Connectivity::lasting(Some(Duration::from_secs(seconds)));
        assert_eq!((after(4), after(5)), (Connectivity::Recent, Connectivity::Lasting));
        assert_eq!(Connectivity::lasting(None), Connectivity::None);
        let recent = |_| Connectivity::Recent;
        let of = |kind, id| check_as_asked(&cluster(3, &[]), OWN, &change(kind, id), recent);
        assert_eq!(of("voter", 7), Err(ConfRefusal::Unhealthy));
        assert_eq!(of("removal", 2), Err(ConfRefusal::Unhealthy));
    }
}
