//! A member that takes no part any more, and stays up to say why: its disk has lost what it acknowledged, so that its vote
//! would be a lie. For good: what is lost is lost after a restart, too.

use super::{Core, CoreError};
use crate::{id::MemberId, node::history::TWO_HISTORIES};

/// Whether a member takes no part any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Halt {
    /// It takes part.
    Not,
    /// It does not, and its disk does not say so yet.
    Unwritten,
    /// It does not, whoever starts it again.
    Written,
}

impl Core {
    pub(super) fn is_halted(&self) -> bool {
        self.halt != Halt::Not
    }

    /// Takes no part from now on. The turn writes it down.
    pub(super) fn halt(&mut self, why: &str) {
        self.take_no_part(why);
        self.halt = Halt::Unwritten;
    }

    /// Takes no part from now on, and says nothing of it on its disk: nobody hears this start of the member, and the next
    /// is told the same by who knows it.
    pub(in crate::node) fn withdraw(&mut self, why: &str) {
        self.take_no_part(why);
        self.halt = Halt::Written;
    }

    /// As it was when this member stopped.
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
        self.end_waiting();
        self.shared.update(|status| {
            status.leader = MemberId(0);
            status.halted = Some(why.to_owned());
            status.two_histories = why.starts_with(TWO_HISTORIES).then(|| why.to_owned());
        });
    }
}
