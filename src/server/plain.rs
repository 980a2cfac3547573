//! Answers plain HTTP on a TLS port, in plain text and in Go's words. The content of the request is ignored.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, timeout},
};

use crate::{
    dial::io::{DeadlineIo, FIRST_BYTES},
    server::linger::Lingering,
};

/// The answer of Go's server (`net/http`, `(*conn).serve`).
const ANSWER: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
/// The first bytes of requests (Go's `tlsRecordHeaderLooksLikeHTTP`, and the methods that it leaves out).
const BEGINNINGS: [&[u8; FIRST_BYTES]; 8] =
    [b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO", b"DELET", b"PATCH", b"CONNE"];

/// The beginning of a connection to a TLS port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstBytes {
    /// A plain request.
    Plain,
    /// Anything else, with the time that is left for a handshake.
    Left(Duration),
}

/// Looks at the first bytes of a connection, for at most `within`.
pub(super) async fn opening<T: AsyncRead + Unpin>(io: &mut DeadlineIo<T>, within: Duration) -> io::Result<FirstBytes> {
    let begin = Instant::now();
    let first = match timeout(within, io.first_bytes()).await {
        Ok(first) => first?,
        // A client that sends nothing is too late for a handshake, too.
        Err(_) => return Ok(FirstBytes::Left(Duration::ZERO)),
    };
    match BEGINNINGS.iter().any(|beginning| first == *beginning) {
        true => Ok(FirstBytes::Plain),
        false => Ok(FirstBytes::Left(within.saturating_sub(begin.elapsed()))),
    }
}

/// Answers any request, and ends the connection in such a way that the answer can be read.
pub(super) async fn refuse<T: AsyncRead + AsyncWrite + Unpin>(io: DeadlineIo<T>) -> io::Result<()> {
    let mut io = Lingering::new(io);
    io.write_all(ANSWER).await?;
    io.shutdown().await
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;
    use crate::dial::io::{IoStatus, WRITE_DEADLINE};

    async fn opened(sent: &'static [u8]) -> (FirstBytes, Vec<u8>, Vec<u8>) {
        let (near, mut far) = duplex(1024);
        let serving = async {
            let mut io = DeadlineIo::new(near, IoStatus::new(WRITE_DEADLINE));
            let opening = opening(&mut io, Duration::from_secs(10)).await.expect("it is open");
            let mut read = Vec::new();
            match opening {
                FirstBytes::Plain => refuse(io).await.expect("it is open"),
                FirstBytes::Left(_) => drop(io.read_to_end(&mut read).await.expect("it is open")),
            }
            (opening, read)
        };
        let asking = async {
            for byte in sent {
                far.write_all(&[*byte]).await.expect("it is open");
                tokio::task::yield_now().await;
            }
            far.shutdown().await.expect("it is open");
            let mut answer = Vec::new();
            far.read_to_end(&mut answer).await.expect("it is closed in good order");
            answer
        };
        let ((opening, read), answer) = tokio::join!(serving, asking);
        (opening, read, answer)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_in_the_clear_is_answered_as_gos_server_does() {
        for request in
            [&b"GET /kv/a HTTP/1.1\r\n\r\n"[..], b"PUT /kv/a HTTP/1.1\r\n\r\nsecret", b"DELETE /kv/a HTTP/1.1\r\n"]
        {
            let (opening, _, answer) = opened(request).await;
            assert_eq!(opening, FirstBytes::Plain);
            assert_eq!(answer, ANSWER);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_request_is_left_to_tls_byte_for_byte() {
        for bytes in [&b"\x16\x03\x01\x02\x00\x01rest"[..], b"", b"\x16", b"SSH-2.0-x"] {
            let (opening, read, answer) = opened(bytes).await;
            assert!(matches!(opening, FirstBytes::Left(_)));
            assert_eq!((read.as_slice(), answer.as_slice()), (bytes, &b""[..]));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_has_no_time_left() {
        let (near, _far) = duplex(16);
        let mut io = DeadlineIo::new(near, IoStatus::new(WRITE_DEADLINE));
        let opening = opening(&mut io, Duration::from_secs(10)).await.expect("it is open");
        assert_eq!(opening, FirstBytes::Left(Duration::ZERO));
    }
}
