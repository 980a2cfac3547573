//! Asking both ends, ours and etcd's, what they make of a certificate. OpenSSL shows it: it shows whatever there is.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rafthttp::tls::Tls;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

use crate::{
    handshake::HANDSHAKE_TIMEOUT,
    kinds::Kind,
    support::{certificates::Files, ports::free_port},
    workshop::{Workshop, text},
};

/// Longer than any of these takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
const REQUEST: &[u8] = b"GET /version HTTP/1.0\r\n\r\n";
/// In etcd's answer to it, and in ours here.
const ANSWER: &str = "etcdserver";

/// A process that ends with it.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// OpenSSL as a server with each kind's certificate: its port.
pub fn serve(shop: &Workshop, kind: &Kind) -> (Process, u16) {
    let port = free_port();
    let mut command = shop.openssl();
    command.args(["s_server", "-www", "-cipher", "DEFAULT@SECLEVEL=0", "-accept", &format!("127.0.0.1:{port}")]);
    show(&mut command, kind);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let mut process = Process(child);
    let mut lines = BufReader::new(process.0.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.starts_with("ACCEPT")), "openssl does not serve {:?}", kind.columns);
    // It says more later, and must not find the pipe closed.
    std::thread::spawn(move || lines.for_each(drop));
    (process, port)
}

fn show(command: &mut Command, kind: &Kind) {
    command.args(["-cert", text(&kind.made.cert), "-key", text(&kind.made.key)]);
    if let Some(others) = &kind.made.others {
        command.args(["-cert_chain", text(others)]);
    }
    if kind.is_for_tls_12() {
        command.arg("-no_tls1_3");
    }
}

/// Whether we speak with the server at this port, dialled as this host.
pub async fn we_dial(tls: &Tls, host: &'static str, port: u16) -> bool {
    let asked = async {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
        let name = ServerName::try_from(host).ok()?;
        let client = tls.client().expect("there is a trusted CA");
        let mut stream = TlsConnector::from(client).connect(name, stream).await.ok()?;
        stream.write_all(REQUEST).await.ok()?;
        stream.read_u8().await.ok()
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("it ends").is_some()
}

/// Our listener. Every client that it accepts gets the answer.
pub async fn we_listen(tls: Tls) -> (JoinHandle<()>, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let port = listener.local_addr().expect("it is bound").port();
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = tls.accept(stream, HANDSHAKE_TIMEOUT).await else { return };
                let mut request = [0; REQUEST.len()];
                if stream.read_exact(&mut request).await.is_ok() {
                    let _ = stream.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{ANSWER}").as_bytes()).await;
                    let _ = stream.shutdown().await;
                }
            });
        }
    });
    (serving, port)
}

/// Whether the server at this port answers OpenSSL that shows this kind of certificate. Blocks.
pub fn is_answered(shop: &Workshop, kind: &Kind, port: u16) -> bool {
    let mut command = client(shop, port);
    show(&mut command, kind);
    asks(command)
}

/// Whether it answers OpenSSL with these files of a member, and these arguments. Blocks.
pub fn answers(shop: &Workshop, files: &Files, more: &[&str], port: u16) -> bool {
    let mut command = client(shop, port);
    command.args(["-cert", text(&files.path("cert.pem")), "-key", text(&files.path("key.pem"))]).args(more);
    asks(command)
}

fn client(shop: &Workshop, port: u16) -> Command {
    let mut command = shop.openssl();
    command.args(["s_client", "-quiet", "-cipher", "DEFAULT@SECLEVEL=0", "-connect", &format!("127.0.0.1:{port}")]);
    command
}

fn asks(mut command: Command) -> bool {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = Process(command.spawn().expect("it starts"));
    // Where it is refused at once, there is nobody to write to.
    let mut stdin = process.0.stdin.take().expect("piped");
    let _ = stdin.write_all(REQUEST);
    let mut stdout = process.0.stdout.take().expect("piped");
    let reading = std::thread::spawn(move || {
        let mut said = Vec::new();
        let _ = stdout.read_to_end(&mut said);
        String::from_utf8_lossy(&said).contains(ANSWER)
    });
    let end = Instant::now() + PATIENCE;
    while process.0.try_wait().expect("it is ours").is_none() && !reading.is_finished() {
        assert!(Instant::now() < end, "openssl s_client does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop((stdin, process));
    reading.join().expect("it only reads")
}

/// A member of etcd's, alone, with these files.
pub struct Etcd<'a> {
    pub program: &'a Path,
    pub directory: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
    pub trusted: PathBuf,
}

impl Etcd<'_> {
    fn command(&self, port: u16, others: &str, state: &str) -> Command {
        let (own, clients) = (format!("https://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", free_port()));
        let mut command = Command::new(self.program);
        command.args(["--name", "self", "--data-dir", text(&self.directory), "--unsafe-no-fsync"]);
        command.args(["--listen-peer-urls", &own, "--initial-advertise-peer-urls", &own]);
        command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
        command.args(["--initial-cluster", &format!("self={own}{others}"), "--initial-cluster-state", state]);
        command.args(["--peer-cert-file", text(&self.cert), "--peer-key-file", text(&self.key)]);
        command.args(["--peer-trusted-ca-file", text(&self.trusted), "--peer-client-cert-auth"]);
        // The check of a client's names and address is another test's subject.
        command.arg("--peer-skip-client-san-verification");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Starts it. `None` if it ends by itself, as it does with files that it does not take. Blocks.
    pub fn start(&self) -> Option<(Process, u16)> {
        let port = free_port();
        let mut process = Process(self.command(port, "", "new").stderr(Stdio::null()).spawn().expect("it starts"));
        let end = Instant::now() + PATIENCE;
        loop {
            if process.0.try_wait().expect("it is ours").is_some() {
                return None;
            }
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some((process, port));
            }
            assert!(Instant::now() < end, "etcd neither listens nor ends");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it logs about each of these URLs, which it dials to join their cluster. `None` for a URL that it can talk
    /// to. Blocks.
    pub fn dial(&self, urls: &[String], proxy: u16) -> HashMap<String, Option<String>> {
        let others: String = urls.iter().enumerate().map(|(number, url)| format!(",other-{number}={url}")).collect();
        let mut command = self.command(free_port(), &others, "existing");
        command.env("HTTPS_PROXY", format!("http://127.0.0.1:{proxy}"));
        let mut process = Process(command.spawn().expect("it starts"));
        let mut said = HashMap::new();
        let lines = BufReader::new(process.0.stderr.take().expect("piped"));
        for line in lines.lines().map_while(Result::ok) {
            let Ok(line) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
            let Some(url) = line["address"].as_str().and_then(|address| address.strip_suffix("/members")) else {
                continue;
            };
            match line["msg"].as_str() {
                Some("failed to get cluster response") => {
                    said.insert(url.to_owned(), Some(line["error"].as_str().unwrap_or_default().to_owned()));
                }
                // OpenSSL's answer is none of a member's.
                Some("failed to unmarshal cluster response") => drop(said.insert(url.to_owned(), None)),
                _ => {}
            }
        }
        said
    }
}

/// Takes etcd by names that no server knows to loopback, as an HTTP proxy.
pub async fn proxy() -> (JoinHandle<()>, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let port = listener.local_addr().expect("it is bound").port();
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(pass(stream));
        }
    });
    (serving, port)
}

async fn pass(mut near: TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(near.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    let port: u16 = head.strip_prefix("CONNECT ")?.split(' ').next()?.rsplit(':').next()?.parse().ok()?;
    let mut far = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await.ok().map(drop)
}

/// Tasks that end with it.
pub struct Tasks(pub Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}
