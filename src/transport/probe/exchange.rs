//! Sends one request after another on a kept connection. A request is one write, and its answer usually one read. No
//! task moves the connection, nothing is registered with a timer, and there is no buffer between the requests. In this
//! way, a thousand members are probed each second for a twentieth of a core.

use std::{
    io,
    pin::Pin,
    task::{Context, Waker},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::wire::reply::{Reply, ReplyError, ReplyReader};

/// A connection that carries nothing else.
pub(super) struct Exchange<T>(T);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Broken {
    /// The connection ended before the first byte of the answer.
    Unanswered(io::Error),
    /// The connection broke during the answer.
    Read(io::Error),
    /// The answer is invalid.
    Reply(ReplyError),
}

impl<T: AsyncRead + AsyncWrite + Unpin> Exchange<T> {
    pub(super) fn new(io: T) -> Self {
        Self(io)
    }

    /// Whether another request may follow: the connection is open, and no unexpected bytes came, which would be taken
    /// for the answer. It costs no system call while nothing comes.
    pub(super) fn is_idle(&mut self) -> bool {
        let (mut byte, cx) = ([0], &mut Context::from_waker(Waker::noop()));
        Pin::new(&mut self.0).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_pending()
    }

    /// Writes a request and reads its answer, with a body of at most `limit` bytes. No other request may follow after
    /// an error, after an answer that says so, or if this future is dropped before its end.
    pub(super) async fn ask(&mut self, request: Vec<u8>, limit: usize) -> Result<Reply, Broken> {
        self.0.write_all(&request).await.map_err(Broken::Unanswered)?;
        self.0.flush().await.map_err(Broken::Unanswered)?;
        let mut reading = ReplyReader::new(request, limit);
        loop {
            let read = self.0.read_buf(reading.room()).await;
            let read = match read {
                Ok(0) if reading.is_empty() => {
                    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"))
                }
                read => read,
            };
            let outcome = match read {
                Ok(0) => reading.closed().map(Some),
                Ok(_) => reading.advance(),
                Err(error) if reading.is_empty() => return Err(Broken::Unanswered(error)),
                Err(error) => return Err(Broken::Read(error)),
            };
            if let Some(reply) = outcome.map_err(Broken::Reply)? {
                return Ok(reply);
            }
        }
    }
}

#[cfg(test)]
mod tests;
