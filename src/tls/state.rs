//! The state of the certificate files: their content, and when they were last checked.

use std::{sync::Arc, time::SystemTime};

use time::OffsetDateTime;
use tokio::time::Instant;

use super::{
    Reloads, TlsError,
    files::PartChange,
    parts::{InUse, ProcessTls, TlsParts},
};
use crate::telemetry::{self, WeakEvents};

/// The certificates in use.
#[derive(Debug)]
pub(super) struct TlsState {
    parts: TlsParts,
    pub(super) in_use: Arc<InUse>,
    /// How often [`Self::in_use`] was replaced.
    pub(super) generation: u64,
    /// The newest generation that all open connections were verified against.
    pub(super) verified: u64,
    pub(super) looked: Instant,
    pub(super) reloads: Reloads,
    /// The end of the revocation list that was last warned about.
    told_stale: Option<SystemTime>,
}

impl TlsState {
    /// Reads all files. Fails at the first file that cannot be used.
    pub(super) fn load(config: &ProcessTls) -> Result<Self, TlsError> {
        let parts = config.load()?;
        let in_use = Arc::new(config.build(&parts)?);
        in_use.warn();
        let (reloads, told_stale) = Default::default();
        let (generation, verified) = (0, 0);
        let mut state = Self { parts, in_use, generation, verified, looked: Instant::now(), reloads, told_stale };
        state.tell_stale();
        Ok(state)
    }

    /// When the revocation list has to be replaced by a newer one.
    pub(super) fn revocation_end(&self) -> Option<SystemTime> {
        self.parts.revocation().map(|(_, next)| next)
    }

    /// Reads the files that changed. Logs one line for each change. A file that is broken and has not changed since
    /// gets no line.
    pub(super) fn look(&mut self, config: &ProcessTls, told: &[WeakEvents]) {
        self.looked = Instant::now();
        let mut changes = self.parts.look();
        if changes.iter().any(|change| change.outcome.is_ok()) {
            match config.build(&self.parts) {
                Ok(built) => {
                    built.warn();
                    self.in_use = Arc::new(built);
                    self.generation += 1;
                }
                Err(error) => {
                    if let Some(change) = changes.iter_mut().find(|change| change.outcome.is_ok()) {
                        change.outcome = Err(error);
                    }
                }
            }
        }
        let (taken, kept): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| change.outcome.is_ok());
        if !taken.is_empty() {
            self.reloads.ok += 1;
            let parts = taken.iter().map(|change| change.part).collect::<Vec<_>>().join(", ");
            tracing::info!(parts, file = %taken[0].file.display(), "TLS files changed and are in use");
            tell_reloaded(told, None);
        }
        for PartChange { part, file, outcome } in kept {
            let Err(error) = outcome else { continue };
            self.reloads.failed += 1;
            tracing::error!(part, file = %file.display(), %error,
                "a TLS file changed and cannot be used: the old one stays in use");
            tell_reloaded(told, Some(&error));
        }
        self.tell_stale();
    }

    /// Warns once for each revocation list that should have been replaced by now.
    fn tell_stale(&mut self) {
        let Some((file, next)) = self.parts.revocation() else { return };
        if next <= SystemTime::now() && self.told_stale != Some(next) {
            tracing::warn!(file = %file.display(), next_update = %OffsetDateTime::from(next),
                "the list of revoked certificates is past its nextUpdate, and stays in use");
            self.told_stale = Some(next);
        }
    }
}

fn tell_reloaded(told: &[WeakEvents], error: Option<&TlsError>) {
    telemetry::tls_reloaded(error.map(|error| error as _));
    let error = error.map(ToString::to_string);
    for events in told.iter().filter_map(WeakEvents::upgrade) {
        events.tls_reloaded(error.as_deref());
    }
}
