//! A ledger that is being kept.

/// A ledger that is being kept, behind the lock of what it describes: it is written by its verbs alone, which are its
/// methods, and read as the plain numbers that a copy has.
#[derive(Debug, Default)]
pub(crate) struct Live<T>(pub(super) T);

impl<T> Live<T> {
    /// What it says now.
    #[inline]
    pub(crate) fn read(&self) -> &T {
        &self.0
    }
}
