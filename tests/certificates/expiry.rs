//! When the chain that we show ends: what cuts every link, whichever of its certificates it is.

use std::time::{Duration, SystemTime};

use rafthttp::{
    metrics::{Exposition, Options},
    tls::Tls,
};
use rcgen::CertificateParams;

use crate::support::{
    TestMember,
    certificates::{Authority, Files, Issued, Leaf},
};

fn until(year: i32) -> impl FnOnce(&mut CertificateParams) {
    move |params| params.not_after = rcgen::date_time_ymd(year, 1, 1)
}

fn leaf(year: i32) -> Leaf {
    Leaf { not_after: year, ..Leaf::default() }
}

/// The year in which the chain ends.
fn ends(issued: &Issued, trusted: &str) -> i32 {
    let tls = Tls::load(Files::new(issued, trusted).config()).expect("the files are good");
    let end = tls.expiry().expect("there is a certificate").duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    time::OffsetDateTime::from_unix_timestamp(end.as_secs().try_into().expect("a time")).expect("a time").year()
}

#[tokio::test]
async fn the_earliest_end_of_the_chain_and_its_ca_counts() {
    let root = Authority::changed("root", until(2100));
    assert_eq!(ends(&root.issue(leaf(2050)), &root.pem), 2050);
    assert_eq!(ends(&root.issue(leaf(2150)), &root.pem), 2100);
    let between = root.below("between", until(2040));
    let mut issued = between.issue(leaf(2050));
    issued.cert.push_str(&between.pem);
    assert_eq!(ends(&issued, &root.pem), 2040);
}

#[tokio::test]
async fn others_in_the_bundle_do_not_count() {
    let (old, new) = (Authority::changed("old", until(2035)), Authority::changed("new", until(2100)));
    assert_eq!(ends(&new.issue(leaf(2050)), &format!("{}{}", old.pem, new.pem)), 2050);
    // The same CA, renewed under its key: whichever of its certificates lasts.
    let first = Authority::changed("ca", until(2035));
    let second = first.renewed(until(2100));
    for bundle in [format!("{}{}", first.pem, second.pem), format!("{}{}", second.pem, first.pem)] {
        assert_eq!(ends(&first.issue(leaf(2050)), &bundle), 2050);
    }
    assert_eq!(ends(&first.issue(leaf(2050)), &first.pem), 2035);
}

#[tokio::test]
async fn what_has_ended_or_leads_nowhere_has_an_end_all_the_same() {
    let ended = Authority::changed("ca", until(2021));
    assert_eq!(ends(&ended.issue(leaf(2050)), &ended.pem), 2021);
    let root = Authority::changed("root", until(2100));
    assert_eq!(ends(&root.issue(leaf(2022)), &root.pem), 2022);
    let other = Authority::changed("other", until(2030));
    assert_eq!(ends(&root.issue(leaf(2050)), &other.pem), 2050);
}

#[tokio::test]
async fn each_part_is_shown() {
    let root = Authority::changed("root", until(2100));
    let between = root.below("between", until(2040));
    let mut issued = between.issue(leaf(2050));
    issued.cert.push_str(&between.pem);
    let files = Files::new(&issued, &root.pem);
    let tls = Tls::load(files.config()).expect("the files are good");
    let member = TestMember::start_over(1, Some(tls), |builder| builder).await;
    let text: String = Exposition::new(member.status(), &Options::default())
        .map(|piece| String::from_utf8(piece.to_vec()).expect("text"))
        .collect();
    let year = |year: i32| rcgen::date_time_ymd(year, 1, 1).unix_timestamp();
    let all = "rafthttp_tls_certificate_expiry_timestamp_seconds";
    let part = |part: &str| format!("rafthttp_tls_certificate_part_expiry_timestamp_seconds{{part=\"{part}\"}}");
    for (series, end) in
        [(all.to_owned(), 2040), (part("leaf"), 2050), (part("intermediate"), 2040), (part("authority"), 2100)]
    {
        let line = format!("{series} {}", year(end));
        assert!(text.lines().any(|found| found == line), "no {line}");
    }
    // With the CA, the end changes too, without a restart.
    files.write("ca.pem", &Authority::new("other").pem);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let status = member.status().tls.expect("it speaks TLS");
    assert_eq!(status.certificate_parts.len(), 2, "{status:?}");
    member.stop().await;
}
