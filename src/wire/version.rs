//! Server versions, as in `X-Server-Version` and `X-Min-Cluster-Version`.

use std::{fmt, str::FromStr};

/// The version that this crate claims to be by default: the oldest patch release of the protocol that it follows.
pub const DEFAULT_SERVER: Version = Version::new(3, 6, 0);

/// The oldest cluster version that we join (etcd's `version.MinClusterVersion`).
pub(crate) const MIN_CLUSTER: Version = Version::new(3, 0, 0);

/// The meaning of a missing header (etcd's `rafthttp.serverVersion`).
pub(crate) const MISSING: Version = Version::new(2, 0, 0);

/// Go parses each part as a signed 64-bit number, and an etcd process dies on a number that it cannot parse.
const LARGEST_PART: u64 = i64::MAX as u64;

/// The version of an etcd server. It always prints as three numbers that etcd can parse, whatever it was built from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Compared between members.
    pub major: u64,
    /// Compared between members.
    pub minor: u64,
    /// Sent, but never compared.
    pub patch: u64,
}

impl Version {
    /// Makes a version from its parts.
    pub const fn new(major: u64, minor: u64, patch: u64) -> Self {
        Self { major, minor, patch }
    }

    /// The version in a request's or an answer's header; [`MISSING`] if there is no header.
    ///
    /// A pre-release and build metadata are ignored, as in etcd, which compares only major and minor.
    pub(crate) fn from_header(value: Option<&str>) -> Result<Self, VersionError> {
        let Some(text) = value.filter(|text| !text.is_empty()) else {
            return Ok(MISSING);
        };
        let numbers = text.split(['+', '-']).next().unwrap_or_default();
        numbers.parse()
    }

    const fn major_minor(self) -> (u64, u64) {
        (self.major, self.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = [self.major, self.minor, self.patch].map(|part| part.min(LARGEST_PART));
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// Parses exactly three decimal numbers with dots between them.
impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.split('.').map(parse_part);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) => Ok(Self::new(major, minor, patch)),
            _ => Err(VersionError),
        }
    }
}

fn parse_part(text: &str) -> Option<u64> {
    // Rust's parser accepts a plus sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|part| digits && *part <= LARGEST_PART)
}

/// The text is no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a version is three numbers, as 3.6.0")]
pub struct VersionError;

/// Why two members cannot talk to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Incompatible {
    /// The remote server is older than the local cluster allows.
    #[error("the remote server version {remote} is below the local minimum cluster version {local_min}")]
    RemoteTooLow {
        /// The remote server's version.
        remote: Version,
        /// The local minimum cluster version.
        local_min: Version,
    },
    /// The local server is older than the remote cluster allows.
    #[error("the local server version {local} is below the remote minimum cluster version {remote_min}")]
    LocalTooLow {
        /// The local server's version.
        local: Version,
        /// The remote minimum cluster version.
        remote_min: Version,
    },
}

/// Whether two members can talk to each other. Only major and minor count (etcd's `checkVersionCompatibility`).
pub(crate) fn compatible(
    local: Version,
    local_min: Version,
    remote: Version,
    remote_min: Version,
) -> Result<(), Incompatible> {
    if remote.major_minor() < local_min.major_minor() {
        return Err(Incompatible::RemoteTooLow { remote, local_min });
    }
    if remote_min.major_minor() > local.major_minor() {
        return Err(Incompatible::LocalTooLow { local, remote_min });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_reads_and_prints_as_three_numbers() {
        assert_eq!("3.6.16".parse(), Ok(Version::new(3, 6, 16)));
        assert_eq!(Version::new(3, 6, 16).to_string(), "3.6.16");
        for bad in ["", "3", "3.6", "3.6.", "3.6.1.2", "v3.6.1", "3.6.x", "+3.6.1", "3.6.1 ", "3.6.9223372036854775808"]
        {
            assert_eq!(bad.parse::<Version>(), Err(VersionError), "{bad:?}");
        }
    }

    #[test]
    fn no_version_prints_a_number_that_go_cannot_read() {
        let largest = Version::new(u64::MAX, u64::MAX, u64::MAX).to_string();
        assert_eq!(largest, "9223372036854775807.9223372036854775807.9223372036854775807");
    }

    #[test]
    fn a_header_may_be_missing_or_carry_a_pre_release() {
        assert_eq!(Version::from_header(None), Ok(MISSING));
        assert_eq!(Version::from_header(Some("")), Ok(MISSING));
        assert_eq!(Version::from_header(Some("3.7.0-rc.1+git")), Ok(Version::new(3, 7, 0)));
        assert_eq!(Version::from_header(Some("3.7.0+a-b")), Ok(Version::new(3, 7, 0)));
        assert_eq!(Version::from_header(Some("-3.7.0")), Err(VersionError));
    }

    #[test]
    fn compatibility_goes_by_major_and_minor() {
        let check = |remote, remote_min| compatible(DEFAULT_SERVER, MIN_CLUSTER, remote, remote_min);
        assert_eq!(check(Version::new(3, 0, 0), MIN_CLUSTER), Ok(()));
        assert_eq!(check(Version::new(3, 9, 1), Version::new(3, 6, 99)), Ok(()));
        assert!(matches!(check(MISSING, MISSING), Err(Incompatible::RemoteTooLow { .. })));
        assert!(matches!(check(Version::new(3, 7, 0), Version::new(3, 7, 0)), Err(Incompatible::LocalTooLow { .. })));
    }
}
