//! The side that receives.

use std::{path::PathBuf, time::Duration};

use rafthttp::{MemberId, PeerStatus, SnapshotStore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    BenchError, SINK,
    arrivals::{Arrivals, Count},
    endpoint::{Endpoint, EndpointConfig, is_gone},
    report::{Report, Seen, Side},
};

/// How often to check whether a source has asked.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a source may be silent, with all streams from it closed, before it counts as gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the source may take to leave once it has finished.
const FAREWELL: Duration = Duration::from_secs(2);

/// Serves until one source has finished, and prints what was received.
pub(crate) async fn sink(
    config: EndpointConfig,
    data_dir: Option<PathBuf>,
    stop: &CancellationToken,
) -> Result<(), BenchError> {
    let directory = data_dir.map_or_else(tempfile::tempdir, tempfile::tempdir_in).map_err(BenchError::Store)?;
    let store = SnapshotStore::open(directory.path()).map_err(BenchError::Store)?;
    let arrivals = Arrivals::new(store.clone());
    let endpoint = Endpoint::start(config, SINK, arrivals.clone(), Some(store)).await?;
    arrivals.acknowledge_by(endpoint.transport.clone());

    let served = stop.run_until_cancelled(serve(&endpoint, &arrivals)).await;
    endpoint.stop().await;
    report(&served.ok_or(BenchError::Stopped)??)
}

async fn serve(endpoint: &Endpoint, arrivals: &Arrivals) -> Result<Count, BenchError> {
    let source = take_first_asker(endpoint).await?;
    while arrivals.count().sent.is_none() {
        tokio::select! {
            () = arrivals.changed() => {}
            () = silence(endpoint, source) => return Err(BenchError::Abandoned),
        }
    }
    // The source leaves once it knows that we know.
    endpoint.until(source, FAREWELL, is_gone).await;
    Ok(arrivals.count())
}

/// Waits for the first source, and makes it our peer. The transport answers a stranger's first dial with 404, as etcd
/// does. From then on it knows the stranger as a remote, with the URLs that the stranger sent.
async fn take_first_asker(endpoint: &Endpoint) -> Result<MemberId, BenchError> {
    loop {
        let remote = endpoint.transport.peers().into_iter().find(PeerStatus::is_remote);
        if let Some(remote) = remote {
            tracing::info!(peer = %remote.id, "the first to ask is the source");
            endpoint.transport.add_peer(remote.id, remote.urls)?;
            return Ok(remote.id);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Returns when no stream from the source has been open for the whole of [`PATIENCE`].
async fn silence(endpoint: &Endpoint, source: MemberId) {
    loop {
        endpoint.until(source, Duration::MAX, is_gone).await;
        if !endpoint.until(source, PATIENCE, |peer| !is_gone(peer)).await {
            return;
        }
    }
}

fn report(count: &Count) -> Result<(), BenchError> {
    let (Some((outline, began)), Some(sent)) = (count.began, count.sent) else {
        return Err(BenchError::Abandoned);
    };
    let last = count.last.unwrap_or(began);
    let lost = sent.saturating_sub(count.messages);
    let seen = Seen {
        messages: count.messages,
        lost,
        elapsed: last.at - began.at,
        processor: last.processor.saturating_sub(began.processor),
    };
    Report::new(Side::Sink, outline, seen, None).print();
    if lost == 0 { Ok(()) } else { Err(BenchError::Lost { lost, messages: sent }) }
}
