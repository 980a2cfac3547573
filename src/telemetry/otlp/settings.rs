//! The settings of the export.

use std::{fmt, fs, path::PathBuf, time::Duration};

use url::Url;

mod queue;
mod reader;

pub(super) use queue::SpanQueue;
pub(super) use reader::VariableReader;

/// A variable whose value makes an export impossible.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value '{value}' for {variable}: {expected}")]
#[non_exhaustive]
pub struct BadVariable {
    pub(super) variable: String,
    pub(super) value: String,
    pub(super) expected: String,
}

/// The protocol to the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP as protobuf in HTTP requests.
    Http,
}

impl Protocol {
    /// The value of the variable for this protocol.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http/protobuf",
        }
    }
}

/// Where spans are exported to, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExportSettings {
    pub(super) endpoint: Url,
    /// The variable that named the endpoint, for messages about it.
    pub(super) endpoint_variable: &'static str,
    pub(super) protocol: Protocol,
    pub(super) gzip: bool,
    pub(super) timeout: Duration,
    pub(super) files: CollectorTls,
    pub(super) queue: SpanQueue,
}

/// The files for a collector that speaks TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CollectorTls {
    /// The CAs that the collector is verified against. `None`: the system's.
    pub(super) authority: Option<NamedFile>,
    /// The certificate that is presented to the collector, and its key.
    pub(super) client: Option<(NamedFile, NamedFile)>,
}

/// A file, and the variable that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedFile {
    pub(super) variable: &'static str,
    pub(super) path: PathBuf,
}

impl NamedFile {
    /// An error about this file.
    pub(super) fn bad(&self, why: impl fmt::Display) -> BadVariable {
        let value = self.path.display().to_string();
        BadVariable { variable: self.variable.to_owned(), value, expected: why.to_string() }
    }

    /// The content of the file.
    pub(super) fn read(&self) -> Result<Vec<u8>, BadVariable> {
        fs::read(&self.path).map_err(|error| self.bad(error))
    }
}
