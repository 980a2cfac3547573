//! What `/raft/probing` answers: JSON, of which etcd writes two fields.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A probe's answer, from a member that says that all is well. Fields that are not known are passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The member's clock when it answered.
    pub(crate) now: OffsetDateTime,
}

impl Answer {
    /// Reads an answer; none when it is not one.
    pub(crate) fn parse(body: &[u8]) -> Option<Self> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Health<'a> {
            #[serde(rename = "OK")]
            ok: bool,
            now: &'a str,
        }
        let health: Health<'_> = serde_json::from_slice(body).ok().filter(|health: &Health<'_>| health.ok)?;
        Some(Self { now: OffsetDateTime::parse(health.now, &Rfc3339).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_go_writes_it() {
        let answer = Answer::parse(br#"{"OK":true,"Now":"2026-11-23T22:48:01.123456789+02:00"}"#);
        assert_eq!(answer.map(|answer| answer.now.unix_timestamp_nanos()), Some(1_795_466_881_123_456_789));
        assert!(Answer::parse(br#"{"OK":true,"Now":"2026-11-23T20:48:01Z","More":{"a":[1]}}"#).is_some());
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for body in ["", "OK", "{}", r#"{"OK":false,"Now":"2026-11-23T20:48:01Z"}"#, r#"{"OK":true,"Now":"yesterday"}"#]
        {
            assert!(Answer::parse(body.as_bytes()).is_none(), "{body:?}");
        }
    }
}
