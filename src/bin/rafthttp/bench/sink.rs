//! The side that receives.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::{join_all, try_join_all};
use rafthttp::{MemberId, PeerStatus, SnapshotStore};
use tempfile::TempDir;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    BenchError,
    arrivals::{Arrivals, RunCount},
    endpoint::{BenchEndpoint, EndpointConfig, LOOK_EVERY, are_gone},
    report::{Report, RunMeasure, Side},
    sink_ids,
};
use crate::config::HostPort;

/// How often to check whether a source has asked.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How often to check whether the source is still there.
const GLANCE_EVERY: Duration = Duration::from_secs(1);
/// How long a source may be silent, with all streams from it closed, before it counts as gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the source may take to leave once it has finished.
const FAREWELL: Duration = Duration::from_secs(2);

/// One of the members that receive.
struct Sink {
    endpoint: BenchEndpoint,
    arrivals: Arc<Arrivals>,
}

/// Serves with a member at each address until one source has finished, and prints what was received.
pub(crate) async fn sink(
    config: EndpointConfig,
    listen: &[HostPort],
    data_dir: Option<PathBuf>,
    stop: &CancellationToken,
) -> Result<(), BenchError> {
    let directory = data_dir.map_or_else(tempfile::tempdir, tempfile::tempdir_in).map_err(BenchError::Store)?;
    let mut sinks = Vec::with_capacity(listen.len());
    for (id, listen) in sink_ids().zip(listen) {
        sinks.push(Sink::start(id, EndpointConfig { listen: listen.clone(), ..config.clone() }, &directory).await?);
    }
    let served = stop.run_until_cancelled(try_join_all(sinks.iter().map(Sink::serve))).await;
    join_all(sinks.into_iter().map(|sink| sink.endpoint.stop())).await;
    report(&served.ok_or(BenchError::Stopped)??)
}

impl Sink {
    /// Listens as this member. Its snapshots have a directory of their own.
    async fn start(id: MemberId, config: EndpointConfig, directory: &TempDir) -> Result<Self, BenchError> {
        let store = SnapshotStore::open(directory.path().join(id.to_string())).map_err(BenchError::Store)?;
        let arrivals = Arrivals::new(id, store.clone());
        let endpoint = BenchEndpoint::start(config, id, arrivals.clone(), Some(store)).await?;
        arrivals.acknowledge_by(endpoint.transport.clone());
        Ok(Self { endpoint, arrivals })
    }

    async fn serve(&self) -> Result<RunCount, BenchError> {
        self.take_first_asker().await?;
        while self.arrivals.count().sent.is_none() {
            tokio::select! {
                () = self.arrivals.changed() => {}
                () = self.silence() => return Err(BenchError::Abandoned),
            }
        }
        // The source leaves once it knows that we know.
        self.endpoint.until(FAREWELL, LOOK_EVERY, are_gone).await;
        Ok(self.arrivals.count())
    }

    /// Waits for the first source, and makes it our one peer. The transport answers a stranger's first dial with 404,
    /// as etcd does. From then on it knows the stranger as a remote, with the URLs that the stranger sent.
    async fn take_first_asker(&self) -> Result<(), BenchError> {
        let transport = &self.endpoint.transport;
        loop {
            if let Some(remote) = transport.peers().into_iter().find(PeerStatus::is_remote) {
                tracing::info!(peer = %remote.id, "the first to ask is the source");
                return Ok(transport.add_peer(remote.id, remote.urls)?);
            }
            sleep(ASK_EVERY).await;
        }
    }

    /// Returns when no stream from the source has been open for the whole of [`PATIENCE`].
    async fn silence(&self) {
        loop {
            self.endpoint.until(Duration::MAX, GLANCE_EVERY, are_gone).await;
            if !self.endpoint.until(PATIENCE, LOOK_EVERY, |peers| !are_gone(peers)).await {
                return;
            }
        }
    }
}

/// Prints what all members together have received: from the first beginning to the last message.
fn report(counts: &[RunCount]) -> Result<(), BenchError> {
    let began = counts.iter().map(|count| count.began).collect::<Option<Vec<_>>>().ok_or(BenchError::Abandoned)?;
    let sent = counts.iter().map(|count| count.sent).sum::<Option<u64>>().ok_or(BenchError::Abandoned)?;
    let (outline, first) = began.iter().copied().min_by_key(|(_, began)| began.at).ok_or(BenchError::Abandoned)?;
    let ends = counts.iter().zip(&began).map(|(count, (_, began))| count.last.unwrap_or(*began));
    let (last, processor) = ends
        .fold((first.at, first.processor), |(last, processor), end| (last.max(end.at), processor.max(end.processor)));
    let messages = counts.iter().map(|count| count.messages).sum();
    let lost = counts.iter().map(|count| count.sent.unwrap_or(0).saturating_sub(count.messages)).sum();
    let seen = RunMeasure {
        peers: counts.len(),
        messages,
        lost,
        elapsed: last - first.at,
        processor: processor.saturating_sub(first.processor),
    };
    Report::new(Side::Sink, outline, seen, None).print();
    if lost == 0 { Ok(()) } else { Err(BenchError::Lost { lost, messages: sent }) }
}
