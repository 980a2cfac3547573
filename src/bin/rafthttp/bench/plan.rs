//! What the source is going to send.

use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use rafthttp::Limits;
use serde::{Deserialize, Serialize};

use crate::bad_flag::BadFlag;

/// The default window of appends and messages: as many as etcd's writers flush at once (`streamBufSize / 2`).
const DEFAULT_WINDOW: u64 = 2048;
/// The most that a message takes in a queue in addition to its payload, in bytes.
const HEAD_BYTES: u64 = 128;

/// The kind of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Work {
    /// `MsgApp` with one entry, on the msgapp stream.
    Append,
    /// `MsgHeartbeat` with a context, on the message stream.
    Message,
    /// `MsgHeartbeat` to the sink and `MsgHeartbeatResp` back, one at a time, each timed.
    Ping,
    /// One `MsgSnap` by `POST /raft/snapshot`, whose body is saved to a file and synced.
    Snapshot,
}

/// The amount of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// This many messages.
    Messages(u64),
    /// As many messages as fit into this time.
    Time(Duration),
}

/// A run that was checked: the window fits the queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(super) outline: Outline,
    pub(super) extent: Extent,
}

/// What both sides report about a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Outline {
    pub(super) work: Work,
    /// Bytes of a message's payload.
    pub(super) size: u64,
    /// The most messages that are sent and not yet acknowledged.
    pub(super) window: u64,
}

/// What the source tells the sink in addition to its load, as JSON in the context of a `MsgHeartbeat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Notice {
    /// The load begins.
    Begin(Outline),
    /// The load is over, and had this many messages.
    End(u64),
}

impl Plan {
    /// Checks a run against the limits of the queues. Messages beyond them would be dropped, and that is not to be
    /// measured.
    pub(crate) fn new(work: Work, size: u64, window: Option<u64>, extent: Extent) -> Result<Self, BadFlag> {
        let limits = Limits::default();
        let single = matches!(work, Work::Ping | Work::Snapshot);
        let window = match window {
            Some(window) if single && window != 1 => {
                return Err(BadFlag::new("window", window, "expected 1: ping and snapshot have one message at a time"));
            }
            Some(window) => window,
            None if single => 1,
            None => DEFAULT_WINDOW,
        };
        if work == Work::Snapshot {
            let Extent::Messages(pieces) = extent else {
                return Err(BadFlag::new("for", "", "expected --messages: a snapshot has a length"));
            };
            if size == 0 || size.checked_mul(pieces).is_none() {
                return Err(BadFlag::new("size", size, "expected a size whose product with --messages fits 64 bits"));
            }
        } else {
            check_queues(window, size, &limits)?;
        }
        Ok(Self { outline: Outline { work, size, window }, extent })
    }

    /// The length of the snapshot's body, in bytes.
    pub(super) fn snapshot_bytes(&self) -> u64 {
        match self.extent {
            Extent::Messages(pieces) => self.outline.size.saturating_mul(pieces),
            Extent::Time(_) => self.outline.size,
        }
    }
}

fn check_queues(window: u64, size: u64, limits: &Limits) -> Result<(), BadFlag> {
    let messages = u64::try_from(limits.stream_queue.min(limits.receive_queue)).unwrap_or(u64::MAX);
    let bytes = u64::try_from(limits.queue_bytes).unwrap_or(u64::MAX);
    if window > messages {
        return Err(BadFlag::new(
            "window",
            window,
            format!("expected at most {messages}, the queue's bound of messages"),
        ));
    }
    if size.saturating_add(HEAD_BYTES).saturating_mul(window) > bytes {
        let expected = format!("expected a window of {window} messages to fit {bytes} bytes, the queue's bound");
        return Err(BadFlag::new("size", size, expected));
    }
    Ok(())
}

impl Notice {
    pub(super) fn encode(self) -> Bytes {
        serde_json::to_vec(&self).expect("numbers and names are always JSON").into()
    }

    pub(super) fn decode(context: &[u8]) -> Option<Self> {
        serde_json::from_slice(context).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: Extent = Extent::Messages(1000);

    #[test]
    fn a_window_beyond_the_queue_is_refused() {
        assert!(Plan::new(Work::Append, 128, Some(4096), MANY).is_ok());
        assert!(Plan::new(Work::Append, 128, Some(4097), MANY).unwrap_err().to_string().contains("--window"));
        assert!(Plan::new(Work::Append, 1 << 20, Some(63), MANY).is_ok());
        assert!(Plan::new(Work::Append, 1 << 20, Some(64), MANY).unwrap_err().to_string().contains("--size"));
        assert!(Plan::new(Work::Message, u64::MAX, Some(2), MANY).is_err());
    }

    #[test]
    fn ping_and_snapshot_have_one_message_at_a_time() {
        assert_eq!(Plan::new(Work::Ping, 0, None, MANY).unwrap().outline.window, 1);
        assert!(Plan::new(Work::Ping, 0, Some(2), MANY).is_err());
        assert!(Plan::new(Work::Snapshot, 1 << 20, Some(16), MANY).is_err());
    }

    #[test]
    fn a_snapshot_has_a_length() {
        let plan = Plan::new(Work::Snapshot, 1 << 20, None, Extent::Messages(1024)).unwrap();
        assert_eq!(plan.snapshot_bytes(), 1 << 30);
        assert!(Plan::new(Work::Snapshot, 1 << 20, None, Extent::Time(Duration::from_secs(1))).is_err());
        assert!(Plan::new(Work::Snapshot, u64::MAX, None, MANY).is_err());
    }

    #[test]
    fn notices_read_as_they_were_written() {
        let outline = Outline { work: Work::Append, size: 128, window: 32 };
        for notice in [Notice::Begin(outline), Notice::End(7)] {
            assert_eq!(Notice::decode(&notice.encode()), Some(notice));
        }
        assert_eq!(Notice::decode(b"raft's own"), None);
    }
}
