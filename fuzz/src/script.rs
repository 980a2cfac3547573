//! An input as a sequence of steps, so that a small change of it is a small change of what happens.

/// The most steps of one input. More would only be slower.
const STEPS: usize = 48;

/// A step: what is done, of what or how, and bytes for it.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// What is done.
    pub what: u8,
    /// Of what, or how.
    pub how: u8,
    /// Bytes for it.
    pub bytes: &'a [u8],
}

/// The steps of an input: a byte each for `what` and `how`, two bytes for a length (little-endian), and that many bytes,
/// or those that there are.
pub fn steps(mut data: &[u8]) -> impl Iterator<Item = Step<'_>> {
    let next = move || {
        let ([what, how, low, high], rest) = data.split_first_chunk()?;
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (bytes, rest) = rest.split_at(length);
        data = rest;
        Some(Step { what: *what, how: *how, bytes })
    };
    std::iter::from_fn(next).take(STEPS)
}

impl Step<'_> {
    /// A number of two bytes at a place of the bytes; 0 if they are not there.
    pub fn number(&self, at: usize) -> u16 {
        let byte = |at: usize| self.bytes.get(at).copied().unwrap_or_default();
        u16::from_le_bytes([byte(at), byte(at + 1)])
    }
}
