//! `probe`: prints the result of a survey once, or serves the watch.

use std::{
    error::Error,
    io::{self, Write},
    sync::Arc,
};

use prometheus::Registry;
use rafthttp::{
    Survey, Watch, WatchConfig,
    admin::{About, Admin},
    metrics::Options,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio_util::sync::CancellationToken;

use crate::serving::{MetricsListener, Serving};

mod table;

/// Why a probe does not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    /// No URL answered who the members are.
    #[error("no URL returned the list of members: {0}")]
    NoMembers(String),
    /// Some members are not well.
    #[error("{0}")]
    Unwell(String),
    /// Standard output cannot be written.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

/// Raises the soft limit of open files to the hard one, as Go programs do. Each member takes a connection, and many
/// systems have a soft limit of 1024.
pub(crate) fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(%error, "the limit of open files stays as it is");
        }
    }
}

/// Prints a survey. Returns an error if a member is not well.
pub(crate) fn report(survey: &Survey, json: bool) -> Result<(), ProbeError> {
    let text = if json { table::json(survey) } else { table::table(survey) };
    match io::stdout().write_all(text.as_bytes()) {
        // A reader that closes the pipe has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    let said: Vec<String> =
        survey.seeds.iter().map(|(seed, why)| format!("{seed}: {}", table::printable(why))).collect();
    if survey.cluster.is_none() {
        return Err(ProbeError::NoMembers(said.join("; ")));
    }
    for said in said {
        eprintln!("rafthttp: {said}");
    }
    if survey.is_well() { Ok(()) } else { Err(ProbeError::Unwell(table::summary(survey))) }
}

/// Watches, and serves the results until told to stop.
pub(crate) async fn watch(
    config: WatchConfig,
    listeners: Vec<MetricsListener>,
    registry: Registry,
    stop: &CancellationToken,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let addresses: Vec<String> = listeners.iter().filter_map(|listener| listener.url().ok()).collect();
    let watch = Watch::start(config);
    let (status, health) = (watch.clone(), watch.clone());
    let serving = Serving::start(
        listeners,
        Admin {
            registry,
            transport: Some(Arc::new(move || status.status())),
            events: Some(watch.events().clone()),
            // Metrics with etcd's own names are left to etcd.
            options: Options { etcd: false },
            about: Arc::new(|| About { name: "probe".to_owned(), raft: None }),
            health: Arc::new(move || health.health()),
        },
    )?;
    tracing::info!(urls = ?addresses, "watching; metrics are served");
    stop.cancelled().await;
    watch.stop().await;
    serving.stop().await;
    Ok(())
}
