//! Checks of a request's head that come before all others: they refuse what Go's server refuses and hyper accepts
//! (`net/http`, `readRequest` and `(*conn).serve`).

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header},
    response::{IntoResponse, Response},
};

use crate::wire::headers::TEXT_PLAIN;

/// A refused head. The text of the answer is Go's, and the connection is closed after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum BadHead {
    #[error("400 Bad Request: missing required Host header")]
    NoHost,
    #[error("400 Bad Request: malformed Host header")]
    MalformedHost,
    /// Two hosts, or a path that cannot be parsed.
    #[error("400 Bad Request")]
    Unreadable,
    #[error("Unsupported transfer encoding")]
    TransferEncoding,
    /// Go's answer has nothing but the status.
    #[error("")]
    Expectation,
}

impl BadHead {
    const fn status(self) -> StatusCode {
        match self {
            Self::NoHost | Self::MalformedHost | Self::Unreadable => StatusCode::BAD_REQUEST,
            Self::TransferEncoding => StatusCode::NOT_IMPLEMENTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
        }
    }
}

impl IntoResponse for BadHead {
    fn into_response(self) -> Response {
        let mut response = (self.status(), self.to_string()).into_response();
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_TYPE);
        if self != Self::Expectation {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(TEXT_PLAIN));
        }
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

/// The answer to a request whose head is refused. `None` if the head is good.
pub(super) fn refuse(request: &Request) -> Option<Response> {
    check(request).err().map(IntoResponse::into_response)
}

fn check(request: &Request) -> Result<(), BadHead> {
    check_host(request)?;
    if !has_whole_escapes(request.uri().path()) {
        return Err(BadHead::Unreadable);
    }
    let headers = request.headers();
    if !is_chunked_or_nothing(headers) {
        return Err(BadHead::TransferEncoding);
    }
    let expects = headers.get(header::EXPECT).filter(|value| !value.is_empty());
    match expects.is_none_or(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        true => Ok(()),
        false => Err(BadHead::Expectation),
    }
}

fn check_host(request: &Request) -> Result<(), BadHead> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Err(BadHead::Unreadable),
        (Some(host), None) if !host.as_bytes().iter().all(|byte| is_of_a_host(*byte)) => Err(BadHead::MalformedHost),
        (None, _) if request.version() >= Version::HTTP_11 && request.method() != Method::CONNECT => {
            Err(BadHead::NoHost)
        }
        _ => Ok(()),
    }
}

/// Go's `httpguts.ValidHostHeader`.
const fn is_of_a_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b'-'
                | b'.'
                | b':'
                | b';'
                | b'='
                | b'['
                | b']'
                | b'_'
                | b'~'
        )
}

/// Whether each `%` is followed by two hexadecimal digits.
fn has_whole_escapes(path: &str) -> bool {
    let mut parts = path.split('%');
    parts.next();
    parts.all(|part| part.len() >= 2 && part.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether a body has no transfer coding, or is chunked and nothing else. hyper accepts any list of codings that ends
/// with chunked.
fn is_chunked_or_nothing(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn asked(uri: &str, version: Version, headers: &[(&str, &str)]) -> Result<(), BadHead> {
        let mut request = Request::builder().uri(uri).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(Body::empty()).expect("a request"))
    }

    #[test]
    fn a_head_is_taken_as_gos_server_takes_it() {
        let one = |headers: &[(&str, &str)]| {
            let headers = [&[("host", "h:1")], headers].concat();
            asked("/a%20b", Version::HTTP_11, &headers)
        };
        assert_eq!(one(&[]), Ok(()));
        assert_eq!(asked("/", Version::HTTP_11, &[("host", "")]), Ok(()));
        assert_eq!(asked("/", Version::HTTP_10, &[]), Ok(()));
        assert_eq!(asked("/", Version::HTTP_11, &[]), Err(BadHead::NoHost));
        assert_eq!(asked("http://h/", Version::HTTP_11, &[]), Err(BadHead::NoHost));
        assert_eq!(asked("/", Version::HTTP_11, &[("host", "a b")]), Err(BadHead::MalformedHost));
        assert_eq!(one(&[("host", "h:1")]), Err(BadHead::Unreadable), "even the same");
        for path in ["/%", "/%4", "/%zz", "/a%2"] {
            assert_eq!(asked(path, Version::HTTP_11, &[("host", "h")]), Err(BadHead::Unreadable), "{path}");
        }
        assert_eq!(one(&[("transfer-encoding", "Chunked")]), Ok(()));
        for codings in [&["gzip, chunked"][..], &["gzip", "chunked"], &["identity"], &["chunked", "chunked"]] {
            let headers: Vec<_> = codings.iter().map(|coding| ("transfer-encoding", *coding)).collect();
            assert_eq!(one(&headers), Err(BadHead::TransferEncoding), "{codings:?}");
        }
        assert_eq!(one(&[("expect", "100-Continue")]), Ok(()));
        assert_eq!(one(&[("expect", "more")]), Err(BadHead::Expectation));
    }
}
