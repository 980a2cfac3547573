//! The header `traceparent` of a received request (W3C Trace Context).

use http::HeaderMap;

use super::{SpanId, TraceContext, TraceId};
use crate::wire::headers::TRACEPARENT;

/// `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const LENGTH: usize = 55;
/// The flag that says that the caller records its span.
const SAMPLED: u8 = 1;

impl TraceContext {
    /// The span that a request names as its own. `None` if there is no such header, if it is malformed, if there are
    /// several, or if the caller does not record the span.
    pub fn of_request(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => parse(value.as_bytes()),
            _ => None,
        }
    }
}

fn parse(text: &[u8]) -> Option<TraceContext> {
    let (head, rest) = text.split_at_checked(LENGTH)?;
    let (version, trace, span, flags) = (&head[..2], &head[3..35], &head[36..52], &head[53..]);
    let hyphens = [2, 35, 52].iter().all(|place| head[*place] == b'-');
    let rest_is_legal = match digits(version)? {
        0 => rest.is_empty(),
        0xff => false,
        // A later version may have more fields, after a hyphen.
        _ => rest.first().is_none_or(|byte| *byte == b'-'),
    };
    let (trace, span) = (TraceId(digits(trace)?), SpanId(u64::try_from(digits(span)?).ok()?));
    let kept = digits(flags)? & u128::from(SAMPLED) != 0;
    (hyphens && rest_is_legal && kept && trace.0 != 0 && span.0 != 0).then_some(TraceContext { trace, span })
}

/// Parses up to 32 lower-case hexadecimal digits.
fn digits(text: &[u8]) -> Option<u128> {
    text.iter().try_fold(0, |value: u128, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            _ => return None,
        };
        Some(value << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(values: &[&str]) -> Option<TraceContext> {
        let values = values.iter().map(|value| (TRACEPARENT, value.parse().expect("a header value")));
        TraceContext::of_request(&values.collect())
    }

    #[test]
    fn a_span_that_is_kept_is_read() {
        let context = of(&[GOOD]).expect("the standard's own example");
        assert_eq!(context.traceparent(true), GOOD);
        for also in [
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-holds",
        ] {
            assert_eq!(of(&[also]), Some(context), "{also}");
        }
    }

    #[test]
    fn what_is_not_in_the_words_of_the_standard_is_ignored() {
        for bad in [
            "",
            "00",
            "garbage",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01x",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(of(&[bad]), None, "{bad:?}");
        }
        assert_eq!(of(&[GOOD, GOOD]), None, "which of them?");
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_span_that_nobody_keeps_is_nobodys_parent() {
        assert_eq!(of(&[&GOOD.replace("-01", "-00")]), None);
    }
}
