//! DER, parsed element by element and never trusted: a tag, a length, and the content of that length.

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// The first element: its tag, its content, and what follows it.
pub(super) fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(*short), rest),
        // No certificate is longer than four bytes of length can express.
        long @ 0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (bytes.iter().try_fold(0_usize, |length, byte| length.checked_mul(256)?.checked_add((*byte).into()))?, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// The first element, with its tag and length, and what follows it.
pub(super) fn whole(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_, _, rest) = element(der)?;
    der.split_at_checked(der.len() - rest.len())
}

/// The content of the first element and what follows it, if the element has this tag.
pub(super) fn expect(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    element(der).and_then(|(found, content, rest)| (found == tag).then_some((content, rest)))
}

/// The elements, as tag and content, up to the end or up to the first that cannot be parsed.
pub(super) fn elements(mut der: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (tag, content, rest) = element(der)?;
        der = rest;
        Some((tag, content))
    })
}

/// Encodes an element with this tag and content. The length has its shortest form.
pub(super) fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant: Vec<u8> = length.into_iter().skip_while(|byte| *byte == 0).collect();
    let mut der = vec![tag];
    match significant[..] {
        [] => der.push(0),
        [short @ 0..=0x7f] => der.push(short),
        // There are at most eight bytes.
        ref long => {
            der.push(0x80 | u8::try_from(long.len()).unwrap_or(0x7f));
            der.extend(long);
        }
    }
    der.extend(content);
    der
}

/// An object identifier in dotted form: `2.5.29.37`. Numbers longer than 64 bits are cut off.
pub(super) fn dotted(oid: &[u8]) -> String {
    let mut numbers = Vec::new();
    let mut number = 0_u64;
    for byte in oid {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            numbers.push(std::mem::take(&mut number));
        }
    }
    let mut text = match numbers.first() {
        None => return String::new(),
        Some(first @ 0..=79) => format!("{}.{}", first / 40, first % 40),
        Some(first) => format!("2.{}", first - 80),
    };
    for number in &numbers[1..] {
        text.push_str(&format!(".{number}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrapped_is_read_back() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0x1_0000] {
            let content = vec![7; length];
            let der = wrap(OCTET_STRING, &content);
            assert_eq!(element(&der), Some((OCTET_STRING, &content[..], &[][..])), "{length}");
        }
    }

    #[test]
    fn an_identifier_is_written_with_dots() {
        assert_eq!(dotted(&[0x55, 0x1d, 0x25, 0x00]), "2.5.29.37.0");
        assert_eq!(dotted(&[0x2b, 6, 1, 5, 5, 7, 3, 2]), "1.3.6.1.5.5.7.3.2");
        assert_eq!(dotted(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]), "1.2.840.10045.4.3.2");
        assert_eq!(dotted(&[]), "");
        dotted(&[0xff; 40]);
    }
}
