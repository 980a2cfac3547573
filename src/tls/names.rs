//! Whether a certificate is valid for a host.

use rustls::{Error, client::verify_server_name, server::ParsedCertificate};
use rustls_pki_types::{CertificateDer, ServerName};

use super::{certificate::Certificate, leaf::Leaf};

/// Checks whether a leaf is valid for this host, by its alternative names alone. The rule is webpki's, with one
/// addition: a wildcard before a single label (`*.etcd`) matches, as in Go (`x509.matchHostnames`).
pub(super) fn verify(end_entity: &CertificateDer<'_>, host: &ServerName<'_>) -> Result<(), Error> {
    let leaf = Leaf::of(end_entity);
    let parsed = ParsedCertificate::try_from(leaf.readable())?;
    verify_server_name(&parsed, host).or_else(|error| {
        let certificate = Certificate::read(end_entity).filter(|certificate| is_below_one_label(certificate, host));
        certificate.map(drop).ok_or(error)
    })
}

fn is_below_one_label(certificate: &Certificate<'_>, host: &ServerName<'_>) -> bool {
    let ServerName::DnsName(host) = host else { return false };
    let Some((_, label)) = host.as_ref().split_once('.').filter(|(_, label)| !label.contains('.')) else {
        return false;
    };
    let names = certificate.hosts().names;
    names.iter().any(|name| name.strip_prefix("*.").is_some_and(|of| of.eq_ignore_ascii_case(label)))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let key = KeyPair::generate().expect("aws-lc-rs makes P-256 keys");
        let params = CertificateParams::new(["*.etcd".to_owned(), "*.example.internal".to_owned()]).expect("names");
        let der = params.self_signed(&key).expect("parameters are complete").der().clone();
        let is_for = |host: &'static str| verify(&der, &ServerName::try_from(host).expect("a name")).is_ok();
        assert!(["m1.etcd", "M1.ETCD", "m1.example.internal"].into_iter().all(is_for));
        let others = ["etcd", "a.m1.etcd", "m1.other", "internal", "a.m1.example.internal", "127.0.0.1"];
        assert!(!others.into_iter().any(is_for));
    }
}
