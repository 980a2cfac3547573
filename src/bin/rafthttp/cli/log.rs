//! The flags of logs and traces.

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use rafthttp::telemetry::{self, LogFormat, Telemetry};
use tracing_subscriber::EnvFilter;

use super::Failure;

/// How this process speaks about itself.
#[derive(Args, Debug)]
#[group(skip)]
pub(crate) struct Flags {
    /// The events to log, such as `debug` or `info,rafthttp::transport=trace` [default: RUST_LOG, else `info`]
    #[arg(long, global = true, value_name = "FILTER", value_parser = filter)]
    log: Option<String>,

    /// The format of the log on standard error: `auto` is human on a terminal and for commands that answer and end
    /// (`probe --once`, `member`), JSON otherwise.
    #[arg(long, global = true, value_name = "FORMAT", value_enum, default_value_t)]
    log_format: LogFormatFlag,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum LogFormatFlag {
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

impl Flags {
    /// Starts logging, and the export of spans if the environment names a collector. Needs the runtime.
    pub(crate) fn start(&self) -> Result<Telemetry, Failure> {
        let format = match self.log_format {
            LogFormatFlag::Auto => LogFormat::Auto,
            LogFormatFlag::Human => LogFormat::Human,
            LogFormatFlag::Json => LogFormat::Json,
        };
        Ok(telemetry::init(format, self.log.as_deref())?)
    }

    /// Makes `auto` human, whatever standard error is.
    pub(super) fn human_unless_told(&mut self) {
        if self.log_format == LogFormatFlag::Auto {
            self.log_format = LogFormatFlag::Human;
        }
    }

    /// Whether log lines are JSON.
    pub(crate) fn is_json(&self) -> bool {
        match self.log_format {
            LogFormatFlag::Auto => !io::stderr().is_terminal(),
            LogFormatFlag::Human => false,
            LogFormatFlag::Json => true,
        }
    }
}
