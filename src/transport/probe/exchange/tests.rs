use std::time::Duration;

use tokio::{
    io::{DuplexStream, duplex},
    time::{sleep, timeout},
};

use super::*;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

fn pair() -> (Exchange<DuplexStream>, DuplexStream) {
    let (near, far) = duplex(64 << 10);
    (Exchange::new(near), far)
}

async fn ask(exchange: &mut Exchange<DuplexStream>) -> Result<Reply, Broken> {
    exchange.ask(b"GET / HTTP/1.1\r\n\r\n".to_vec(), 64).await
}

#[tokio::test]
async fn one_thing_is_asked_after_another() {
    let (mut exchange, mut far) = pair();
    for _ in 0..3 {
        assert!(exchange.is_idle());
        let answering = async {
            let mut request = [0; 18];
            far.read_exact(&mut request).await.expect("it asks");
            assert_eq!(&request, b"GET / HTTP/1.1\r\n\r\n");
            far.write_all(ANSWER).await.expect("it listens");
        };
        let (reply, ()) = tokio::join!(ask(&mut exchange), answering);
        let reply = reply.expect("it is answered");
        assert_eq!((&reply.body[..], reply.keep), (&b"hello"[..], true));
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_drips_is_read_and_ends_with_the_time_of_who_asks() {
    let (mut exchange, mut far) = pair();
    let dripping = async {
        for byte in ANSWER {
            sleep(Duration::from_millis(10)).await;
            far.write_all(&[*byte]).await.expect("it listens");
        }
    };
    let (reply, ()) = tokio::join!(ask(&mut exchange), dripping);
    assert_eq!(&reply.expect("it is answered").body[..], b"hello");
    let late = timeout(Duration::from_secs(1), ask(&mut exchange)).await;
    assert!(late.is_err(), "{late:?}");
}

#[tokio::test]
async fn what_came_unasked_is_no_answer_to_the_next_request() {
    let (mut exchange, mut far) = pair();
    far.write_all(ANSWER).await.expect("there is room");
    assert!(!exchange.is_idle());
    let (mut exchange, far) = pair();
    drop(far);
    assert!(!exchange.is_idle(), "it is closed");
}

#[tokio::test]
async fn an_end_before_the_answer_is_told_from_one_in_its_midst() {
    for (sent, is_unanswered) in [(&b""[..], true), (b"H", false), (&ANSWER[..40], false)] {
        let (mut exchange, mut far) = pair();
        far.write_all(sent).await.expect("there is room");
        let closing = async {
            far.read_exact(&mut [0; 18]).await.expect("it asks");
            drop(far);
        };
        let (outcome, ()) = tokio::join!(ask(&mut exchange), closing);
        match outcome {
            Err(Broken::Unanswered(error)) if is_unanswered => {
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            }
            Err(Broken::Reply(ReplyError::Cut)) if !is_unanswered => {}
            other => panic!("{sent:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_it() {
    let (mut exchange, mut far) = pair();
    far.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.expect("there is room");
    let answering = async { while far.write_all(&[b'x'; 4096]).await.is_ok() {} };
    let asking = async {
        let outcome = ask(&mut exchange).await;
        drop(exchange);
        outcome
    };
    let (outcome, ()) = tokio::join!(asking, answering);
    assert!(matches!(outcome, Err(Broken::Reply(ReplyError::TooLong(64)))), "{outcome:?}");
}
