#![no_main]

use rafthttp::wire::StreamKind;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rafthttp_fuzz::check(StreamKind::MsgApp, data));
