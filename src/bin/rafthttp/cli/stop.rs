//! Tells the process to stop.

use std::{
    process,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Starts an orderly stop at the first SIGTERM or SIGINT. Ends the process at the second one, or when the grace period
/// is over.
#[derive(Debug)]
pub(crate) struct Stop {
    token: CancellationToken,
    grace: Duration,
    /// When the first signal came.
    told: Arc<OnceLock<Instant>>,
}

impl Stop {
    /// A stop that has not been requested yet.
    pub(crate) fn new(grace: Duration) -> Self {
        Self { token: CancellationToken::new(), grace, told: Arc::default() }
    }

    /// Listens for signals from now on. Needs the runtime.
    pub(crate) fn on_signal(&self) {
        // Nobody waits for this task: it ends the process, or ends with it.
        tokio::spawn(watch(self.token.clone(), self.told.clone(), self.grace));
    }

    /// The rest of the grace period, or all of it if no signal came.
    pub(crate) fn time_left(&self) -> Duration {
        self.told.get().map_or(self.grace, |told| self.grace.saturating_sub(told.elapsed()))
    }

    /// The token that is cancelled at the first signal.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Waits for the first signal.
    pub(crate) async fn requested(&self) {
        self.token.cancelled().await;
    }
}

async fn watch(token: CancellationToken, told: Arc<OnceLock<Instant>>, grace: Duration) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be watched: the process ends without a grace period");
        return;
    };
    either(&mut terminate, &mut interrupt).await;
    tracing::info!(grace = %humantime::format_duration(grace), "stopping");
    let _ = told.set(Instant::now());
    token.cancel();
    tokio::select! {
        () = either(&mut terminate, &mut interrupt) => tracing::error!("a second signal to stop: the process ends at once"),
        () = tokio::time::sleep(grace) => tracing::error!("not stopped within the grace period: the process ends at once"),
    }
    process::exit(1)
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
