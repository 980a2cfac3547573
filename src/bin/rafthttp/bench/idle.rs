//! Measures the cost of peers that never answer.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use rafthttp::{Critical, MemberId, Raft, Rejected, SnapshotStatus, Source, wire::raftpb::Message};
use serde::Serialize;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    BenchError, SOURCE,
    endpoint::{BenchEndpoint, EndpointConfig},
    usage,
};
use crate::config::HostPort;

/// How often the metrics are read: once in the time that is measured by default. The text of a thousand peers is so long
/// that reading it each second would be most of the cost.
const SCRAPE_EVERY: Duration = Duration::from_secs(10);
/// The ID of the first of these peers.
const FIRST_PEER: u64 = 100;

/// The settings of the measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    pub(crate) peers: u64,
    /// How long to wait before the measurement.
    pub(crate) settle: Duration,
    /// How long to measure.
    pub(crate) measure: Duration,
}

#[derive(Debug, Serialize)]
struct IdleReport {
    role: &'static str,
    peers: u64,
    seconds: f64,
    cpu_seconds: f64,
    rss_bytes: Option<u64>,
    peak_rss_bytes: Option<u64>,
}

/// Configures peers that all have the URL of a peer that does not answer, and prints their cost.
pub(crate) async fn idle(
    config: EndpointConfig,
    to: &HostPort,
    idle: Idle,
    stop: &CancellationToken,
) -> Result<(), BenchError> {
    let scrape_every = config.scrape_every.map(|_| SCRAPE_EVERY);
    let endpoint =
        BenchEndpoint::start(EndpointConfig { scrape_every, ..config }, SOURCE, Arc::new(Nobody), None).await?;
    let url = endpoint.url_of(to)?;
    for id in (FIRST_PEER..).take(usize::try_from(idle.peers).unwrap_or(usize::MAX)) {
        endpoint.transport.add_peer(MemberId(id), vec![url.clone()])?;
    }
    let measured = stop.run_until_cancelled(measure(idle)).await;
    endpoint.stop().await;
    let report = measured.ok_or(BenchError::Stopped)?;
    println!("{}", serde_json::to_string(&report).expect("numbers and names are always JSON"));
    Ok(())
}

async fn measure(idle: Idle) -> IdleReport {
    sleep(idle.settle).await;
    let before = usage::processor_time();
    sleep(idle.measure).await;
    let used = usage::processor_time() - before;
    let (rss_bytes, peak_rss_bytes) = usage::resident_bytes();
    IdleReport {
        role: "idle",
        peers: idle.peers,
        seconds: idle.measure.as_secs_f64(),
        cpu_seconds: used.as_secs_f64(),
        rss_bytes,
        peak_rss_bytes,
    }
}

/// An application that never receives anything.
struct Nobody;

#[async_trait]
impl Raft for Nobody {
    async fn process(&self, _from: MemberId, _: Source, _batch: Vec<Message>) -> Result<(), Rejected> {
        Ok(())
    }

    fn is_removed(&self, _id: MemberId) -> bool {
        false
    }

    fn report_unreachable(&self, _id: MemberId) {}

    fn report_snapshot(&self, _id: MemberId, _status: SnapshotStatus) {}

    fn critical(&self, error: Critical) {
        tracing::error!(%error, "a peer refuses this member");
    }
}
