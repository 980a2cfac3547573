//! The kinds of certificates of the table in the docs.

use std::path::{Path, PathBuf};

use crate::{
    support::certificates::{Authority, Files, Issued, Leaf},
    workshop::{Made, Wanted, Workshop, read},
};

const BOTH: &str = "serverAuth,clientAuth";
const LOCAL: &str = "DNS:localhost,IP:127.0.0.1";
const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign";

/// A kind of certificate: a row of the table.
pub struct Kind {
    pub made: Made,
    /// How it is dialled.
    pub host: &'static str,
    /// What is in the trusted file for it, beside the usual CA.
    pub trusted: String,
    /// In the table: key, signature, usages, chain, names, version.
    pub columns: [String; 6],
}

impl Kind {
    /// The file that a member has of it: the leaf first.
    pub fn chain(&self, shop: &Workshop) -> PathBuf {
        let name = format!("{}.chain.pem", stem(&self.made.cert));
        let files: Vec<_> = std::iter::once(&self.made.cert).chain(&self.made.others).map(PathBuf::as_path).collect();
        shop.joined(&name, &files)
    }

    /// Whether TLS 1.3 has no signature for such a key.
    pub fn is_for_tls_12(&self) -> bool {
        ["P-224", "secp256k1"].contains(&self.columns[Column::Key as usize].as_str())
    }

    /// What differs from the usual.
    fn but(mut self, column: Column, text: &str) -> Self {
        self.columns[column as usize] = text.to_owned();
        self
    }

    fn trusting(mut self, authority: &Made) -> Self {
        self.trusted = read(&authority.cert);
        self
    }

    fn at(mut self, host: &'static str) -> Self {
        self.host = host;
        self
    }
}

fn stem(path: &Path) -> &str {
    path.file_stem().and_then(|stem| stem.to_str()).expect("a name")
}

#[derive(Clone, Copy)]
enum Column {
    Key,
    Signature,
    Usages,
    Chain,
    Names,
    Version,
}

fn kind(made: Made) -> Kind {
    let usual = ["P-256", "SHA-256", "serverAuth, clientAuth", "root", "localhost, 127.0.0.1", "3"];
    let columns = usual.map(str::to_owned);
    Kind { made, host: "127.0.0.1", trusted: String::new(), columns }
}

/// All of them, and the usual CA.
pub fn kinds(shop: &Workshop) -> (Vec<Kind>, Made) {
    let root = shop.own(&Wanted { name: "root", key: "P-256", signature: "sha256", extensions: CA });
    let kinds = Kinds { shop, root: root.clone() };
    let mut all = kinds.keys();
    all.extend(kinds.signatures());
    all.extend(kinds.authorities());
    all.extend(kinds.unusual_authorities());
    all.extend(kinds.usages());
    all.extend(kinds.chains());
    all.extend(kinds.of_their_own());
    all.extend(kinds.constraints());
    all.extend(kinds.names());
    all.extend(kinds.times());
    (all, root)
}

struct Kinds<'a> {
    shop: &'a Workshop,
    root: Made,
}

fn extensions(usages: &str, names: &str, more: &str) -> String {
    let usages = if usages.is_empty() { String::new() } else { format!("extendedKeyUsage={usages}\n") };
    let names = if names.is_empty() { String::new() } else { format!("subjectAltName={names}\n") };
    format!("{usages}{names}{more}\n")
}

impl Kinds<'_> {
    fn leaf(&self, name: &str, extensions: &str, by: &Made) -> Made {
        self.shop.signed(&Wanted { name, key: "P-256", signature: "sha256", extensions }, by)
    }

    fn usual(&self, name: &str, by: &Made) -> Made {
        self.leaf(name, &extensions(BOTH, LOCAL, ""), by)
    }

    fn authority(&self, name: &str, key: &str, extensions: &str) -> Made {
        self.shop.own(&Wanted { name, key, signature: "", extensions })
    }

    /// A leaf with what leads to its CA.
    fn with(&self, leaf: &Made, others: &[&Made]) -> Made {
        let name = format!("{}.{}.others.pem", stem(&leaf.cert), stem(&others[0].cert));
        let files: Vec<_> = others.iter().map(|made| made.cert.as_path()).collect();
        Made { others: Some(self.shop.joined(&name, &files)), ..leaf.clone() }
    }

    fn keys(&self) -> Vec<Kind> {
        let keys = [
            ("P-256", "P-256"),
            ("P-384", "P-384"),
            ("P-521", "P-521"),
            ("P-224", "P-224"),
            ("secp256k1", "secp256k1"),
            ("RSA 1024", "RSA 1024"),
            ("RSA 2048", "RSA 2048"),
            ("RSA 2048 e3", "RSA 2048, exponent 3"),
            ("RSA 3072", "RSA 3072"),
            ("RSA 4096", "RSA 4096"),
            ("RSA-PSS 2048", "RSA-PSS 2048"),
            ("ED25519", "Ed25519"),
            ("ED448", "Ed448"),
        ];
        let of = |(key, shown): (&str, &str)| {
            let name = format!("key-{}", key.replace(' ', "-"));
            let extensions = extensions(BOTH, LOCAL, "");
            let made = self
                .shop
                .signed(&Wanted { name: &name, key, signature: "sha256", extensions: &extensions }, &self.root);
            kind(made).but(Column::Key, shown)
        };
        keys.into_iter().map(of).collect()
    }

    fn signatures(&self) -> Vec<Kind> {
        let rsa = self.authority("rsa", "RSA 2048", CA);
        let of = |key: &str, signature: &str, shown: &str, by: &Made, rsa: bool| {
            let name = format!("signed-{key}-{signature}-{rsa}");
            let extensions = extensions(BOTH, LOCAL, "");
            let made = self.shop.signed(&Wanted { name: &name, key, signature, extensions: &extensions }, by);
            let chain = if rsa { "root of RSA 2048" } else { "root" };
            let kind = kind(made).but(Column::Key, key).but(Column::Signature, shown).but(Column::Chain, chain);
            if rsa { kind.trusting(by) } else { kind }
        };
        vec![
            of("P-256", "sha384", "SHA-384", &self.root, false),
            of("P-256", "sha512", "SHA-512", &self.root, false),
            of("P-384", "sha256", "SHA-256", &self.root, false),
            of("P-384", "sha512", "SHA-512", &self.root, false),
            of("P-521", "sha512", "SHA-512", &self.root, false),
            of("P-256", "sha1", "SHA-1", &self.root, false),
            of("P-256", "sha224", "SHA-224", &self.root, false),
            of("P-256", "sha256", "SHA-256", &rsa, true),
            of("P-256", "sha512", "SHA-512", &rsa, true),
            of("P-256", "pss", "PSS with SHA-256", &rsa, true),
            of("P-256", "sha1", "SHA-1", &rsa, true),
        ]
    }

    fn authorities(&self) -> Vec<Kind> {
        let keys = [
            ("P-384", "P-384"),
            ("P-521", "P-521"),
            ("P-224", "P-224"),
            ("RSA 1024", "RSA 1024"),
            ("RSA 4096", "RSA 4096"),
            ("ED25519", "Ed25519"),
        ];
        let of = |(key, shown): (&str, &str)| {
            let name = format!("ca-{}", key.replace(' ', "-"));
            let authority = self.authority(&name, key, CA);
            let extensions = extensions(BOTH, LOCAL, "");
            let wanted =
                Wanted { name: &format!("below-{name}"), key: "P-256", signature: "", extensions: &extensions };
            let signature = if key == "ED25519" { "Ed25519" } else { "SHA-256" };
            let kind = kind(self.shop.signed(&wanted, &authority)).but(Column::Signature, signature);
            kind.but(Column::Chain, &format!("root of {shown}")).trusting(&authority)
        };
        keys.into_iter().map(of).collect()
    }

    fn unusual_authorities(&self) -> Vec<Kind> {
        let of = |name: &str, extensions: &str, shown: &str| {
            let authority = self.authority(name, "P-256", extensions);
            kind(self.usual(&format!("below-{name}"), &authority)).but(Column::Chain, shown).trusting(&authority)
        };
        let usage = format!("{CA}\nextendedKeyUsage=serverAuth");
        let version_1 = self.shop.version_1("ca-version-1", None);
        let short = self.authority("ca-short", "P-256", &CA.replace("CA:TRUE", "CA:TRUE,pathlen:0"));
        let between = Wanted { name: "too-deep", key: "P-256", signature: "", extensions: CA };
        let between = self.shop.signed(&between, &short);
        let deep = self.with(&self.usual("below-too-deep", &between), &[&between]);
        vec![
            of("ca-no-usage", "basicConstraints=critical,CA:TRUE", "root without a key usage"),
            of(
                "ca-not-signing",
                "basicConstraints=critical,CA:TRUE\nkeyUsage=digitalSignature",
                "root without keyCertSign",
            ),
            of("ca-none", "keyUsage=keyCertSign", "root without CA:TRUE"),
            of("ca-for-servers", &usage, "root for serverAuth alone"),
            kind(self.usual("below-version-1", &version_1))
                .but(Column::Chain, "root of version 1")
                .trusting(&version_1),
            kind(deep).but(Column::Chain, "intermediate, root with pathlen 0").trusting(&short),
        ]
    }

    fn usages(&self) -> Vec<Kind> {
        let of = |name: &str, usages: &str, more: &str, shown: &str| {
            kind(self.leaf(name, &extensions(usages, LOCAL, more), &self.root)).but(Column::Usages, shown)
        };
        vec![
            of("usage-none", "", "", "none"),
            of("usage-any", "anyExtendedKeyUsage", "", "any"),
            of("usage-server", "serverAuth", "", "serverAuth"),
            of("usage-client", "clientAuth", "", "clientAuth"),
            of("usage-other", "codeSigning", "", "codeSigning"),
            of("usage-any-other", "codeSigning,anyExtendedKeyUsage", "", "codeSigning, any"),
            of("usage-critical", "critical,serverAuth,clientAuth", "", "serverAuth, clientAuth; critical"),
            of(
                "usage-key",
                BOTH,
                "keyUsage=critical,keyEncipherment",
                "serverAuth, clientAuth; key usage keyEncipherment",
            ),
        ]
    }

    fn chains(&self) -> Vec<Kind> {
        let between = |name: &str, extensions: &str, by: &Made| {
            self.shop.signed(&Wanted { name, key: "P-256", signature: "sha256", extensions }, by)
        };
        let below = |name: &str, extensions: &str| {
            let between = between(name, extensions, &self.root);
            self.with(&self.usual(&format!("below-{name}"), &between), &[&between])
        };
        let first = between("first", CA, &self.root);
        let second = between("second", CA, &first);
        let leaf = self.usual("below-second", &second);
        let with = |usages: &str| format!("{CA}\nextendedKeyUsage={usages}");
        vec![
            kind(self.with(&leaf, &[&second, &first])).but(Column::Chain, "two intermediates, root"),
            kind(self.with(&leaf, &[&self.root, &first, &second]))
                .but(Column::Chain, "the same in another order, root too"),
            kind(self.with(&self.usual("below-second-alone", &second), &[&second]))
                .but(Column::Chain, "one of two intermediates missing"),
            kind(below("between-any", &with("anyExtendedKeyUsage")))
                .but(Column::Chain, "intermediate with usage any, root"),
            kind(below("between-server", &with("serverAuth")))
                .but(Column::Chain, "intermediate with usage serverAuth, root"),
            kind(below("between-none", "keyUsage=keyCertSign"))
                .but(Column::Chain, "intermediate without CA:TRUE, root"),
            kind(below("between-not-signing", "basicConstraints=CA:TRUE\nkeyUsage=digitalSignature"))
                .but(Column::Chain, "intermediate without keyCertSign, root"),
        ]
    }

    fn of_their_own(&self) -> Vec<Kind> {
        let own = |name: &str, more: &str| {
            let extensions = extensions(BOTH, LOCAL, more);
            self.shop.own(&Wanted { name, key: "P-256", signature: "sha256", extensions: &extensions })
        };
        let (plain, marked) = (own("own", ""), own("own-marked", "basicConstraints=critical,CA:TRUE"));
        let unknown = self.authority("unknown", "P-256", CA);
        let (pinned, stranger) = (self.usual("pinned", &unknown), self.usual("stranger", &unknown));
        let marked_below = extensions(BOTH, LOCAL, "basicConstraints=critical,CA:TRUE");
        let trusted = |made: &Made| kind(made.clone()).trusting(made);
        vec![
            trusted(&plain).but(Column::Chain, "its own root"),
            trusted(&marked).but(Column::Chain, "its own root, CA:TRUE"),
            kind(self.leaf("marked", &marked_below, &self.root)).but(Column::Chain, "root; itself CA:TRUE"),
            trusted(&pinned).but(Column::Chain, "itself in the CA file, its CA not"),
            kind(stranger).but(Column::Chain, "unknown root"),
            kind(own("stranger-own", "")).but(Column::Chain, "signs itself, not trusted"),
            kind(self.shop.version_1("version-1", Some(&self.root)))
                .but(Column::Usages, "none")
                .but(Column::Names, "common name alone")
                .but(Column::Version, "1"),
        ]
    }

    fn constraints(&self) -> Vec<Kind> {
        let of = |name: &str, constraint: &str, names: &str, shown: &str| {
            let authority = self.authority(name, "P-256", &format!("{CA}\nnameConstraints=critical,{constraint}"));
            let leaf = self.leaf(&format!("below-{name}"), &extensions(BOTH, names, ""), &authority);
            kind(leaf).but(Column::Chain, shown).trusting(&authority)
        };
        let here = "permitted;DNS:localhost,permitted;IP:127.0.0.0/255.0.0.0";
        let uri = "DNS:localhost,IP:127.0.0.1,URI:spiffe://example.internal/member";
        let policy = extensions(BOTH, LOCAL, "certificatePolicies=critical,1.2.3.4");
        let unknown = extensions(BOTH, LOCAL, "1.2.3.4=critical,DER:0500");
        vec![
            of("for-here", here, LOCAL, "root with name constraints that it keeps"),
            of("for-elsewhere", "permitted;DNS:example.internal", LOCAL, "root with name constraints that it breaks"),
            of("for-uris", "permitted;URI:example.internal", uri, "root with constraints on URIs that it keeps")
                .but(Column::Names, "localhost, 127.0.0.1, a URI"),
            kind(self.leaf("policy", &policy, &self.root)).but(Column::Chain, "root; critical certificate policies"),
            kind(self.leaf("unknown-critical", &unknown, &self.root))
                .but(Column::Chain, "root; critical extension of no name"),
        ]
    }

    fn names(&self) -> Vec<Kind> {
        let of = |name: &str, names: &str, host: &'static str, shown: &str| {
            kind(self.leaf(name, &extensions(BOTH, names, ""), &self.root)).but(Column::Names, shown).at(host)
        };
        let uri = "DNS:localhost,IP:127.0.0.1,URI:spiffe://example.internal/member";
        vec![
            of("name-none", "", "localhost", "common name alone"),
            of("name-address", "IP:127.0.0.1", "127.0.0.1", "127.0.0.1"),
            of("name-host", "DNS:localhost", "localhost", "localhost"),
            of("name-case", "DNS:LocalHost", "localhost", "LocalHost, dialled as localhost"),
            of("name-other", "DNS:other.example.internal", "localhost", "another name"),
            of("name-text", "DNS:127.0.0.1", "127.0.0.1", "127.0.0.1 as a name"),
            of("name-uri", uri, "localhost", "localhost, 127.0.0.1, a URI"),
            of("name-wild", "DNS:*.example.internal", "m1.example.internal", "*.example.internal, dialled as m1.…"),
            of("name-wild-short", "DNS:*.etcd", "m1.etcd", "*.etcd, dialled as m1.etcd"),
            of(
                "name-wild-deep",
                "DNS:*.example.internal",
                "a.m1.example.internal",
                "*.example.internal, dialled as a.m1.…",
            ),
            of(
                "name-wild-part",
                "DNS:m*.example.internal",
                "m1.example.internal",
                "m*.example.internal, dialled as m1.…",
            ),
            of("name-underscore", "DNS:m_1.example.internal", "m_1.example.internal", "m_1.example.internal"),
        ]
    }

    /// OpenSSL 3.0 makes none that begins or ends at another time than now.
    fn times(&self) -> Vec<Kind> {
        let authority = Authority::new("rcgen's");
        let made = |name: &str, issued: Issued, others: &str| Made {
            cert: self.shop.write(&format!("{name}.pem"), &issued.cert),
            key: self.shop.write(&format!("{name}.key"), &issued.key),
            others: (!others.is_empty()).then(|| self.shop.write(&format!("{name}.others.pem"), others)),
        };
        let of = |made: Made, trusted: &str, shown: &str| {
            let mut kind = kind(made).but(Column::Chain, shown);
            kind.trusted = trusted.to_owned();
            kind
        };
        let past = |params: &mut rcgen::CertificateParams| params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        let ended = authority.issue(Leaf { not_after: 2021, ..Leaf::default() });
        let early = authority.issue(Leaf { not_before: 2180, ..Leaf::default() });
        let between = authority.below("ended between", past);
        let old = Authority::changed("ended", past);
        vec![
            of(made("ended", ended, ""), &authority.pem, "root; itself ended"),
            of(made("early", early, ""), &authority.pem, "root; not valid yet"),
            of(
                made("ended-between", between.issue(Leaf::default()), &between.pem),
                &authority.pem,
                "intermediate that ended, root",
            ),
            of(made("ended-root", old.issue(Leaf::default()), ""), &old.pem, "root that ended"),
        ]
    }
}

/// The usual, as files of a member.
pub fn usual(shop: &Workshop, root: &Made) -> Files {
    let extensions = extensions(BOTH, LOCAL, "");
    let wanted = Wanted { name: "usual", key: "P-256", signature: "sha256", extensions: &extensions };
    let made = shop.signed(&wanted, root);
    Files::new(&Issued { cert: read(&made.cert), key: read(&made.key) }, &read(&root.cert))
}
