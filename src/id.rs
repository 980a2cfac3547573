//! The identity of members and clusters, derived and written as in etcd.

use std::{
    fmt,
    num::ParseIntError,
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

use sha1::{Digest, Sha1};

mod incarnation;
pub(crate) mod trace;

pub use incarnation::{DirectoryId, Impostor, Incarnation, IncarnationError, Succession};

/// The ID of a member of a cluster. It prints as in etcd: lower-case hexadecimal, without prefix or padding.
///
/// Zero is no member: it is raft's "nobody".
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId(pub u64);

/// The ID of a cluster. It prints as [`MemberId`] does.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId(pub u64);

impl MemberId {
    /// Derives the ID of a member from its peer URLs and the initial cluster token (etcd's
    /// `membership.computeMemberID`).
    ///
    /// `added` is `None` for a bootstrap member. For a member that is added later, it is the second in which it is
    /// added, so that a URL that was removed and is added again gets another ID.
    pub fn derive<U: AsRef<str>>(peer_urls: &[U], token: &str, added: Option<SystemTime>) -> Self {
        let mut urls: Vec<&str> = peer_urls.iter().map(AsRef::as_ref).collect();
        urls.sort_unstable();
        let mut hash = Sha1::new();
        for url in urls {
            hash.update(url);
        }
        hash.update(token);
        if let Some(time) = added {
            let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            hash.update(seconds.to_string());
        }
        Self(first_eight_bytes(hash))
    }
}

impl ClusterId {
    /// Derives the ID of a cluster from the IDs of its bootstrap members (etcd's `RaftCluster.genID`).
    pub fn derive(members: &[MemberId]) -> Self {
        let mut sorted = members.to_vec();
        sorted.sort_unstable();
        let mut hash = Sha1::new();
        for member in sorted {
            hash.update(member.0.to_be_bytes());
        }
        Self(first_eight_bytes(hash))
    }
}

fn first_eight_bytes(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    digest.iter().take(8).fold(0, |value, byte| value << 8 | u64::from(*byte))
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// Parses base 16. Upper case and padding are accepted (etcd's `types.IDFromString`).
impl FromStr for MemberId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_hex(text).map(Self)
    }
}

/// Parses the text that the ID prints as.
impl<'de> serde::Deserialize<'de> for MemberId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(|_| serde::de::Error::custom(format!("{text:?} is not a member's ID")))
    }
}

impl FromStr for ClusterId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_hex(text).map(Self)
    }
}

/// Go's `strconv.ParseUint` takes no sign; Rust's takes a `+`.
fn parse_hex(text: &str) -> Result<u64, ParseIntError> {
    let text = if text.starts_with('+') { "" } else { text };
    u64::from_str_radix(text, 16)
}

impl serde::Serialize for MemberId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl serde::Serialize for ClusterId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_and_print_as_etcd_does() {
        assert_eq!("8e9e05c52164694d".parse(), Ok(MemberId(0x8e9e_05c5_2164_694d)));
        assert_eq!("000A".parse(), Ok(MemberId(10)));
        assert_eq!(MemberId(10).to_string(), "a");
        for bad in ["", "+a", "-a", "0xa", "g", "10000000000000000", " a"] {
            assert!(bad.parse::<MemberId>().is_err(), "{bad:?}");
        }
    }

    /// The default single member of etcd: `default=http://localhost:2380`, token `etcd-cluster`.
    #[test]
    fn a_bootstrap_member_and_its_cluster_get_the_ids_that_etcd_gives_them() {
        let member = MemberId::derive(&["http://localhost:2380"], "etcd-cluster", None);
        assert_eq!(member.to_string(), "8e9e05c52164694d");
        assert_eq!(ClusterId::derive(&[member]).to_string(), "cdf818194e3a8c32");
    }

    #[test]
    fn the_order_of_urls_and_members_does_not_matter() {
        let urls = ["http://10.0.0.2:2380", "http://10.0.0.1:2380"];
        let swapped = [urls[1], urls[0]];
        assert_eq!(MemberId::derive(&urls, "t", None), MemberId::derive(&swapped, "t", None));
        let (a, b) = (MemberId(1), MemberId(2));
        assert_eq!(ClusterId::derive(&[a, b]), ClusterId::derive(&[b, a]));
    }

    #[test]
    fn a_member_added_again_gets_another_id() {
        let urls = ["http://localhost:2380"];
        let at = |seconds| Some(UNIX_EPOCH + std::time::Duration::from_secs(seconds));
        assert_ne!(MemberId::derive(&urls, "t", at(1)), MemberId::derive(&urls, "t", at(2)));
    }
}
