//! Where logs and traces go.

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// How this process speaks about itself.
#[derive(Args, Debug)]
#[group(skip)]
pub(crate) struct Flags {
    /// Which events are logged, such as `debug` or `info,rafthttp::transport=trace`; without it RUST_LOG, else `info`.
    #[arg(long, global = true, value_name = "FILTER", value_parser = filter)]
    log: Option<String>,

    /// How they are written, on standard error: `auto` is human on a terminal, JSON otherwise.
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    log_format: Format,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Auto,
    Human,
    Json,
}

fn filter(text: &str) -> Result<String, String> {
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("expected a filter such as info or debug,hyper=warn: {error}")),
    }
}

/// Logging that has started.
#[derive(Debug)]
pub(crate) struct Telemetry {}

impl Flags {
    /// Starts logging. Needs the runtime.
    pub(crate) fn start(&self) -> Telemetry {
        let json = match self.log_format {
            Format::Auto => !io::stderr().is_terminal(),
            Format::Human => false,
            Format::Json => true,
        };
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_target(json);
        let lines = if json {
            lines.json().flatten_event(true).boxed()
        } else {
            lines.with_ansi(io::stderr().is_terminal()).boxed()
        };
        tracing_subscriber::registry()
            .with(lines.with_filter(self.filter()))
            .init();
        Telemetry {}
    }

    fn filter(&self) -> EnvFilter {
        const DEFAULT: &str = "info";
        match &self.log {
            Some(filter) => EnvFilter::new(filter),
            None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT)),
        }
    }
}

impl Telemetry {
    /// Sends off what is still to be exported.
    pub(crate) fn stop(self) {}
}
