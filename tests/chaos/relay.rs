//! A relay before a member's peer port, which can be cut.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

pub(crate) struct Relay {
    is_cut: watch::Sender<bool>,
}

impl Relay {
    /// Passes on what comes to one URL to another, as long as it is not cut.
    pub(crate) async fn start(from: &str, to: &str) -> Self {
        let (listener, to) = (TcpListener::bind(address(from)).await.expect("a free port"), address(to));
        let (is_cut, cuts) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                let Ok((incoming, _)) = listener.accept().await else { continue };
                tokio::spawn(pass_on(incoming, to, cuts.clone()));
            }
        });
        Self { is_cut }
    }

    /// While it is cut, connections that are open end, and new ones are taken and hear nothing.
    pub(crate) fn cut(&self, is_cut: bool) {
        self.is_cut.send_replace(is_cut);
    }
}

async fn pass_on(mut incoming: TcpStream, to: SocketAddr, mut cuts: watch::Receiver<bool>) {
    if *cuts.borrow_and_update() {
        let _ = tokio::time::timeout(Duration::from_secs(10), cuts.wait_for(|is_cut| !is_cut)).await;
        return;
    }
    let Ok(mut outgoing) = TcpStream::connect(to).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut incoming, &mut outgoing) => {}
        _ = cuts.wait_for(|is_cut| *is_cut) => {}
    }
}

fn address(url: &str) -> SocketAddr {
    url.trim_start_matches("http://").parse().expect("an address and a port")
}
