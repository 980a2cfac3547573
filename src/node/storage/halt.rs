//! The record that a member takes no part any more. A restart does not bring back what it has lost.

use redb::Durability;

use super::{
    Store, StoreError,
    tables::{META, meta},
};

/// Why the member takes no part, in words. In [`META`].
pub(super) const HALTED: &str = "halted";

impl Store {
    /// Why this member takes no part any more. `None` if it does.
    pub(in crate::node) fn halted(&self) -> Result<Option<String>, StoreError> {
        let read = self.begin_read()?;
        // The words may be damaged. What counts is that they are present.
        Ok(meta(&read, HALTED)?.map(|why| String::from_utf8_lossy(&why).into_owned()))
    }

    /// Records that the member takes no part, and why. Synced when this returns.
    pub(in crate::node) fn halt(&self, why: &str) -> Result<(), StoreError> {
        self.write(Durability::Immediate, |write| {
            write.open_table(META)?.insert(HALTED, why.as_bytes())?;
            Ok(())
        })
    }

    /// No member does this by itself.
    #[cfg(test)]
    pub(in crate::node) fn forget_halt(&self) {
        let forgotten =
            self.write(Durability::Immediate, |write| Ok(write.open_table(META)?.remove(HALTED).map(drop)?));
        forgotten.expect("room");
    }
}
