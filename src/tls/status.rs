//! How certificates and handshakes do.

use std::time::SystemTime;

use crate::ledger::{Direction, Tally};

/// How often the files changed, and what came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reloads {
    /// What was read is in use.
    pub ok: u64,
    /// A part could not be used, and what was read of it before stays.
    pub failed: u64,
}

/// How the certificates and handshakes of a member do.
#[derive(Clone, Debug, Default)]
pub struct TlsStatus {
    /// When the chain that we show ends: the earliest of its certificates and of the CA under which it verifies. Of
    /// several such CAs, as while one is renewed, the one that lasts longest. None where no certificate is shown.
    pub certificate_expiry: Option<SystemTime>,
    /// When each part of it ends; of several intermediate certificates, the earliest.
    pub certificate_parts: Vec<(CertificatePart, SystemTime)>,
    /// How often changed files were read again and taken.
    pub reloads_ok: u64,
    /// How often they were not taken: unreadable, not a certificate, or not a pair.
    pub reloads_failed: u64,
    /// Handshakes that failed: `In` for those that we accepted, `Out` for those that we dialled. The reason is from a
    /// closed set, never what the other end said.
    pub handshake_failures: Tally<(Direction, &'static str)>,
    /// Open connections that we closed because the peer's certificate no longer verified: `In` for those that we
    /// accepted, `Out` for those that we dialled.
    pub connections_closed: Tally<(Direction, &'static str)>,
    /// When the list of revoked certificates is to be replaced by a newer one.
    pub revocation_next_update: Option<SystemTime>,
    /// Requests whose certificate was not of the member that they said they were from, by what they asked for.
    pub identity_mismatches: Tally<&'static str>,
}

/// A part of the chain that we show: the label `part`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CertificatePart {
    /// Our own certificate.
    Leaf,
    /// Those between it and the CA.
    Intermediate,
    /// The CA in the trusted file to which it leads.
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
