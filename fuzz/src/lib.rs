//! The fuzz targets: functions that take any bytes, and panic if the code that reads them breaks a promise.
//!
//! `fuzz_targets` gives each of them to libFuzzer. `tests/fuzz.rs` gives them the inputs in `corpus` and `regressions`,
//! without libFuzzer. Those with state run a member on one thread, on a network and a disk in memory (`tests/world`).

pub mod codecs;
pub mod dialled;
#[path = "../../tests/world/disk.rs"]
#[allow(dead_code, reason = "no target needs every fault of it")]
mod disk;
#[path = "../../tests/support/laws.rs"]
mod laws;
#[allow(dead_code, reason = "each target uses its part")]
mod member;
#[path = "../../tests/world/memory.rs"]
#[allow(dead_code, reason = "no target needs every fault of it")]
mod memory;
pub mod router;
mod script;
pub mod snapshot;
pub mod store;
pub mod texts;

/// A target: its name, which is that of its directory in `corpus`, and what is called with the bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("message_stream", codecs::message_stream),
    ("msgapp_stream", codecs::msgapp_stream),
    ("post_body", codecs::post_body),
    ("reply", codecs::reply),
    ("probing", texts::probing),
    ("texts", texts::texts),
    ("members", texts::members),
    ("heads", texts::heads),
    ("router", router::router),
    ("dialled", dialled::dialled),
    ("snapshot", snapshot::snapshot),
    ("store", store::store),
];
