//! Parses the answer to a small HTTP/1.1 request, from the bytes of a connection as they come. It is for a client that
//! sends one request after another on a connection of its own, and that has to know where an answer ends and whether
//! another request may follow.
//!
//! httparse parses the syntax. The rest:
//!
//! | in the answer | meaning |
//! |---|---|
//! | `Content-Length` | the length of the body; if it is given twice, both must be equal |
//! | `Transfer-Encoding: chunked` | chunks, and trailers, which are ignored; any other coding is refused |
//! | both, or a coding in HTTP/1.0 | refused, because the end of such an answer is ambiguous |
//! | neither | the body ends with the connection |
//! | 101, 204, 304 | there is no body |
//! | 100, 102, 103 | ignored: another answer follows |
//! | `Connection: close`, HTTP/1.0, 101, bytes after the answer | no other request may follow |

use std::str;

use bytes::Bytes;
use http::StatusCode;
use httparse::{EMPTY_HEADER, Header, Status};

use super::headers::X_ETCD_CLUSTER_ID;
use crate::id::ClusterId;

/// The longest head, in bytes, including the skipped heads before it. The same limit holds for trailers.
const HEAD_BYTES: usize = 8 << 10;
/// The most headers in a head.
const HEADERS: usize = 64;
/// The longest line before a chunk, in bytes.
const CHUNK_LINE: usize = 256;
/// The first allocation for an answer, in bytes. etcd's answer to a probe takes a quarter of it.
const ROOM: usize = 1024;
/// The largest single allocation, in bytes.
const LARGEST_ROOM: usize = 256 << 10;

/// A complete answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Its status.
    pub status: StatusCode,
    /// The cluster that it names in `X-Etcd-Cluster-ID`, if any.
    pub cluster: Option<ClusterId>,
    /// Its body.
    pub body: Bytes,
    /// Whether another request may follow on the connection.
    pub keep: bool,
}

/// Why the bytes are not a valid answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// They are not HTTP.
    #[error(transparent)]
    Syntax(#[from] httparse::Error),
    /// The head, or the trailers, exceed their limit.
    #[error("a head of more than {HEAD_BYTES} bytes")]
    Head,
    /// The end of the answer is ambiguous.
    #[error("it does not say where it ends")]
    Length,
    /// The chunks of the body are malformed.
    #[error("bad chunk")]
    Chunk,
    /// The body is longer than such an answer can be.
    #[error("more than {0} bytes")]
    TooLong(usize),
    /// The connection ended before the answer did.
    #[error("the connection closed before its end")]
    Cut,
}

/// An answer that is arriving.
#[derive(Debug)]
pub struct ReplyReader {
    /// While the head is being read: the head. After that: the body, and bytes that were not looked at yet.
    buffer: Vec<u8>,
    limit: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The head is being read. It begins at this place, after the skipped heads.
    Head {
        at: usize,
    },
    Body {
        head: ReplyHead,
        end: BodyEnd,
    },
}

#[derive(Clone, Copy, Debug)]
struct ReplyHead {
    status: StatusCode,
    cluster: Option<ClusterId>,
    keep: bool,
}

/// The end of a body.
#[derive(Debug)]
enum BodyEnd {
    After(usize),
    Chunked(Chunks),
    WithConnection,
}

impl ReplyReader {
    /// Reads an answer with a body of at most `limit` bytes. The content of `buffer` is discarded, and its memory is
    /// reused.
    pub fn new(mut buffer: Vec<u8>, limit: usize) -> Self {
        buffer.clear();
        Self { buffer, limit, state: State::Head { at: 0 } }
    }

    /// The buffer to read the next bytes of the connection into. It has free room at its end.
    pub fn room(&mut self) -> &mut Vec<u8> {
        if self.buffer.capacity() == self.buffer.len() {
            // The buffer grows by its own length, whatever length the answer announces.
            self.buffer.reserve_exact(self.buffer.len().clamp(ROOM, LARGEST_ROOM));
        }
        &mut self.buffer
    }

    /// Whether nothing has arrived yet.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty() && matches!(self.state, State::Head { .. })
    }

    /// Parses the bytes that have come. Returns the answer once it is complete.
    pub fn advance(&mut self) -> Result<Option<Reply>, ReplyError> {
        let limit = self.limit;
        let (head, end) = loop {
            match &mut self.state {
                State::Body { head, end } => break (*head, end),
                State::Head { at } => match parse(&self.buffer[*at..], limit)? {
                    Some((length, _)) if *at + length > HEAD_BYTES => return Err(ReplyError::Head),
                    // The answer follows after this head.
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
            BodyEnd::After(length) => Some(*length).filter(|length| *length <= self.buffer.len()),
            BodyEnd::Chunked(chunks) => chunks.decode(&mut self.buffer, limit)?,
            BodyEnd::WithConnection if self.buffer.len() > limit => return Err(ReplyError::TooLong(limit)),
            BodyEnd::WithConnection => None,
        };
        Ok(length.map(|length| self.reply(head, length)))
    }

    /// The other side has closed the connection. Returns the answer if its body ends that way.
    pub fn closed(&mut self) -> Result<Reply, ReplyError> {
        match self.state {
            State::Body { head, end: BodyEnd::WithConnection } => {
                Ok(self.reply(ReplyHead { keep: false, ..head }, self.buffer.len()))
            }
            _ => Err(ReplyError::Cut),
        }
    }

    fn reply(&mut self, head: ReplyHead, length: usize) -> Reply {
        let ReplyHead { status, cluster, keep } = head;
        // Nobody asked for the bytes after it.
        let keep = keep && self.buffer.len() == length;
        self.buffer.truncate(length);
        Reply { status, cluster, body: std::mem::take(&mut self.buffer).into(), keep }
    }
}

/// A head: its length, and its content, unless it is a head that is skipped. `None` if it is not complete.
type Parsed = Option<(usize, Option<(ReplyHead, BodyEnd)>)>;

fn parse(bytes: &[u8], limit: usize) -> Result<Parsed, ReplyError> {
    let mut headers = [EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let Status::Complete(length) = response.parse(bytes)? else { return Ok(None) };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(httparse::Error::Status)?;
    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Some((length, None)));
    }
    let said = HeadFields::of(response.headers)?;
    let is_old = response.version != Some(1);
    let end = match (status.as_u16(), said.chunked, said.length) {
        (_, true, Some(_)) => return Err(ReplyError::Length),
        (_, true, None) if is_old => return Err(ReplyError::Length),
        (101 | 204 | 304, ..) => BodyEnd::After(0),
        (_, true, None) => BodyEnd::Chunked(Chunks::default()),
        (_, false, Some(length)) => {
            let length = usize::try_from(length).ok().filter(|length| *length <= limit);
            BodyEnd::After(length.ok_or(ReplyError::TooLong(limit))?)
        }
        (_, false, None) => BodyEnd::WithConnection,
    };
    let keep = !(said.close || is_old || status == StatusCode::SWITCHING_PROTOCOLS);
    Ok(Some((length, Some((ReplyHead { status, cluster: said.cluster, keep }, end)))))
}

/// The headers that matter here.
#[derive(Default)]
struct HeadFields {
    length: Option<u64>,
    chunked: bool,
    close: bool,
    cluster: Option<ClusterId>,
}

impl HeadFields {
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

/// Parses digits and nothing else.
fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// A body in chunks, which are moved together in place.
#[derive(Debug, Default)]
struct Chunks {
    /// The length of the body so far, at the front of the buffer.
    body: usize,
    next: Next,
}

/// The part that comes next.
#[derive(Clone, Copy, Debug, Default)]
enum Next {
    #[default]
    Size,
    Data(usize),
    /// The end of line after a chunk.
    LineEnd,
    Trailers,
}

impl Chunks {
    /// Decodes the bytes after the body. Returns the length of the body once it is complete.
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

/// The length of the line before a chunk, and the size that it names.
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
