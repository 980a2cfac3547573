//! The newest incarnation that this member has met of each other member.

use std::collections::BTreeMap;

use redb::{Durability, ReadTransaction, WriteTransaction};

use super::{
    Store, StoreError,
    tables::{MET, damaged},
};
use crate::id::{DirectoryId, Incarnation, MemberId};

/// Directory, boot and nonce, eight bytes each.
const BYTES: usize = 24;

impl Store {
    /// The newest incarnation that was met of each member.
    pub(in crate::node) fn met(&self) -> &BTreeMap<MemberId, Incarnation> {
        &self.met
    }

    /// Stores an incarnation as the newest of its member, and forgets those of the members in `gone`. It is on the disk
    /// when this returns.
    pub(in crate::node) fn meet(
        &mut self,
        id: MemberId,
        met: Incarnation,
        gone: &[MemberId],
    ) -> Result<(), StoreError> {
        let Incarnation { directory, boot, nonce } = met;
        let value = [directory.0, boot, nonce].map(u64::to_be_bytes).concat();
        self.write(Durability::Immediate, |write| {
            forget(write, gone)?;
            write.open_table(MET)?.insert(id.0, value.as_slice())?;
            Ok(())
        })?;
        self.met.retain(|id, _| !gone.contains(id));
        self.met.insert(id, met);
        Ok(())
    }
}

pub(super) fn load(read: &ReadTransaction) -> Result<BTreeMap<MemberId, Incarnation>, StoreError> {
    let table = read.open_table(MET).map_err(redb::Error::from)?;
    let items = table.range::<u64>(..).map_err(redb::Error::from)?;
    items
        .map(|item| {
            let (id, value) = item.map_err(redb::Error::from)?;
            let bytes: [u8; BYTES] = value.value().try_into().map_err(|_| damaged("met"))?;
            let number = |place: usize| bytes[place..place + 8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
            let met = Incarnation { directory: DirectoryId(number(0)), boot: number(8), nonce: number(16) };
            Ok((MemberId(id.value()), met))
        })
        .collect()
}

/// Forgets members, in a transaction of the caller's.
pub(super) fn forget(write: &WriteTransaction, gone: &[MemberId]) -> Result<(), redb::Error> {
    if gone.is_empty() {
        return Ok(());
    }
    let mut table = write.open_table(MET)?;
    for id in gone {
        table.remove(id.0)?;
    }
    Ok(())
}
