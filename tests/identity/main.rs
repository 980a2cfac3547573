//! Compares the IDs of members and clusters with those of etcd's own code. For all values of `--initial-cluster`,
//! `--initial-cluster-token`, `--initial-advertise-peer-urls` and `--name` that etcd accepts, the IDs here are the
//! same, or the values are refused for a reason that `docs/coming-from-etcd.md` names.

#![cfg(feature = "node")]
#![allow(clippy::panic, reason = "a program that does not answer ends the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use proptest::{
    prelude::*,
    sample::{Index, select},
    strategy::ValueTree as _,
    test_runner::TestRunner,
};
use rafthttp::{
    PeerUrl,
    node::{Config, InitialCluster},
};
use serde::{Deserialize, Serialize};

#[path = "../support/mod.rs"]
mod support;

/// How many flags are made up.
const CASES: usize = 5000;
/// The same where there is time.
const MANY_CASES: usize = 30_000;

/// The flags of a member, as they are written.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Flags {
    name: String,
    cluster: String,
    token: String,
    advertise: String,
}

/// What etcd makes of them.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    error: String,
    cluster: String,
    members: BTreeMap<String, String>,
    /// It would look up names to find out whether what is advertised is what the cluster has.
    resolves: bool,
}

/// Cluster and members.
type Ids = (String, BTreeMap<String, String>);

fn ask(etcd: &Path, asked: &[Flags]) -> Vec<Answer> {
    let mut child = Command::new(etcd).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it was built");
    let mut to = child.stdin.take().expect("it is piped");
    let lines: String = asked.iter().map(|flags| serde_json::to_string(flags).expect("text") + "\n").collect();
    let writer = std::thread::spawn(move || to.write_all(lines.as_bytes()));
    let output = child.wait_with_output().expect("it answers");
    writer.join().expect("no panic").expect("it reads");
    let said = String::from_utf8(output.stdout).expect("JSON");
    let answers: Vec<Answer> = said.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(answers.len(), asked.len());
    answers
}

/// What we make of them: as `rafthttp node` reads its flags.
fn ours(flags: &Flags) -> Result<Ids, String> {
    let InitialCluster(initial_cluster) = flags.cluster.parse().map_err(|error| format!("{error}"))?;
    let urls = flags.advertise.split(',').map(str::parse).collect::<Result<Vec<PeerUrl>, _>>();
    let config = Config {
        name: flags.name.trim().to_owned(),
        initial_cluster,
        initial_cluster_token: flags.token.clone(),
        initial_advertise_peer_urls: urls.map_err(|error| error.to_string())?,
        ..Config::default()
    };
    let ids = config.initial_ids().map_err(|error| error.to_string())?;
    let members = ids.members.iter().map(|(name, id)| (name.clone(), id.to_string())).collect();
    Ok((ids.cluster.to_string(), members))
}

/// Whether the documents name this refusal of flags that etcd accepts, and whether the flags contain what it refuses.
fn is_documented(flags: &Flags, refusal: &str, resolves: bool) -> bool {
    let urls = format!("{},{}", flags.cluster, flags.advertise);
    let parts = || {
        urls.split(',').map(|pair| {
            pair.split_once('=').filter(|(name, _)| !name.contains(':')).map_or(pair, |(_, url)| url).trim()
        })
    };
    let authorities = || parts().filter_map(|url| url.split_once("://")).map(|(_, rest)| rest);
    let has_no_port = |authority: &str| {
        let (host, port) = authority.rsplit_once(':').unwrap_or((authority, ""));
        host.is_empty() || port.parse::<u16>().is_ok_and(|port| port == 0) || port.parse::<u16>().is_err()
    };
    let is_no_name = |authority: &str| {
        !authority.starts_with('[')
            && authority.contains(|char: char| !char.is_ascii_alphanumeric() && !"-_.:".contains(char))
    };
    let names = || flags.cluster.split(',').filter_map(|pair| pair.split_once('=')).map(|(name, _)| name);
    [
        ("must not have a path", urls.contains(['?', '#', '@'])),
        ("scheme must be", parts().any(|url| url.to_lowercase().starts_with("unix"))),
        ("has no host:port", authorities().any(has_no_port)),
        ("a name has only letters", authorities().any(is_no_name)),
        ("a zone is written after %25", urls.contains("%25") && !urls.is_ascii()),
        ("not a valid international domain name", !urls.is_ascii() || urls.contains('%')),
        ("the name is missing", names().any(|name| name.trim().is_empty())),
        ("with and without spaces around it", names().any(|name| name.trim() != name)),
        ("initial-advertise-peer-urls is", resolves),
    ]
    .into_iter()
    .any(|(said, holds)| refusal.contains(said) && holds)
}

/// The members by their names without the space around them, which for etcd is part of a name.
fn trimmed(members: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    members.iter().map(|(name, id)| (name.trim().to_owned(), id.clone())).collect()
}

/// All that differs, in words.
fn differences(etcd: &Path, asked: &[Flags]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut only_ours: Vec<(Flags, Ids)> = Vec::new();
    let mut taken = 0;
    for (flags, theirs) in asked.iter().zip(ask(etcd, asked)) {
        match ours(flags) {
            Ok(ids) if !theirs.error.is_empty() => only_ours.push((flags.clone(), ids)),
            Ok((cluster, members)) => {
                taken += 1;
                if theirs.resolves || cluster != theirs.cluster || members != trimmed(&theirs.members) {
                    wrong.push(format!("{flags:?}: etcd: {theirs:?}, we: {cluster} {members:?}"));
                }
            }
            Err(_) if !theirs.error.is_empty() => {}
            Err(refusal) if is_documented(flags, &refusal, theirs.resolves) => {}
            Err(refusal) => wrong.push(format!("{flags:?}: etcd: {theirs:?}, we refuse it: {refusal}")),
        }
    }
    assert!(taken * 4 > asked.len(), "too few of the flags can be used at all: {taken} of {}", asked.len());

    // What we take and etcd does not has space around names: without, etcd takes it as we do.
    let plain: Vec<Flags> = only_ours
        .iter()
        .map(|(flags, _)| Flags {
            name: flags.name.trim().to_owned(),
            cluster: flags.cluster.parse::<InitialCluster>().expect("we took it").to_string(),
            ..flags.clone()
        })
        .collect();
    for ((flags, ids), theirs) in only_ours.iter().zip(ask(etcd, &plain)) {
        if *ids != (theirs.cluster.clone(), theirs.members.clone()) {
            wrong.push(format!("{flags:?}: etcd refuses it, and without space: {theirs:?}, we: {ids:?}"));
        }
    }
    wrong
}

/// Mostly a good value, and now and then an odd one.
fn mostly(good: &'static [&'static str], odd: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop_oneof![20 => select(good), 1 => select(odd)].prop_map(str::to_owned)
}

fn url() -> impl Strategy<Value = String> {
    let scheme =
        mostly(&["http", "http", "https", "HTTP", "Http", "hTTpS"], &["unix", "UNIXS", "ftp", "", "http ", "1http"]);
    let hosts = mostly(
        &[
            "h",
            "H",
            "h-1.Ex_ample.",
            "127.0.0.1",
            "127.1",
            "0x7f.1",
            "localhost",
            "[::1]",
            "[FE80::1]",
            "10.0.0.256",
            "[fe80::1%25eth0]",
            "[fe80::1%25ETH%200]",
            "[fe80::1%251]",
            "[::ffff:10.0.0.1]",
            "[1:2:3:4:5:6:7::]",
            "mü",
            "m%c3%bc",
            "[0:0::1]",
            "XN--m-xka",
            "日本",
        ],
        &[
            "",
            "[fe80::1%eth0]",
            "[fe80::1%25]",
            "[fe80::1%25a%2fb]",
            "[fe80::1%25ü]",
            "[fe80::1%25%c3%bc]",
            "[10.0.0.1]",
            "::1",
            "%ff",
            "h%41",
            "h%25",
            "h!x",
            "h\"",
            "h;x",
            "h h",
            "[::1",
            "::1]",
            "[1::2::3]",
            "[12345::]",
            "[::1]x",
            "[::10.0.0.01]",
            "[::ffff:10.0.0.1%25lo]",
            "h\\x",
            "h|x",
            "~h",
            "(h)",
            "h\u{7f}",
            "h\u{a0}x",
            "[v1.x]",
            "%",
            "h%2",
            "[fe80::1%25a%25b]",
            "[fe80::1%25a{b]",
            "[fe80::1%25a<b]",
        ],
    );
    let strange = prop_oneof![20 => hosts, 1 => "[a1.%25:\\[\\]!ü_-]{0,8}"];
    let port = mostly(
        &[":1", ":2380", ":2380", ":080", ":0002380", ":65535"],
        &["", ":", ":0", ":65536", ":99999999999", ":x", ":+1", ":1:2", ":٣"],
    );
    let user = prop_oneof![40 => Just(""), 1 => select(&["u@", "u:p@", "@", "%75@"][..])];
    let tail =
        prop_oneof![20 => Just(""), 1 => select(&["/", "/p", "?", "?x=1", "#", "#f", " ", "\t", "\u{a0}", "\n"][..])];
    let slashes = prop_oneof![40 => Just("://"), 1 => select(&[":", ":/", "//"][..])];
    (scheme, slashes, user, strange, port, tail)
        .prop_map(|(scheme, slashes, user, host, port, tail)| format!("{scheme}{slashes}{user}{host}{port}{tail}"))
}

fn flags() -> impl Strategy<Value = Flags> {
    let names = mostly(&["a", "a", "b", "c"], &[" a", "a ", "ä", "", "a b", "\tb"]);
    let pair = (names, prop_oneof![40 => Just("="), 1 => Just(""), 1 => Just("= ")], url());
    let comma = prop_oneof![20 => Just(","), 1 => select(&[",,", ", ", " ,", ",\n"][..])];
    let ends = prop_oneof![10 => Just(""), 1 => select(&[",", " ", ",,", "\n"][..])];
    let token = mostly(&["etcd-cluster", "t"], &["", " ", "ü", "a=b,c"]);
    let own = mostly(&["a"], &["b", " a", "a ", "", "z", "a=b"]);
    let members = prop::collection::vec((pair, comma), 1..4);
    let told = prop_oneof![8 => Just(None), 1 => url().prop_map(Some)];
    (members, ends.clone(), ends, token, own, told, any::<Index>(), 0..8).prop_map(
        |(members, before, after, token, name, told, turn, twice)| {
            let mut urls: Vec<String> = members
                .iter()
                .filter(|((member, _, _), _)| member.trim() == name.trim())
                .map(|((_, _, url), _)| url.clone())
                .collect();
            if !urls.is_empty() {
                let turn = turn.index(urls.len());
                urls.rotate_left(turn);
                if twice == 0 {
                    urls.push(urls[0].clone());
                }
            }
            let last = members.len() - 1;
            let pairs = members.iter().enumerate().map(|(place, ((name, equals, url), comma))| {
                format!("{name}{equals}{url}{}", if place == last { "" } else { comma })
            });
            let cluster = format!("{before}{}{after}", pairs.collect::<String>());
            Flags { name, cluster, token, advertise: told.unwrap_or_else(|| urls.join(",")) }
        },
    )
}

#[test]
fn whatever_etcd_takes_gives_the_same_ids_or_is_refused_for_a_reason_that_is_documented() {
    for version in if support::tier_is_all() { &["3.5", "3.6", "3.7"][..] } else { &["3.6"] } {
        let what = format!("IDs held against etcd {version}");
        let Some(etcd) = support::program(&what, "etcd-identity", &[version]) else { continue };
        let (mut runner, cases) = match support::tier_is_all() {
            true => (TestRunner::default(), MANY_CASES),
            false => (TestRunner::deterministic(), CASES),
        };
        let strategy = flags();
        let case = |_| strategy.new_tree(&mut runner).expect("any flags").current();
        let asked: Vec<Flags> = (0..cases).map(case).collect();
        let wrong = differences(&etcd, &asked);
        let few: Vec<_> = wrong.iter().take(10).map(String::as_str).collect();
        assert!(wrong.is_empty(), "etcd {version}: {} of {cases} differ, such as\n{}", wrong.len(), few.join("\n"));
    }
}

/// Every flag that a help describes: its line begins with it.
fn described(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    lines.flat_map(|line| flags_of(line).into_iter().take(1)).collect()
}

/// Every flag that a text names.
fn flags_of(help: &str) -> BTreeSet<String> {
    let is_of_flag = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-';
    let named = help.split("--").skip(1).filter_map(|rest| rest.split(|char| !is_of_flag(char)).next());
    named.filter(|flag| !flag.is_empty() && !flag.ends_with('-')).map(|flag| format!("--{flag}")).collect()
}

fn help(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().expect("it is there");
    [output.stdout, output.stderr].map(|said| String::from_utf8(said).expect("text")).concat()
}

#[test]
fn every_flag_of_etcds_and_of_ours_is_in_the_page_for_who_comes_from_etcd() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/coming-from-etcd.md")).expect("it is there");
    let of_page = flags_of(&page);
    let ours = described(&help(Path::new(env!("CARGO_BIN_EXE_rafthttp")), &["node", "--help"]));
    let missing: Vec<_> = ours.iter().filter(|flag| !of_page.contains(*flag) && *flag != "--help").collect();
    assert!(ours.len() > 20 && missing.is_empty(), "of ours: {missing:?}");

    for version in if support::tier_is_all() { &["3.4", "3.5", "3.6", "3.7"][..] } else { &["3.4", "3.6"] } {
        let Some(etcd) = support::program(&format!("the flags of etcd {version}"), "etcd", &[version]) else {
            continue;
        };
        let theirs = described(&help(&etcd, &["--help"]));
        let is_missing = |flag: &&String| !of_page.contains(*flag) && !flag.starts_with("--experimental-");
        let missing: Vec<_> = theirs.iter().filter(is_missing).collect();
        assert!(theirs.len() > 50 && missing.is_empty(), "of etcd {version}: {missing:?}");
    }
}
