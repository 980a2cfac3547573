//! A member that behaves as a test tells it to. It answers the requests of `probe` from its own socket.

use std::{
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use rafthttp::Tls;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

/// The cluster of every fake, unless told otherwise.
pub const CLUSTER: u64 = 0xcdf8_1819_4e3a_8c32;

/// What a member does with a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Answers, as etcd does.
    Well,
    /// Takes the connection and the request, and says nothing: as one that is frozen.
    Silent,
    /// Answers 500.
    Fails,
    /// Answers 200 and something else.
    Rubbish,
    /// Answers in something else than HTTP.
    NotHttp,
    /// Answers without end.
    Endless,
    /// Closes every connection at once.
    Closes,
}

/// How a member is.
#[derive(Clone, Debug)]
pub struct Behaviour {
    pub manner: Manner,
    pub cluster: u64,
    /// The answer to `GET /members`.
    pub members: String,
    /// Without end, whatever `members` says.
    pub members_endless: bool,
    /// How far its clock is ahead of ours, in seconds.
    pub clock: i64,
    pub version: String,
}

/// A member that is none.
pub struct Fake {
    pub id: u64,
    pub url: String,
    behaviour: Arc<Mutex<Behaviour>>,
    task: JoinHandle<()>,
}

impl Fake {
    pub async fn start(id: u64) -> Self {
        Self::with(id, None).await
    }

    /// One behind TLS, alone in its cluster.
    pub async fn secure(tls: Tls) -> Self {
        let fake = Self::with(1, Some(tls)).await;
        tell(std::slice::from_ref(&fake), &[&fake]);
        fake
    }

    async fn with(id: u64, tls: Option<Tls>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", listener.local_addr().unwrap());
        let behaviour = Behaviour {
            manner: Manner::Well,
            cluster: CLUSTER,
            members: String::new(),
            members_endless: false,
            clock: 0,
            version: "3.6.16".to_owned(),
        };
        let behaviour = Arc::new(Mutex::new(behaviour));
        let task = tokio::spawn(serve(listener, tls, behaviour.clone()));
        Self { id, url, behaviour, task }
    }

    /// This many members, numbered from 1. Each lists all of them.
    pub async fn cluster(size: u64) -> Vec<Self> {
        let mut fakes = Vec::new();
        for id in 1..=size {
            fakes.push(Self::start(id).await);
        }
        tell(&fakes, &fakes.iter().collect::<Vec<_>>());
        fakes
    }

    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.behaviour.lock().unwrap());
    }

    pub fn manner(&self, manner: Manner) {
        self.behave(|behaviour| behaviour.manner = manner);
    }

    /// As a process that is killed: nothing listens there any more.
    pub async fn kill(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// The ID as metrics have it.
    pub fn hex(&self) -> String {
        format!("{:x}", self.id)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Makes each of `fakes` tell that `members` are the members.
pub fn tell(fakes: &[Fake], members: &[&Fake]) {
    let list: Vec<String> =
        members.iter().map(|member| entry(member.id, &format!("m{}", member.id), &member.url)).collect();
    let list = format!("[{}]\n", list.join(","));
    fakes.iter().for_each(|fake| fake.behave(|behaviour| behaviour.members.clone_from(&list)));
}

/// A member in the list; one without a name was never started.
pub fn entry(id: u64, name: &str, url: &str) -> String {
    let name = if name.is_empty() { String::new() } else { format!(r#","name":"{name}","clientURLs":["http://c:1"]"#) };
    format!(r#"{{"id":{id},"peerURLs":["{url}"]{name}}}"#)
}

async fn serve(listener: TcpListener, tls: Option<Tls>, behaviour: Arc<Mutex<Behaviour>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, behaviour) = (tls.clone(), behaviour.clone());
        connections.spawn(async move {
            match tls {
                None => answer(stream, behaviour).await,
                Some(tls) => match tls.accept(stream, Duration::from_secs(10)).await {
                    Ok(stream) => answer(stream, behaviour).await,
                    // The client refuses the certificate, or shows none that is accepted.
                    Err(_) => Ok(()),
                },
            }
        });
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, behaviour: Arc<Mutex<Behaviour>>) -> io::Result<()> {
    loop {
        let Some(path) = request(&mut stream).await? else { return Ok(()) };
        let is = behaviour.lock().unwrap().clone();
        let body = match is.manner {
            Manner::Silent => std::future::pending().await,
            Manner::Closes => return Ok(()),
            Manner::NotHttp => return stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n").await,
            Manner::Fails => {
                stream.write_all(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n").await?;
                continue;
            }
            Manner::Endless => return endless(&mut stream).await,
            Manner::Rubbish => "it works!".to_owned(),
            Manner::Well if path == "/members" && is.members_endless => return endless(&mut stream).await,
            Manner::Well => match path.as_str() {
                "/raft/probing" => format!(r#"{{"OK":true,"Now":"{}"}}"#, clock(is.clock)),
                "/version" => format!(r#"{{"etcdserver":"{}","etcdcluster":"3.6.0"}}"#, is.version),
                "/members" => is.members,
                other => panic!("asked for {other}"),
            },
        };
        let head =
            format!("HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: {:x}\r\nContent-Length: {}\r\n\r\n", is.cluster, body.len());
        stream.write_all((head + &body).as_bytes()).await?;
    }
}

/// The path of the next request; none when the client has gone.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await? == 0 {
            return Ok(None);
        }
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    for header in ["x-server-from", "x-etcd-cluster-id", "x-peerurls"] {
        assert!(!head.to_lowercase().contains(header), "who probes is nobody's member: {head}");
    }
    Ok(head.split(' ').nth(1).map(ToOwned::to_owned))
}

async fn endless(stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: 1\r\n\r\n").await?;
    loop {
        stream.write_all(&[b'['; 64 << 10]).await?;
    }
}

fn clock(ahead: i64) -> String {
    (OffsetDateTime::now_utc() + time::Duration::seconds(ahead)).format(&Rfc3339).unwrap()
}
