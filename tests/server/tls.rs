//! The port when it speaks TLS.

use std::{sync::Arc, time::Duration};

use rafthttp::{
    Limits,
    metrics::Direction,
    server::ConnectionLimits,
    tls::{HandshakeReason, Tls, TlsConfig},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use crate::member::{LEGAL, Member, closes, request};

/// A certificate for 127.0.0.1, and a client that trusts it.
fn certificate() -> (TempDir, Tls, TlsConnector) {
    let directory = tempfile::tempdir().unwrap();
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let (cert_file, key_file) = (directory.path().join("cert"), directory.path().join("key"));
    std::fs::write(&cert_file, leaf.pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let tls = Tls::load(TlsConfig { cert_file, key_file, ..TlsConfig::default() }).unwrap();

    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let client = client.with_root_certificates(roots).with_no_client_auth();
    (directory, tls, TlsConnector::from(Arc::new(client)))
}

#[tokio::test]
async fn a_handshake_that_does_not_end_holds_up_nobody() {
    let (_directory, tls, client) = certificate();
    let limits = ConnectionLimits { handshake_timeout: Duration::from_millis(500), ..Default::default() };
    let member = Member::with(Limits::default(), |server| server.tls(tls.clone()).limits(limits)).await;
    let mut silent = member.connect().await;
    let mut wrong = member.connect().await;
    wrong.write_all(&request("GET", "/raft/probing", "")).await.unwrap();

    let name = "127.0.0.1".try_into().unwrap();
    let mut connection = client.connect(name, member.connect().await).await.unwrap();
    connection.write_all(&request("GET", "/raft/stream/msgapp/2", LEGAL)).await.unwrap();
    let mut head = [0; 15];
    connection.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");

    assert!(closes(&mut wrong, Duration::from_secs(2)).await);
    assert!(closes(&mut silent, Duration::from_secs(2)).await);
    assert_eq!(tls.handshake_failures().of((Direction::In, HandshakeReason::Timeout)), 1);
    // The stream outlives them.
    let mut link_heartbeat = [0; 1];
    connection.read_exact(&mut link_heartbeat).await.unwrap();
}

#[tokio::test]
async fn a_request_in_the_clear_is_told_what_it_forgot_where_the_port_is_for_clients() {
    let (_directory, tls, client) = certificate();
    let member = Member::with(Limits::default(), |server| server.tls(tls.clone()).answer_plain()).await;
    let mut plain = member.connect().await;
    plain.write_all(&request("GET", "/version", "")).await.unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n");
    assert_eq!(tls.handshake_failures().of((Direction::In, HandshakeReason::Protocol)), 1);

    let mut connection = client.connect("127.0.0.1".try_into().unwrap(), member.connect().await).await.unwrap();
    connection.write_all(&request("GET", "/version", "")).await.unwrap();
    let mut head = [0; 15];
    connection.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
}

#[tokio::test]
async fn connections_without_a_handshake_cost_nobody_who_has_made_one() {
    let (_directory, tls, client) = certificate();
    let limits = ConnectionLimits { total: 4, ..Default::default() };
    let member = Member::with(Limits::default(), |server| server.tls(tls.clone()).limits(limits)).await;
    let name = || "127.0.0.1".try_into().unwrap();
    let mut first = client.connect(name(), member.connect().await).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(member.connect().await);
    }
    assert!(closes(&mut silent[0], Duration::from_secs(2)).await);
    first.write_all(&request("GET", "/version", "")).await.unwrap();
    let mut head = [0; 15];
    first.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
}
