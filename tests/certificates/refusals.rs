//! A member that refuses a certificate says which one, and what it lacks. The refused member says so too, and warned of
//! it at its start.

use std::{sync::Arc, time::Duration};

use rafthttp::{
    metrics::Direction,
    tls::{HandshakeReason, Tls},
};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose as Usage, KeyUsagePurpose};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use crate::{
    handshake::{HANDSHAKE_TIMEOUT, meet},
    lines::Warnings,
    support::{
        TestMember,
        certificates::{Authority, Files, Issued, Leaf, self_signed},
        until,
    },
};

fn load(issued: &Issued, authority: &str) -> Tls {
    Tls::load(Files::new(issued, authority).config()).expect("the files are good")
}

fn with(usages: &[Usage]) -> Leaf {
    Leaf { usages: usages.to_vec(), ..Leaf::default() }
}

/// Why `server` refuses a client that dials with `client`.
async fn refusal(server: &Tls, client: Arc<ClientConfig>) -> (HandshakeReason, String) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from("localhost").expect("a name");
    let (refused, _) =
        tokio::join!(server.accept(far, HANDSHAKE_TIMEOUT), TlsConnector::from(client).connect(name, near));
    let error = refused.map(drop).expect_err("it is refused");
    (error.reason(), error.to_string())
}

/// Why a member that trusts this CA refuses a client with this certificate.
async fn refused(issued: &Issued, authority: &Authority) -> (HandshakeReason, String) {
    let good = Authority::new("good");
    let server = load(&good.issue(Leaf::default()), &authority.pem);
    let client = load(issued, &good.pem);
    refusal(&server, client.client().expect("there is a trusted CA")).await
}

async fn meet_with(leaf: Leaf, by: &Authority, chain: &str, trusted: &str) -> bool {
    let mut issued = by.issue(leaf);
    issued.cert.push_str(chain);
    let tls = load(&issued, trusted);
    let client = tls.client().expect("there is a trusted CA");
    meet(&tls, client, "localhost").await == (Ok(()), Ok(()))
}

#[tokio::test]
async fn a_usage_of_any_is_taken_at_each_level_of_the_chain() {
    let any = |params: &mut CertificateParams| params.extended_key_usages = vec![Usage::Any];
    let root = Authority::changed("root", any);
    let between = root.below("between", any);
    assert!(meet_with(with(&[Usage::Any]), &root, "", &root.pem).await);
    assert!(meet_with(with(&[Usage::CodeSigning, Usage::Any]), &between, &between.pem, &root.pem).await);
    assert!(meet_with(with(&[]), &between, &between.pem, &root.pem).await);
    assert!(!meet_with(with(&[Usage::CodeSigning]), &between, &between.pem, &root.pem).await);
}

#[tokio::test]
async fn a_usage_that_a_ca_lacks_is_lacking_below_it() {
    let for_servers = |params: &mut CertificateParams| params.extended_key_usages = vec![Usage::ServerAuth];
    let root = Authority::new("root");
    let between = root.below("between", for_servers);
    let mut issued = between.issue(Leaf::default());
    issued.cert.push_str(&between.pem);
    let lacks = |which: &str| format!("the {which} lacks the extended key usage clientAuth: it has serverAuth");
    let said = refused(&issued, &root).await;
    assert_eq!(said, (HandshakeReason::Usage, lacks("intermediate certificate of \"between\"")));
    let narrow = Authority::changed("narrow", for_servers);
    let said = refused(&narrow.issue(Leaf::default()), &narrow).await;
    assert_eq!(said, (HandshakeReason::Usage, lacks("CA's certificate of \"narrow\"")));
}

#[tokio::test]
async fn what_a_certificate_lacks_is_said_with_its_name() {
    let authority = Authority::new("ca");
    let server_only = refused(&authority.issue(with(&[Usage::ServerAuth, Usage::CodeSigning])), &authority).await;
    let said = "the certificate of \"member\" lacks the extended key usage clientAuth: it has serverAuth, codeSigning";
    assert_eq!(server_only, (HandshakeReason::Usage, said.to_owned()));
    let ended = refused(&authority.issue(Leaf { not_after: 2021, ..Leaf::default() }), &authority).await;
    let said = "the certificate of \"member\" ended on 2021-01-01T00:00:00Z";
    assert_eq!(ended, (HandshakeReason::Expired, said.to_owned()));
    let (reason, early) = refused(&authority.issue(Leaf { not_before: 2180, ..Leaf::default() }), &authority).await;
    assert_eq!(reason, HandshakeReason::Expired);
    let said = "the certificate of \"member\" begins on 2180-01-01T00:00:00Z, and it is 20";
    assert!(early.starts_with(said) && early.ends_with('Z'), "{early}");
    let stranger = refused(&Authority::new("other").issue(Leaf::default()), &authority).await;
    let said = "the certificate of \"member\", signed by \"other\", leads to none of the trusted CAs: of \"ca\"";
    assert_eq!(stranger, (HandshakeReason::UnknownAuthority, said.to_owned()));
    let own = refused(&self_signed(Leaf::default()), &authority).await;
    let said = "the certificate of \"member\" signs itself and is none of the trusted CAs: of \"ca\"";
    assert_eq!(own, (HandshakeReason::UnknownAuthority, said.to_owned()));
}

#[tokio::test]
async fn a_ca_of_the_same_name_and_another_key_is_told_as_that() {
    let (ours, theirs) = (Authority::new("ca"), Authority::new("ca"));
    let (reason, said) = refused(&theirs.issue(Leaf::default()), &ours).await;
    assert_eq!(reason, HandshakeReason::UnknownAuthority);
    assert_eq!(said, "the certificate of \"member\" says that \"ca\" signed it, but the CA of that name did not");
}

/// webpki trusts everything in the trusted file, for ever. With webpki alone, a holder of the key of a member's
/// certificate in that file could issue certificates for members.
#[tokio::test]
async fn what_stands_in_the_trusted_file_signs_others_only_if_it_is_a_ca_that_is_valid() {
    let no_authority = Authority::changed("leaf", |params| params.is_ca = rcgen::IsCa::NoCa);
    let (_, said) = refused(&no_authority.issue(Leaf::default()), &no_authority).await;
    assert!(said.contains("is signed by one that may not sign certificates"), "{said}");
    let no_signer = Authority::changed("ca", |params| params.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    let (_, said) = refused(&no_signer.issue(Leaf::default()), &no_signer).await;
    assert!(said.contains("a key usage without keyCertSign"), "{said}");
    let ended = Authority::changed("ca", |params| params.not_after = rcgen::date_time_ymd(2021, 1, 1));
    let said = refused(&ended.issue(Leaf::default()), &ended).await;
    let words = "the CA's certificate of \"ca\" ended on 2021-01-01T00:00:00Z".to_owned();
    assert_eq!(said, (HandshakeReason::Expired, words));
}

#[tokio::test]
async fn names_of_strangers_are_shown_in_bounds_and_on_one_line() {
    let authority = Authority::new("ca");
    let name: &'static str = Box::leak(format!("a\nb\u{1b}[2J{}", "x".repeat(200)).into_boxed_str());
    let issued = Authority::new("other").issue(Leaf { common_name: name, ..Leaf::default() });
    let (_, said) = refused(&issued, &authority).await;
    assert!(!said.contains(char::is_control) && said.len() < 300, "{said:?}");
}

#[tokio::test]
async fn a_member_that_others_will_refuse_knows_it_at_its_start() {
    let authority = Authority::new("ca");
    let warned = |issued: &Issued| {
        let files = Files::new(issued, &authority.pem);
        let warnings = Warnings::watch();
        Tls::load(files.config()).expect("etcd starts with it too");
        let directory = files.path("").display().to_string();
        warnings.said().into_iter().map(|line| line.replace(&directory, "")).collect::<Vec<_>>()
    };
    assert_eq!(warned(&authority.issue(Leaf::default())), Vec::<String>::new());
    assert_eq!(
        warned(&authority.issue(with(&[Usage::ServerAuth]))),
        [
            "peers that trust the same CAs will refuse this certificate when we dial them file=cert.pem why=the certificate \
         of \"member\" lacks the extended key usage clientAuth: it has serverAuth"
        ]
    );
    assert_eq!(
        warned(&authority.issue(Leaf { not_after: 2021, ..Leaf::default() })),
        [
            "peers that trust the same CAs will refuse this certificate file=cert.pem why=the certificate of \"member\" ended \
         on 2021-01-01T00:00:00Z"
        ]
    );
}

#[tokio::test]
async fn a_member_whose_certificate_is_not_for_its_own_url_knows_it_at_its_start() {
    let authority = Authority::new("ca");
    let warned = async |names: Vec<&'static str>| {
        let tls = load(&authority.issue(Leaf { names, ..Leaf::default() }), &authority.pem);
        let warnings = Warnings::watch();
        TestMember::start_over(1, Some(tls), |builder| builder).await.stop().await;
        warnings
            .said()
            .into_iter()
            .find(|line| line.starts_with("peers that dial this URL will refuse this certificate"))
    };
    assert_eq!(warned(vec!["localhost", "127.0.0.1"]).await, None);
    let said = warned(vec!["localhost"]).await.expect("it is dialled by its address");
    assert!(said.ends_with("the certificate of \"member\" is for \"localhost\", but not for \"127.0.0.1\""), "{said}");
    let said = warned(vec![]).await.expect("nobody can dial it");
    assert!(said.contains("has no alternative names, so it is not for \"127.0.0.1\""), "{said}");
}

/// Both are in one process, so both sides' lines are seen.
#[tokio::test]
async fn both_sides_say_which_certificate_lacks_what() {
    let authority = Authority::new("ca");
    let good = load(&authority.issue(Leaf::default()), &authority.pem);
    let files = Files::new(&authority.issue(with(&[Usage::ServerAuth])), &authority.pem);
    let bad = Tls::load(files.config()).expect("etcd starts with it too");
    let warnings = Warnings::watch();
    let (one, two) = (
        TestMember::start_over(1, Some(good), |builder| builder).await,
        TestMember::start_over(2, Some(bad), |builder| builder).await,
    );
    one.add(&two);
    two.add(&one);
    let lacks = "the certificate of \"member\" lacks the extended key usage clientAuth: it has serverAuth";
    let accepts = format!("TLS connection refused member={} address=127.0.0.1 reason=usage why={lacks}", one.id);
    let said = |line: &str| warnings.said().iter().any(|said| said == line);
    until("the side that refuses says why", || said(&accepts)).await;
    let file = files.path("cert.pem");
    let dials =
        format!("the other side refuses our certificate, {} (alert UnsupportedCertificate): {lacks}", file.display());
    until("the side that is refused says so", || {
        let lines = warnings.said();
        lines.iter().any(|line| line.starts_with("stream not opened") && line.contains(&dials))
            && lines.iter().any(|line| line.starts_with("peer unreachable") && line.contains(&dials))
    })
    .await;
    // It dials several times a second, and is told of once.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(warnings.said().iter().filter(|line| **line == accepts).count(), 1);
    let failures = one.status().tls.expect("it speaks TLS").handshake_failures;
    assert!(failures.of((Direction::In, "usage")) > 1);
    one.stop().await;
    two.stop().await;
}
