#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| rafthttp_fuzz::texts::members(data));
