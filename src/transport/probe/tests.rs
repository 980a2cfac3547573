use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use time::format_description::well_known::Rfc3339;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use crate::{
    dial::identity::Identity,
    id::{ClusterId, MemberId},
    wire::version::Version,
    world::World,
};

/// Longer than any of the answers takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A step of a member on one connection.
#[derive(Clone, Copy)]
enum Does {
    /// Answers a request, with its clock this many seconds ahead.
    Answer(i64),
    /// Answers a request, and the next one with it.
    AnswerTwice,
    /// Answers a request, and a little later sends another answer that nobody asked for.
    AnswerUnasked,
    /// Answers a request and says that it closes the connection, but does not.
    AnswerLast,
    /// Sends half of an answer.
    Half,
    /// Reads a request.
    Read,
    /// Answers so slowly, byte by byte, that the answer never ends.
    Drip,
}

/// A member that takes these steps, one connection after the other. Also returns the heads of the requests that it
/// read.
async fn member(connections: Vec<Vec<Does>>) -> (UrlPicker, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("it is bound")).parse().expect("a URL");
    let heads = Arc::new(Mutex::new(Vec::new()));
    let read = heads.clone();
    tokio::spawn(async move {
        let mut open = Vec::new();
        for deeds in connections {
            let (mut stream, _) = listener.accept().await.expect("it is dialled");
            for does in &deeds {
                let head = head(&mut stream).await;
                act(&mut stream, *does).await;
                read.lock().expect("nobody panics with it").push(head);
            }
            // The member closes the connection, unless the last step says so falsely or has more to send.
            if let Some(Does::AnswerLast | Does::AnswerUnasked) = deeds.last() {
                open.push(stream);
            }
        }
        // No other connection is accepted.
    });
    (UrlPicker::new(vec![url]), heads)
}

async fn act(stream: &mut TcpStream, does: Does) {
    let answer = |ahead, more: &str| {
        let now = OffsetDateTime::now_utc() + time::Duration::seconds(ahead);
        let body = format!(r#"{{"OK":true,"Now":"{}"}}"#, now.format(&Rfc3339).expect("a time"));
        format!("HTTP/1.1 200 OK\r\n{more}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let text = match does {
        Does::Answer(ahead) => answer(ahead, ""),
        Does::AnswerTwice => answer(0, "") + &answer(1000, ""),
        Does::AnswerUnasked => {
            stream.write_all(answer(0, "").as_bytes()).await.expect("it listens");
            // This makes it arrive separately.
            tokio::time::sleep(Duration::from_millis(20)).await;
            answer(1000, "")
        }
        Does::AnswerLast => answer(0, "Connection: close\r\n"),
        Does::Half => answer(0, "")[..60].to_owned(),
        Does::Read => return,
        Does::Drip => {
            for byte in answer(0, "").bytes() {
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            return;
        }
    };
    stream.write_all(text.as_bytes()).await.expect("it listens");
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head has an end"));
    }
    String::from_utf8(head).expect("a head is text")
}

/// Waits until the member has read this many requests and taken the steps after them. Returns their heads.
async fn read(done: &Mutex<Vec<String>>, count: usize) -> Vec<String> {
    let begin = Instant::now();
    loop {
        let heads = done.lock().expect("nobody panics with it").clone();
        if heads.len() >= count {
            return heads;
        }
        assert!(begin.elapsed() < PATIENCE, "{} of {count} requests read within {PATIENCE:?}", heads.len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Probes this often. Returns for each probe the clock offset in whole seconds, or the result that it is counted under,
/// and whether it dialled.
async fn probes(
    (urls, done): &(UrlPicker, Arc<Mutex<Vec<String>>>),
    count: usize,
) -> Vec<(Result<i64, ProbeResult>, bool)> {
    let (client, mut probe) = (Client::anonymous(None, PATIENCE, &World::default()), Probe::default());
    let mut seen = Vec::new();
    for _ in 0..count {
        let before = done.lock().expect("nobody panics with it").len();
        let outcome = probe.ask(&client, urls, PATIENCE, None).await;
        #[expect(clippy::cast_possible_truncation, reason = "whole seconds, and few")]
        let offset = outcome.result.map(|measured| measured.clock_offset().round() as i64);
        seen.push((offset.map_err(|failure| failure.result), outcome.dial.is_some()));
        // When the next probe starts, the member has completed the steps after its answer, and they have arrived.
        read(done, before + 1).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    seen
}

#[tokio::test]
async fn a_connection_is_kept_from_probe_to_probe() {
    let told = member(vec![vec![Does::Answer(0), Does::Answer(5), Does::Answer(-5)]]).await;
    assert_eq!(probes(&told, 3).await, [(Ok(0), true), (Ok(5), false), (Ok(-5), false)]);
}

#[tokio::test]
async fn a_kept_connection_that_the_member_closes_is_no_failure_of_its() {
    // The connection is closed after the answer, or at the next request.
    for first in [vec![Does::Answer(0)], vec![Does::Answer(0), Does::Read]] {
        let told = member(vec![first, vec![Does::Answer(5)]]).await;
        assert_eq!(probes(&told, 2).await, [(Ok(0), true), (Ok(5), true)]);
    }
}

#[tokio::test]
async fn a_new_connection_that_the_member_closes_is_a_failure_and_so_is_half_an_answer() {
    let told = member(vec![vec![Does::Read], vec![Does::Answer(0), Does::Half], vec![Does::Answer(5)]]).await;
    let failed = Err(ProbeResult::Connect);
    assert_eq!(probes(&told, 4).await, [(failed, true), (Ok(0), true), (failed, false), (Ok(5), true)]);
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_never_that_of_the_next_probe() {
    for first in [Does::AnswerTwice, Does::AnswerUnasked] {
        let told = member(vec![vec![first], vec![Does::Answer(5)]]).await;
        assert_eq!(probes(&told, 2).await, [(Ok(0), true), (Ok(5), true)]);
    }
}

#[tokio::test]
async fn a_connection_that_is_said_to_close_is_not_asked_again() {
    let told = member(vec![vec![Does::AnswerLast], vec![Does::Answer(5)]]).await;
    assert_eq!(probes(&told, 2).await, [(Ok(0), true), (Ok(5), true)]);
}

#[tokio::test]
async fn an_answer_that_drips_ends_with_the_probes_time() {
    let (urls, _) = member(vec![vec![Does::Drip]]).await;
    let (client, timeout) = (Client::anonymous(None, PATIENCE, &World::default()), Duration::from_millis(700));
    let begin = Instant::now();
    let outcome = Probe::default().ask(&client, &urls, timeout, None).await;
    assert!(begin.elapsed() >= timeout && begin.elapsed() < PATIENCE, "{:?}", begin.elapsed());
    assert_eq!(outcome.result.map(|_| ()).map_err(|failure| failure.result), Err(ProbeResult::Timeout));
}

#[tokio::test]
async fn a_probe_says_who_asks_and_names_its_trace() {
    let (urls, heads) = member(vec![vec![Does::Answer(0), Does::Answer(0)]]).await;
    let (member, cluster, server_version) = (MemberId(0xa), ClusterId(0x1000), Version::new(3, 6, 16));
    let told = vec!["http://10.0.0.1:2380".parse().expect("a URL")];
    let identity = Identity { member, cluster, urls: told, incarnation: None, server_version };
    let world = World::default();
    let (client, trace) = (Client::new(&identity, None, PATIENCE, &world), ProbeTrace::start(&world));
    let traceparent = trace.traceparent().to_str().expect("text").to_owned();
    let mut probe = Probe::default();
    assert!(probe.ask(&client, &urls, PATIENCE, Some(&trace)).await.result.is_ok());
    assert!(probe.get(&client, &urls, PATIENCE, headers::MEMBERS, 100).await.is_ok());
    let heads = read(&heads, 2).await;
    let host = format!("host: {}", urls.pick().authority());
    let who = [
        "x-etcd-cluster-id: 1000",
        "x-min-cluster-version: 3.0.0",
        "x-peerurls: http://10.0.0.1:2380",
        "x-server-from: a",
        "x-server-version: 3.6.16",
    ];
    let traced = format!("traceparent: {traceparent}");
    for (head, first, more) in
        [(&heads[0], "GET /raft/probing HTTP/1.1", Some(traced.as_str())), (&heads[1], "GET /members HTTP/1.1", None)]
    {
        let mut lines: Vec<&str> = head.trim_end().lines().collect();
        assert_eq!(lines.remove(0), first);
        lines.sort_unstable();
        let mut wanted: Vec<&str> = who.into_iter().chain([host.as_str()]).chain(more).collect();
        wanted.sort_unstable();
        assert_eq!(lines, wanted);
    }
}
