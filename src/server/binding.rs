//! Whether a request comes from the member that it says it is from: the certificate of its connection must be one with
//! which that member could be dialled. etcd leaves it open: whoever has a certificate of the CA may say any ID there.

use axum::http::Extensions;

use crate::{
    dial::urls::PeerUrl,
    id::MemberId,
    server::connections::Connection,
    tls::{Tls, is_for},
    transport::Transport,
};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Stream,
    Pipeline,
    Snapshot,
    Probing,
}

impl Kind {
    /// The label `request`.
    const fn label(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Pipeline => "pipeline",
            Self::Snapshot => "snapshot",
            Self::Probing => "probing",
        }
    }

    /// Whether such a request may leave open who sent it. A stream's path says it once more; etcd's prober never does.
    const fn may_be_nobodys(self) -> bool {
        matches!(self, Self::Stream | Self::Probing)
    }
}

/// A request that is not taken, since its certificate is not of the member that it says it is from.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotItsCertificate;

/// Holds `from` against the certificate: it must be for the host of one of that member's peer URLs, of the membership for a
/// peer, and `told` by the request for anyone else. What does not fit is counted and told of; fails if it is refused
/// too ([`bind_members`](crate::TlsConfig::bind_members)).
pub(super) fn check(
    transport: &Transport,
    extensions: &Extensions,
    from: Option<MemberId>,
    told: Option<&str>,
    kind: Kind,
) -> Result<(), NotItsCertificate> {
    let Some(tls) = transport.tls() else { return Ok(()) };
    let Some(claimed) = from else {
        return if kind.may_be_nobodys() || !tls.binds_members() { Ok(()) } else { refuse(tls, kind) };
    };
    let Some(certificate) = Connection::certificate(extensions) else {
        // Without certificates of clients there is nothing to hold it against.
        return if tls.binds_members() { refuse(tls, kind) } else { Ok(()) };
    };
    let known = transport.urls_of(claimed);
    let urls = known.or_else(|| PeerUrl::told(told?).ok()).unwrap_or_default();
    if urls.iter().any(|url| is_for(certificate, url.host())) {
        return Ok(());
    }
    if tls.mismatched(kind.label(), claimed, certificate) {
        let address = Connection::address(extensions);
        transport.mismatched(claimed, &urls, certificate, address, tls.binds_members());
    }
    if tls.binds_members() { Err(NotItsCertificate) } else { Ok(()) }
}

/// Nobody said who it is, or nothing shows it.
fn refuse(tls: &Tls, kind: Kind) -> Result<(), NotItsCertificate> {
    tls.note_mismatch(kind.label());
    Err(NotItsCertificate)
}
