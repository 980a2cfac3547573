//! A member that takes no part any more, but stays up to say why. Its disk has lost what the member had acknowledged,
//! so its vote could not be trusted. This is for good, because a restart does not bring back what was lost.

use super::{Core, CoreError};
use crate::{id::MemberId, node::history::TWO_HISTORIES};

/// Whether a member takes no part any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// It takes part.
    Not,
    /// It takes no part, but its disk does not record that yet.
    Unwritten,
    /// It takes no part, and its disk records that for all later starts.
    Written,
}

impl Core {
    pub(super) fn is_halted(&self) -> bool {
        self.halt != Halt::Not
    }

    /// Takes no part from now on. The next turn records it on the disk.
    pub(super) fn halt(&mut self, why: &str) {
        self.take_no_part(why);
        self.halt = Halt::Unwritten;
    }

    /// Takes no part from now on, without a record on the disk: nobody hears this start of the member, and the next
    /// start will be told the same by those that know.
    pub(in crate::node) fn withdraw(&mut self, why: &str) {
        self.take_no_part(why);
        self.halt = Halt::Written;
    }

    /// Restores the state that it had when the member stopped.
    pub(super) fn stay_halted(&mut self) -> Result<(), CoreError> {
        if let Some(why) = self.raw.store().halted()? {
            self.take_no_part(&why);
            self.halt = Halt::Written;
        }
        Ok(())
    }

    pub(super) fn write_halt(&mut self) -> Result<(), CoreError> {
        if self.halt == Halt::Unwritten {
            let why = self.shared.status().halted.unwrap_or_default();
            self.raw.store().halt(&why)?;
            self.halt = Halt::Written;
        }
        Ok(())
    }

    fn take_no_part(&mut self, why: &str) {
        tracing::error!(member = %self.settings.member, "taking no further part, until removed and added anew: {why}");
        self.let_go();
        self.shared.update(|status| {
            status.leader = MemberId(0);
            status.halted = Some(why.to_owned());
            status.two_histories = why.starts_with(TWO_HISTORIES).then(|| why.to_owned());
        });
    }
}
