use proptest::prelude::*;

use super::*;

const LIMIT: usize = 64;

/// Reads an answer that comes in these pieces, after which the connection ends.
fn read(pieces: &[&[u8]], limit: usize) -> Result<Reply, ReplyError> {
    let mut reading = ReplyReader::new(b"GET / HTTP/1.1\r\n\r\n".to_vec(), limit);
    for piece in pieces {
        reading.room().extend_from_slice(piece);
        if let Some(reply) = reading.advance()? {
            return Ok(reply);
        }
    }
    reading.closed()
}

/// The status and body of an answer, which must be the same in whatever pieces it comes, and whether another request
/// may follow if it came in one piece.
fn whole(text: &str) -> (Result<(u16, String), ReplyError>, bool) {
    let bytes = text.as_bytes();
    let said = |outcome: Result<Reply, ReplyError>| {
        outcome.map(|reply| (reply.status.as_u16(), String::from_utf8(reply.body.to_vec()).expect("text")))
    };
    let at_once = read(&[bytes], LIMIT);
    let keep = at_once.as_ref().is_ok_and(|reply| reply.keep);
    let at_once = said(at_once);
    for at in 0..=bytes.len() {
        assert_eq!(said(read(&[&bytes[..at], &bytes[at..]], LIMIT)), at_once, "cut at {at}: {text:?}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(said(read(&single, LIMIT)), at_once, "byte by byte: {text:?}");
    (at_once, keep)
}

fn body(text: &str) -> String {
    match whole(text) {
        (Ok((200, body)), _) => body,
        other => panic!("{text:?}: {other:?}"),
    }
}

#[test]
fn an_answer_ends_where_it_says_in_whatever_pieces_it_comes() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 \r\nDate: today\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nhe\r\n003\r\nllo\r\n0\r\nX-More: 1\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        assert_eq!((body(text).as_str(), whole(text).1), ("hello", true), "{text:?}");
    }
    for text in ["HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"] {
        let (outcome, keep) = whole(text);
        assert_eq!((outcome.map(|(_, body)| body), keep), (Ok(String::new()), true), "{text:?}");
    }
}

#[test]
fn a_status_of_any_kind_is_told_with_its_body() {
    let (outcome, keep) = whole("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\nno!\n");
    assert_eq!((outcome, keep), (Ok((500, "no!\n".to_owned())), true));
}

#[test]
fn no_other_request_follows_where_the_connection_ends_or_more_came_than_was_asked_for() {
    for text in [
        "HTTP/1.1 200 OK\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nworld",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nHTTP/1.1",
    ] {
        assert_eq!((body(text).as_str(), whole(text).1), ("hello", false), "{text:?}");
    }
    assert_eq!(whole("HTTP/1.1 101 Switching Protocols\r\n\r\n"), (Ok((101, String::new())), false));
}

#[test]
fn an_answer_that_ends_too_early_is_none() {
    for text in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ] {
        assert_eq!(whole(text).0, Err(ReplyError::Cut), "{text:?}");
    }
}

#[test]
fn what_is_not_http_or_does_not_tell_its_end_is_refused() {
    let head = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\nhello");
    let chunks = |chunks: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    for (text, error) in [
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n".to_owned(), ReplyError::Syntax(httparse::Error::Version)),
        ("HTTP/2 200 OK\r\n\r\n".to_owned(), ReplyError::Syntax(httparse::Error::Version)),
        ("\x16\x03\x01".to_owned(), ReplyError::Syntax(httparse::Error::Version)),
        ("HTTP/1.1 2000 OK\r\n\r\n".to_owned(), ReplyError::Syntax(httparse::Error::Status)),
        ("HTTP/1.1 099 No\r\n\r\n".to_owned(), ReplyError::Syntax(httparse::Error::Status)),
        (head("Content Length: 5"), ReplyError::Syntax(httparse::Error::HeaderName)),
        (head("Content-Length: 5, 5"), ReplyError::Length),
        (head("Content-Length: +5"), ReplyError::Length),
        (head("Content-Length: 0x5"), ReplyError::Length),
        (head("Content-Length:"), ReplyError::Length),
        (head("Content-Length: 5\r\nContent-Length: 6"), ReplyError::Length),
        (head("Content-Length: 5\r\nTransfer-Encoding: chunked"), ReplyError::Length),
        (head("Transfer-Encoding: gzip, chunked"), ReplyError::Length),
        (head("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), ReplyError::Length),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), ReplyError::Length),
        (chunks("\r\n\r\n"), ReplyError::Chunk),
        (chunks("x\r\n"), ReplyError::Chunk),
        (chunks("-1\r\n"), ReplyError::Chunk),
        (chunks("5\r\nhello!\r\n"), ReplyError::Chunk),
        (chunks("11111111111111111\r\n"), ReplyError::Chunk),
        (chunks(&format!("5;{}\r\n", "x".repeat(CHUNK_LINE))), ReplyError::Chunk),
    ] {
        assert_eq!(whole(&text).0, Err(error), "{text:?}");
    }
}

#[test]
fn a_body_is_bounded_however_its_length_is_told() {
    let (full, more) = ("x".repeat(LIMIT), "x".repeat(LIMIT + 1));
    let told = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let chunked = |body: &str| format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}\r\n0\r\n\r\n");
    let single =
        |body: &str| chunked(&body.chars().map(|byte| format!("1\r\n{byte}")).collect::<Vec<_>>().join("\r\n"));
    let to_the_end = |body: &str| format!("HTTP/1.1 200 OK\r\n\r\n{body}");
    let at_once = |body: &str| chunked(&format!("{:x}\r\n{body}", body.len()));
    for text in [told(&full), at_once(&full), single(&full), to_the_end(&full)] {
        assert_eq!(body(&text), full);
    }
    for text in [told(&more), at_once(&more), single(&more), to_the_end(&more)] {
        assert_eq!(whole(&text).0, Err(ReplyError::TooLong(LIMIT)), "{text:?}");
    }
    let huge = "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n";
    assert_eq!(whole(huge).0, Err(ReplyError::TooLong(LIMIT)));
    // It is refused because of its announced length, before the body comes.
    assert_eq!(read(&[b"HTTP/1.1 200 OK\r\nContent-Length: 65\r\n\r\n"], LIMIT), Err(ReplyError::TooLong(LIMIT)));
}

#[test]
fn a_head_is_bounded_and_so_are_trailers_and_what_is_passed_over() {
    let fits = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(HEAD_BYTES - 43));
    assert_eq!(fits.len(), HEAD_BYTES);
    let over = fits.replacen("X: ", "X: x", 1);
    let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(2 * HEAD_BYTES));
    let passed_over = "HTTP/1.1 100 Continue\r\n\r\n".repeat(HEAD_BYTES / 25 + 1);
    let trailers = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: {}", "x".repeat(HEAD_BYTES));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: x\r\n".repeat(HEADERS + 1));
    for pieces in [1, 1000, 100_000] {
        let outcome =
            |text: &str| read(&text.as_bytes().chunks(pieces).collect::<Vec<_>>(), LIMIT).map(|reply| reply.status);
        assert_eq!(outcome(&fits), Ok(StatusCode::OK));
        for text in [&over, &endless, &passed_over, &trailers] {
            assert_eq!(outcome(text), Err(ReplyError::Head), "{pieces}: {:?}", &text[..40]);
        }
        assert_eq!(outcome(&many), Err(ReplyError::Syntax(httparse::Error::TooManyHeaders)));
    }
}

#[test]
fn no_more_room_is_made_than_has_come() {
    let mut reading = ReplyReader::new(Vec::new(), 4 << 20);
    reading.room().extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 4194304\r\n\r\n");
    assert_eq!(reading.advance(), Ok(None));
    assert!(reading.room().capacity() <= ROOM);
    for _ in 0..1000 {
        let room = reading.room();
        assert!(room.capacity() - room.len() <= LARGEST_ROOM.max(room.len()));
        let all = room.capacity();
        room.resize(all.min(4 << 20), 0);
        if let Ok(Some(reply)) = reading.advance() {
            assert_eq!(reply.body.len(), 4 << 20);
            return;
        }
    }
    panic!("it never ends");
}

#[test]
fn the_cluster_is_told_once_and_is_never_0() {
    for (lines, cluster) in [
        ("X-Etcd-Cluster-Id: cdf818194e3a8c32", Some(0xcdf8_1819_4e3a_8c32)),
        ("x-etcd-cluster-id: 1\r\nX-Etcd-Cluster-ID: 2", Some(1)),
        ("X-Etcd-Cluster-Id: 0", None),
        ("X-Etcd-Cluster-Id: yes", None),
        ("X-Etcd-Cluster-Id: \u{fc}", None),
        ("X-Other: 1", None),
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{lines}\r\nContent-Length: 0\r\n\r\n");
        let reply = read(&[text.as_bytes()], LIMIT).expect("an answer");
        assert_eq!(reply.cluster, cluster.map(ClusterId), "{lines}");
    }
}

/// Pieces of answers, good and bad, which meet more often here than in random bytes.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.0 204 No\r\n",
        "HTTP/1.1 100 C\r\n\r\n",
        "Content-Length: 3\r\n",
        "Transfer-Encoding: chunked\r\n",
        "\r\n",
        "3\r\nabc\r\n",
        "0\r\n\r\n",
        "abc",
        "f;x\r\n",
    ];
    let word = prop_oneof![
        8 => proptest::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn whatever_comes_is_read_the_same_in_any_pieces(text in text(), cuts in proptest::collection::vec(0_usize..200, 0..6)) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
        let said = |outcome: Result<Reply, ReplyError>| outcome.map(|reply| (reply.status, reply.cluster, reply.body));
        prop_assert_eq!(said(read(&pieces, LIMIT)), said(read(&[&text], LIMIT)));
    }
}
