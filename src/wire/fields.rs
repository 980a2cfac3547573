//! The protobuf wire format: iterates over the fields of one message.

use std::ops::Range;

use crate::wire::error::{FrameError, FrameErrorKind};

/// How deep groups in an unknown field may be nested: prost's limit.
const GROUPS: usize = 100;

/// A position among the fields of a message that is at `at..end` of a frame.
pub(crate) struct Fields<'a> {
    frame: &'a [u8],
    at: usize,
}

/// The value of a field.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// A number or a bool.
    Varint(u64),
    /// The place of bytes or of an embedded message in the frame.
    Delimited(Range<usize>),
    /// Eight or four bytes, or a group. No known field has such a value.
    Other,
}

impl<'a> Fields<'a> {
    /// The fields at `range` of a frame. `range` must be within the frame.
    pub(crate) fn new(frame: &'a [u8], range: Range<usize>) -> Self {
        Self { frame: &frame[..range.end], at: range.start }
    }

    /// The position of the next field.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// The number and value of the next field. `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value)>, FrameError> {
        if self.at == self.frame.len() {
            return Ok(None);
        }
        let (number, kind) = self.key()?;
        let value = match kind {
            0 => Value::Varint(self.varint()?),
            2 => {
                let length = self.varint()?;
                let start = self.at;
                self.skip(length)?;
                Value::Delimited(start..self.at)
            }
            1 => self.other(8)?,
            3 => self.skip_group(number)?,
            5 => self.other(4)?,
            _ => return Err(self.error("a protobuf wire type that does not exist")),
        };
        Ok(Some((number, value)))
    }

    pub(crate) fn error(&self, why: &'static str) -> FrameError {
        FrameError::new(FrameErrorKind::Protobuf, self.at as u64, why)
    }

    #[inline]
    fn key(&mut self) -> Result<(u32, u8), FrameError> {
        let key = self.varint()?;
        let number = u32::try_from(key).map_err(|_| self.error("a protobuf field number over the largest"))? >> 3;
        if number == 0 {
            return Err(self.error("protobuf field number 0"));
        }
        Ok((number, (key & 7) as u8))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, FrameError> {
        match self.frame.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, FrameError> {
        let mut value = 0;
        for (place, &byte) in self.frame[self.at..].iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                if place == 9 && byte > 1 {
                    break;
                }
                self.at += place + 1;
                return Ok(value);
            }
        }
        Err(self.error("a protobuf number that does not end or does not fit"))
    }

    fn other(&mut self, length: u64) -> Result<Value, FrameError> {
        self.skip(length).map(|()| Value::Other)
    }

    #[inline]
    fn skip(&mut self, length: u64) -> Result<(), FrameError> {
        let left = self.frame.len() - self.at;
        match usize::try_from(length) {
            Ok(length) if length <= left => {
                self.at += length;
                Ok(())
            }
            _ => Err(self.error("a protobuf length beyond the end of its message")),
        }
    }

    /// Skips a group. Groups may be nested, and an attacker's as deep as the attacker likes: so there is no recursion,
    /// and prost's limit applies.
    fn skip_group(&mut self, number: u32) -> Result<Value, FrameError> {
        let mut open = vec![number];
        while let Some(&innermost) = open.last() {
            let (number, kind) = self.key()?;
            match kind {
                0 => drop(self.varint()?),
                1 => self.skip(8)?,
                2 => {
                    let length = self.varint()?;
                    self.skip(length)?;
                }
                3 if open.len() < GROUPS => open.push(number),
                4 if number == innermost => drop(open.pop()),
                5 => self.skip(4)?,
                _ => return Err(self.error("protobuf groups that are too deep or do not match")),
            }
        }
        Ok(Value::Other)
    }
}
