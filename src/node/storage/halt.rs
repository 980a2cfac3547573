//! That a member takes no part any more, written down: what it has lost is lost after a restart, too.

use redb::Durability;

use super::{
    Store, StoreError,
    tables::{META, meta},
};

/// Why the member takes no part, in words. In [`META`].
pub(super) const HALTED: &str = "halted";

impl Store {
    /// Why this member takes no part any more, if it does not.
    pub(in crate::node) fn halted(&self) -> Result<Option<String>, StoreError> {
        let read = self.begin_read()?;
        // In whatever words: that it is there counts.
        Ok(meta(&read, HALTED)?.map(|why| String::from_utf8_lossy(&why).into_owned()))
    }

    /// Writes down that it takes no part, and why; synced when this returns.
    pub(in crate::node) fn halt(&self, why: &str) -> Result<(), StoreError> {
        self.write(Durability::Immediate, |write| {
            write.open_table(META)?.insert(HALTED, why.as_bytes())?;
            Ok(())
        })
    }

    /// What no member does by itself.
    #[cfg(test)]
    pub(in crate::node) fn forget_halt(&self) {
        let forgotten =
            self.write(Durability::Immediate, |write| Ok(write.open_table(META)?.remove(HALTED).map(drop)?));
        forgotten.expect("room");
    }
}
