//! Whether a new cluster was forced (`--force-new-cluster`): it counts once.

use redb::Durability;

use super::{
    Store, StoreError,
    halt::HALTED,
    tables::{META, meta},
};

/// Present while all starts since then had the flag, too. In [`META`].
const FORCED: &str = "forced";

impl Store {
    /// Whether a new cluster was forced, and every start since had the flag.
    pub(in crate::node) fn is_forced(&self) -> Result<bool, StoreError> {
        let read = self.begin_read()?;
        Ok(meta(&read, FORCED)?.is_some())
    }

    /// Records that a new cluster was forced, and removes the reason why this member takes no part, if there is one.
    /// Synced when this returns.
    pub(in crate::node) fn set_forced(&self) -> Result<(), StoreError> {
        self.write(Durability::Immediate, |write| {
            let mut meta = write.open_table(META)?;
            meta.insert(FORCED, [].as_slice())?;
            meta.remove(HALTED)?;
            Ok(())
        })
    }

    /// Makes the flag count again.
    pub(in crate::node) fn forget_forced(&self) -> Result<(), StoreError> {
        if !self.is_forced()? {
            return Ok(());
        }
        self.write(Durability::Immediate, |write| Ok(write.open_table(META)?.remove(FORCED).map(drop)?))
    }
}
