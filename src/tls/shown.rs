//! A certificate that we show: when it ends, and who will refuse it.

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

/// The certificate that we show.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    /// Its file.
    pub(super) file: PathBuf,
    /// When it ends, and what leads to its CA.
    pub(super) ends: Ends,
    /// The hosts that it is for.
    pub(super) hosts: Hosts,
    leaf: CertificateDer<'static>,
    /// Why others will refuse it, by what it is shown for.
    pub(super) refused: Vec<(Purpose, String)>,
}

impl Shown {
    /// Looks at a chain as others will who trust the same CAs; without any, at what it says of itself.
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

    /// Why who dials us at this host will refuse it; none if they will not for its names.
    pub(super) fn not_for(&self, host: &str) -> Option<String> {
        let name = ServerName::try_from(host).ok()?;
        let leaf = Certificate::read(&self.leaf)?;
        names::verify(&self.leaf, &name).err().map(|_| refusal::not_for(&leaf, &name))
    }

    /// Says what others will refuse, before they do.
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
