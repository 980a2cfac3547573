//! A certificate that this process presents: when it ends, and who will refuse it.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustls_pki_types::{CertificateDer, ServerName};

use super::{
    TlsError,
    authorities::{Authorities, Chain, Ends, unix_time},
    certificate::{Certificate, Hosts, Purpose, date},
    names, pem, refusal,
};

/// A certificate that this process presents.
#[derive(Clone, Debug)]
pub(super) struct ShownCertificate {
    /// Its file.
    pub(super) file: PathBuf,
    /// When its chain ends.
    pub(super) ends: Ends,
    /// The hosts that it is valid for.
    pub(super) hosts: Hosts,
    leaf: CertificateDer<'static>,
    /// Why others will refuse it, by purpose.
    pub(super) refused: Vec<(Purpose, String)>,
}

impl ShownCertificate {
    /// Checks a chain as others will who trust the same CAs. Without a CA, checks only what the certificate says about
    /// itself.
    pub(super) fn of(
        file: &Path,
        chain: &[CertificateDer<'static>],
        authorities: Option<&Authorities>,
        purposes: &[Purpose],
    ) -> Result<Self, TlsError> {
        let leaf = pem::leaf(file, chain)?;
        let now = SystemTime::now();
        let all = Chain { leaf: &chain[0], others: &chain[1..] };
        let between = all.others.iter().filter_map(|other| Certificate::read(other)).map(|other| other.not_after).min();
        let alone = Ends { leaf: leaf.not_after, intermediate: between, authority: None };
        let ends = authorities.and_then(|authorities| authorities.ends(all, now)).unwrap_or(alone);
        let why_not = |purpose: Purpose| match authorities {
            Some(authorities) => {
                let refused = authorities.verify(all, purpose, unix_time(now)).err();
                refused.map(|error| refusal::words(&error, all, authorities, purpose))
            }
            None if !leaf.allows(purpose) => Some(refusal::lacks(&leaf, purpose)),
            None => (leaf.not_after < now).then(|| format!("the certificate {leaf} ended on {}", date(leaf.not_after))),
        };
        let refused = purposes.iter().filter_map(|purpose| Some((*purpose, why_not(*purpose)?))).collect();
        Ok(Self { file: file.to_owned(), ends, hosts: leaf.hosts(), leaf: chain[0].clone(), refused })
    }

    /// Why a client that dials this host will refuse the certificate. `None` if it will not refuse it because of its
    /// names.
    pub(super) fn not_for(&self, host: &str) -> Option<String> {
        let name = ServerName::try_from(host).ok()?;
        let leaf = Certificate::read(&self.leaf)?;
        names::verify(&self.leaf, &name).err().map(|_| refusal::not_for(&leaf, &name))
    }

    /// Warns of a certificate that others will refuse.
    pub(super) fn warn(&self) {
        let file = self.file.display();
        match &self.refused[..] {
            [(_, server), (_, client)] if server == client => {
                tracing::warn!(%file, why = server, "peers that trust the same CAs will refuse this certificate");
            }
            refused => {
                for (purpose, why) in refused {
                    let when = match purpose {
                        Purpose::Server => "when they dial us",
                        Purpose::Client => "when we dial them",
                    };
                    tracing::warn!(%file, why, "peers that trust the same CAs will refuse this certificate {when}");
                }
            }
        }
    }
}
