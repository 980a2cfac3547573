//! How spans are exported.

use std::{fmt, fs, path::PathBuf, time::Duration};

use url::Url;

mod queue;
mod reader;

pub(super) use queue::Queue;
pub(super) use reader::Reader;

/// A variable that leaves nothing to go on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value '{value}' for {variable}: {expected}")]
pub struct BadVariable {
    pub(super) variable: String,
    pub(super) value: String,
    pub(super) expected: String,
}

/// How a collector is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP as protobuf in HTTP requests.
    Http,
}

impl Protocol {
    /// As the variable writes it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http/protobuf",
        }
    }
}

/// Where spans go, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) endpoint: Url,
    /// The variable that named it, for what is said about it.
    pub(super) endpoint_variable: &'static str,
    pub(super) protocol: Protocol,
    pub(super) gzip: bool,
    pub(super) timeout: Duration,
    pub(super) files: Files,
    pub(super) queue: Queue,
}

/// The files for a collector that speaks TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Files {
    /// The CAs by which it is verified; none: the system's.
    pub(super) authority: Option<File>,
    /// The certificate that it is shown, and its key.
    pub(super) client: Option<(File, File)>,
}

/// A file, and the variable that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) variable: &'static str,
    pub(super) path: PathBuf,
}

impl File {
    /// What is wrong with it.
    pub(super) fn bad(&self, why: impl fmt::Display) -> BadVariable {
        let value = self.path.display().to_string();
        BadVariable { variable: self.variable.to_owned(), value, expected: why.to_string() }
    }

    /// Its bytes.
    pub(super) fn read(&self) -> Result<Vec<u8>, BadVariable> {
        fs::read(&self.path).map_err(|error| self.bad(error))
    }
}
