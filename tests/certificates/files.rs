//! A file that cannot be used is one line: its name, what is in it, and what was expected.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rafthttp::tls::{Tls, TlsConfig};

use crate::{
    support::program,
    workshop::{Made, Wanted, Workshop, read, text},
};

const TAKEN: &str = "RSA of 2048 to 8192 bits, P-256, P-384, P-521 or Ed25519";
const KEY: &str = "expected a private key in PEM that is not encrypted";
const CERT: &str = "expected a certificate in PEM";
const CAS: &str = "expected certificates of CAs in PEM";

/// Which file is unlike the usual.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Certificate,
    Key,
    Authorities,
}

/// Three files of a member, one of them unlike the usual.
pub struct Case {
    pub which: Which,
    /// What is in it: in the table of the docs.
    pub what: &'static str,
    pub cert: PathBuf,
    pub key: PathBuf,
    pub trusted: PathBuf,
    /// What our refusal says. `None`: the file is taken.
    pub said: Option<String>,
}

impl Case {
    pub fn config(&self) -> TlsConfig {
        TlsConfig {
            cert_file: self.cert.clone(),
            key_file: self.key.clone(),
            trusted_ca_file: Some(self.trusted.clone()),
            client_cert_auth: true,
            ..TlsConfig::default()
        }
    }
}

struct Cases<'a> {
    shop: &'a Workshop,
    root: &'a Made,
    usual: Made,
    all: Vec<Case>,
}

/// All of them.
pub fn cases(shop: &Workshop, root: &Made) -> Vec<Case> {
    let usual = issued(shop, root, "usual-files", "P-256");
    let mut cases = Cases { shop, root, usual, all: Vec::new() };
    cases.keys();
    cases.keys_of_other_kinds();
    cases.certificates();
    cases.authorities();
    cases.all
}

fn issued(shop: &Workshop, root: &Made, name: &str, key: &str) -> Made {
    let extensions = "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth";
    shop.signed(&Wanted { name, key, signature: "sha256", extensions }, root)
}

impl Cases<'_> {
    fn case(&mut self, which: Which, what: &'static str, file: PathBuf, said: impl Into<Option<String>>) {
        let Made { mut cert, mut key, .. } = self.usual.clone();
        let mut trusted = self.root.cert.clone();
        match which {
            Which::Certificate => cert = file,
            Which::Key => key = file,
            Which::Authorities => trusted = file,
        }
        self.all.push(Case { which, what, cert, key, trusted, said: said.into() });
    }

    fn pair(&mut self, what: &'static str, made: Made, key: PathBuf, said: impl Into<Option<String>>) {
        let trusted = self.root.cert.clone();
        self.all.push(Case { which: Which::Key, what, cert: made.cert, key, trusted, said: said.into() });
    }

    /// The usual key, as this command of OpenSSL writes it.
    fn written(&self, name: &str, command: &[&str]) -> PathBuf {
        let (path, key) = (self.shop.path(name), self.usual.key.clone());
        self.shop.run(&[command, &["-in", text(&key), "-out", text(&path)]].concat());
        path
    }

    fn keys(&mut self) {
        let sec1 = self.written("sec1.key", &["pkey", "-traditional"]);
        let encrypted = self.written("encrypted.key", &["pkcs8", "-topk8", "-passout", "pass:x", "-v2", "aes-256-cbc"]);
        let legacy = self.written("legacy.key", &["ec", "-aes256", "-passout", "pass:x"]);
        let der = self.written("der.key", &["pkey", "-outform", "DER"]);
        let public = self.written("public.key", &["pkey", "-pubout"]);
        let parameters = self.shop.path("parameters.key");
        self.shop.run(&["ecparam", "-name", "prime256v1", "-out", text(&parameters)]);
        let both = self.shop.joined("parameters-and.key", &[&parameters, &sec1]);
        let relabelled = read(&self.usual.key).replace(" PRIVATE KEY", " EC PRIVATE KEY");
        let relabelled = self.shop.write("relabelled.key", &relabelled);
        let cut = self.shop.write("cut.key", &read(&self.usual.key).replace("-----END PRIVATE KEY-----", ""));
        let text = self.shop.write("text.key", "a key\n");
        let empty = self.shop.write("empty.key", "");
        let (cert, missing) = (self.usual.cert.clone(), self.shop.path("missing.key"));
        let directory = self.shop.path("directory.key");
        fs::create_dir_all(&directory).expect("the directory is ours");
        let holds = |name: &str, what: &str| Some(format!("{name}: holds {what}, {KEY}"));
        self.case(Which::Key, "PKCS#8", self.usual.key.clone(), None);
        self.case(Which::Key, "SEC 1", sec1, None);
        self.case(Which::Key, "SEC 1 after EC PARAMETERS", both, None);
        self.case(Which::Key, "PKCS#8 under the label of SEC 1", relabelled, None);
        self.case(Which::Key, "encrypted, PKCS#8", encrypted, holds("encrypted.key", "an encrypted private key"));
        self.case(Which::Key, "encrypted, OpenSSL's old way", legacy, holds("legacy.key", "an encrypted private key"));
        self.case(Which::Key, "DER", der, holds("der.key", "a private key in DER (P-256)"));
        self.case(Which::Key, "a public key", public, holds("public.key", "a public key"));
        let only = "the parameters of a curve, without a key";
        self.case(Which::Key, "EC PARAMETERS alone", parameters, holds("parameters.key", only));
        self.case(Which::Key, "a certificate", cert, holds("usual-files.pem", "a certificate"));
        let broken = "broken PEM (a section without its end)";
        self.case(Which::Key, "PEM without its end", cut, holds("cut.key", broken));
        self.case(Which::Key, "text", text, holds("text.key", "text that is not PEM"));
        self.case(Which::Key, "nothing", empty, Some(format!("empty.key: is empty, {KEY}")));
        let said = format!("missing.key: No such file or directory (os error 2), {KEY}");
        self.case(Which::Key, "no file", missing, Some(said));
        let said = format!("directory.key: Is a directory (os error 21), {KEY}");
        self.case(Which::Key, "a directory", directory, Some(said));
    }

    fn keys_of_other_kinds(&mut self) {
        let rsa = issued(self.shop, self.root, "rsa-files", "RSA 2048");
        let pkcs1 = self.shop.path("pkcs1.key");
        self.shop.run(&["pkey", "-traditional", "-in", text(&rsa.key), "-out", text(&pkcs1)]);
        let other = self.shop.key("other-files", "P-384");
        self.pair("PKCS#1", rsa.clone(), pkcs1, None);
        let said = "rsa-files.key: holds another key (RSA of 2048 bits) than that of the certificate of \"usual-files\", \
                    P-256, in usual-files.pem";
        self.case(Which::Key, "another certificate's key", rsa.key, Some(said.to_owned()));
        let said = "other-files.key: holds another key (P-384) than that of the certificate of \"usual-files\", P-256, in \
                    usual-files.pem";
        self.case(Which::Key, "another certificate's key, another curve", other, Some(said.to_owned()));
        for (key, shown, what) in [
            ("RSA 1024", "RSA of 1024 bits", "RSA 1024, with its certificate"),
            ("P-224", "P-224", "P-224, with its certificate"),
            ("ED448", "Ed448", "Ed448, with its certificate"),
        ] {
            let name = format!("{}-files", key.replace(' ', "-"));
            let made = issued(self.shop, self.root, &name, key);
            let said = format!(
                "{name}.pem: the certificate of \"{name}\" has a key that is not accepted, {shown}: expected {TAKEN}"
            );
            self.pair(what, made.clone(), made.key, said);
        }
    }

    fn certificates(&mut self) {
        let usual = self.usual.clone();
        let (der, request) = (self.shop.path("der.pem"), self.shop.path("request.pem"));
        let (store, trusted) = (self.shop.path("store.pem"), self.shop.path("trusted.pem"));
        let (cert, key) = (text(&usual.cert).to_owned(), text(&usual.key).to_owned());
        self.shop.run(&["x509", "-in", &cert, "-outform", "DER", "-out", text(&der)]);
        let config = self.shop.write("request.cnf", "[req]\ndistinguished_name = name\n[name]\n");
        self.shop.run(&[
            "req",
            "-new",
            "-config",
            text(&config),
            "-subj",
            "/CN=x",
            "-key",
            &key,
            "-out",
            text(&request),
        ]);
        let arguments = ["pkcs12", "-export", "-in", &cert, "-inkey", &key, "-passout", "pass:x", "-out", text(&store)];
        self.shop.run(&arguments);
        self.shop.run(&["x509", "-in", &cert, "-trustout", "-addtrust", "serverAuth", "-out", text(&trusted)]);
        let words = self.shop.write("words.pem", &format!("The certificate of a member:\n{}", read(&usual.cert)));
        let crlf = self.shop.write("crlf.pem", &read(&usual.cert).replace('\n', "\r\n"));
        let both = self.shop.joined("both.pem", &[&usual.cert, &usual.key]);
        let broken = self.shop.write("broken.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
        let holds = |name: &str, what: &str| Some(format!("{name}: holds {what}, {CERT}"));
        self.case(Which::Certificate, "words before it", words, None);
        self.case(Which::Certificate, "lines that end in CR LF", crlf, None);
        self.case(Which::Certificate, "its key too", both, None);
        self.case(Which::Certificate, "DER", der, holds("der.pem", "a certificate in DER"));
        self.case(Which::Certificate, "PKCS#12", store, holds("store.pem", "a PKCS#12 store"));
        self.case(Which::Certificate, "a key", usual.key, holds("usual-files.key", "a private key"));
        self.case(Which::Certificate, "a certificate request", request, holds("request.pem", "a certificate request"));
        let own = "a certificate in OpenSSL's own form (TRUSTED CERTIFICATE)";
        self.case(Which::Certificate, "TRUSTED CERTIFICATE", trusted, holds("trusted.pem", own));
        let said = format!("broken.pem: certificate 1 in it cannot be read: {CERT}");
        self.case(Which::Certificate, "PEM around something else", broken, Some(said));
    }

    fn authorities(&mut self) {
        let root = self.root.clone();
        let join = |name: &str, more: &[&Path]| {
            let files: Vec<_> = std::iter::once(root.cert.as_path()).chain(more.iter().copied()).collect();
            self.shop.joined(name, &files)
        };
        let broken = self.shop.write("broken", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n");
        let words = self.shop.write("words", "# the old one\nsee the wiki\n");
        let (twice, words) = (join("twice.ca", &[&root.cert]), join("words.ca", &[&words, &root.cert]));
        let (with_key, with_broken) = (join("key.ca", &[&root.key]), join("broken.ca", &[&broken]));
        let empty = self.shop.write("empty.ca", "\n");
        let der = self.shop.path("der.ca");
        self.shop.run(&["x509", "-in", text(&root.cert), "-outform", "DER", "-out", text(&der)]);
        self.case(Which::Authorities, "the same CA twice", twice, None);
        self.case(Which::Authorities, "words between two", words, None);
        self.case(Which::Authorities, "a key too", with_key, None);
        let said = format!("broken.ca: certificate 2 in it cannot be read: {CAS}");
        self.case(Which::Authorities, "one that is broken", with_broken, Some(said));
        self.case(Which::Authorities, "nothing", empty, Some(format!("empty.ca: is empty, {CAS}")));
        self.case(Which::Authorities, "DER", der, Some(format!("der.ca: holds a certificate in DER, {CAS}")));
    }
}

#[test]
fn each_file_that_cannot_be_used_is_one_line() {
    let Some(openssl) = program("files that cannot be used", "openssl", &[]) else { return };
    let shop = Workshop::new(openssl);
    let extensions = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign";
    let root = shop.own(&Wanted { name: "root", key: "P-256", signature: "sha256", extensions });
    let directory = shop.path("").display().to_string();
    let mut faults = Vec::new();
    for case in cases(&shop, &root) {
        let said = Tls::load(case.config()).err().map(|error| error.to_string().replace(&directory, ""));
        if said != case.said {
            faults.push(format!("{}: expected {:?}, found {said:?}", case.what, case.said));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
