//! `--force-new-cluster`: turns one remaining member into a cluster of one, with its data. It is for a quorum that is
//! lost for good, and never for one that may come back.
//!
//! As in etcd, the change is in the log: a ConfChange for each member that is given up, declared committed, in a new
//! term. These entries are applied like all others, so the members are removed for ever, and the cluster keeps its ID.
//! Three things differ from etcd:
//!
//! - Entries that this member has, and does not know to be committed, are kept. etcd discards them. But a leader
//!   reports a write as done as soon as a quorum has it, and the followers learn that it is committed only with the
//!   next heartbeat. The remaining member may be the only one that has it.
//! - It is refused while enough of the others answer to form a quorum with this member: nothing is lost then.
//! - It is done once. A flag that stays in a unit file does nothing at later starts, until a start without it: the
//!   cluster may have grown since.
//!
//! The entries and the hard state are written in one transaction, and the note that it was done in the next. If the
//! power fails before the first, nothing has happened. If it fails between the two, the repeated change finds nobody to
//! give up.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use futures_util::future::join_all;
use prost::Message as _;
use raft::{GetEntriesContext, Storage as _, eraftpb::HardState};

use super::{
    config::Config,
    error::Error,
    join::MembersClient,
    members::{MemberRecord, Membership},
    storage::{Store, StoredIdentity},
};
use crate::{
    id::{ClusterId, MemberId},
    raft_rs,
    transport::raft::Member,
    wire::raftpb::{ConfChange, ConfChangeType, Entry, EntryType},
};

/// How often the others are asked whether they are there. There is a pause between the rounds, because one may be about
/// to start.
const ROUNDS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes of entries that are read at a time.
const READ_BYTES: u64 = 16 << 20;

/// Makes a cluster of one, if that is requested and was not done already.
///
/// # Errors
/// The others are not lost, or there is no data to make a cluster from. Nothing has happened then.
pub(super) async fn if_asked(config: &Config, store: &mut Store, identity: &StoredIdentity) -> Result<(), Error> {
    let in_directory = Error::store(&config.data_dir);
    if !config.force_new_cluster {
        return store.forget_forced().map_err(&in_directory);
    }
    if store.is_forced().map_err(&in_directory)? {
        tracing::warn!(
            "--force-new-cluster is ignored: it has taken effect already, and does so again only after a start without it"
        );
        return Ok(());
    }
    let forced = Forced::of(config, store, MemberId(identity.member))?;
    forced.refuse_while_others_answer(config, ClusterId(identity.cluster)).await?;
    let halted = store.halted().map_err(&in_directory)?;
    forced.write(config, store)?;
    forced.tell(halted.as_deref());
    Ok(())
}

/// What is kept, and what is given up.
#[derive(Debug)]
pub(super) struct Forced {
    own: Member,
    others: Vec<Member>,
    /// The last entry that is kept.
    last: u64,
    /// The term of the new entries. This member has not seen the term before, so that entries of the other members with
    /// another term are not mistaken for these.
    term: u64,
    /// The entries that are kept and were not known to be committed.
    kept: Range<u64>,
    /// The entries that are given up: the first of them would remove this member.
    cut: Range<u64>,
}

impl Forced {
    pub(super) fn of(config: &Config, store: &Store, own: MemberId) -> Result<Self, Error> {
        let cannot_be_read = |error: raft::Error| Error::Raft(error.to_string());
        let hard_state = store.initial_state().map_err(cannot_be_read)?.hard_state;
        let end = store.last_index().map_err(cannot_be_read)? + 1;
        let mut membership = store.membership().map_err(Error::store(&config.data_dir))?;
        let mut cut = end..end;
        for (index, change) in changes(store, store.applied() + 1..end).map_err(cannot_be_read)? {
            let removes_us = change.r#type == ConfChangeType::ConfChangeRemoveNode as i32 && change.node_id == own.0;
            if removes_us && membership.check(&change).is_ok() {
                if index <= hard_state.commit {
                    return Err(Error::Removed);
                }
                cut = index..end;
                break;
            }
            // A change that is refused here is refused by every member.
            let _ = membership.apply(&change);
        }
        let nothing = || Error::NothingToForce { directory: config.data_dir.display().to_string() };
        Ok(Self {
            own: membership.get(own).cloned().ok_or_else(nothing)?,
            others: others(&membership, own),
            last: cut.start - 1,
            term: hard_state.term + 1,
            kept: (hard_state.commit + 1).min(cut.start)..cut.start,
            cut,
        })
    }

    pub(super) fn write(&self, config: &Config, store: &mut Store) -> Result<(), Error> {
        let entries = self.entries().into_iter().map(raft_rs::entry_from_raftpb).collect::<Result<Vec<_>, _>>();
        let entries = entries.map_err(|error| Error::Raft(error.to_string()))?;
        let commit = self.last + entries.len() as u64;
        let hard_state = HardState { term: self.term, vote: self.own.id.0, commit, ..HardState::default() };
        let written = store.save(entries, Some(hard_state), true).and_then(|()| store.set_forced());
        written.map_err(Error::store(&config.data_dir))
    }

    /// A leader's first entry, and a ConfChange for each member that is removed. If this member is a learner, it is
    /// promoted first, because a cluster needs a voter.
    fn entries(&self) -> Vec<Entry> {
        let promotion = MemberRecord { is_promote: true, ..MemberRecord::from(&self.own) };
        let promotion = self.own.is_learner.then(|| change(ConfChangeType::ConfChangeAddNode, &promotion));
        let removed = |member: &Member| MemberRecord { id: member.id.0, ..MemberRecord::default() };
        let removals = self.others.iter().map(|member| change(ConfChangeType::ConfChangeRemoveNode, &removed(member)));
        let entries = std::iter::once(Entry::default()).chain(promotion).chain(removals);
        entries.zip(self.last + 1..).map(|(entry, index)| Entry { term: self.term, index, ..entry }).collect()
    }

    /// Asks the other voters several times, and refuses if they answer.
    async fn refuse_while_others_answer(&self, config: &Config, cluster: ClusterId) -> Result<(), Error> {
        let voters = || self.others.iter().filter(|member| !member.is_learner);
        let quorum = (voters().count() + usize::from(!self.own.is_learner)) / 2 + 1;
        let asker = MembersClient::new(config);
        let (mut answered, mut lost) = (BTreeMap::new(), BTreeMap::new());
        let is_quorum = |answered: usize| answered > 0 && answered + usize::from(!self.own.is_learner) >= quorum;
        for round in 0..ROUNDS {
            if is_quorum(answered.len()) || voters().count() == 0 {
                break;
            }
            if round > 0 {
                tokio::time::sleep(PAUSE).await;
            }
            let silent = voters().filter(|member| !answered.contains_key(&member.id)).collect::<Vec<_>>();
            let asked = silent.into_iter().map(async |member| (member, answers(&asker, member, cluster).await));
            for (member, answer) in join_all(asked).await {
                match answer {
                    Ok(()) => drop(answered.insert(member.id, called(member))),
                    Err(why) => drop(lost.insert(member.id, (called(member), why))),
                }
            }
        }
        asker.stop().await;
        if !is_quorum(answered.len()) {
            for (id, (member, why)) in lost {
                if !answered.contains_key(&id) {
                    tracing::warn!(member, why, "this member counts as lost: it does not answer as a member");
                }
            }
            return Ok(());
        }
        Err(Error::NotLost { answered: join(answered.into_values()), voters: voters().count() })
    }

    /// Logs what was given up and what was kept.
    fn tell(&self, halted: Option<&str>) {
        let dropped = join(self.others.iter().map(called));
        if dropped.is_empty() {
            tracing::warn!("--force-new-cluster: this member is a cluster of one, as it was before");
        } else {
            tracing::warn!(
                dropped,
                "--force-new-cluster: this member is a cluster of one; the others are removed, for ever, and what was \
                 acknowledged without this member is lost"
            );
        }
        if !self.kept.is_empty() {
            let (from, to) = (self.kept.start, self.kept.end - 1);
            tracing::warn!(
                from,
                to,
                "entries that were not known to be committed are kept: they may have been acknowledged"
            );
        }
        if !self.cut.is_empty() {
            let (from, to) = (self.cut.start, self.cut.end - 1);
            tracing::warn!(
                from,
                to,
                "entries that were not known to be committed are given up: they remove this member"
            );
        }
        if let Some(why) = halted {
            tracing::warn!(why, "this member had halted, and takes part again: what it had lost stays lost");
        }
        tracing::warn!("remove --force-new-cluster, and add the others anew, on empty directories");
    }
}

/// The changes of the membership among these entries.
fn changes(store: &Store, entries: Range<u64>) -> raft::Result<Vec<(u64, ConfChange)>> {
    let (mut changes, mut next) = (Vec::new(), entries.start);
    while next < entries.end {
        let read = store.entries(next, entries.end, READ_BYTES, GetEntriesContext::empty(false))?;
        let Some(last) = read.last() else { break };
        next = last.index + 1;
        let is_change = |entry: &&raft::eraftpb::Entry| entry.entry_type == raft::eraftpb::EntryType::EntryConfChange;
        // An entry that cannot be decoded is also skipped when it is applied.
        changes.extend(
            read.iter()
                .filter(is_change)
                .filter_map(|entry| Some((entry.index, ConfChange::decode(&entry.data[..]).ok()?))),
        );
    }
    Ok(changes)
}

fn change(kind: ConfChangeType, record: &MemberRecord) -> Entry {
    let change = ConfChange { id: 0, r#type: kind as i32, node_id: record.id, context: record.to_json() };
    Entry { r#type: EntryType::EntryConfChange as i32, data: change.encode_to_vec().into(), ..Entry::default() }
}

fn others(membership: &Membership, own: MemberId) -> Vec<Member> {
    membership.iter().filter(|member| member.id != own).cloned().collect()
}

/// Checks whether a member of this cluster answers at one of a member's URLs. The error says why not.
async fn answers(asker: &MembersClient, member: &Member, cluster: ClusterId) -> Result<(), String> {
    let asked = join_all(member.peer_urls.iter().map(|url| asker.members(url))).await;
    let mut silent = String::new();
    for answer in asked {
        match answer {
            Ok((told, _)) if told == cluster => return Ok(()),
            Ok((told, _)) => silent = format!("it answers for cluster {told}"),
            Err(why) => silent = why,
        }
    }
    Err(silent)
}

fn called(member: &Member) -> String {
    let urls = join(member.peer_urls.iter().map(ToString::to_string));
    format!("{} ({}, {urls})", member.name, member.id)
}

fn join(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(", ")
}
