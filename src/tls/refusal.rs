//! Why a certificate is refused, in words that name the certificate.
//!
//! A verifier can only return rustls's error, which decides the alert that the other side gets and does not name the
//! certificate. So the verifier passes the words to the handshake that calls it.

use std::{cell::RefCell, sync::Arc, time::SystemTime};

use rustls::{CertificateError, Error, OtherError};
use rustls_pki_types::{ServerName, UnixTime};

use super::{
    authorities::{Authorities, Chain, unix_time},
    certificate::{Certificate, Purpose, date},
    key,
};

/// At most this many CAs are named when a chain leads to none of them.
const NAMED: usize = 3;

tokio::task_local! {
    static WORDS: RefCell<Option<String>>;
}

/// Runs a handshake, and returns its result with the words that a verifier passed to it.
pub(super) async fn heard<F: Future>(handshake: F) -> (F::Output, Option<String>) {
    let within = async {
        let outcome = handshake.await;
        (outcome, WORDS.with(RefCell::take))
    };
    WORDS.scope(RefCell::default(), within).await
}

/// As [`heard`], for a verification outside of a handshake.
pub(super) fn heard_now<R>(verify: impl FnOnce() -> R) -> (R, Option<String>) {
    WORDS.sync_scope(RefCell::default(), || (verify(), WORDS.with(RefCell::take)))
}

/// Passes the words to the handshake that runs this verifier, if there is one.
pub(super) fn tell(words: String) {
    // Outside of a handshake nobody needs the words.
    let _ = WORDS.try_with(|told| told.replace(Some(words)));
}

/// Verifies that a chain leads to one of these CAs, for rustls. Passes on the words if it does not.
pub(super) fn verify(
    authorities: &Authorities,
    chain: Chain<'_>,
    purpose: Purpose,
    now: UnixTime,
) -> Result<(), Error> {
    authorities.verify(chain, purpose, now).map_err(|error| {
        tell(words(&error, chain, authorities, purpose));
        as_rustls(error)
    })
}

/// The rustls error for this webpki error. It decides the alert.
fn as_rustls(error: webpki::Error) -> Error {
    use webpki::Error as E;
    let certificate = match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertNotValidYet { time, not_before } => CertificateError::NotValidYetContext { time, not_before },
        E::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    certificate.into()
}

/// Says what is wrong, and with which certificate.
pub(super) fn words(error: &webpki::Error, chain: Chain<'_>, authorities: &Authorities, purpose: Purpose) -> String {
    let Some(leaf) = Certificate::read(chain.leaf) else { return "the certificate cannot be read".to_owned() };
    RefusedChain { leaf, chain, authorities, purpose }.words(error)
}

/// The words for a certificate that is valid for other hosts.
pub(super) fn not_for(leaf: &Certificate<'_>, name: &ServerName<'_>) -> String {
    let (hosts, name) = (leaf.hosts().to_string(), name.to_str());
    if hosts.is_empty() {
        format!("the certificate {leaf} has no alternative names, so it is not for {name:?}")
    } else {
        format!("the certificate {leaf} is for {}, but not for {name:?}", super::certificate::quoted(hosts.as_bytes()))
    }
}

/// The words for a certificate whose usage does not allow the purpose that it is presented for.
pub(super) fn lacks(leaf: &Certificate<'_>, purpose: Purpose) -> String {
    lacking(&format!("the certificate {leaf}"), leaf, purpose)
}

fn lacking(which: &str, found: &Certificate<'_>, purpose: Purpose) -> String {
    format!("{which} lacks the extended key usage {}: it has {}", purpose.label(), found.usages())
}

struct RefusedChain<'a> {
    leaf: Certificate<'a>,
    chain: Chain<'a>,
    authorities: &'a Authorities,
    purpose: Purpose,
}

impl RefusedChain<'_> {
    fn words(&self, error: &webpki::Error) -> String {
        use webpki::Error as E;
        match error {
            E::CertExpired { not_after, .. } => {
                let (which, end) =
                    self.which(|found| unix_time(found.not_after) == *not_after, |found| found.not_after);
                format!("{which} ended on {end}")
            }
            E::CertNotValidYet { time, not_before } => {
                let begins = |found: &Certificate<'_>| unix_time(found.not_before) == *not_before;
                let (which, begin) = self.which(begins, |found| found.not_before);
                format!("{which} begins on {begin}, and it is {}", date(system_time(*time)))
            }
            E::RequiredEkuNotFoundContext(_) => {
                let (which, found) = self.find(|found| !found.allows(self.purpose)).unwrap_or_else(|| self.leaf());
                lacking(&which, &found, self.purpose)
            }
            E::UnknownIssuer => self.leads_nowhere(),
            E::UnsupportedSignatureAlgorithmContext(context) => {
                let signed = |found: &Certificate<'_>| found.signature == &context.signature_algorithm_id[..];
                let (which, found) = self.find(signed).unwrap_or_else(|| self.leaf());
                format!(
                    "{which} is signed by {}, which is not accepted: expected SHA-256, SHA-384 or SHA-512 with {}",
                    found.signature_name(),
                    key::TAKEN
                )
            }
            E::InvalidSignatureForPublicKey | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
                self.badly_signed()
            }
            E::EndEntityUsedAsCa => {
                format!(
                    "the certificate {} is signed by one that may not sign certificates (no CA:TRUE, or a key usage \
                         without keyCertSign)",
                    self.leaf
                )
            }
            E::PathLenConstraintViolated => {
                format!("the certificate {} has more intermediate certificates above it than a CA allows", self.leaf)
            }
            E::NameConstraintViolation => {
                format!("the certificate {} is for a name that its CA may not sign (name constraints)", self.leaf)
            }
            E::UnsupportedCriticalExtension => {
                format!("the certificate {} or one above it has a critical extension that is not known here", self.leaf)
            }
            other => format!("the certificate {} is not accepted: {other}", self.leaf),
        }
    }

    /// The leaf, the other certificates of the chain, and the trusted CAs, in this order.
    fn all(&self) -> impl Iterator<Item = (&'static str, Certificate<'_>)> {
        let others = self.chain.others.iter().filter_map(|der| Certificate::read(der));
        let others = others.map(|other| ("the intermediate certificate", other));
        let authorities = self.authorities.certificates().map(|authority| ("the CA's certificate", authority));
        std::iter::once(("the certificate", self.leaf)).chain(others).chain(authorities)
    }

    fn leaf(&self) -> (String, Certificate<'_>) {
        (format!("the certificate {}", self.leaf), self.leaf)
    }

    fn find(&self, wanted: impl Fn(&Certificate<'_>) -> bool) -> Option<(String, Certificate<'_>)> {
        let (what, found) = self.all().find(|(_, found)| wanted(found))?;
        Some((format!("{what} {found}"), found))
    }

    fn which(
        &self,
        wanted: impl Fn(&Certificate<'_>) -> bool,
        time: impl Fn(&Certificate<'_>) -> SystemTime,
    ) -> (String, String) {
        let (which, found) = self.find(wanted).unwrap_or_else(|| self.leaf());
        (which, date(time(&found)))
    }

    fn leads_nowhere(&self) -> String {
        let trusted: Vec<String> = self.authorities.certificates().map(|authority| format!("{authority}")).collect();
        let more = trusted.len().saturating_sub(NAMED);
        let mut named = trusted.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
        if more > 0 {
            named.push_str(&format!(" and {more} more"));
        }
        let leaf = self.leaf;
        if leaf.issuer == leaf.subject {
            return format!("the certificate {leaf} signs itself and is none of the trusted CAs: {named}");
        }
        format!("the certificate {leaf}, signed by {}, leads to none of the trusted CAs: {named}", leaf.issuer_name())
    }

    /// The words for a signature that does not verify: its issuer's key is not supported, or it was made by another
    /// key.
    fn badly_signed(&self) -> String {
        for (what, found) in self.all() {
            let issuers = self.all().filter(|(_, issuer)| issuer.subject == found.issuer).map(|(_, issuer)| issuer);
            if let Some(issuer) = issuers.into_iter().find(|issuer| !issuer.key.is_taken()) {
                return format!(
                    "{what} {found} is signed by a key of {}, which is not accepted: expected {}",
                    issuer.key,
                    key::TAKEN
                );
            }
        }
        let leaf = self.leaf;
        format!("the certificate {leaf} says that {} signed it, but the CA of that name did not", leaf.issuer_name())
    }
}

fn system_time(time: UnixTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(time.as_secs())
}
