//! The identity of a member, and how often it was started from its data directory.

use raft::eraftpb::{ConfState, Entry, HardState};
use redb::{Durability, ReadableTable};
use serde::{Deserialize, Serialize};

use super::{
    Store, StoreError,
    log::Log,
    tables::{META, bytes},
};
use crate::{
    id::{DirectoryId, Incarnation},
    node::members::{MemberRecord, Membership},
    world::World,
};

/// The identity of a member: written once, when it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::node) struct StoredIdentity {
    pub(in crate::node) member: u64,
    pub(in crate::node) cluster: u64,
    pub(in crate::node) name: String,
    pub(in crate::node) token: String,
    /// The members that existed when this one joined. It dials them until it has applied their ConfChanges.
    pub(in crate::node) joined: Vec<MemberRecord>,
}

impl Store {
    /// Writes the identity of this member and, for a new cluster, the first entries: committed and applied.
    pub(in crate::node) fn bootstrap(
        &mut self,
        identity: &StoredIdentity,
        entries: &[Entry],
        conf_state: &ConfState,
        membership: &Membership,
    ) -> Result<(), StoreError> {
        let last = entries.last().map_or((0, 0), |entry| (entry.index, entry.term));
        let hard_state = HardState { term: last.1, commit: last.0, ..Default::default() };
        let json = serde_json::to_vec(identity).expect("texts and numbers make JSON");
        // The log comes first: a member exists once its identity is there.
        self.wal.reset((0, 0), entries, &hard_state)?;
        self.write(Durability::Immediate, |write| {
            let mut meta = write.open_table(META)?;
            meta.insert("identity", json.as_slice())?;
            meta.insert("conf_state", bytes(conf_state)?.as_slice())?;
            meta.insert("applied", last.0.to_be_bytes().as_slice())?;
            Ok(meta.insert("membership", membership.to_json().as_slice()).map(drop)?)
        })?;
        self.log = Log::new(0, 0);
        entries.iter().for_each(|entry| self.log.push(entry.clone()));
        (self.applied, self.hard_state, self.conf_state) = (last.0, hard_state, conf_state.clone());
        self.identity = Some(identity.clone());
        self.check()
    }

    /// Counts this start, and gives the data directory its ID at the first one. It is on the disk when this returns, so
    /// no two starts of a member have the same number.
    pub(in crate::node) fn boot(&self, world: &World) -> Result<Incarnation, StoreError> {
        self.write(Durability::Immediate, |write| {
            let mut meta = write.open_table(META)?;
            let number = |value: Option<redb::AccessGuard<'_, &[u8]>>| {
                value.and_then(|guard| guard.value().try_into().ok().map(u64::from_be_bytes))
            };
            let boot = number(meta.get("boot")?).unwrap_or(0) + 1;
            let known = number(meta.get("directory")?);
            let directory = known.unwrap_or_else(|| world.number());
            meta.insert("boot", boot.to_be_bytes().as_slice())?;
            meta.insert("directory", directory.to_be_bytes().as_slice())?;
            Ok(Incarnation { directory: DirectoryId(directory), boot, nonce: world.number() })
        })
    }
}
