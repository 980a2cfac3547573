//! An incarnation is one start of a member. It is told apart from every other start and from any copy of the disk.

use std::{fmt, str::FromStr};

use super::parse_hex;

/// The ID of a data directory: a random number, written when the directory is made. A copy of the directory has the
/// same ID. It prints as lower-case hexadecimal.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DirectoryId(pub u64);

/// One start of a member, as the header `X-Rafthttp-Incarnation` carries it: `<directory>-<boot>-<nonce>`. The boot is
/// decimal, the others are lower-case hexadecimal. etcd has nothing like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Incarnation {
    /// The data directory that the member was started from.
    pub directory: DirectoryId,
    /// How often a member was started from this directory, including this time. The count is synced before it is sent
    /// to anyone, so that not even a loss of power repeats one.
    pub boot: u64,
    /// A random number of this start. It tells apart two copies of a directory, which count on from the same boot.
    pub nonce: u64,
}

/// How an incarnation relates to the newest incarnation that was met of the same member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Succession {
    /// The same incarnation.
    Same,
    /// A later start from the same directory.
    Later,
    /// An incarnation that cannot follow the one that was met.
    Impossible(Impostor),
}

/// Why an incarnation cannot follow one that was met: its disk does not hold what the member has promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Impostor {
    /// The member was started from another data directory: its disk is lost, or was wiped.
    #[error("another data directory than the one that was met")]
    Directory,
    /// The directory has been started more often than this incarnation says: it is an older copy, or an older start.
    #[error("an older copy of the data directory than the one that was met")]
    Boot,
    /// The directory was started equally often with another nonce: there are two copies of it.
    #[error("another copy of the data directory than the one that was met")]
    Nonce,
}

impl Impostor {
    /// Every reason.
    pub const ALL: [Self; 3] = [Self::Directory, Self::Boot, Self::Nonce];

    /// The name in metrics and `/api/peers`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Boot => "boot",
            Self::Nonce => "nonce",
        }
    }
}

impl Incarnation {
    /// Compares this incarnation with `met`, the newest one that was met of the same member.
    pub fn after(&self, met: &Self) -> Succession {
        if self.directory != met.directory {
            Succession::Impossible(Impostor::Directory)
        } else if self.boot < met.boot {
            Succession::Impossible(Impostor::Boot)
        } else if self.boot > met.boot {
            Succession::Later
        } else if self.nonce != met.nonce {
            Succession::Impossible(Impostor::Nonce)
        } else {
            Succession::Same
        }
    }
}

/// The text is no incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an incarnation: expected directory-boot-nonce")]
pub struct IncarnationError;

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{:x}", self.directory, self.boot, self.nonce)
    }
}

impl FromStr for Incarnation {
    type Err = IncarnationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('-');
        let mut part = || parts.next().ok_or(IncarnationError);
        let (directory, boot, nonce) = (part()?, part()?, part()?);
        if parts.next().is_some() || boot.starts_with('+') {
            return Err(IncarnationError);
        }
        Ok(Self {
            directory: directory.parse()?,
            boot: boot.parse().map_err(|_| IncarnationError)?,
            nonce: parse_hex(nonce).map_err(|_| IncarnationError)?,
        })
    }
}

impl fmt::Display for DirectoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for DirectoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl FromStr for DirectoryId {
    type Err = IncarnationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_hex(text).map(Self).map_err(|_| IncarnationError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MET: Incarnation = Incarnation { directory: DirectoryId(0xd1), boot: 5, nonce: 0xabc };

    #[test]
    fn it_reads_as_it_prints_and_nothing_else_is_one() {
        assert_eq!(MET.to_string(), "d1-5-abc");
        let most = Incarnation { directory: DirectoryId(u64::MAX), boot: u64::MAX, nonce: u64::MAX };
        for incarnation in [MET, most] {
            assert_eq!(incarnation.to_string().parse(), Ok(incarnation));
        }
        for text in [
            "",
            "d1",
            "d1-5",
            "d1-5-",
            "-5-1",
            "d1--1",
            "d1-5-abc-1",
            "+d1-5-1",
            "d1-+5-1",
            "d1-x-1",
            "d1-5-g",
            "d1-18446744073709551616-1",
            "10000000000000000-1-1",
            "d1 -5-1",
        ] {
            assert_eq!(text.parse::<Incarnation>(), Err(IncarnationError), "{text:?}");
        }
    }

    #[test]
    fn only_a_later_start_from_the_same_directory_follows() {
        let told = |directory, boot, nonce| Incarnation { directory: DirectoryId(directory), boot, nonce }.after(&MET);
        assert_eq!(told(0xd1, 5, 0xabc), Succession::Same);
        assert_eq!(told(0xd1, 6, 0xabc), Succession::Later);
        assert_eq!(told(0xd1, u64::MAX, 1), Succession::Later);
        assert_eq!(told(0xd1, 4, 0xabc), Succession::Impossible(Impostor::Boot));
        assert_eq!(told(0xd1, 5, 0xabd), Succession::Impossible(Impostor::Nonce));
        assert_eq!(told(0xd2, 6, 0xabc), Succession::Impossible(Impostor::Directory));
    }
}
