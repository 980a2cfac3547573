//! Members behind TLS: whom to believe, and files that change while members are watched.

use rafthttp::{Tls, TlsConfig};

use crate::{
    command::{Watching, reachable, row, rows},
    fake::Fake,
    scrape::Scrape,
    support::certificates::{Authority, Files, Leaf},
};

const SKIP: &str = "--insecure-skip-tls-verify";

/// A certificate of a member's, and the CA that it takes those of others by.
fn files(own: &Authority, trusted: &Authority) -> Files {
    Files::new(&own.issue(Leaf::default()), &trusted.pem)
}

/// A member alone in its cluster, on `https`.
async fn member(files: &Files, client_cert_auth: bool) -> Fake {
    // A CA of its own would make it ask for certificates, too.
    let trusted_ca_file = client_cert_auth.then(|| files.path("ca.pem"));
    Fake::secure(Tls::load(TlsConfig { client_cert_auth, trusted_ca_file, ..files.config() }).unwrap()).await
}

fn cacert(files: &Files) -> Vec<String> {
    vec!["--cacert".to_owned(), files.path("ca.pem").display().to_string()]
}

fn all(files: &Files) -> Vec<String> {
    let pair = [("--cert", "cert.pem"), ("--key", "key.pem")];
    let pair = pair.iter().flat_map(|(flag, name)| [(*flag).to_owned(), files.path(name).display().to_string()]);
    cacert(files).into_iter().chain(pair).collect()
}

/// Flags and the member's URL.
fn line<'a>(flags: &'a [String], fake: &'a Fake) -> Vec<&'a str> {
    flags.iter().map(String::as_str).chain([fake.url.as_str()]).collect()
}

#[tokio::test]
async fn a_member_of_an_unknown_ca_is_refused_in_clear_words_unless_nobody_looks() {
    let (theirs, ours) = (Authority::new("theirs"), Authority::new("ours"));
    let (of_the_member, unknown, known) = (files(&theirs, &theirs), files(&ours, &ours), files(&ours, &theirs));
    let fake = member(&of_the_member, false).await;
    let (status, document) = rows(&line(&cacert(&unknown), &fake)).await;
    assert_eq!((status, &row(&document, &fake.url)["reachable"]), (Some(1), &false.into()), "{document}");
    let said = row(&document, &fake.url)["error"].as_str().unwrap().to_owned();
    assert!(said.contains("TLS with") && said.contains("leads to none of the trusted CAs"), "{said}");
    for flags in [cacert(&known), vec![SKIP.to_owned()], [cacert(&unknown), vec![SKIP.to_owned()]].concat()] {
        let (status, document) = rows(&line(&flags, &fake)).await;
        assert_eq!((status, &row(&document, &fake.url)["healthy"]), (Some(0), &true.into()), "{flags:?}: {document}");
    }
}

#[tokio::test]
async fn a_certificate_is_shown_even_where_nobody_looks_at_that_of_the_member() {
    let (theirs, ours) = (Authority::new("theirs"), Authority::new("ours"));
    let (of_the_member, good, bad) = (files(&theirs, &theirs), files(&theirs, &ours), files(&ours, &ours));
    let fake = member(&of_the_member, true).await;
    let skip = |flags: Vec<String>| [flags, vec![SKIP.to_owned()]].concat();
    assert_eq!(rows(&line(&skip(all(&good)), &fake)).await.0, Some(0));
    for (flags, word) in
        [(vec![SKIP.to_owned()], "the other side requires a certificate"), (skip(all(&bad)), "UnknownCA")]
    {
        let (status, document) = rows(&line(&flags, &fake)).await;
        let said = row(&document, &fake.url)["error"].as_str().unwrap().to_owned();
        assert!(status == Some(1) && said.contains(word), "{word}: {said}");
    }
}

#[tokio::test]
async fn the_files_are_read_again_when_they_change() {
    let (theirs, ours) = (Authority::new("theirs"), Authority::new("ours"));
    let (of_the_member, files) = (files(&theirs, &theirs), files(&ours, &ours));
    let fake = member(&of_the_member, true).await;
    let watching = Watching::start(&line(&all(&files), &fake));
    let failed = |reason: &'static str| {
        move |scrape: &Scrape| {
            let labels = [("direction", "out"), ("reason", reason)];
            scrape.sum("rafthttp_tls_handshake_failures_total", &labels).is_some_and(|count| count > 0.0)
        }
    };
    watching.until("the member is of an unknown CA", failed("unknown_authority")).await;
    let before = watching.scrape().await.unwrap().sum("rafthttp_tls_reloads_total", &[("result", "ok")]).unwrap();
    // The CA first: now it is ours that is unknown, to the member; it says so, and nobody is found.
    files.write("ca.pem", &theirs.pem);
    let count = |scrape: &Scrape| scrape.sum("rafthttp_tls_reloads_total", &[("result", "ok")]).unwrap_or(0.0);
    watching.until("the CA is read again", |scrape| count(scrape) > before).await;
    assert_eq!(reachable(&watching.scrape().await.unwrap(), "1"), None);
    files.replace(&theirs.issue(Leaf::default()));
    watching.until("certificate and key are read again", |scrape| reachable(scrape, "1") == Some(1.0)).await;
    // What holds no certificate changes nothing.
    files.write("cert.pem", "half of a file");
    let bad = |scrape: &Scrape| scrape.sum("rafthttp_tls_reloads_total", &[("result", "failed")]) > Some(0.0);
    watching.until("a bad file is told", bad).await;
    watching.until("the last good ones hold", |scrape| reachable(scrape, "1") == Some(1.0)).await;
    assert_eq!(watching.stop().await, Some(0));
}
