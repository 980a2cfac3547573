//! Sets up log lines and spans, once, at the start of the program.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

use super::otlp::{Export, ExportError};
use crate::ledger::TraceExportStatus;

/// The format of log lines. They go to standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// A format for people.
    Human,
    /// One JSON object a line: `timestamp`, `level`, `target`, `message`, and the event's own fields.
    Json,
}

/// Why logging or tracing could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// The filter cannot be parsed.
    #[error("log filter {filter:?}: {source}")]
    Filter {
        /// The given filter.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The variables `OTEL_EXPORTER_OTLP_…` are not usable.
    #[error("trace export: {0}")]
    Export(#[from] ExportError),
    /// The program has set up logging already.
    #[error("logging is set up already")]
    Again,
}

/// Logging and tracing, until [`shutdown`](Self::shutdown).
#[derive(Debug)]
pub struct Telemetry {
    export: Option<Export>,
}

/// Sets up logging, and the export of spans if `OTEL_EXPORTER_OTLP_ENDPOINT` (or `…_TRACES_ENDPOINT`) names a
/// collector. `filter` has the syntax of `RUST_LOG`. Without it, `RUST_LOG` counts, and without that, `info`. The
/// filter applies to log lines only, not to exported spans. Needs a tokio runtime.
pub fn init(format: LogFormat, filter: Option<&str>) -> Result<Telemetry, InitError> {
    let filter = log_filter(filter)?;
    let human = match format {
        LogFormat::Auto => io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = if human {
        lines.with_ansi(io::stderr().is_terminal()).boxed()
    } else {
        lines.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
    };
    let mut warnings = Vec::new();
    let export = Export::from_env(&mut warnings)?;
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(export.as_ref().map(Export::layer))
        .try_init()
        .map_err(|_| InitError::Again)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    if let Some(export) = &export {
        export.announce();
    }
    Ok(Telemetry { export })
}

impl Telemetry {
    /// A function that reads the counts of spans, for [`trace_collector`](crate::metrics::trace_collector). `None` if
    /// no spans are exported.
    pub fn export_status(&self) -> Option<impl Fn() -> TraceExportStatus + Send + Sync + 'static + use<>> {
        self.export.as_ref().map(Export::status)
    }

    /// Exports the waiting spans, for as long as the collector takes them, and for at most half of the time that is
    /// `left` to the process.
    pub async fn shutdown(self, left: Duration) {
        if let Some(export) = self.export {
            export.shutdown(left).await;
        }
    }
}

fn log_filter(given: Option<&str>) -> Result<EnvFilter, InitError> {
    let from_env = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let filter = given.or(from_env.as_deref()).filter(|text| !text.is_empty()).unwrap_or("info");
    EnvFilter::try_new(filter).map_err(|source| InitError::Filter { filter: filter.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        let error = log_filter(Some("rafthttp=loud")).expect_err("there is no such level");
        assert!(error.to_string().starts_with("log filter \"rafthttp=loud\": "), "{error}");
        assert!(log_filter(Some("info,rafthttp=trace")).is_ok());
    }
}
