#![no_main]

use rafthttp::internals::wire::reply::{Reading, Reply, ReplyError};

const LIMIT: usize = 4096;

fn read(pieces: &[&[u8]]) -> Result<Reply, ReplyError> {
    let mut reading = Reading::new(Vec::new(), LIMIT);
    for piece in pieces {
        reading.room().extend_from_slice(piece);
        if let Some(reply) = reading.advance()? {
            return Ok(reply);
        }
    }
    reading.closed()
}

// Whatever comes, in whatever pieces, is the same answer or the same refusal, and never longer than it may be.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let said = |outcome: Result<Reply, ReplyError>| outcome.map(|reply| (reply.status, reply.cluster, reply.body));
    let whole = said(read(&[data]));
    assert!(whole.as_ref().is_ok_and(|(_, _, body)| body.len() <= LIMIT) || whole.is_err());
    let middle = data.first().map_or(0, |byte| usize::from(*byte) * data.len() / 256);
    assert_eq!(said(read(&[&data[..middle], &data[middle..]])), whole);
    assert_eq!(said(read(&data.chunks(1).collect::<Vec<_>>())), whole);
});
