//! The tables of docs/certificates.md, as the test observes both ends.
//!
//! A table that differs from what is seen fails the test, which leaves what it saw in target/certificates.md. With
//! `RAFTHTTP_TEST_TIER=all` etcd is started with every certificate and every file too; else these cells are the docs'.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rafthttp::tls::{Tls, TlsConfig};

use crate::{
    ends::{Etcd, Tasks, answers, is_answered, proxy, serve, we_dial, we_listen},
    files::{self, Case, Which},
    kinds::{Kind, kinds, usual},
    support::{certificates::Files, program, tier_is_all},
    workshop::{Workshop, read},
};

/// Whether each of the two ends takes something; none where it was not asked.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Taken {
    ours: Option<bool>,
    etcd: Option<bool>,
}

const SMALL: &str = "aws-lc-rs accepts RSA keys of 2048 bits or more; 1024-bit keys are within an attacker's reach";
const P_224: &str = "neither aws-lc-rs nor TLS 1.3 has P-224";
const URIS: &str = "webpki cannot check constraints on URIs, and refuses what it cannot check";
/// Why we do not take what etcd takes, by what stands in the row.
const WHY: [(&str, &str); 7] = [
    ("P-224", P_224),
    ("root of P-224", P_224),
    ("P-224, with its certificate", P_224),
    ("RSA 1024", SMALL),
    ("root of RSA 1024", SMALL),
    ("RSA 1024, with its certificate", SMALL),
    ("root with constraints on URIs that it keeps", URIS),
];

/// What stands in the last column.
fn why(columns: &[String], taken: &[Taken]) -> String {
    if !taken.iter().any(|taken| taken.ours == Some(false) && taken.etcd == Some(true)) {
        return String::new();
    }
    let why = WHY.iter().find(|(cell, _)| columns.iter().any(|column| column == cell));
    why.map_or("?", |(_, why)| why).to_owned()
}

/// What both ends are asked with.
struct Bench {
    shop: Workshop,
    /// The usual certificate, and every CA that a kind needs.
    usual: Files,
    etcd: Option<PathBuf>,
}

impl Bench {
    fn tls(&self) -> Tls {
        Tls::load(self.usual.config()).expect("the files are good")
    }

    fn member<'a>(
        &'a self,
        program: &'a Path,
        name: &str,
        (cert, key): (PathBuf, PathBuf),
        trusted: PathBuf,
    ) -> Etcd<'a> {
        Etcd { program, directory: self.shop.path(name), cert, key, trusted }
    }

    fn usual_member<'a>(&'a self, program: &'a Path, name: &str) -> Etcd<'a> {
        let pair = (self.usual.path("cert.pem"), self.usual.path("key.pem"));
        self.member(program, name, pair, self.usual.path("ca.pem"))
    }

    /// The dialled ends.
    async fn dialled(&self, kinds: &[Kind]) -> Vec<Taken> {
        let servers: Vec<_> = kinds.iter().map(|kind| serve(&self.shop, kind)).collect();
        let tls = self.tls();
        let mut taken = Vec::new();
        for (kind, (_, port)) in kinds.iter().zip(&servers) {
            taken.push(Taken { ours: Some(we_dial(&tls, kind.host, *port).await), etcd: None });
        }
        if let Some(program) = &self.etcd {
            let urls: Vec<_> =
                kinds.iter().zip(&servers).map(|(kind, (_, port))| format!("https://{}:{port}", kind.host)).collect();
            let (proxying, proxy) = proxy().await;
            let _tasks = Tasks(vec![proxying]);
            let member = self.usual_member(program, "joining");
            let said = tokio::task::block_in_place(|| member.dial(&urls, proxy));
            for ((kind, url), taken) in kinds.iter().zip(&urls).zip(&mut taken) {
                let said = said.get(url).unwrap_or_else(|| panic!("etcd did not dial {:?}", kind.columns));
                taken.etcd = Some(said.is_none());
            }
        }
        taken
    }

    /// The dialling ends.
    async fn dialling(&self, kinds: &[Kind]) -> Vec<Taken> {
        let (serving, ours) = we_listen(self.tls()).await;
        let _tasks = Tasks(vec![serving]);
        tokio::task::block_in_place(|| {
            let member = self.etcd.as_deref().map(|program| self.usual_member(program, "dialled"));
            let etcd = member.map(|member| member.start().expect("etcd starts with the usual certificate"));
            let ask = |kind: &Kind| Taken {
                ours: Some(is_answered(&self.shop, kind, ours)),
                etcd: etcd.as_ref().map(|(_, port)| is_answered(&self.shop, kind, *port)),
            };
            kinds.iter().map(ask).collect()
        })
    }

    /// Members that have the certificate: they start, and answer.
    async fn members(&self, kinds: &[Kind]) -> Vec<Taken> {
        let mut taken = Vec::new();
        for (number, kind) in kinds.iter().enumerate() {
            let (cert, key) = (kind.chain(&self.shop), kind.made.key.clone());
            let trusted = self.usual.path("ca.pem");
            taken.push(self.started(&format!("kind-{number}"), (cert, key), trusted).await);
        }
        taken
    }

    async fn started(&self, name: &str, (cert, key): (PathBuf, PathBuf), trusted: PathBuf) -> Taken {
        let config = TlsConfig {
            cert_file: cert.clone(),
            key_file: key.clone(),
            trusted_ca_file: Some(trusted.clone()),
            client_cert_auth: true,
            ..TlsConfig::default()
        };
        let answers = |port| tokio::task::block_in_place(|| answers(&self.shop, &self.usual, &[], port));
        let ours = match Tls::load(config) {
            Ok(tls) => {
                let (serving, port) = we_listen(tls).await;
                let _tasks = Tasks(vec![serving]);
                answers(port)
            }
            Err(_) => false,
        };
        let program = self.etcd.as_deref().filter(|_| tier_is_all());
        let etcd = program.map(|program| {
            let member = self.member(program, name, (cert, key), trusted);
            let started = tokio::task::block_in_place(|| member.start());
            started.is_some_and(|(_process, port)| answers(port))
        });
        Taken { ours: Some(ours), etcd }
    }

    /// Versions of TLS, by the argument of OpenSSL.
    async fn versions(&self) -> String {
        let (serving, ours) = we_listen(self.tls()).await;
        let _tasks = Tasks(vec![serving]);
        let rows = tokio::task::block_in_place(|| {
            let member = self.etcd.as_deref().map(|program| self.usual_member(program, "versions"));
            let etcd = member.map(|member| member.start().expect("etcd starts with the usual certificate"));
            [("1.1", "-tls1_1"), ("1.2", "-tls1_2"), ("1.3", "-tls1_3")].map(|(version, argument)| {
                let ask = |port| answers(&self.shop, &self.usual, &[argument], port);
                let taken = Taken { ours: Some(ask(ours)), etcd: etcd.as_ref().map(|(_, port)| ask(*port)) };
                vec![version.to_owned(), cell(taken.ours), cell(taken.etcd)]
            })
        });
        table(&["TLS", "here", "etcd 3.6"], &rows)
    }
}

fn cell(taken: Option<bool>) -> String {
    match taken {
        Some(true) => "yes".to_owned(),
        Some(false) => "no".to_owned(),
        None => String::new(),
    }
}

fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[&str]| format!("| {} |\n", cells.join(" | "));
    let rule = vec!["---"; head.len()];
    let rows = rows.iter().map(|row| line(&row.iter().map(String::as_str).collect::<Vec<_>>()));
    line(head) + &format!("|{}|\n", rule.join("|")) + &rows.collect::<String>()
}

fn kinds_table(kinds: &[Kind], taken: [Vec<Taken>; 3]) -> String {
    let head = [
        "key",
        "signature",
        "usages",
        "chain",
        "names",
        "version",
        "its member",
        "etcd",
        "dialled",
        "etcd",
        "dials",
        "etcd",
        "why not",
    ];
    let [members, dialled, dialling] = taken;
    let rows = kinds.iter().enumerate().map(|(number, kind)| {
        let taken = [members[number], dialled[number], dialling[number]];
        let mut row = kind.columns.to_vec();
        row.extend(taken.iter().flat_map(|taken| [cell(taken.ours), cell(taken.etcd)]));
        row.push(why(&kind.columns, &taken));
        row
    });
    table(&head, &rows.collect::<Vec<_>>())
}

fn files_table(cases: &[Case], taken: &[Taken]) -> String {
    let rows = cases.iter().zip(taken).map(|(case, taken)| {
        let file = match case.which {
            Which::Certificate => "certificate",
            Which::Key => "key",
            Which::Authorities => "CAs",
        };
        let mut row = vec![file.to_owned(), case.what.to_owned(), cell(taken.ours), cell(taken.etcd)];
        row.push(why(&row, &[*taken]));
        row
    });
    table(&["file", "what is in it", "here", "etcd 3.6", "why not"], &rows.collect::<Vec<_>>())
}

/// The docs with this table in its place. Unless everything was asked, empty cells are taken from there.
fn with_table(docs: &str, name: &str, table: &str, asked_all: bool) -> String {
    let (start, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = docs.split_once(&start).unwrap_or_else(|| panic!("docs/certificates.md has no {start}"));
    let (old, after) = rest.split_once(&end).unwrap_or_else(|| panic!("docs/certificates.md has no {end}"));
    let mut known = old.lines();
    let lines = table.lines().map(|line| {
        let known: Vec<_> = known.next().unwrap_or_default().split(" | ").collect();
        let cells = line.split(" | ").enumerate();
        let filled = cells.map(|(place, cell)| match known.get(place) {
            Some(known) if cell.trim_matches(['|', ' ']).is_empty() && !asked_all => known,
            _ => cell,
        });
        filled.collect::<Vec<_>>().join(" | ") + "\n"
    });
    format!("{before}{start}{}{end}{after}", lines.collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tables_in_the_docs_are_what_both_ends_do() {
    let Some(openssl) = program("certificates of every kind", "openssl", &[]) else { return };
    let etcd = program("certificates of every kind, at etcd's end", "etcd", &["3.6"]);
    let shop = Workshop::new(openssl);
    let (kinds, root) = kinds(&shop);
    let usual = usual(&shop, &root);
    let trusted: String =
        std::iter::once(read(&root.cert)).chain(kinds.iter().map(|kind| kind.trusted.clone())).collect();
    usual.write("ca.pem", &trusted);
    let bench = Bench { shop, usual, etcd };
    let taken = [bench.members(&kinds).await, bench.dialled(&kinds).await, bench.dialling(&kinds).await];
    let cases = files::cases(&bench.shop, &root);
    let mut started = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let pair = (case.cert.clone(), case.key.clone());
        started.push(bench.started(&format!("file-{number}"), pair, case.trusted.clone()).await);
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/certificates.md");
    let docs = fs::read_to_string(&path).expect("docs/certificates.md is there");
    let asked_all = tier_is_all() && bench.etcd.is_some();
    let mut seen = with_table(&docs, "kinds", &kinds_table(&kinds, taken), asked_all);
    seen = with_table(&seen, "versions", &bench.versions().await, asked_all);
    seen = with_table(&seen, "files", &files_table(&cases, &started), asked_all);
    assert!(!seen.contains("| ? |"), "we differ from etcd, and nothing says why:\n{seen}");
    if seen != docs {
        let left = Path::new(env!("CARGO_TARGET_TMPDIR")).join("certificates.md");
        fs::write(&left, &seen).expect("the directory is ours");
        let differs = docs.lines().zip(seen.lines()).filter(|(docs, seen)| docs != seen);
        let lines: String = differs.map(|(docs, seen)| format!("- {docs}\n+ {seen}\n")).collect();
        panic!("docs/certificates.md is not what was seen, which is in {}:\n{lines}", left.display());
    }
}
