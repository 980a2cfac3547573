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
