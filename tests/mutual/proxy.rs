//! A proxy between two members, that can stop passing on what their streams carry, and lose it. Other requests, probes
//! among them, pass as ever.

use std::{net::SocketAddr, sync::Arc};

use rafthttp::PeerUrl;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// What the request for a stream begins with.
const STREAM: &[u8; 16] = b"GET /raft/stream";

/// How it treats what it is given. What it has read while frozen is passed on when it thaws, or lost when it is cut.
#[derive(Clone, Copy, Debug, Default)]
struct Manners {
    frozen: bool,
    /// Connections that are older than this count are closed.
    cuts: u64,
}

pub struct Proxy {
    pub url: PeerUrl,
    manners: Arc<watch::Sender<Manners>>,
}

impl Proxy {
    pub async fn start(to: &str) -> Self {
        let to: SocketAddr = to.parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound")).parse().expect("a URL");
        let manners = Arc::new(watch::Sender::new(Manners::default()));
        let given = manners.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let manners = given.subscribe();
                tokio::spawn(async move {
                    let Ok(far) = TcpStream::connect(to).await else { return };
                    pass_between(near, far, manners).await;
                });
            }
        });
        Self { url, manners }
    }

    /// Reads on what the far side writes, and passes nothing on.
    pub fn freeze(&self) {
        self.manners.send_modify(|manners| manners.frozen = true);
    }

    pub fn thaw(&self) {
        self.manners.send_modify(|manners| manners.frozen = false);
    }

    /// Closes every connection there is; what was not passed on is lost.
    pub fn cut(&self) {
        self.manners.send_modify(|manners| manners.cuts += 1);
    }
}

async fn pass_between(near: TcpStream, far: TcpStream, manners: watch::Receiver<Manners>) {
    let mut first = [0; STREAM.len()];
    let is_stream = matches!(near.peek(&mut first).await, Ok(read) if read == first.len() && first == *STREAM);
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    if !is_stream {
        tokio::join!(pass(near_read, far_write, None), pass(far_read, near_write, None));
        return;
    }
    let cuts = manners.borrow().cuts;
    let mut cut = manners.clone();
    tokio::select! {
        () = pass(near_read, far_write, None) => {}
        // What the near side asked to hear.
        () = pass(far_read, near_write, Some(manners)) => {}
        _ = cut.wait_for(|manners| manners.cuts > cuts) => {}
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, manners: Option<watch::Receiver<Manners>>) {
    let mut piece = vec![0; 4096];
    let mut kept = Vec::new();
    loop {
        let frozen = manners.as_ref().is_some_and(|manners| manners.borrow().frozen);
        if !frozen && !kept.is_empty() {
            if to.write_all(&kept).await.is_err() {
                return;
            }
            kept.clear();
        }
        let thawed = async {
            match manners.clone() {
                Some(mut manners) if frozen => drop(manners.wait_for(|manners| !manners.frozen).await),
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            read = from.read(&mut piece) => match read {
                Ok(read) if read > 0 => kept.extend_from_slice(&piece[..read]),
                _ => return,
            },
            () = thawed => {}
        }
    }
}
