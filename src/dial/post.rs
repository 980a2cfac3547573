//! One POST over a connection, and its answer.

use bytes::BytesMut;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::dial::{
    connection::{Body, DialledConnection, NoAnswer, drive, drive_to_head},
    failure::{ANSWER_TIMEOUT, PostError},
    io::ConnectionEnd,
};

/// How much of an answer's text is read, in bytes.
pub(super) const ANSWER_TEXT: usize = 64 << 10;

/// The answer to a POST.
#[derive(Clone, Debug)]
pub(crate) struct PostAnswer {
    /// Its status.
    pub(crate) status: StatusCode,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// Its text, the first 64 KiB of it.
    pub(crate) text: String,
}

/// Sends a request and waits for its answer, at most 10 s after the last byte of it was written.
pub(crate) async fn exchange(
    connection: &mut DialledConnection,
    request: Request<Body>,
) -> Result<PostAnswer, PostError> {
    let DialledConnection { sender, driver, io, .. } = connection;
    let begin = Instant::now();
    let answer = async {
        let response = drive_to_head(driver, io, sender.send_request(request)).await?;
        Ok(drive(driver, read_answer(response)).await?)
    };
    let patience = async {
        loop {
            let deadline = io.last_write().max(begin) + ANSWER_TIMEOUT;
            if deadline <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    };
    tokio::select! {
        biased;
        // An answer that has arrived counts, even if the time is up in the same turn.
        outcome = answer => outcome.map_err(|error| match (io.end(), error) {
            (Some(ConnectionEnd::Stalled), _) => PostError::Stalled,
            (_, NoAnswer::Broken(error)) => PostError::Broken(error),
            (_, NoAnswer::Head) => PostError::Head,
        }),
        () = patience => Err(PostError::NoAnswer),
    }
}

async fn read_answer(response: Response<Incoming>) -> Result<PostAnswer, hyper::Error> {
    let (head, mut body) = response.into_parts();
    let mut text = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            let room = ANSWER_TEXT - text.len();
            text.extend_from_slice(&data[..data.len().min(room)]);
            if data.len() > room {
                break;
            }
        }
    }
    Ok(PostAnswer { status: head.status, headers: head.headers, text: String::from_utf8_lossy(&text).into_owned() })
}
