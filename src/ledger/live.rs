//! A ledger that is being written.

/// A ledger that is being written, behind the lock of the queues that it counts. It is written only by its methods, one
/// per event, and read as a copy of plain numbers.
#[derive(Debug, Default)]
pub(crate) struct Live<T>(pub(super) T);

impl<T> Live<T> {
    /// The current numbers.
    #[inline]
    pub(crate) fn read(&self) -> &T {
        &self.0
    }
}
