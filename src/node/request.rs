//! Proposals of members: the payload of a normal entry.
//!
//! | bytes | content |
//! |---|---|
//! | 0 | version: 1 |
//! | 1 | kind: 1 put, 2 delete, 3 attributes, 4 refusal, 5 space |
//! | 2..10 | the ID of the member that proposed it, big-endian |
//! | 10..18 | its boot: how often that member had been started, big-endian |
//! | 18..26 | its counter within that boot, big-endian |
//! | put | length of the key (4, big-endian), the key, the value |
//! | delete | the key |
//! | attributes | JSON of a member, as in the context of a ConfChange |
//! | refusal | the ID of the ConfChange (8, big-endian), one byte of [`ConfRefusal`] |
//! | space | the ID of the member (8, big-endian), the quota that it exceeds (8, big-endian), 0 for none |

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::members::ConfRefusal;

const VERSION: u8 = 1;
const HEAD: usize = 26;

/// The longest key that clients may use.
pub(super) const MAX_KEY_BYTES: usize = 4096;

/// The ID of a request: the member that proposed it, its boot, and a counter within the boot. It is unique for ever, so
/// that a result finds its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RequestId {
    pub(crate) member: u64,
    pub(crate) boot: u64,
    pub(crate) counter: u64,
}

impl RequestId {
    /// The ID in eight bytes, only for the ID of a ConfChange.
    pub(crate) fn conf_change_id(self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&self.to_bytes())
    }

    /// The form in the context of a read index.
    pub(crate) fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.member.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.boot.to_be_bytes());
        bytes[16..].copy_from_slice(&self.counter.to_be_bytes());
        bytes
    }
}

/// Gives each request of this process its own ID.
#[derive(Clone, Debug)]
pub(crate) struct RequestIds {
    member: u64,
    boot: u64,
    counter: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl RequestIds {
    pub(crate) fn new(member: u64, boot: u64) -> Self {
        Self { member, boot, counter: Default::default() }
    }

    pub(crate) fn next(&self) -> RequestId {
        let counter = self.counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        RequestId { member: self.member, boot: self.boot, counter }
    }
}

/// What an entry asks of the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Sets a key.
    Put { key: Bytes, value: Bytes },
    /// Removes a key.
    Delete { key: Bytes },
    /// Records a member's name and client URLs.
    Attributes { member: Bytes },
    /// The leader refused a ConfChange. The log carries this so that the proposer learns of it.
    Refusal { conf_change: u64, why: ConfRefusal },
    /// A member's data exceed its quota of this many bytes, or, with `None`, no longer do (etcd's `AlarmRequest` of
    /// `NOSPACE`). A member that does not know this kind ignores it: it does not refuse puts, and applies the same
    /// entries.
    Space { member: u64, over: Option<u64> },
}

/// A command, and the ID of the request that it came with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) id: RequestId,
    pub(crate) command: Command,
}

/// Why bytes are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a request: {0}")]
pub(crate) struct RequestError(&'static str);

impl Request {
    pub(crate) fn encode(&self) -> Bytes {
        let length = match &self.command {
            Command::Put { key, value } => 4 + key.len() + value.len(),
            Command::Delete { key } => key.len(),
            Command::Attributes { member } => member.len(),
            Command::Refusal { .. } => 9,
            Command::Space { .. } => 16,
        };
        let mut bytes = BytesMut::with_capacity(HEAD + length);
        bytes.put_u8(VERSION);
        bytes.put_u8(match self.command {
            Command::Put { .. } => 1,
            Command::Delete { .. } => 2,
            Command::Attributes { .. } => 3,
            Command::Refusal { .. } => 4,
            Command::Space { .. } => 5,
        });
        bytes.put_slice(&self.id.to_bytes());
        match &self.command {
            Command::Put { key, value } => {
                // This never saturates: a key has at most `MAX_KEY_BYTES`.
                bytes.put_u32(u32::try_from(key.len()).unwrap_or(u32::MAX));
                bytes.put_slice(key);
                bytes.put_slice(value);
            }
            Command::Delete { key } => bytes.put_slice(key),
            Command::Attributes { member } => bytes.put_slice(member),
            Command::Refusal { conf_change, why } => {
                bytes.put_u64(*conf_change);
                bytes.put_u8(*why as u8);
            }
            Command::Space { member, over } => {
                bytes.put_u64(*member);
                bytes.put_u64(over.unwrap_or(0));
            }
        }
        bytes.freeze()
    }

    /// Decodes a request. Its key and value share `bytes`.
    pub(crate) fn decode(mut bytes: Bytes) -> Result<Self, RequestError> {
        if bytes.len() < HEAD {
            return Err(RequestError("too short"));
        }
        if bytes.get_u8() != VERSION {
            return Err(RequestError("unknown version"));
        }
        let kind = bytes.get_u8();
        let id = RequestId { member: bytes.get_u64(), boot: bytes.get_u64(), counter: bytes.get_u64() };
        let command = match kind {
            1 => {
                let length = bytes.try_get_u32().map_err(|_| RequestError("no key"))?;
                let length = usize::try_from(length).map_err(|_| RequestError("key cut off"))?;
                if length > bytes.len() {
                    return Err(RequestError("key cut off"));
                }
                Command::Put { key: checked_key(bytes.split_to(length))?, value: bytes }
            }
            2 => Command::Delete { key: checked_key(bytes)? },
            3 => Command::Attributes { member: bytes },
            4 => {
                let conf_change = bytes.try_get_u64().map_err(|_| RequestError("no ConfChange ID"))?;
                let why = bytes.try_get_u8().ok().and_then(ConfRefusal::from_byte);
                Command::Refusal { conf_change, why: why.ok_or(RequestError("unknown refusal"))? }
            }
            5 => {
                let member = bytes.try_get_u64().map_err(|_| RequestError("no member"))?;
                let over = bytes.try_get_u64().map_err(|_| RequestError("no quota"))?;
                Command::Space { member, over: Some(over).filter(|over| *over > 0) }
            }
            _ => return Err(RequestError("unknown kind")),
        };
        Ok(Self { id, command })
    }
}

fn checked_key(key: Bytes) -> Result<Bytes, RequestError> {
    match key.len() {
        0 => Err(RequestError("empty key")),
        1..=MAX_KEY_BYTES => Ok(key),
        _ => Err(RequestError("key too long")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: RequestId = RequestId { member: 1, boot: 2, counter: 3 };

    fn commands() -> Vec<Command> {
        vec![
            Command::Put { key: "k".into(), value: "v".into() },
            Command::Put { key: "k".into(), value: Bytes::new() },
            Command::Delete { key: "k".into() },
            Command::Attributes { member: "{}".into() },
            Command::Refusal { conf_change: 7, why: ConfRefusal::Pending },
            Command::Space { member: 7, over: Some(1 << 31) },
            Command::Space { member: 7, over: None },
        ]
    }

    #[test]
    fn every_command_reads_as_it_was_written() {
        for command in commands() {
            let request = Request { id: ID, command };
            assert_eq!(Request::decode(request.encode()), Ok(request));
        }
    }

    #[test]
    fn every_cut_and_every_odd_byte_is_an_answer_and_no_panic() {
        for command in commands() {
            let bytes = Request { id: ID, command }.encode();
            for end in 0..bytes.len() {
                let _ = Request::decode(bytes.slice(..end));
                let mut odd = BytesMut::from(&bytes[..]);
                odd[end] = 0xff;
                let _ = Request::decode(odd.freeze());
            }
        }
    }

    #[test]
    fn a_key_is_neither_empty_nor_longer_than_its_bound() {
        let delete = |length| Request { id: ID, command: Command::Delete { key: vec![b'k'; length].into() } }.encode();
        assert!(Request::decode(delete(MAX_KEY_BYTES)).is_ok());
        assert_eq!(Request::decode(delete(MAX_KEY_BYTES + 1)), Err(RequestError("key too long")));
        assert_eq!(Request::decode(delete(0)), Err(RequestError("empty key")));
    }

    #[test]
    fn no_two_requests_share_an_id() {
        let ids = RequestIds::new(1, 2);
        let other = ids.clone();
        assert_ne!(ids.next(), other.next());
        assert_ne!(ids.next(), RequestIds::new(1, 3).next());
    }
}
