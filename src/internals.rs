//! **No part of the public API.** What is here may change in any version, without a line in the changelog.
//!
//! Three kinds of code need it, and all stand in this repository: tests that hold bytes against the wire format, fuzz
//! targets and benchmarks that call a codec by itself, and simulations that give a member another clock, network or disk.
//! This module is the only door to it, so that whatever an application can name elsewhere is meant to stay.

/// Frames, one by one: the codecs of both streams, without I/O.
pub mod wire {
    pub use crate::wire::{
        error::{FrameError, FrameErrorKind},
        limits::FrameLimits,
    };

    /// A buffer that frames are written to.
    pub mod frames {
        pub use crate::wire::frames::*;
    }

    /// Names of headers and paths, and the words of refusals.
    pub mod headers {
        pub use crate::wire::headers::*;
    }

    /// The stream of whole messages.
    pub mod message {
        pub use crate::wire::message::*;
    }

    /// How a snapshot that broke off goes on.
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

/// Spans, one by one.
pub mod telemetry {
    pub use crate::telemetry::message::{MessageSpan, send_span};
}

/// The seam to what comes from outside of the process: clock, chance, network, disk and threads.
pub mod world {
    pub use crate::world::*;
}
