//! Whether a new cluster was forced (`--force-new-cluster`): it counts once.

use redb::Durability;

use super::{
    Store, StoreError,
    halt::HALTED,
    tables::{META, meta},
};

/// There while the starts since had the flag, too. In [`META`].
const FORCED: &str = "forced";

impl Store {
    /// Whether a new cluster was forced, and no start since was without the flag.
    pub(in crate::node) fn is_forced(&self) -> Result<bool, StoreError> {
        let read = self.begin_read()?;
        Ok(meta(&read, FORCED)?.is_some())
    }

    /// Writes down that one was forced; with it goes why this member takes no part, if it does not. Synced when this
    /// returns.
    pub(in crate::node) fn set_forced(&self) -> Result<(), StoreError> {
        self.write(Durability::Immediate, |write| {
            let mut meta = write.open_table(META)?;
            meta.insert(FORCED, [].as_slice())?;
            meta.remove(HALTED)?;
            Ok(())
        })
    }

    /// From now on, the flag counts again.
    pub(in crate::node) fn forget_forced(&self) -> Result<(), StoreError> {
        if !self.is_forced()? {
            return Ok(());
        }
        self.write(Durability::Immediate, |write| Ok(write.open_table(META)?.remove(FORCED).map(drop)?))
    }
}
