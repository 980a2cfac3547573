//! TLS between members: which peers are accepted, which are refused, and what changes without a restart.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rafthttp::{
    metrics::Direction,
    tls::{HandshakeReason, Tls, TlsClientConfig, TlsConfig, TlsError},
};
use rcgen::KeyPair;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tokio::io::AsyncWriteExt;

use certificates::{Authority, Files, INTERMEDIATE, Issued, Leaf, fixture, self_signed};
use handshake::{HANDSHAKE_TIMEOUT, meet};

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/handshake.rs"]
mod handshake;

fn load(files: &Files) -> Tls {
    Tls::load(files.config()).expect("the files are good")
}

/// How often changed files were taken, and how often they were not.
fn reloads(tls: &Tls) -> (u64, u64) {
    let reloads = tls.reloads();
    (reloads.ok, reloads.failed)
}

fn dials(tls: &Tls) -> Arc<ClientConfig> {
    tls.client().expect("there is a trusted CA")
}

/// A client that trusts `authority`, shows no certificate, and offers `alpn`.
fn stranger(authority: &Authority, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("a certificate")).expect("an anchor");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let mut client = client.with_root_certificates(roots).with_no_client_auth();
    client.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Arc::new(client)
}

async fn two_of_this_kind_meet(issued: Issued, authority: &str, name: &str) {
    let files = Files::new(&issued, authority);
    let tls = load(&files);
    assert_eq!(meet(&tls, dials(&tls), name).await, (Ok(()), Ok(())));
    assert_eq!(tls.handshake_failures().total(), 0);
}

#[tokio::test]
async fn members_with_p256_keys_meet() {
    let authority = Authority::new("ca");
    two_of_this_kind_meet(authority.issue(Leaf::default()), &authority.pem, "localhost").await;
}

#[tokio::test]
async fn members_with_p384_keys_meet() {
    let authority = Authority::new("ca");
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("aws-lc-rs makes these");
    two_of_this_kind_meet(authority.issue(Leaf { key, ..Leaf::default() }), &authority.pem, "localhost").await;
}

#[tokio::test]
async fn members_with_p521_keys_meet() {
    let authority = Authority::new("ca");
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).expect("aws-lc-rs makes these");
    two_of_this_kind_meet(authority.issue(Leaf { key, ..Leaf::default() }), &authority.pem, "localhost").await;
}

#[tokio::test]
async fn members_below_a_p521_authority_meet() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).expect("aws-lc-rs makes these");
    let authority = Authority::with_key("ca", key);
    two_of_this_kind_meet(authority.issue(Leaf::default()), &authority.pem, "localhost").await;
}

#[tokio::test]
async fn members_with_smaller_curves_signed_with_sha_512_meet() {
    for curve in ["p256sha512", "p384sha512"] {
        let issued = Issued { cert: fixture(&format!("{curve}.pem")), key: fixture(&format!("{curve}.key")) };
        two_of_this_kind_meet(issued, &fixture(&format!("{curve}.ca.pem")), "localhost").await;
    }
}

#[tokio::test]
async fn members_with_ed25519_keys_meet() {
    let authority = Authority::new("ca");
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("aws-lc-rs makes these");
    two_of_this_kind_meet(authority.issue(Leaf { key, ..Leaf::default() }), &authority.pem, "localhost").await;
}

#[tokio::test]
async fn members_with_rsa_keys_meet() {
    let authority = Authority::new("ca");
    let key = KeyPair::from_pem(&fixture("rsa2048.key")).expect("an RSA key");
    two_of_this_kind_meet(authority.issue(Leaf { key, ..Leaf::default() }), &authority.pem, "localhost").await;
}

#[tokio::test]
async fn a_certificate_that_vouches_for_itself_is_trusted_as_its_own_authority() {
    let issued = self_signed(Leaf::default());
    let authority = issued.cert.clone();
    two_of_this_kind_meet(issued, &authority, "localhost").await;
}

#[tokio::test]
async fn a_chain_with_an_intermediate_leads_to_the_authority() {
    let root = Authority::new("root");
    let between = root.intermediate("between");
    let mut issued = between.issue(Leaf::default());
    issued.cert.push_str(&between.pem);
    two_of_this_kind_meet(issued, &root.pem, "localhost").await;
}

#[tokio::test]
async fn a_peer_is_known_by_its_address_alone() {
    let authority = Authority::new("ca");
    let leaf = Leaf { names: vec!["127.0.0.1", "::1"], ..Leaf::default() };
    let issued = authority.issue(leaf);
    let files = Files::new(&issued, &authority.pem);
    let tls = load(&files);
    assert_eq!(meet(&tls, dials(&tls), "127.0.0.1").await, (Ok(()), Ok(())));
    assert_eq!(meet(&tls, dials(&tls), "::1").await, (Ok(()), Ok(())));
    assert!(meet(&tls, dials(&tls), "127.0.0.2").await.1.is_err());
}

#[tokio::test]
async fn a_client_of_another_authority_is_refused_and_counted() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = Files::new(&ours.issue(Leaf::default()), &ours.pem);
    // It trusts us; we do not trust it.
    let client = Files::new(&theirs.issue(Leaf::default()), &ours.pem);
    let (server, client) = (load(&server), load(&client));
    let (accepted, dialled) = meet(&server, dials(&client), "localhost").await;
    assert_eq!(accepted, Err(HandshakeReason::UnknownAuthority));
    assert!(dialled.is_err());
    assert_eq!(server.handshake_failures().total(), 1);
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused_and_the_server_is_told_why() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = Files::new(&theirs.issue(Leaf::default()), &ours.pem);
    let client = Files::new(&ours.issue(Leaf::default()), &ours.pem);
    let (server, client) = (load(&server), load(&client));
    let (accepted, dialled) = meet(&server, dials(&client), "localhost").await;
    assert_eq!(accepted, Err(HandshakeReason::UnknownAuthority));
    assert!(dialled.is_err());
    assert_eq!(server.handshake_failures().of((Direction::In, HandshakeReason::UnknownAuthority)), 1);
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused_when_there_is_an_authority() {
    let authority = Authority::new("ca");
    let files = Files::new(&authority.issue(Leaf::default()), &authority.pem);
    let tls = Tls::load(TlsConfig { client_cert_auth: false, ..files.config() }).expect("the files are good");
    let (accepted, dialled) = meet(&tls, stranger(&authority, &[]), "localhost").await;
    assert_eq!(accepted, Err(HandshakeReason::NoCertificate));
    assert!(dialled.is_err());
}

#[tokio::test]
async fn without_an_authority_anyone_is_served_and_nobody_is_dialled() {
    let authority = Authority::new("ca");
    let files = Files::new(&authority.issue(Leaf::default()), &authority.pem);
    let config = TlsConfig { trusted_ca_file: None, client_cert_auth: false, ..files.config() };
    let tls = Tls::load(config).expect("the files are good");
    assert_eq!(meet(&tls, stranger(&authority, &[]), "localhost").await, (Ok(()), Ok(())));
    assert!(tls.client().is_none());
}

#[tokio::test]
async fn a_certificate_that_expired_is_refused() {
    let authority = Authority::new("ca");
    let server = Files::new(&authority.issue(Leaf::default()), &authority.pem);
    let client = Files::new(&authority.issue(Leaf { not_after: 2021, ..Leaf::default() }), &authority.pem);
    let (accepted, _) = meet(&load(&server), dials(&load(&client)), "localhost").await;
    assert_eq!(accepted, Err(HandshakeReason::Expired));
}

#[tokio::test]
async fn a_client_of_a_common_name_that_is_not_allowed_is_refused() {
    let authority = Authority::new("ca");
    let files = Files::new(&authority.issue(Leaf::default()), &authority.pem);
    let other = Files::new(&authority.issue(Leaf { common_name: "other", ..Leaf::default() }), &authority.pem);
    let config = TlsConfig { allowed_common_names: vec!["member".to_owned()], ..files.config() };
    let tls = Tls::load(config).expect("the files are good");
    assert_eq!(meet(&tls, dials(&load(&files)), "localhost").await, (Ok(()), Ok(())));
    assert_eq!(meet(&tls, dials(&load(&other)), "localhost").await.0, Err(HandshakeReason::Name));
}

#[tokio::test]
async fn a_server_of_a_common_name_that_is_not_allowed_is_not_spoken_to() {
    let authority = Authority::new("ca");
    let files = Files::new(&authority.issue(Leaf::default()), &authority.pem);
    let config = TlsConfig { allowed_common_names: vec!["other".to_owned()], ..files.config() };
    let client = Tls::load(config).expect("the files are good");
    assert!(meet(&load(&files), dials(&client), "localhost").await.1.is_err());
}

#[tokio::test]
async fn an_allowed_host_name_binds_both_directions() {
    let authority = Authority::new("ca");
    let one = Files::new(&authority.issue(Leaf { names: vec!["localhost", "one"], ..Leaf::default() }), &authority.pem);
    let two = Files::new(&authority.issue(Leaf { names: vec!["localhost", "two"], ..Leaf::default() }), &authority.pem);
    let only = |name: &str| {
        let config = TlsConfig { allowed_hostnames: vec![name.to_owned()], ..one.config() };
        Tls::load(config).expect("the files are good")
    };
    assert_eq!(meet(&only("one"), dials(&only("one")), "localhost").await, (Ok(()), Ok(())));
    assert_eq!(meet(&only("one"), dials(&load(&two)), "localhost").await.0, Err(HandshakeReason::Name));
    assert!(meet(&load(&one), dials(&only("two")), "localhost").await.1.is_err());
}

#[tokio::test]
async fn clients_that_offer_http_1_or_2_or_nothing_are_served_and_others_get_an_alert() {
    let authority = Authority::new("ca");
    let files = Files::new(&authority.issue(Leaf::default()), &authority.pem);
    let config = TlsConfig { trusted_ca_file: None, client_cert_auth: false, ..files.config() };
    let tls = Tls::load(config).expect("the files are good");
    for offer in [&[][..], &[&b"http/1.1"[..]], &[b"h2"], &[b"h2", b"http/1.1"]] {
        assert_eq!(meet(&tls, stranger(&authority, offer), "localhost").await, (Ok(()), Ok(())), "{offer:?}");
    }
    let (accepted, dialled) = meet(&tls, stranger(&authority, &[b"spdy/3"]), "localhost").await;
    assert_eq!(accepted, Err(HandshakeReason::Protocol));
    assert!(dialled.is_err_and(|error| error.contains("NoApplicationProtocol")));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_let_go_after_the_time_out_and_counted() {
    let authority = Authority::new("ca");
    let tls = load(&Files::new(&authority.issue(Leaf::default()), &authority.pem));
    let (_near, far) = tokio::io::duplex(1024);
    let begin = tokio::time::Instant::now();
    let error = tls.accept(far, HANDSHAKE_TIMEOUT).await.expect_err("nobody is there");
    assert_eq!(error.reason(), HandshakeReason::Timeout);
    assert_eq!(begin.elapsed().as_secs(), 10);
    let (_near, far) = tokio::io::duplex(1024);
    let error = tls.accept(far, Duration::from_secs(30)).await.expect_err("nobody is there");
    assert!(error.to_string().contains("30s"), "{error}");
    assert_eq!(begin.elapsed().as_secs(), 40);
    assert_eq!(tls.handshake_failures().of((Direction::In, HandshakeReason::Timeout)), 2);
}

#[tokio::test]
async fn plain_http_on_a_tls_port_is_a_protocol_failure() {
    let authority = Authority::new("ca");
    let tls = load(&Files::new(&authority.issue(Leaf::default()), &authority.pem));
    let (mut near, far) = tokio::io::duplex(1024);
    near.write_all(b"GET /raft/probing HTTP/1.1\r\n\r\n").await.expect("there is room");
    assert_eq!(tls.accept(far, HANDSHAKE_TIMEOUT).await.expect_err("not TLS").reason(), HandshakeReason::Protocol);
}

/// The files are looked at once a second, by tokio's clock.
async fn after_a_second() {
    tokio::time::sleep(Duration::from_millis(1001)).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_pair_is_used_without_a_restart() {
    let authority = Authority::new("ca");
    let files = Files::new(&authority.issue(Leaf::default()), &authority.pem);
    let tls = load(&files);
    let before = tls.expiry();
    files.replace(&authority.issue(Leaf { not_after: 2191, ..Leaf::default() }));
    after_a_second().await;
    assert!(tls.expiry() > before);
    assert_eq!(reloads(&tls), (1, 0));
    assert_eq!(meet(&tls, dials(&tls), "localhost").await, (Ok(()), Ok(())));
}

#[tokio::test(start_paused = true)]
async fn a_broken_pair_is_counted_once_and_the_old_one_stays() {
    let authority = Authority::new("ca");
    let files = Files::new(&authority.issue(Leaf::default()), &authority.pem);
    let tls = load(&files);
    let before = tls.expiry();
    files.write("cert.pem", "not a certificate");
    for _ in 0..3 {
        after_a_second().await;
        assert_eq!(tls.expiry(), before);
    }
    assert_eq!(reloads(&tls), (0, 1));
    assert_eq!(meet(&tls, dials(&tls), "localhost").await, (Ok(()), Ok(())));
}

#[tokio::test(start_paused = true)]
async fn a_certificate_without_its_key_waits_for_the_key() {
    let authority = Authority::new("ca");
    let files = Files::new(&authority.issue(Leaf::default()), &authority.pem);
    let tls = load(&files);
    let next = authority.issue(Leaf { not_after: 2191, ..Leaf::default() });
    files.write("cert.pem", &next.cert);
    after_a_second().await;
    assert_eq!(reloads(&tls), (0, 1));
    files.write("key.pem", &next.key);
    after_a_second().await;
    assert_eq!(reloads(&tls), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_authority_that_cannot_be_read_keeps_the_old_one_and_holds_up_no_certificate() {
    let authority = Authority::new("ca");
    let files = Files::new(&authority.issue(Leaf::default()), &authority.pem);
    let tls = load(&files);
    files.write("ca.pem", "half a certificate");
    files.replace(&authority.issue(Leaf { not_after: 2191, ..Leaf::default() }));
    let before = tls.expiry();
    after_a_second().await;
    assert!(tls.expiry() > before, "the certificate is in use");
    assert_eq!(reloads(&tls), (1, 1));
    assert_eq!(meet(&tls, dials(&tls), "localhost").await, (Ok(()), Ok(())));
    let next = Authority::new("next");
    files.write("ca.pem", &next.pem);
    after_a_second().await;
    assert_eq!(reloads(&tls), (2, 1));
    let (accepted, _) = meet(&tls, dials(&tls), "localhost").await;
    assert!(accepted.is_err(), "the old authority is gone");
}

/// Two members of one authority, the first of which has a list of those that were revoked.
fn with_list(list: impl AsRef<[u8]>) -> (Files, TlsConfig, Files, Authority) {
    let authority = Authority::new("ca");
    let one = Files::new(&authority.issue(Leaf { serial: Some(0x9001), ..Leaf::default() }), &authority.pem);
    let two = Files::new(&authority.issue(Leaf { serial: Some(0x9002), ..Leaf::default() }), &authority.pem);
    one.write("crl", list);
    let config = TlsConfig { crl_file: Some(one.path("crl")), ..one.config() };
    (one, config, two, authority)
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_at_both_ends_and_one_that_no_list_speaks_of_passes() {
    let (pem, der) = Authority::new("whoever").revoke(&[0x9002, 7], 2190);
    for list in [pem.into_bytes(), der] {
        let (one, config, two, _) = with_list(list);
        let (one, two, itself) = (Tls::load(config).expect("a list"), load(&two), load(&one));
        let (accepted, dialled) = meet(&one, dials(&two), "localhost").await;
        assert_eq!(accepted, Err(HandshakeReason::Revoked));
        assert!(dialled.is_err_and(|error| error.contains("CertificateRevoked")));
        assert!(meet(&two, dials(&one), "localhost").await.1.is_err_and(|error| error.contains("Revoked")));
        assert_eq!(meet(&one, dials(&itself), "localhost").await, (Ok(()), Ok(())));
    }
}

#[tokio::test]
async fn a_revoked_intermediate_takes_along_what_it_issued() {
    let root = Authority::new("root");
    let between = root.intermediate("between");
    let mut issued = between.issue(Leaf::default());
    issued.cert.push_str(&between.pem);
    let files = Files::new(&issued, &root.pem);
    files.write("crl", root.revoke(&[INTERMEDIATE], 2190).1);
    let tls = Tls::load(TlsConfig { crl_file: Some(files.path("crl")), ..files.config() }).expect("a list");
    assert_eq!(meet(&tls, dials(&load(&files)), "localhost").await.0, Err(HandshakeReason::Revoked));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_cannot_be_read_refuses_the_start_and_later_leaves_the_old_one() {
    let (pem, _) = Authority::new("whoever").revoke(&[0x9002], 2190);
    let words = "expected one in PEM (X509 CRL) or DER";
    for bad in ["", &pem[..pem.len() / 2]] {
        let (one, config, _, authority) = with_list(bad);
        let error = Tls::load(config.clone()).expect_err("no list").to_string();
        assert!(error.starts_with(&one.path("crl").display().to_string()) && error.contains(words), "{error}");
        one.write("crl", &authority.pem);
        assert!(Tls::load(config.clone()).is_err(), "a certificate is no list");
        let missing = TlsConfig { crl_file: Some(one.path("missing")), ..config };
        assert!(matches!(Tls::load(missing), Err(TlsError::Read { .. })));
    }
    let (one, config, two, authority) = with_list(&pem);
    let (tls, two) = (Tls::load(config).expect("a list"), load(&two));
    one.write("crl", "nothing");
    after_a_second().await;
    assert_eq!(reloads(&tls), (0, 1));
    assert_eq!(meet(&tls, dials(&two), "localhost").await.0, Err(HandshakeReason::Revoked));
    // One that is past its nextUpdate is used.
    one.write("crl", authority.revoke(&[0x9001], 2021).1);
    after_a_second().await;
    assert_eq!(meet(&tls, dials(&two), "localhost").await, (Ok(()), Ok(())));
    assert_eq!(meet(&tls, dials(&load(&one)), "localhost").await.0, Err(HandshakeReason::Revoked));
}

#[tokio::test]
async fn a_session_is_not_resumed_with_a_certificate_that_expired_meanwhile() {
    let authority = Authority::new("ca");
    let server = load(&Files::new(&authority.issue(Leaf::default()), &authority.pem));
    let expires = SystemTime::now() + Duration::from_secs(2);
    let client = Files::new(&authority.issue(Leaf { expires: Some(expires), ..Leaf::default() }), &authority.pem);
    let client = dials(&load(&client));
    assert_eq!(meet(&server, client.clone(), "localhost").await, (Ok(()), Ok(())));
    assert_eq!(meet(&server, client.clone(), "localhost").await, (Ok(()), Ok(())));
    tokio::time::sleep(expires.duration_since(SystemTime::now()).unwrap_or_default() + Duration::from_secs(1)).await;
    assert_eq!(meet(&server, client, "localhost").await.0, Err(HandshakeReason::Expired));
}

#[tokio::test]
async fn another_certificate_is_shown_to_those_whom_we_dial_where_there_is_one() {
    let authority = Authority::new("ca");
    let server = authority.issue(Leaf { common_name: "server", ..Leaf::default() });
    let client = authority.issue(Leaf { common_name: "client", names: vec![], ..Leaf::default() });
    let files = Files::new(&server, &authority.pem);
    files.write("client.pem", &client.cert);
    files.write("client-key.pem", &client.key);
    let config = TlsConfig {
        client_cert_file: Some(files.path("client.pem")),
        client_key_file: Some(files.path("client-key.pem")),
        ..files.config()
    };
    let tls = Tls::load(config.clone()).expect("the files are good");
    let clients = TlsConfig { allowed_common_names: vec!["client".to_owned()], ..files.config() };
    let servers = TlsConfig { allowed_common_names: vec!["server".to_owned()], ..files.config() };
    let (clients, servers) = (Tls::load(clients).expect("good"), Tls::load(servers).expect("good"));
    assert_eq!(meet(&clients, dials(&tls), "localhost").await, (Ok(()), Ok(())));
    assert_eq!(meet(&servers, dials(&tls), "localhost").await.0, Err(HandshakeReason::Name));
    let half = TlsConfig { client_key_file: None, ..config };
    assert!(matches!(Tls::load(half), Err(TlsError::Config(_))));
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_secret_that_is_swapped_by_its_link_is_read_again() {
    use std::os::unix::fs::symlink;

    let authority = Authority::new("ca");
    let old = Files::new(&authority.issue(Leaf::default()), &authority.pem);
    let new = Files::new(&authority.issue(Leaf { not_after: 2191, ..Leaf::default() }), &authority.pem);
    let mount = tempfile::tempdir().expect("a temporary directory");
    let (data, next) = (mount.path().join("..data"), mount.path().join("..data_tmp"));
    symlink(old.path(""), &data).expect("the directory is ours");
    let tls = Tls::load(TlsConfig {
        cert_file: data.join("cert.pem"),
        key_file: data.join("key.pem"),
        trusted_ca_file: Some(data.join("ca.pem")),
        ..TlsConfig::default()
    });
    let tls = tls.expect("the files are good");
    symlink(new.path(""), &next).and_then(|()| std::fs::rename(&next, &data)).expect("the directory is ours");
    after_a_second().await;
    assert_eq!(reloads(&tls), (1, 0));
}

#[test]
fn the_expiry_is_the_leafs() {
    let authority = Authority::new("ca");
    let tls = load(&Files::new(&authority.issue(Leaf { not_after: 2100, ..Leaf::default() }), &authority.pem));
    // 2100-01-01T00:00:00Z
    assert_eq!(tls.expiry(), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800)));
}

fn refusal(issued: &Issued, authority: &str) -> String {
    let files = Files::new(issued, authority);
    let error = Tls::load(files.config()).expect_err("these files cannot be used").to_string();
    assert!(!error.contains('\n'), "{error}");
    error.replace(&files.path("").display().to_string(), "")
}

/// The certificate that `etcd --peer-auto-tls` makes: P-521, `CA:TRUE`, for servers only. Nobody can verify it. A
/// client that does not verify can use it.
#[tokio::test]
async fn a_server_with_a_pair_of_etcds_auto_tls_is_reached_by_who_does_not_verify() {
    let issued = Issued { cert: fixture("autotls.pem"), key: fixture("autotls.key") };
    let authority = issued.cert.clone();
    let files = Files::new(&issued, &authority);
    let server = TlsConfig { trusted_ca_file: None, client_cert_auth: false, ..files.config() };
    let server = Tls::load(server).expect("the files are good");
    let skips = Tls::load_client(TlsClientConfig { insecure_skip_verify: true, ..TlsClientConfig::default() });
    let skips = skips.expect("there is nothing to load");
    assert_eq!(meet(&server, dials(&skips), "localhost").await, (Ok(()), Ok(())));
}

/// It has no names, so nobody can dial its owner. A client that shows it is accepted, as by etcd.
#[tokio::test]
async fn a_certificate_of_version_1_is_taken_from_who_dials() {
    let authority = Authority::new("ca");
    let (cert, key) = (fixture("version1.pem"), fixture("version1.key"));
    let client = Files::new(&Issued { cert: cert.clone(), key }, &authority.pem);
    let server = Files::new(&authority.issue(Leaf::default()), &cert);
    let (server, client) = (load(&server), load(&client));
    assert_eq!(meet(&server, dials(&client), "localhost").await, (Ok(()), Ok(())));
    assert!(meet(&client, dials(&server), "localhost").await.1.is_err());
}

/// Certificates that `openssl req -x509` makes are marked so.
#[tokio::test]
async fn members_whose_certificates_are_marked_as_a_cas_meet() {
    let authority = Authority::new("ca");
    let leaf = Leaf { is_authority: true, ..Leaf::default() };
    two_of_this_kind_meet(authority.issue(leaf), &authority.pem, "localhost").await;
    let own = self_signed(Leaf { is_authority: true, ..Leaf::default() });
    let trusted = own.cert.clone();
    two_of_this_kind_meet(own, &trusted, "localhost").await;
}

#[test]
fn a_key_that_is_another_certificates_is_refused() {
    let authority = Authority::new("ca");
    let mut issued = authority.issue(Leaf::default());
    issued.key = authority.issue(Leaf::default()).key;
    assert_eq!(
        refusal(&issued, &authority.pem),
        "key.pem: holds another key (P-256) than that of the certificate of \"member\", P-256, in cert.pem"
    );
}

#[test]
fn an_error_names_the_file() {
    let authority = Authority::new("ca");
    let issued = authority.issue(Leaf::default());
    assert!(refusal(&issued, "nothing").starts_with("ca.pem: holds text that is not PEM"));
    let files = Files::new(&issued, &authority.pem);
    let missing = TlsConfig { key_file: files.path("missing.pem"), ..files.config() };
    assert!(matches!(Tls::load(missing), Err(TlsError::Read { path, .. }) if path.ends_with("missing.pem")));
}

#[test]
fn names_without_an_authority_are_refused() {
    let authority = Authority::new("ca");
    let files = Files::new(&authority.issue(Leaf::default()), &authority.pem);
    let config = TlsConfig { trusted_ca_file: None, client_cert_auth: false, ..files.config() };
    let names = TlsConfig { allowed_common_names: vec!["member".to_owned()], ..config.clone() };
    assert!(matches!(Tls::load(names), Err(TlsError::Config(_))));
    assert!(matches!(Tls::load(TlsConfig { client_cert_auth: true, ..config }), Err(TlsError::Config(_))));
}
