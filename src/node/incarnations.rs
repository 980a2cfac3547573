//! Decides which starts of other members are heard: those that can follow the newest one that was met, from the data
//! directory that the cluster knows.

use crate::{
    id::{DirectoryId, Impostor, Incarnation, Succession},
    transport::raft::Unheard,
};

/// What is known of a member's incarnations.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KnownIncarnation {
    /// The newest incarnation that this member has met.
    pub(super) met: Option<Incarnation>,
    /// The data directory that the member told the cluster. It counts for members that have never met it.
    pub(super) directory: Option<DirectoryId>,
}

/// The decision about an incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IncarnationVerdict {
    /// It was met, and is heard.
    Met,
    /// It can be the member, and was not met yet. It has to be stored before it is heard.
    New,
    /// It cannot be the member.
    Refused(Impostor),
}

impl KnownIncarnation {
    pub(super) fn judge(self, told: &Incarnation) -> IncarnationVerdict {
        match (self.met, self.directory) {
            (Some(met), _) => match told.after(&met) {
                Succession::Same => IncarnationVerdict::Met,
                Succession::Later => IncarnationVerdict::New,
                Succession::Impossible(why) => IncarnationVerdict::Refused(why),
            },
            (None, Some(directory)) if directory != told.directory => IncarnationVerdict::Refused(Impostor::Directory),
            (None, _) => IncarnationVerdict::New,
        }
    }
}

impl IncarnationVerdict {
    /// The decision for a request, which proves nothing.
    pub(super) fn of_a_request(self) -> Result<(), Unheard> {
        match self {
            Self::Met => Ok(()),
            Self::New => Err(Unheard::NotMet),
            Self::Refused(why) => Err(why.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(directory: u64, boot: u64) -> Incarnation {
        Incarnation { directory: DirectoryId(directory), boot, nonce: 7 }
    }

    #[test]
    fn what_was_met_counts_and_else_what_the_member_told_the_cluster() {
        let known = |met, directory: Option<u64>| KnownIncarnation { met, directory: directory.map(DirectoryId) };
        let judged = |known: KnownIncarnation, told| known.judge(&told);
        assert_eq!(judged(known(None, None), start(1, 1)), IncarnationVerdict::New);
        assert_eq!(judged(known(None, Some(1)), start(1, 9)), IncarnationVerdict::New);
        assert_eq!(judged(known(None, Some(2)), start(1, 9)), IncarnationVerdict::Refused(Impostor::Directory));
        let met = known(Some(start(1, 5)), Some(2));
        assert_eq!(
            judged(met, start(1, 5)),
            IncarnationVerdict::Met,
            "a wiped member that told the cluster changes nothing"
        );
        assert_eq!(judged(met, start(1, 6)), IncarnationVerdict::New);
        assert_eq!(judged(met, start(1, 4)), IncarnationVerdict::Refused(Impostor::Boot));
        assert_eq!(judged(met, start(2, 6)), IncarnationVerdict::Refused(Impostor::Directory));
    }
}
