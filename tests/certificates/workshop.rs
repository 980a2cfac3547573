//! Certificates of every kind, by OpenSSL: what rcgen cannot make, and nobody should have.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Where certificates are made.
pub struct Workshop {
    openssl: PathBuf,
    directory: tempfile::TempDir,
}

/// A certificate, by its file, and its key's.
#[derive(Clone)]
pub struct Made {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// What leads from it to a CA.
    pub others: Option<PathBuf>,
}

/// What a certificate is to say.
pub struct Wanted<'a> {
    /// Its common name, and the stem of its files.
    pub name: &'a str,
    /// `P-256`, `RSA 2048`, `ED25519`, …
    pub key: &'a str,
    /// `sha256`, `sha1`, `pss`; none: what goes with the signer's key.
    pub signature: &'a str,
    /// Its extensions, a line each.
    pub extensions: &'a str,
}

impl Workshop {
    pub fn new(openssl: PathBuf) -> Self {
        Self { openssl, directory: tempfile::tempdir().expect("a temporary directory") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// OpenSSL, with what is outdated allowed.
    pub fn openssl(&self) -> Command {
        let mut command = Command::new(&self.openssl);
        // Nothing of the machine's own settings.
        command.env("OPENSSL_CONF", "/dev/null").stdin(Stdio::null());
        command
    }

    /// Runs OpenSSL; panics unless it succeeds.
    pub fn run(&self, arguments: &[&str]) {
        let output = self.openssl().args(arguments).output().expect("it runs");
        assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("the directory is ours");
        path
    }

    /// One file of several.
    pub fn joined(&self, name: &str, files: &[&Path]) -> PathBuf {
        let text: String = files.iter().map(|file| read(file)).collect();
        self.write(name, &text)
    }

    /// A key of this kind.
    pub fn key(&self, name: &str, kind: &str) -> PathBuf {
        let path = self.path(&format!("{name}.key"));
        let out = text(&path);
        let (bits, curve) = (format!("rsa_keygen_bits:{}", last(kind)), format!("ec_paramgen_curve:{kind}"));
        let options: &[&str] = match kind {
            "ED25519" | "ED448" => &["-algorithm", kind],
            "RSA 2048 e3" => {
                &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-pkeyopt", "rsa_keygen_pubexp:3"]
            }
            _ if kind.starts_with("RSA-PSS") => &["-algorithm", "RSA-PSS", "-pkeyopt", &bits],
            _ if kind.starts_with("RSA") => &["-algorithm", "RSA", "-pkeyopt", &bits],
            _ => &["-algorithm", "EC", "-pkeyopt", &curve],
        };
        self.run(&[&["genpkey", "-out", out], options].concat());
        path
    }

    /// A certificate that signs itself.
    pub fn own(&self, wanted: &Wanted<'_>) -> Made {
        self.issue(wanted, None)
    }

    /// A certificate that another signs.
    pub fn signed(&self, wanted: &Wanted<'_>, by: &Made) -> Made {
        self.issue(wanted, Some(by))
    }

    fn issue(&self, wanted: &Wanted<'_>, by: Option<&Made>) -> Made {
        let Wanted { name, key, signature, extensions } = *wanted;
        let made = Made { cert: self.path(&format!("{name}.pem")), key: self.key(name, key), others: None };
        let config =
            format!("[req]\ndistinguished_name = name\nprompt = no\n[name]\nCN = {name}\n[with]\n{extensions}\n");
        let config = self.write(&format!("{name}.cnf"), &config);
        let subject = format!("/CN={name}");
        let mut arguments = vec!["req", "-x509", "-new", "-days", "3650", "-config", text(&config), "-subj", &subject];
        arguments.extend(["-key", text(&made.key), "-out", text(&made.cert)]);
        if !extensions.is_empty() {
            arguments.extend(["-extensions", "with"]);
        }
        if let Some(by) = by {
            arguments.extend(["-CA", text(&by.cert), "-CAkey", text(&by.key)]);
        }
        let digest = format!("-{signature}");
        match signature {
            "" => {}
            "pss" => arguments.extend(["-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:-1"]),
            _ => arguments.push(&digest),
        }
        self.run(&arguments);
        made
    }

    /// A certificate of X.509 version 1: it has no extensions.
    pub fn version_1(&self, name: &str, by: Option<&Made>) -> Made {
        let made = Made { cert: self.path(&format!("{name}.pem")), key: self.key(name, "P-256"), others: None };
        let request = self.path(&format!("{name}.csr"));
        let config = self.write(&format!("{name}.cnf"), "[req]\ndistinguished_name = name\n[name]\n");
        let subject = format!("/CN={name}");
        self.run(&[
            "req",
            "-new",
            "-config",
            text(&config),
            "-subj",
            &subject,
            "-key",
            text(&made.key),
            "-out",
            text(&request),
        ]);
        let mut arguments =
            vec!["x509", "-req", "-in", text(&request), "-out", text(&made.cert), "-days", "3650", "-sha256"];
        match by {
            Some(by) => arguments.extend(["-CA", text(&by.cert), "-CAkey", text(&by.key), "-CAcreateserial"]),
            None => arguments.extend(["-signkey", text(&made.key)]),
        }
        self.run(&arguments);
        let output =
            self.openssl().args(["x509", "-noout", "-text", "-in", text(&made.cert)]).output().expect("it runs");
        assert!(String::from_utf8_lossy(&output.stdout).contains("Version: 1 "), "this OpenSSL makes no version 1");
        made
    }
}

fn last(words: &str) -> &str {
    words.rsplit(' ').next().unwrap_or(words)
}

pub fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
