//! How the process is told to stop.

use std::{process, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Stops in good order at the first SIGTERM or SIGINT; ends the process at the second, or when the grace period is over.
#[derive(Debug)]
pub(crate) struct Stop {
    token: CancellationToken,
}

impl Stop {
    /// Listens for signals from now on.
    pub(crate) fn on_signal(grace: Duration) -> Self {
        let token = CancellationToken::new();
        // The one task that nobody waits for: it ends the process, or ends with it.
        tokio::spawn(watch(token.clone(), grace));
        Self { token }
    }

    /// What is cancelled at the first signal.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Waits for the first signal.
    pub(crate) async fn requested(&self) {
        self.token.cancelled().await;
    }
}

async fn watch(token: CancellationToken, grace: Duration) {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be watched: the process ends without a grace period");
        return;
    };
    either(&mut terminate, &mut interrupt).await;
    tracing::info!(grace = %humantime::format_duration(grace), "stopping");
    token.cancel();
    tokio::select! {
        () = either(&mut terminate, &mut interrupt) => eprintln!("rafthttp: told to stop twice, ends at once"),
        () = tokio::time::sleep(grace) => eprintln!("rafthttp: not stopped within the grace period, ends at once"),
    }
    process::exit(1)
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
