//! **Not part of the public API.** Everything here may change in any version, without a line in the changelog.
//!
//! Three kinds of code in this repository need it: tests that compare bytes with the wire format, fuzz targets and
//! benchmarks that call a single codec, and simulations that give a member another clock, network or disk. They get it
//! only through this module. So everything that an application can name elsewhere is meant to stay.

/// Single frames: the codecs of both streams, without I/O.
pub mod wire {
    pub use crate::wire::{
        error::{FrameError, FrameErrorKind},
        limits::FrameLimits,
    };

    /// A buffer that frames are written to.
    pub mod frames {
        pub use crate::wire::frames::*;
    }

    /// Names of headers and paths, and the texts of refusals.
    pub mod headers {
        pub use crate::wire::headers::*;
    }

    /// The stream of whole messages.
    pub mod message {
        pub use crate::wire::message::*;
    }

    /// The answer to a probe.
    pub mod probing {
        pub use crate::wire::probing::*;
    }

    /// How a snapshot continues after its connection broke.
    pub mod resumption {
        pub use crate::wire::resumption::*;
    }

    /// Either stream, by its kind.
    pub mod stream {
        pub use crate::wire::stream::{StreamDecoder, StreamEncoder};
    }

    /// Answers to requests that do not go through hyper.
    pub mod reply {
        pub use crate::wire::reply::*;
    }
}

/// Single spans.
pub mod telemetry {
    pub use crate::telemetry::message::{MessageSpan, send_span};
}

/// Everything that a process gets from outside: clock, random numbers, network, disk and threads.
pub mod world {
    pub use crate::world::*;
}

/// Texts that strangers send, and JSON of the store.
pub mod texts {
    use crate::{PeerUrl, PeerUrlError, watch};

    /// The URLs of `X-PeerURLs`.
    ///
    /// # Errors
    /// There is none, or one of the first few cannot be parsed.
    pub fn told_urls(text: &str) -> Result<Vec<PeerUrl>, PeerUrlError> {
        PeerUrl::told(text)
    }

    /// The number of members in an answer to `GET /members`.
    ///
    /// # Errors
    /// Why it is no list of members, in one line.
    pub fn listed_members(json: &[u8]) -> Result<usize, String> {
        watch::listed(json)
    }

    /// The membership that a store keeps as this JSON, in the form in which it would be stored again. `None` if it is
    /// no membership.
    #[cfg(feature = "node")]
    pub fn kept_membership(json: &[u8]) -> Option<Vec<u8>> {
        crate::node::kept_membership(json)
    }
}
