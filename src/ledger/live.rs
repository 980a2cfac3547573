//! A ledger that is being kept.

/// A ledger that is being kept, behind the lock of what it describes: it is written by its verbs alone, which are its
/// methods, and read as a copy.
#[derive(Debug, Default)]
pub(crate) struct Live<T>(pub(super) T);
