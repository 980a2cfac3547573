//! Checks that a request comes from the member that it claims to be from: the certificate of its connection must be
//! valid for dialling that member. etcd does not check this: any client with a certificate of the CA may claim any ID.

use axum::http::Extensions;

use crate::{
    dial::urls::PeerUrl,
    id::MemberId,
    server::connections::AcceptedConnection,
    tls::{Tls, is_for},
    transport::Transport,
};

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    Stream,
    Pipeline,
    Snapshot,
    Probing,
}

impl RequestKind {
    /// The label `request`.
    const fn label(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Pipeline => "pipeline",
            Self::Snapshot => "snapshot",
            Self::Probing => "probing",
        }
    }

    /// Whether such a request may omit its sender. A stream's path names the sender again, and etcd's prober never
    /// names it.
    const fn may_be_nobodys(self) -> bool {
        matches!(self, Self::Stream | Self::Probing)
    }
}

/// The request was refused, because its certificate is not for the member that it claims to be from.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotItsCertificate;

/// Checks the certificate against `from`: it must be valid for the host of one of that member's peer URLs. For a peer,
/// the URLs are those of the membership; for others, those that the request `told`. A mismatch is counted and logged.
/// It is an error only if mismatches are refused ([`bind_members`](crate::TlsConfig::bind_members)).
pub(super) fn check(
    transport: &Transport,
    extensions: &Extensions,
    from: Option<MemberId>,
    told: Option<&str>,
    kind: RequestKind,
) -> Result<(), NotItsCertificate> {
    let Some(tls) = transport.tls() else { return Ok(()) };
    let Some(claimed) = from else {
        return if kind.may_be_nobodys() || !tls.binds_members() { Ok(()) } else { refuse(tls, kind) };
    };
    let Some(certificate) = AcceptedConnection::certificate(extensions) else {
        // Without client certificates, there is nothing to check against.
        return if tls.binds_members() { refuse(tls, kind) } else { Ok(()) };
    };
    let known = transport.urls_of(claimed);
    let urls = known.or_else(|| PeerUrl::told(told?).ok()).unwrap_or_default();
    if urls.iter().any(|url| is_for(certificate, url.host())) {
        return Ok(());
    }
    if tls.mismatched(kind.label(), claimed, certificate) {
        let address = AcceptedConnection::address(extensions);
        transport.mismatched(claimed, &urls, certificate, address, tls.binds_members());
    }
    if tls.binds_members() { Err(NotItsCertificate) } else { Ok(()) }
}

/// The request names no sender, or nothing confirms the sender.
fn refuse(tls: &Tls, kind: RequestKind) -> Result<(), NotItsCertificate> {
    tls.note_mismatch(kind.label());
    Err(NotItsCertificate)
}
