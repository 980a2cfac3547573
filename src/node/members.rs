//! The membership of the cluster: its members with their names and URLs, and the members that were removed, for ever.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    dial::urls::PeerUrl,
    id::{DirectoryId, MemberId},
    transport::raft::{Member, Members},
    wire::raftpb::{ConfChange, ConfChangeType, ConfState},
};

/// The most peer URLs, and the most client URLs, in a member's record. A record with more is refused.
const MAX_URLS: usize = 16;
/// The longest name or URL in a member's record, in bytes. A record with a longer one is refused.
const MAX_TEXT: usize = 1024;
/// The most members that a cluster may have.
pub(crate) const MAX_MEMBERS: usize = 64;

/// A member as etcd writes it into the context of a ConfChange (`membership.ConfigChangeContext`), with the ID as a
/// number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberRecord {
    pub(crate) id: u64,
    #[serde(rename = "peerURLs", default, deserialize_with = "list_or_null")]
    pub(crate) peer_urls: Vec<String>,
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_learner: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
    #[serde(rename = "clientURLs", default, deserialize_with = "list_or_null", skip_serializing_if = "Vec::is_empty")]
    pub(crate) client_urls: Vec<String>,
    #[serde(rename = "isPromote", default)]
    pub(crate) is_promote: bool,
    /// The member's data directory, in its attributes and in the store. etcd has none. A text that is not an ID is
    /// ignored, as the whole field is ignored by those who do not know it.
    #[serde(rename = "dataDirectory", default, skip_serializing_if = "Option::is_none")]
    pub(crate) directory: Option<String>,
}

/// Go writes a list that was never set as `null` (such as the URLs in the context of etcd's promotion).
fn list_or_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

impl MemberRecord {
    /// Parses a record and checks its limits.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, ConfRefusal> {
        let record: Self = serde_json::from_slice(json).map_err(|_| ConfRefusal::Malformed)?;
        let texts = || record.peer_urls.iter().chain(&record.client_urls).chain([&record.name]);
        let bounded = record.peer_urls.len() <= MAX_URLS
            && record.client_urls.len() <= MAX_URLS
            && texts().all(|text| text.len() <= MAX_TEXT);
        if bounded { Ok(record) } else { Err(ConfRefusal::Malformed) }
    }

    pub(crate) fn to_json(&self) -> Bytes {
        serde_json::to_vec(self).expect("texts and numbers make JSON").into()
    }

    /// Its peer URLs. Invalid ones are left out.
    pub(crate) fn urls(&self) -> Vec<PeerUrl> {
        self.peer_urls.iter().filter_map(|url| url.parse().ok()).collect()
    }

    fn directory(&self) -> Option<DirectoryId> {
        self.directory.as_ref()?.parse().ok()
    }

    fn member(&self) -> Result<Member, ConfRefusal> {
        let peer_urls: Result<Vec<PeerUrl>, _> = self.peer_urls.iter().map(|url| url.parse()).collect();
        let peer_urls = peer_urls.ok().filter(|urls| !urls.is_empty()).ok_or(ConfRefusal::Malformed)?;
        Ok(Member {
            id: MemberId(self.id),
            name: self.name.clone(),
            peer_urls,
            client_urls: self.client_urls.clone(),
            is_learner: self.is_learner,
        })
    }
}

impl From<&Member> for MemberRecord {
    fn from(member: &Member) -> Self {
        Self {
            id: member.id.0,
            peer_urls: member.peer_urls.iter().map(ToString::to_string).collect(),
            is_learner: member.is_learner,
            name: member.name.clone(),
            client_urls: member.client_urls.clone(),
            is_promote: false,
            directory: None,
        }
    }
}

/// Why a change of the membership was refused. The numbers are part of the log and must not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[repr(u8)]
pub(crate) enum ConfRefusal {
    #[error("another change of the membership is in progress")]
    Pending = 1,
    #[error("the change of the membership cannot be read")]
    Malformed = 2,
    #[error("the member already exists")]
    Exists = 3,
    #[error("no such member")]
    NotFound = 4,
    #[error("the member was removed, and its ID is not used again")]
    Removed = 5,
    #[error("a peer URL belongs to another member")]
    UrlTaken = 6,
    #[error("the member is not a learner")]
    NotLearner = 7,
    #[error("the learner has not caught up with the leader yet")]
    NotReady = 8,
    #[error("the last voter cannot be removed")]
    LastVoter = 9,
    #[error("the cluster already has the largest number of members")]
    TooMany = 10,
    #[error("raft refuses the new configuration of the cluster")]
    Raft = 11,
    /// The words of this one and the next are etcd's (`ErrNotEnoughStartedMembers`, `ErrUnhealthy`).
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    NotStarted = 12,
    #[error("etcdserver: unhealthy cluster")]
    Unhealthy = 13,
}

impl ConfRefusal {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        use ConfRefusal::*;
        [
            Pending, Malformed, Exists, NotFound, Removed, UrlTaken, NotLearner, NotReady, LastVoter, TooMany, Raft,
            NotStarted, Unhealthy,
        ]
        .into_iter()
        .find(|refusal| *refusal as u8 == byte)
    }
}

/// What a ConfChange changes among the transport's peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerChange {
    /// A member was added, or its URLs changed.
    Set(MemberId, Vec<PeerUrl>),
    /// A member was removed.
    Remove(MemberId),
}

/// The membership as of some applied entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Membership {
    members: BTreeMap<MemberId, Member>,
    removed: BTreeSet<MemberId>,
    /// The data directories of the members that have told them.
    directories: BTreeMap<MemberId, DirectoryId>,
    /// The members whose data exceed their quota, and the quota in bytes.
    over_quota: BTreeMap<MemberId, u64>,
}

impl Membership {
    pub(crate) fn get(&self, id: MemberId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// The data directory that a member told the cluster.
    pub(crate) fn directory(&self, id: MemberId) -> Option<DirectoryId> {
        self.directories.get(&id).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub(crate) fn is_removed(&self, id: MemberId) -> bool {
        self.removed.contains(&id)
    }

    /// The members as `GET /members` shows them. `None` before the first entry was applied.
    pub(crate) fn members(&self) -> Option<Members> {
        (!self.members.is_empty()).then(|| Members(self.members.values().cloned().collect()))
    }

    /// Checks a change. Every member checks it when it applies the entry, and all get the same result. The leader also
    /// checks it before it proposes the change.
    pub(crate) fn check(&self, change: &ConfChange) -> Result<(), ConfRefusal> {
        let id = MemberId(change.node_id);
        if self.is_removed(id) {
            return Err(ConfRefusal::Removed);
        }
        let kind = ConfChangeType::try_from(change.r#type).map_err(|_| ConfRefusal::Malformed)?;
        match (kind, self.members.get(&id)) {
            (ConfChangeType::ConfChangeAddNode | ConfChangeType::ConfChangeAddLearnerNode, known) => {
                let record = self.record(change)?;
                self.check_addition(&record, known, kind == ConfChangeType::ConfChangeAddLearnerNode)
            }
            (_, None) => Err(ConfRefusal::NotFound),
            (ConfChangeType::ConfChangeUpdateNode, Some(_)) => self.check_urls(&self.record(change)?.member()?),
            (ConfChangeType::ConfChangeRemoveNode, Some(member)) => {
                let others = self.members.values().filter(|other| other.id != id && !other.is_learner).count();
                if member.is_learner || others > 0 { Ok(()) } else { Err(ConfRefusal::LastVoter) }
            }
        }
    }

    fn record(&self, change: &ConfChange) -> Result<MemberRecord, ConfRefusal> {
        let record = MemberRecord::parse(&change.context)?;
        if record.id == change.node_id && record.id != 0 { Ok(record) } else { Err(ConfRefusal::Malformed) }
    }

    fn check_addition(&self, record: &MemberRecord, known: Option<&Member>, learner: bool) -> Result<(), ConfRefusal> {
        match known {
            // etcd's promotion: an AddNode whose context says so.
            Some(member) if record.is_promote && !learner => {
                if member.is_learner {
                    Ok(())
                } else {
                    Err(ConfRefusal::NotLearner)
                }
            }
            Some(_) => Err(ConfRefusal::Exists),
            None if record.is_promote => Err(ConfRefusal::NotFound),
            None if self.members.len() >= MAX_MEMBERS => Err(ConfRefusal::TooMany),
            None => self.check_urls(&record.member()?),
        }
    }

    fn check_urls(&self, member: &Member) -> Result<(), ConfRefusal> {
        let mut others = self.members.values().filter(|other| other.id != member.id).flat_map(|other| &other.peer_urls);
        if others.any(|url| member.peer_urls.contains(url)) { Err(ConfRefusal::UrlTaken) } else { Ok(()) }
    }

    /// Makes a change that [`Self::check`] has accepted.
    pub(crate) fn apply(&mut self, change: &ConfChange) -> Result<Option<PeerChange>, ConfRefusal> {
        self.check(change)?;
        let id = MemberId(change.node_id);
        let kind = ConfChangeType::try_from(change.r#type).map_err(|_| ConfRefusal::Malformed)?;
        match kind {
            ConfChangeType::ConfChangeRemoveNode => {
                self.members.remove(&id);
                self.directories.remove(&id);
                self.over_quota.remove(&id);
                self.removed.insert(id);
                Ok(Some(PeerChange::Remove(id)))
            }
            ConfChangeType::ConfChangeUpdateNode => {
                let urls = self.record(change)?.member()?.peer_urls;
                let member = self.members.get_mut(&id).ok_or(ConfRefusal::NotFound)?;
                member.peer_urls.clone_from(&urls);
                Ok(Some(PeerChange::Set(id, urls)))
            }
            ConfChangeType::ConfChangeAddNode | ConfChangeType::ConfChangeAddLearnerNode => {
                if let Some(member) = self.members.get_mut(&id) {
                    member.is_learner = false;
                    return Ok(None);
                }
                let mut member = self.record(change)?.member()?;
                member.is_learner = kind == ConfChangeType::ConfChangeAddLearnerNode;
                let urls = member.peer_urls.clone();
                self.members.insert(id, member);
                Ok(Some(PeerChange::Set(id, urls)))
            }
        }
    }

    /// Records the name, client URLs and data directory that a member sent. Those of a non-member are ignored.
    pub(crate) fn apply_attributes(&mut self, json: &[u8]) -> bool {
        let Ok(record) = MemberRecord::parse(json) else { return false };
        match self.members.get_mut(&MemberId(record.id)) {
            Some(member) => {
                if let Some(directory) = record.directory() {
                    self.directories.insert(member.id, directory);
                }
                member.name = record.name;
                member.client_urls = record.client_urls;
                true
            }
            None => false,
        }
    }

    /// The members whose data exceed their quota, and the quota in bytes. While there is one, puts are refused.
    pub(crate) fn over_quota(&self) -> &BTreeMap<MemberId, u64> {
        &self.over_quota
    }

    /// A member's data exceed its quota, or no longer do. Returns whether that changed.
    pub(crate) fn apply_space(&mut self, id: MemberId, over: Option<u64>) -> bool {
        match over {
            Some(quota) if self.members.contains_key(&id) => self.over_quota.insert(id, quota) != Some(quota),
            Some(_) => false,
            None => self.over_quota.remove(&id).is_some(),
        }
    }

    /// The changes from the peers of `before` to those of this membership. `local` is this member, which is no peer.
    pub(crate) fn peer_changes(&self, before: &Self, local: MemberId) -> Vec<PeerChange> {
        let gone = before.members.keys().filter(|id| !self.members.contains_key(id)).copied().map(PeerChange::Remove);
        let set = self
            .members
            .values()
            .filter(|member| before.get(member.id).map(|old| &old.peer_urls) != Some(&member.peer_urls));
        let set = set.map(|member| PeerChange::Set(member.id, member.peer_urls.clone()));
        let other =
            |change: &PeerChange| !matches!(change, PeerChange::Set(id, _) | PeerChange::Remove(id) if *id == local);
        gone.chain(set).filter(other).collect()
    }

    /// Whether raft's configuration and this membership have the same voters and learners.
    pub(crate) fn agrees_with(&self, state: &ConfState) -> bool {
        let ids = |learner| {
            let members = self.members.values().filter(move |member| member.is_learner == learner);
            members.map(|member| member.id.0).collect::<BTreeSet<_>>()
        };
        let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<_>>();
        let simple = state.voters_outgoing.is_empty() && state.learners_next.is_empty() && !state.auto_leave;
        simple && ids(false) == set(&state.voters) && ids(true) == set(&state.learners)
    }

    /// The form that the store and snapshots keep.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let record = |member: &Member| MemberRecord {
            directory: self.directory(member.id).map(|directory| directory.to_string()),
            ..MemberRecord::from(member)
        };
        let kept = StoredMembership {
            members: self.members.values().map(record).collect(),
            removed: self.removed.iter().map(|id| id.0).collect(),
            over_quota: self.over_quota.iter().map(|(id, quota)| (id.0, *quota)).collect(),
        };
        serde_json::to_vec(&kept).expect("texts and numbers make JSON")
    }

    /// Parses what [`Self::to_json`] wrote.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, ConfRefusal> {
        let kept: StoredMembership = serde_json::from_slice(json).map_err(|_| ConfRefusal::Malformed)?;
        let members = kept.members.iter().map(|record| Ok((MemberId(record.id), record.member()?)));
        let members = members.collect::<Result<_, ConfRefusal>>()?;
        let directories = kept.members.iter().filter_map(|record| Some((MemberId(record.id), record.directory()?)));
        let directories = directories.collect();
        Ok(Self {
            members,
            directories,
            removed: kept.removed.into_iter().map(MemberId).collect(),
            over_quota: kept.over_quota.into_iter().map(|(id, quota)| (MemberId(id), quota)).collect(),
        })
    }
}

#[derive(Serialize, Deserialize)]
struct StoredMembership {
    members: Vec<MemberRecord>,
    removed: Vec<u64>,
    #[serde(rename = "overQuota", default, skip_serializing_if = "Vec::is_empty")]
    over_quota: Vec<(u64, u64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: u64, url: &str) -> MemberRecord {
        MemberRecord { id, peer_urls: vec![url.to_owned()], ..Default::default() }
    }

    fn change(kind: ConfChangeType, record: &MemberRecord) -> ConfChange {
        ConfChange { id: 1, r#type: kind as i32, node_id: record.id, context: record.to_json() }
    }

    fn three() -> Membership {
        let mut membership = Membership::default();
        for id in 1..=3 {
            let added = change(ConfChangeType::ConfChangeAddNode, &record(id, &format!("http://h:{id}")));
            membership.apply(&added).expect("a new member");
        }
        membership
    }

    #[test]
    fn the_context_reads_as_etcd_writes_it() {
        let etcd =
            br#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"name":"default","isPromote":false}"#;
        let parsed = MemberRecord::parse(etcd).expect("etcd's own");
        assert_eq!((parsed.id, parsed.name.as_str()), (0x8e9e_05c5_2164_694d, "default"));
        let promote = MemberRecord::parse(br#"{"id":1,"peerURLs":null,"isPromote":true}"#).expect("etcd's own");
        assert!(promote.is_promote && promote.peer_urls.is_empty());
        let ours = String::from_utf8(parsed.to_json().to_vec()).expect("JSON is text");
        assert!(ours.contains(r#""id":10276657743932975437"#) && ours.contains(r#""peerURLs""#), "{ours}");
    }

    #[test]
    fn a_learner_is_added_promoted_and_removed_for_ever() {
        let mut membership = three();
        let fourth = record(4, "http://h:4");
        membership.apply(&change(ConfChangeType::ConfChangeAddLearnerNode, &fourth)).expect("a new learner");
        assert!(membership.get(MemberId(4)).is_some_and(|member| member.is_learner));
        let promote = MemberRecord { is_promote: true, ..fourth.clone() };
        assert_eq!(membership.apply(&change(ConfChangeType::ConfChangeAddNode, &promote)), Ok(None));
        assert_eq!(
            membership.apply(&change(ConfChangeType::ConfChangeAddNode, &promote)),
            Err(ConfRefusal::NotLearner)
        );
        let remove = change(ConfChangeType::ConfChangeRemoveNode, &fourth);
        assert_eq!(membership.apply(&remove), Ok(Some(PeerChange::Remove(MemberId(4)))));
        assert!(membership.is_removed(MemberId(4)));
        assert_eq!(membership.apply(&change(ConfChangeType::ConfChangeAddNode, &fourth)), Err(ConfRefusal::Removed));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_reason() {
        let membership = three();
        let refused =
            |kind, record: &MemberRecord| membership.check(&change(kind, record)).expect_err("must be refused");
        use ConfChangeType as T;
        assert_eq!(refused(T::ConfChangeAddNode, &record(1, "http://h:9")), ConfRefusal::Exists);
        assert_eq!(refused(T::ConfChangeAddNode, &record(9, "http://h:1")), ConfRefusal::UrlTaken);
        assert_eq!(refused(T::ConfChangeUpdateNode, &record(2, "http://h:1")), ConfRefusal::UrlTaken);
        assert_eq!(refused(T::ConfChangeUpdateNode, &record(9, "http://h:9")), ConfRefusal::NotFound);
        assert_eq!(refused(T::ConfChangeRemoveNode, &record(9, "http://h:9")), ConfRefusal::NotFound);
        assert_eq!(refused(T::ConfChangeAddNode, &record(9, "nonsense")), ConfRefusal::Malformed);
        assert_eq!(
            refused(T::ConfChangeAddNode, &MemberRecord { id: 9, ..Default::default() }),
            ConfRefusal::Malformed
        );
        let garbage = ConfChange { node_id: 9, context: "{".into(), ..Default::default() };
        assert_eq!(membership.check(&garbage), Err(ConfRefusal::Malformed));
        let another = ConfChange { node_id: 9, context: record(8, "http://h:8").to_json(), ..Default::default() };
        assert_eq!(membership.check(&another), Err(ConfRefusal::Malformed));
    }

    #[test]
    fn the_last_voter_stays() {
        let mut membership = three();
        let removal = |id| change(ConfChangeType::ConfChangeRemoveNode, &record(id, "http://h:1"));
        membership.apply(&removal(1)).expect("two are left");
        membership.apply(&removal(2)).expect("one is left");
        assert_eq!(membership.apply(&removal(3)), Err(ConfRefusal::LastVoter));
    }

    #[test]
    fn it_reads_as_it_was_kept_and_agrees_with_rafts_configuration() {
        let mut membership = three();
        membership.apply(&change(ConfChangeType::ConfChangeAddLearnerNode, &record(4, "http://h:4"))).expect("new");
        membership.apply(&change(ConfChangeType::ConfChangeRemoveNode, &record(1, "http://h:1"))).expect("there");
        assert!(membership.apply_attributes(br#"{"id":2,"name":"two","clientURLs":["http://c:2"]}"#));
        assert_eq!(Membership::parse(&membership.to_json()).as_ref(), Ok(&membership));
        let state = |voters: &[u64], learners: &[u64]| ConfState {
            voters: voters.to_vec(),
            learners: learners.to_vec(),
            ..Default::default()
        };
        assert!(membership.agrees_with(&state(&[3, 2], &[4])));
        assert!(!membership.agrees_with(&state(&[2, 3, 4], &[])));
        assert!(!membership.agrees_with(&ConfState { auto_leave: true, ..state(&[2, 3], &[4]) }));
    }

    #[test]
    fn the_peers_follow_the_membership() {
        let before = three();
        let mut after = before.clone();
        after.apply(&change(ConfChangeType::ConfChangeRemoveNode, &record(2, "http://h:2"))).expect("there");
        after.apply(&change(ConfChangeType::ConfChangeUpdateNode, &record(3, "http://h:33"))).expect("there");
        let urls = vec!["http://h:33".parse().expect("a URL")];
        let expected = vec![PeerChange::Remove(MemberId(2)), PeerChange::Set(MemberId(3), urls)];
        assert_eq!(after.peer_changes(&before, MemberId(1)), expected);
        assert_eq!(after.peer_changes(&before, MemberId(3)), expected[..1]);
    }
}
