//! A proxy between the two, whose connections can be cut.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

pub(crate) struct Proxy {
    pub(crate) address: String,
    connections: Arc<AtomicUsize>,
    cut: Arc<Mutex<CancellationToken>>,
    stop: CancellationToken,
}

impl Proxy {
    /// Passes everything on to `target`, until it is dropped.
    pub(crate) async fn to(target: String) -> Self {
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
                        () = pass(near, target) => {}
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

async fn pass(mut near: TcpStream, target: String) {
    if let Ok(mut far) = TcpStream::connect(target).await {
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    }
}
