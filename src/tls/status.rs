//! The state of certificates and handshakes, for metrics.

use std::time::SystemTime;

use crate::ledger::{Direction, Tally};

/// How often the files changed, and with which result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloads {
    /// The new content is in use.
    pub ok: u64,
    /// A part could not be used, so its old content stays in use.
    pub failed: u64,
}

/// The state of the certificates and handshakes of a member.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct TlsStatus {
    /// When the chain that this member presents ends: the earliest end of its certificates and of the CA that it
    /// verifies against. If several CAs fit, as while one is renewed, the one that lasts longest counts. `None` if no
    /// certificate is presented.
    pub certificate_expiry: Option<SystemTime>,
    /// When each part of the chain ends. Of several intermediate certificates, the earliest counts.
    pub certificate_parts: Vec<(CertificatePart, SystemTime)>,
    /// How often changed files were read again and used.
    pub reloads_ok: u64,
    /// How often changed files were not used: unreadable, no certificate, or a key that does not belong to it.
    pub reloads_failed: u64,
    /// Failed handshakes: `In` for accepted connections, `Out` for dialled ones. The reason is from a closed set, and
    /// never a text of the other side.
    pub handshake_failures: Tally<(Direction, &'static str)>,
    /// Open connections that were closed because the peer's certificate no longer verified: `In` for accepted
    /// connections, `Out` for dialled ones.
    pub connections_closed: Tally<(Direction, &'static str)>,
    /// When the revocation list has to be replaced by a newer one.
    pub revocation_next_update: Option<SystemTime>,
    /// Requests whose certificate was not for the member that they claimed to be from, by kind of request.
    pub identity_mismatches: Tally<&'static str>,
}

/// A part of the chain that this member presents: the label `part`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CertificatePart {
    /// This member's own certificate.
    Leaf,
    /// The certificates between the leaf and the CA.
    Intermediate,
    /// The CA of the trusted file that the chain leads to.
    Authority,
}

impl CertificatePart {
    /// The value of the label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Leaf => "leaf",
            Self::Intermediate => "intermediate",
            Self::Authority => "authority",
        }
    }
}
