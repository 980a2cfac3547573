//! What is known of each pair of members over time: whether their streams are open while they could be, and whether the
//! writer knows how much of what it has written is not read yet.

use std::collections::{BTreeMap, VecDeque};

use rafthttp::{
    PeerStatus,
    metrics::{Direction, LossReason},
    wire::StreamKind,
};

use super::super::{clock::Time, member::Member};

/// How long a stream may take to open, or to be found dead: an attempt to dial, and the wait before it.
pub const OPENING: Time = 9_000;
/// How long a probe may take, with the pause before it.
const PROBE: Time = 2_000;

/// The streams that a member reads from another, by the member's machine and start, and the other's ID.
#[derive(Default)]
pub struct Streams {
    read: BTreeMap<(usize, Time, u64, StreamKind), Stream>,
    written: BTreeMap<(usize, usize, StreamKind), VecDeque<Written>>,
}

/// One of them.
#[derive(Clone, Copy)]
struct Stream {
    /// Since when it has not been open.
    closed: Option<Time>,
    /// How often it was lost because nothing came.
    silent: u64,
}

/// What was written to a stream and read by a time, since the beginning.
#[derive(Clone, Copy)]
struct Written {
    at: Time,
    sent: u64,
    read: u64,
}

impl Streams {
    /// Looks at the streams that a process reads; `open_since`: since when both could reach each other.
    pub fn reads(
        &mut self,
        now: Time,
        (member, start): (&Member, Time),
        peer: &PeerStatus,
        open_since: Option<Time>,
    ) -> Result<(), String> {
        for kind in StreamKind::ALL {
            let silent = peer.link.losses.of((kind.channel(), Direction::In, LossReason::Timeout));
            let is_open = peer.link.stream_up[kind][Direction::In];
            let stream =
                self.read.entry((member.host, start, peer.id.0, kind)).or_insert(Stream { closed: None, silent });
            let grows = silent > std::mem::replace(&mut stream.silent, silent);
            stream.closed = if is_open { None } else { stream.closed.or(Some(now)) };
            let Some(open_since) = open_since.filter(|since| now - since > OPENING) else { continue };
            let (name, other, channel) = (&member.name, &peer.name, kind.channel());
            if grows {
                return Err(format!(
                    "{name} has read nothing on the {channel:?} stream of {other} for 5 s, although it can be reached for {} ms",
                    now - open_since
                ));
            }
            if let Some(closed) = stream.closed.filter(|closed| now - closed > OPENING) {
                return Err(format!(
                    "{name} has had no {channel:?} stream of {other} for {} ms, although it can be reached for {} ms",
                    now - closed,
                    now - open_since
                ));
            }
        }
        Ok(())
    }

    /// Looks at what a writer knows of what its reader has read; a reader that stands still says nothing, and reads
    /// nothing. `is_open`: a path that was open for long is so still; `is_frozen`: the reader has stood still since.
    pub fn written(
        &mut self,
        now: Time,
        (writer, reader): (&Member, &Member),
        (to, from): (&PeerStatus, Option<&PeerStatus>),
        [is_open, is_frozen]: [bool; 2],
    ) -> Result<(), String> {
        for kind in StreamKind::ALL {
            let channel = kind.channel();
            let marks = self.written.entry((writer.host, reader.host, kind)).or_default();
            let read = from.map(|from| from.incoming.received[channel].total());
            let Some(read) = read.or(marks.back().map(|mark| mark.read)) else { continue };
            let (sent, lost) = (to.outgoing.sent[channel].total(), to.outgoing.lost[kind]);
            marks.push_back(Written { at: now, sent, read });
            while marks.get(1).is_some_and(|mark| now - mark.at >= PROBE) {
                marks.pop_front();
            }
            let before = marks[0];
            if !(is_open || is_frozen) || now - before.at < PROBE {
                continue;
            }
            // A probe began since: of what was written by then, no more was read than by now.
            let least = before.sent.saturating_sub(read + lost);
            let most = sent.saturating_sub(before.read + lost);
            // What the reader has told last may be older where it stands still.
            let most = if is_frozen { u64::MAX } else { most };
            let said = to.outgoing.unconfirmed[kind];
            if said.unwrap_or(0) < least || said.is_some_and(|said| said > most) {
                return Err(format!(
                    "{} says that {} has not confirmed {said:?} messages on {channel:?}, and it is {least} to {most}",
                    writer.name, reader.name
                ));
            }
        }
        Ok(())
    }
}
