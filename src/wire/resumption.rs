//! How members of this crate name a snapshot to each other, so that bytes that were received need not be sent again.
//! All of it is in headers, which etcd ignores. They are only sent to a member that has said that it resumes snapshots.
//!
//! | header | on | value |
//! |---|---|---|
//! | `X-Rafthttp-Resumes` | answers to stream requests with a stream ID | `1`: this member keeps what it received of a snapshot whose connection broke |
//! | `X-Rafthttp-Snapshot` | `POST /raft/snapshot` to such a member | the sender's name of the snapshot: 32 hexadecimal digits |
//! | `X-Rafthttp-Length` | the same | the length of the whole snapshot without its envelope, in bytes, decimal |
//! | `X-Rafthttp-Checksum` | the same | xxh3-128 (seed 0) of these bytes: 32 hexadecimal digits |
//! | `X-Rafthttp-Offset` | the same | how many of these bytes come before this body's, decimal |
//! | `X-Rafthttp-Offset` | the answer to it | how many of these bytes the receiver has, decimal |
//!
//! Such a POST without a body asks what the receiver has, and is answered 204 with that. (etcd answers an empty body
//! with 400, and keeps nothing.) A POST with a body brings the envelope and then the rest of the snapshot, on the same
//! connection, so that the member that answered is the one that receives. 409 says that the receiver has another number
//! of bytes than the sender assumed. 422 says that the received bytes differ from those that were sent, and that the
//! receiver kept nothing. 503 says that the receiver is stopping, or has no place for the snapshot now: what it has is
//! kept, and the sender tries again.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::headers::{
    X_RAFTHTTP_CHECKSUM, X_RAFTHTTP_LENGTH, X_RAFTHTTP_OFFSET, X_RAFTHTTP_RESUMES, X_RAFTHTTP_SNAPSHOT,
};

/// The value of `X-Rafthttp-Resumes`.
pub const RESUMES: HeaderValue = HeaderValue::from_static("1");
/// The number of digits of a name and of a checksum.
const DIGITS: usize = 32;

/// A snapshot, as its sender names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Named {
    /// The sender's name of it.
    pub name: u128,
    /// Its length without the envelope, in bytes.
    pub length: u64,
    /// The xxh3-128 (seed 0) of these bytes.
    pub checksum: u128,
}

/// The rest of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// The snapshot.
    pub of: Named,
    /// How many of its bytes come before; at most its length.
    pub offset: u64,
}

/// The headers that name a snapshot are invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{header}: expected {expected}")]
pub struct RestError {
    header: HeaderName,
    expected: &'static str,
}

impl Rest {
    /// The rest of a snapshot that a request brings. `None` if the request names no snapshot.
    ///
    /// # Errors
    /// The request names a snapshot, and a header is missing or invalid.
    pub fn from_headers(head: &HeaderMap) -> Result<Option<Self>, RestError> {
        if !head.contains_key(X_RAFTHTTP_SNAPSHOT) {
            return Ok(None);
        }
        let of = Named {
            name: digits(head, X_RAFTHTTP_SNAPSHOT)?,
            length: number(head, X_RAFTHTTP_LENGTH)?,
            checksum: digits(head, X_RAFTHTTP_CHECKSUM)?,
        };
        let offset = number(head, X_RAFTHTTP_OFFSET)?;
        if offset > of.length {
            return Err(RestError { header: X_RAFTHTTP_OFFSET, expected: "no more bytes than the snapshot has" });
        }
        Ok(Some(Self { of, offset }))
    }

    /// The headers of a request that brings it.
    pub fn headers(&self) -> [(HeaderName, HeaderValue); 4] {
        let Self { of: Named { name, length, checksum }, offset } = *self;
        [
            (X_RAFTHTTP_SNAPSHOT, hexadecimal(name)),
            (X_RAFTHTTP_LENGTH, length.into()),
            (X_RAFTHTTP_CHECKSUM, hexadecimal(checksum)),
            (X_RAFTHTTP_OFFSET, offset.into()),
        ]
    }
}

/// How many bytes a receiver has, according to its answer. `None` if it does not say, or if the number is impossible
/// for a snapshot of this length.
pub fn offset(answer: &HeaderMap, length: u64) -> Option<u64> {
    number(answer, X_RAFTHTTP_OFFSET).ok().filter(|offset| *offset <= length)
}

/// Whether an answer says that its member resumes snapshots in this way.
pub fn resumes(answer: &HeaderMap) -> bool {
    answer.get(X_RAFTHTTP_RESUMES) == Some(&RESUMES)
}

fn hexadecimal(number: u128) -> HeaderValue {
    HeaderValue::try_from(format!("{number:0DIGITS$x}")).expect("digits are legal in a header")
}

fn digits(head: &HeaderMap, header: HeaderName) -> Result<u128, RestError> {
    let text = text(head, &header).filter(|text| text.len() == DIGITS);
    let text = text.filter(|text| text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')));
    let number = text.and_then(|text| u128::from_str_radix(text, 16).ok());
    number.ok_or(RestError { header, expected: "32 lower-case hexadecimal digits" })
}

fn number(head: &HeaderMap, header: HeaderName) -> Result<u64, RestError> {
    let text = text(head, &header).filter(|text| text.bytes().all(|digit| digit.is_ascii_digit()));
    text.and_then(|text| text.parse().ok()).ok_or(RestError { header, expected: "a number of bytes" })
}

/// A header that occurs exactly once, as text.
fn text<'a>(head: &'a HeaderMap, header: &HeaderName) -> Option<&'a str> {
    let mut values = head.get_all(header).iter();
    let only = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(only)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: Named = Named { name: 0xab << 120, length: 100, checksum: 1 };

    fn head(rest: Rest) -> HeaderMap {
        rest.headers().into_iter().collect()
    }

    #[test]
    fn what_is_sent_is_what_is_read() {
        for offset in [0, 1, 100] {
            let rest = Rest { of: OF, offset };
            assert_eq!(Rest::from_headers(&head(rest)), Ok(Some(rest)));
        }
        assert_eq!(Rest::from_headers(&HeaderMap::new()), Ok(None), "etcd names none");
        let told = head(Rest { of: OF, offset: 7 });
        assert_eq!(
            told.get("x-rafthttp-snapshot").and_then(|name| name.to_str().ok()),
            Some("ab000000000000000000000000000000")
        );
    }

    #[test]
    fn nothing_is_taken_that_is_not_what_it_should_be() {
        let refused = |header: HeaderName, value: &'static str| {
            let mut told = head(Rest { of: OF, offset: 0 });
            told.insert(&header, HeaderValue::from_static(value));
            let error = Rest::from_headers(&told).expect_err(value);
            assert_eq!(error.header, header, "{value}");
        };
        for text in [
            "",
            "ab",
            "AB000000000000000000000000000000",
            "+b000000000000000000000000000000",
            "../../../../../../../../../../etc",
        ] {
            refused(X_RAFTHTTP_SNAPSHOT, text);
            refused(X_RAFTHTTP_CHECKSUM, text);
        }
        for text in ["", "-1", "+1", "1.0", "101", "18446744073709551616"] {
            refused(X_RAFTHTTP_OFFSET, text);
        }
        refused(X_RAFTHTTP_LENGTH, "1e3");
        for (header, _) in (Rest { of: OF, offset: 0 }).headers().into_iter().skip(1) {
            let mut told = head(Rest { of: OF, offset: 0 });
            told.remove(&header);
            assert!(Rest::from_headers(&told).is_err(), "without {header}");
            let mut told = head(Rest { of: OF, offset: 0 });
            told.append(&header, HeaderValue::from_static("0"));
            assert!(Rest::from_headers(&told).is_err(), "{header} twice");
        }
    }

    #[test]
    fn what_a_receiver_says_that_it_has_is_believed_as_far_as_the_snapshot_goes() {
        let told = |text| offset(&HeaderMap::from_iter([(X_RAFTHTTP_OFFSET, HeaderValue::from_static(text))]), 100);
        assert_eq!((told("0"), told("100"), told("101"), told("x")), (Some(0), Some(100), None, None));
        assert_eq!(offset(&HeaderMap::new(), 100), None);
    }
}
