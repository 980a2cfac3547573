//! One end of a connection.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{BUFFER, Chunk, Held, NEVER, Net, State, Time, wake};

/// The largest piece, in bytes.
const PIECE: usize = 16 << 10;

/// One end of a connection, held by a process.
#[derive(Debug)]
pub struct Stream {
    net: Net,
    connection: usize,
    side: usize,
    /// Sleeps until something arrives that is under way, one for the reading and one for the writing task.
    reading: Option<Pin<Box<Sleep>>>,
    writing: Option<Pin<Box<Sleep>>>,
}

impl Stream {
    pub(super) fn new(net: Net, connection: usize, side: usize) -> Self {
        Self { net, connection, side, reading: None, writing: None }
    }
}

/// Waits until a time at which more arrives. Returns false if that time has come.
fn wait(sleeping: &mut Option<Pin<Box<Sleep>>>, now: Time, until: Time, cx: &mut Context<'_>) -> bool {
    if until == NEVER {
        *sleeping = None;
        return true;
    }
    let mut asleep = Box::pin(sleep(Duration::from_millis(until.saturating_sub(now))));
    let is_there = asleep.as_mut().poll(cx).is_ready();
    *sleeping = Some(asleep);
    !is_there
}

fn broken() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl State {
    /// Reads what has arrived at an end. On an error: nothing arrives before this time.
    fn read(&mut self, connection: usize, side: usize, into: &mut ReadBuf<'_>) -> Result<io::Result<()>, Time> {
        let now = self.timeline.now();
        let own = self.connections[connection].ends[side];
        if own.state != Held::Open || !self.hosts[own.host].is_on {
            return Err(NEVER);
        }
        let pipe = &mut self.connections[connection].pipes[1 - side];
        let before = into.filled().len();
        while let Some(chunk) = pipe.chunks.front_mut().filter(|chunk| chunk.arrives <= now) {
            let length = into.remaining().min(chunk.bytes.len() - chunk.read);
            into.put_slice(&chunk.bytes[chunk.read..chunk.read + length]);
            chunk.read += length;
            pipe.bytes -= length;
            if chunk.read < chunk.bytes.len() {
                break;
            }
            pipe.chunks.pop_front();
        }
        if into.filled().len() > before || into.remaining() == 0 {
            wake(&mut pipe.writer);
            return Ok(Ok(()));
        }
        let next = pipe.chunks.front().map_or(NEVER, |chunk| chunk.arrives);
        match (pipe.reset, pipe.end) {
            (Some(at), _) if at <= now => Ok(Err(broken())),
            (_, Some(at)) if at <= now && pipe.chunks.is_empty() => Ok(Ok(())),
            (reset, end) => Err(next.min(reset.unwrap_or(NEVER)).min(end.unwrap_or(NEVER))),
        }
    }

    /// Takes bytes that an end writes. On an error: there is no room before this time.
    fn write(&mut self, connection: usize, side: usize, bytes: &[u8]) -> Result<io::Result<usize>, Time> {
        let now = self.timeline.now();
        let [own, other] = [side, 1 - side].map(|side| self.connections[connection].ends[side]);
        if own.state != Held::Open || !self.hosts[own.host].is_on {
            return Ok(Ok(bytes.len()));
        }
        let reset = self.connections[connection].pipes[1 - side].reset;
        if reset.is_some_and(|at| at <= now) {
            return Ok(Err(broken()));
        }
        if self.connections[connection].pipes[side].end.is_some() {
            return Ok(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = BUFFER - self.connections[connection].pipes[side].bytes.min(BUFFER);
        if room == 0 {
            return Err(reset.unwrap_or(NEVER));
        }
        let taken = &bytes[..bytes.len().min(room).min(PIECE)];
        let arrives = self.arrival(own.host, other.host, taken.len());
        let pipe = &mut self.connections[connection].pipes[side];
        // Bytes arrive in order: if those before are held back by a cut, these are too.
        let arrives = match pipe.chunks.back() {
            Some(last) if last.arrives == NEVER => NEVER,
            _ => arrives.max(pipe.last),
        };
        if arrives != NEVER {
            pipe.last = arrives;
        }
        pipe.chunks.push_back(Chunk { arrives, bytes: taken.to_vec(), read: 0 });
        pipe.bytes += taken.len();
        wake(&mut pipe.reader);
        self.events.took(&[1, connection as u64, side as u64, arrives], &without_date(taken));
        let back = std::mem::take(&mut self.connections[connection].pipes[1 - side].is_lost);
        if other.state != Held::Open || back {
            self.answer_for_nobody(connection, 1 - side);
        }
        Ok(Ok(taken.len()))
    }

    /// One end announces that it writes no more.
    fn finish(&mut self, connection: usize, side: usize) {
        let [own, other] = [side, 1 - side].map(|side| self.connections[connection].ends[side]);
        if self.connections[connection].pipes[side].end.is_some() || own.state != Held::Open {
            return;
        }
        let arrives = self.news(own.host, other.host);
        let pipe = &mut self.connections[connection].pipes[side];
        let is_held = pipe.chunks.back().is_some_and(|chunk| chunk.arrives == NEVER);
        pipe.end = Some(if is_held { NEVER } else { arrives.max(pipe.last) });
        wake(&mut pipe.reader);
        self.events.took(&[2, connection as u64, side as u64], &[]);
    }

    /// A process closes one end.
    pub(super) fn close(&mut self, connection: usize, side: usize) {
        let [own, other] = [side, 1 - side].map(|side| self.connections[connection].ends[side]);
        if own.state != Held::Open {
            return;
        }
        let has_unread = self.connections[connection].pipes[1 - side].bytes > 0;
        if has_unread {
            // As a kernel does: if bytes were not read, the other end is told that the connection is broken.
            let arrives = self.news(own.host, other.host);
            let last = self.connections[connection].pipes[side].last;
            self.tell_reset(connection, side, if arrives == NEVER { NEVER } else { arrives.max(last) });
            self.events.took(&[3, connection as u64, side as u64], &[]);
        } else {
            self.finish(connection, side);
        }
        self.connections[connection].ends[side].state = Held::Closed;
        let unread = &mut self.connections[connection].pipes[1 - side];
        unread.chunks.clear();
        wake(&mut unread.writer);
    }
}

/// Blanks the date in the head of an answer, because hyper takes it from the real clock.
fn without_date(bytes: &[u8]) -> Vec<u8> {
    const HEADER: &[u8] = b"date: ";
    const LENGTH: usize = b"Thu, 01 Jan 1970 00:00:00 GMT".len();
    let mut bytes = bytes.to_vec();
    if let Some(at) = bytes.windows(HEADER.len()).position(|window| window.eq_ignore_ascii_case(HEADER)) {
        let end = (at + HEADER.len() + LENGTH).min(bytes.len());
        bytes[at + HEADER.len()..end].fill(b'-');
    }
    bytes
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { net, connection, side, reading, .. } = self.get_mut();
        loop {
            let mut state = net.state();
            match state.read(*connection, *side, into) {
                Ok(outcome) => return Poll::Ready(outcome),
                Err(until) => {
                    state.connections[*connection].pipes[1 - *side].reader = Some(cx.waker().clone());
                    let now = state.timeline.now();
                    drop(state);
                    if wait(reading, now, until, cx) {
                        return Poll::Pending;
                    }
                }
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { net, connection, side, writing, .. } = self.get_mut();
        loop {
            let mut state = net.state();
            match state.write(*connection, *side, bytes) {
                Ok(outcome) => return Poll::Ready(outcome),
                Err(until) => {
                    state.connections[*connection].pipes[*side].writer = Some(cx.waker().clone());
                    let now = state.timeline.now();
                    drop(state);
                    if wait(writing, now, until, cx) {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.net.state().finish(self.connection, self.side);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.net.state().close(self.connection, self.side);
    }
}
