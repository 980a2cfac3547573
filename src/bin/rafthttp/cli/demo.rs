//! `rafthttp demo`: a whole cluster in one process.

use std::time::Duration;

use clap::Args;

use super::{
    BadFlag, Failure, Stop,
    client_tls::ClientTls,
    peer_tls::{PeerNames, PeerTls},
    port_tls::PortTls,
};
use crate::{
    config::{self, ListenUrl},
    demo::{Certificates, Demo},
};

/// Run several members in this process on loopback, write to them, and report at the end where every message went.
///
/// Each member listens on free ports and keeps its data in a temporary directory, which is removed at the end. With
/// certificates for 127.0.0.1 the ports use TLS: --peer-cert-file is for the peer ports, --cert-file for the ports of
/// clients and metrics. The writing client then uses --cacert, --cert and --key. The exit status is 0 if writes were
/// committed, every member holds them, and every ledger balances.
#[derive(Args, Debug)]
pub(crate) struct Flags {
    /// The number of members.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    members: u64,

    /// Writes per second; the members take them in turn.
    #[arg(long, value_name = "R", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,

    /// How long the demo runs [default: until Ctrl-C]
    #[arg(long, value_name = "DURATION", value_parser = config::duration)]
    r#for: Option<Duration>,

    #[command(flatten)]
    peers: PeerTls,

    #[command(flatten)]
    port: PortTls,

    #[command(flatten)]
    writer: ClientTls,
}

impl Flags {
    pub(crate) async fn run(self, stop: &Stop) -> Result<(), Failure> {
        let (certificate, _) = self.port.pair();
        let https: Vec<ListenUrl> = certificate.and_then(|_| "https://127.0.0.1:0".parse().ok()).into_iter().collect();
        let shown = certificate.map(|path| path.display().to_string());
        let certificates = Certificates {
            peer: self.peers.load(PeerNames::default())?,
            client: self.port.load(&[("cert-file", &https)])?,
            curl: self.writer.as_curl(),
            writer: self.writer.load(shown, |file, expected| BadFlag::new("cert-file", file, expected))?,
        };
        let demo = Demo { members: self.members, rate: self.rate, time: self.r#for, certificates };
        demo.run(stop.token()).await.map_err(Failure::failed)
    }
}
