//! Texts: URLs, clusters, IDs, versions, heads of requests, and JSON.

use std::{fmt::Display, str::FromStr};

use http::{HeaderMap, HeaderName, HeaderValue};
use rafthttp::{
    ClusterId, DirectoryId, Incarnation, MemberId, PeerUrl,
    internals::{
        texts::{kept_membership, listed_members, told_urls},
        wire::{headers, probing::ProbeAnswer, resumption, resumption::Rest},
    },
    node::InitialCluster,
    telemetry::TraceContext,
    wire::version::Version,
};

/// The longest list of URLs that a head is read for.
const URLS: usize = 16;

/// The answer to a probe: what is read of it is written and read again the same.
pub fn probing(data: &[u8]) {
    let Some(answer) = ProbeAnswer::parse(data) else { return };
    let written = answer.encode();
    assert_eq!(ProbeAnswer::parse(written.as_bytes()), Some(answer), "as it was written: {written}");
}

/// URLs, initial clusters, IDs and versions: what is read prints as something that is read the same, and an error is one
/// line. The first byte says which.
pub fn texts(data: &[u8]) {
    let Some((which, text)) = data.split_first() else { return };
    let Ok(text) = str::from_utf8(text) else { return };
    match which % 9 {
        0 => printed_is_read::<PeerUrl>(text),
        1 => printed_is_read::<InitialCluster>(text),
        2 => printed_is_read::<MemberId>(text),
        3 => printed_is_read::<ClusterId>(text),
        4 => printed_is_read::<Incarnation>(text),
        5 => printed_is_read::<DirectoryId>(text),
        6 => printed_is_read::<Version>(text),
        7 => {
            if let Ok(url) = PeerUrl::listening(text) {
                assert_eq!(PeerUrl::listening(url.as_str()), Ok(url.clone()));
                let header = HeaderValue::try_from(url.authority()).expect("an authority is legal in a head");
                assert!(!header.is_empty());
            }
        }
        _ => {
            let Ok(urls) = told_urls(text) else { return };
            assert!((1..=URLS).contains(&urls.len()));
            let list: Vec<&str> = urls.iter().map(PeerUrl::as_str).collect();
            assert_eq!(PeerUrl::list(&list.join(",")), Ok(urls.clone()));
        }
    }
}

fn printed_is_read<T: FromStr<Err: Display> + Display + PartialEq>(text: &str) {
    match text.parse::<T>() {
        Ok(read) => {
            let printed = read.to_string();
            assert!(printed.parse::<T>().is_ok_and(|again| again == read), "{text:?} prints as {printed:?}");
        }
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty() && !said.contains('\n'), "{said:?} is not one line");
        }
    }
}

/// Lists of members: the answer to `GET /members`, and what the store keeps. The first byte says which.
pub fn members(data: &[u8]) {
    let Some((which, json)) = data.split_first() else { return };
    if which.is_multiple_of(2) {
        match listed_members(json) {
            Ok(count) => assert!((1..=10_000).contains(&count)),
            Err(said) => assert!(!said.is_empty() && !said.contains('\n'), "{said:?} is not one line"),
        }
    } else if let Some(kept) = kept_membership(json) {
        assert_eq!(kept_membership(&kept).as_ref(), Some(&kept), "what was kept is kept the same");
    }
}

/// The head of a request or an answer: what is read of it is the same as what would be sent.
pub fn heads(data: &[u8]) {
    let mut found = [httparse::EMPTY_HEADER; 64];
    let Ok(httparse::Status::Complete((_, found))) = httparse::parse_headers(data, &mut found) else { return };
    let mut head = HeaderMap::new();
    for header in found {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(header.name), HeaderValue::from_bytes(header.value)) else {
            return;
        };
        head.append(name, value);
    }
    if let Ok(Some(rest)) = Rest::from_headers(&head) {
        assert!(rest.offset <= rest.of.length);
        assert_eq!(Rest::from_headers(&rest.headers().into_iter().collect()), Ok(Some(rest)));
    }
    let offset = resumption::offset(&head, 1000);
    assert!(offset.is_none_or(|offset| offset <= 1000));
    let _ = resumption::resumes(&head);
    if let Ok(Some(incarnation)) = headers::incarnation(&head) {
        assert_eq!(incarnation.to_string().parse(), Ok(incarnation));
    }
    let _ = headers::met(&head).count();
    let _ = TraceContext::of_request(&head);
}
