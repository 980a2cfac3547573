#![no_main]

use bytes::Bytes;
use prost::Message as _;
use rafthttp::{internals::wire::{FrameErrorKind, FrameLimits, message::decode_message}, wire::raftpb::Message};

// What prost reads is read the same and nothing else, save where a bound of ours is exceeded.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let ours = decode_message(Bytes::copy_from_slice(data), &FrameLimits::default());
    match ours {
        Ok(message) => assert_eq!(Ok(message), Message::decode(data)),
        Err(error) if error.kind == FrameErrorKind::Protobuf => assert!(Message::decode(data).is_err()),
        Err(_) => {}
    }
});
