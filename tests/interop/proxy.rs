//! A proxy between the two, whose connections can be cut.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use rafthttp::PeerUrl;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

pub(crate) struct Proxy {
    pub(crate) address: String,
    connections: Arc<AtomicUsize>,
    cut: Arc<Mutex<CancellationToken>>,
    stop: CancellationToken,
}

impl Proxy {
    /// Passes everything on to `target`, until it is dropped.
    pub(crate) async fn to(target: &PeerUrl) -> Self {
        Self::cutting(target, u64::MAX).await
    }

    /// A proxy that cuts a connection once it has passed this many bytes to `target`.
    pub(crate) async fn cutting(target: &PeerUrl, after: u64) -> Self {
        let (_, target) = target.as_ref().split_once("//").unwrap();
        let target = target.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap().to_string(),
            connections: Arc::default(),
            cut: Arc::default(),
            stop: CancellationToken::new(),
        };
        let (connections, cut, stop) = (proxy.connections.clone(), proxy.cut.clone(), proxy.stop.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
            while let Ok((near, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let cut = cut.lock().unwrap().clone();
                let (target, stop) = (target.clone(), stop.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        _ = pass(near, target, after) => {}
                        () = cut.cancelled() => {}
                        () = stop.cancelled() => {}
                    }
                });
            }
        }));
        proxy
    }

    /// Cuts every connection; new ones are taken.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *self.cut.lock().unwrap()).cancel();
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Ends when either end does: HTTP closes no half of a connection.
async fn pass(mut near: TcpStream, target: String, after: u64) -> io::Result<u64> {
    let mut far = TcpStream::connect(target).await?;
    let (near_out, mut near_in) = near.split();
    let mut near_out = near_out.take(after);
    let (mut far_out, mut far_in) = far.split();
    tokio::select! {
        passed = tokio::io::copy(&mut near_out, &mut far_in) => passed,
        passed = tokio::io::copy(&mut far_out, &mut near_in) => passed,
    }
}
