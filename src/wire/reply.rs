//! The answer to a small HTTP/1.1 request, read from the bytes of a connection as they come. For who asks one thing after
//! another on a connection of its own, and has to know where an answer ends and whether the next may follow it.
//!
//! The syntax is httparse's. Beyond it:
//!
//! | said | means |
//! |---|---|
//! | `Content-Length` | the body has so many bytes; said twice, it must be the same twice |
//! | `Transfer-Encoding: chunked` | chunks, and trailers that are not looked at; any other coding is refused |
//! | both, or a coding in HTTP/1.0 | refused: where such an answer ends is anyone's guess |
//! | neither | the body ends with the connection |
//! | 101, 204, 304 | there is no body |
//! | 100, 102, 103 | passed over: another answer follows |
//! | `Connection: close`, HTTP/1.0, 101, bytes after the answer | no other request may follow |

use std::str;

use bytes::Bytes;
use http::StatusCode;
use httparse::{EMPTY_HEADER, Header, Status};

use super::headers::X_ETCD_CLUSTER_ID;
use crate::id::ClusterId;

/// Bytes of a head, with those that are passed over before it. The same of trailers.
const HEAD_BYTES: usize = 8 << 10;
/// Headers of a head.
const HEADERS: usize = 64;
/// Bytes of the line that a chunk begins with.
const CHUNK_LINE: usize = 256;
/// Room that is made at first: what etcd answers to a probe is a quarter of it.
const ROOM: usize = 1024;
/// Room that is made at once at most.
const LARGEST_ROOM: usize = 256 << 10;

/// An answer that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// The cluster that it is of, if it says so: `X-Etcd-Cluster-ID`.
    pub cluster: Option<ClusterId>,
    /// Its body.
    pub body: Bytes,
    /// Whether another request may follow on the connection.
    pub keep: bool,
}

/// Why what arrives is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Not HTTP.
    #[error(transparent)]
    Syntax(#[from] httparse::Error),
    /// A head, or trailers, without end.
    #[error("a head of more than {HEAD_BYTES} bytes")]
    Head,
    /// It does not say clearly where it ends.
    #[error("it does not say where it ends")]
    Length,
    /// What it is cut into is not chunks.
    #[error("bad chunk")]
    Chunk,
    /// A body of more bytes than such an answer can have.
    #[error("more than {0} bytes")]
    TooLong(usize),
    /// The connection ended before the answer did.
    #[error("the connection closed before its end")]
    Cut,
}

/// An answer that is arriving.
#[derive(Debug)]
pub struct Reading {
    /// While the head is read: the head. Then: the body, and what has not been looked at yet.
    buffer: Vec<u8>,
    limit: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The head is read; it begins here, after those that were passed over.
    Head {
        at: usize,
    },
    Body {
        head: Head,
        end: End,
    },
}

#[derive(Clone, Copy, Debug)]
struct Head {
    status: StatusCode,
    cluster: Option<ClusterId>,
    keep: bool,
}

/// Where a body ends.
#[derive(Debug)]
enum End {
    After(usize),
    Chunked(Chunks),
    WithConnection,
}

impl Reading {
    /// Reads an answer with a body of at most `limit` bytes. What `buffer` holds is lost, its room is used.
    pub fn new(mut buffer: Vec<u8>, limit: usize) -> Self {
        buffer.clear();
        Self { buffer, limit, state: State::Head { at: 0 } }
    }

    /// Where the next bytes of the connection go: there is room behind what is there already.
    pub fn room(&mut self) -> &mut Vec<u8> {
        if self.buffer.capacity() == self.buffer.len() {
            // As much again, whatever length it says that it has.
            self.buffer.reserve_exact(self.buffer.len().clamp(ROOM, LARGEST_ROOM));
        }
        &mut self.buffer
    }

    /// Whether nothing has arrived yet.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty() && matches!(self.state, State::Head { .. })
    }

    /// Looks at what has come; the answer, once it is whole.
    pub fn advance(&mut self) -> Result<Option<Reply>, ReplyError> {
        let limit = self.limit;
        let (head, end) = loop {
            match &mut self.state {
                State::Body { head, end } => break (*head, end),
                State::Head { at } => match parse(&self.buffer[*at..], limit)? {
                    Some((length, _)) if *at + length > HEAD_BYTES => return Err(ReplyError::Head),
                    // What follows is the answer.
                    Some((length, None)) => *at += length,
                    Some((length, Some((head, end)))) => {
                        self.buffer.drain(..*at + length);
                        self.state = State::Body { head, end };
                    }
                    None if self.buffer.len() >= HEAD_BYTES => return Err(ReplyError::Head),
                    None => return Ok(None),
                },
            }
        };
        let length = match end {
            End::After(length) => Some(*length).filter(|length| *length <= self.buffer.len()),
            End::Chunked(chunks) => chunks.decode(&mut self.buffer, limit)?,
            End::WithConnection if self.buffer.len() > limit => return Err(ReplyError::TooLong(limit)),
            End::WithConnection => None,
        };
        Ok(length.map(|length| self.reply(head, length)))
    }

    /// The other side has closed the connection; the answer, where that is its end.
    pub fn closed(&mut self) -> Result<Reply, ReplyError> {
        match self.state {
            State::Body { head, end: End::WithConnection } => {
                Ok(self.reply(Head { keep: false, ..head }, self.buffer.len()))
            }
            _ => Err(ReplyError::Cut),
        }
    }

    fn reply(&mut self, head: Head, length: usize) -> Reply {
        let Head { status, cluster, keep } = head;
        // Nobody asked for what came after it.
        let keep = keep && self.buffer.len() == length;
        self.buffer.truncate(length);
        Reply { status, cluster, body: std::mem::take(&mut self.buffer).into(), keep }
    }
}

/// A head: how long it is, and what it says; without that, of one that is passed over. None: there is more to come.
type Parsed = Option<(usize, Option<(Head, End)>)>;

fn parse(bytes: &[u8], limit: usize) -> Result<Parsed, ReplyError> {
    let mut headers = [EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let Status::Complete(length) = response.parse(bytes)? else { return Ok(None) };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(httparse::Error::Status)?;
    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Some((length, None)));
    }
    let said = Said::of(response.headers)?;
    let is_old = response.version != Some(1);
    let end = match (status.as_u16(), said.chunked, said.length) {
        (_, true, Some(_)) => return Err(ReplyError::Length),
        (_, true, None) if is_old => return Err(ReplyError::Length),
        (101 | 204 | 304, ..) => End::After(0),
        (_, true, None) => End::Chunked(Chunks::default()),
        (_, false, Some(length)) => {
            let length = usize::try_from(length).ok().filter(|length| *length <= limit);
            End::After(length.ok_or(ReplyError::TooLong(limit))?)
        }
        (_, false, None) => End::WithConnection,
    };
    let keep = !(said.close || is_old || status == StatusCode::SWITCHING_PROTOCOLS);
    Ok(Some((length, Some((Head { status, cluster: said.cluster, keep }, end)))))
}

/// What headers say that anyone here asks about.
#[derive(Default)]
struct Said {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    cluster: Option<ClusterId>,
}

impl Said {
    fn of(headers: &[Header<'_>]) -> Result<Self, ReplyError> {
        let mut said = Self::default();
        for Header { name, value } in headers {
            if name.eq_ignore_ascii_case("content-length") {
                let length = number(value).ok_or(ReplyError::Length)?;
                if said.length.replace(length).is_some_and(|before| before != length) {
                    return Err(ReplyError::Length);
                }
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                if said.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(ReplyError::Length);
                }
                said.chunked = true;
            } else if name.eq_ignore_ascii_case("connection") {
                said.close |=
                    value.split(|byte| *byte == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"));
            } else if said.cluster.is_none() && name.eq_ignore_ascii_case(X_ETCD_CLUSTER_ID.as_str()) {
                said.cluster =
                    str::from_utf8(value).ok().and_then(|text| text.parse().ok()).filter(|id: &ClusterId| id.0 != 0);
            }
        }
        Ok(said)
    }
}

/// Digits and nothing else.
fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// A body in chunks, which are moved together where they lie.
#[derive(Debug, Default)]
struct Chunks {
    /// Bytes of the body so far, at the front of the buffer.
    body: usize,
    next: Next,
}

/// What comes next.
#[derive(Clone, Copy, Debug, Default)]
enum Next {
    #[default]
    Size,
    Data(usize),
    /// The line's end after a chunk.
    LineEnd,
    Trailers,
}

impl Chunks {
    /// Takes in what lies behind the body; its length, once it is whole.
    fn decode(&mut self, buffer: &mut Vec<u8>, limit: usize) -> Result<Option<usize>, ReplyError> {
        let mut at = self.body;
        let is_whole = loop {
            let rest = &buffer[at..];
            match (self.next, rest) {
                (_, []) | (Next::LineEnd, b"\r") => break false,
                (Next::Size, _) => {
                    let Some((length, size)) = chunk_size(rest)? else { break false };
                    if size > limit - self.body {
                        return Err(ReplyError::TooLong(limit));
                    }
                    at += length;
                    self.next = if size == 0 { Next::Trailers } else { Next::Data(size) };
                }
                (Next::Data(left), _) => {
                    let here = left.min(rest.len());
                    buffer.copy_within(at..at + here, self.body);
                    (self.body, at) = (self.body + here, at + here);
                    self.next = if here == left { Next::LineEnd } else { Next::Data(left - here) };
                }
                (Next::LineEnd, [b'\r', b'\n', ..]) => (self.next, at) = (Next::Size, at + 2),
                (Next::LineEnd, _) => return Err(ReplyError::Chunk),
                (Next::Trailers, _) => {
                    let Some(length) = trailers(rest)? else { break false };
                    at += length;
                    break true;
                }
            }
        };
        buffer.drain(self.body..at);
        Ok(is_whole.then_some(self.body))
    }
}

/// Length of the line that a chunk begins with, and the size that it tells.
fn chunk_size(bytes: &[u8]) -> Result<Option<(usize, usize)>, ReplyError> {
    // httparse takes an empty line for a size of 0.
    if !bytes.first().is_some_and(u8::is_ascii_hexdigit) {
        return Err(ReplyError::Chunk);
    }
    match httparse::parse_chunk_size(bytes) {
        Ok(Status::Complete((length, size))) if length <= CHUNK_LINE => {
            Ok(Some((length, usize::try_from(size).unwrap_or(usize::MAX))))
        }
        Ok(Status::Partial) if bytes.len() < CHUNK_LINE => Ok(None),
        _ => Err(ReplyError::Chunk),
    }
}

fn trailers(bytes: &[u8]) -> Result<Option<usize>, ReplyError> {
    let mut headers = [EMPTY_HEADER; HEADERS];
    match httparse::parse_headers(bytes, &mut headers)? {
        Status::Complete((length, _)) if length <= HEAD_BYTES => Ok(Some(length)),
        Status::Partial if bytes.len() < HEAD_BYTES => Ok(None),
        _ => Err(ReplyError::Head),
    }
}

#[cfg(test)]
mod tests;
