//! The body of a snapshot: blocks of 1 MiB of xorshift64 from a seed, each with its number in its first 8 bytes, as
//! `tests/gopeer` makes it too.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

const BLOCK: usize = 1 << 20;

pub(crate) struct Pattern {
    block: Vec<u8>,
    at: u64,
    size: u64,
    /// Where it fails; 0 for nowhere.
    cut: u64,
}

impl Pattern {
    pub(crate) fn new(mut seed: u64, size: u64, cut: u64) -> Self {
        let mut block = Vec::with_capacity(BLOCK);
        while block.len() < BLOCK {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            block.extend(seed.to_le_bytes());
        }
        Self { block, at: 0, size, cut }
    }
}

impl Read for Pattern {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cut > 0 && self.at >= self.cut {
            return Err(io::Error::other("the source is cut"));
        }
        let start = usize::try_from(self.at % BLOCK as u64).unwrap();
        if start == 0 {
            self.block[..8].copy_from_slice(&(self.at / BLOCK as u64).to_be_bytes());
        }
        let left = usize::try_from(self.size - self.at).unwrap();
        let count = buffer.len().min(BLOCK - start).min(left);
        buffer[..count].copy_from_slice(&self.block[start..start + count]);
        self.at += count as u64;
        Ok(count)
    }
}

/// Asserts that a file holds the whole of a pattern, and nothing else.
pub(crate) fn assert_file_is(path: &Path, mut expected: Pattern) {
    let mut file = File::open(path).unwrap();
    assert_eq!(file.metadata().unwrap().len(), expected.size);
    let (mut wanted, mut found) = (vec![0; BLOCK], vec![0; BLOCK]);
    while expected.at < expected.size {
        let at = expected.at;
        let count = expected.read(&mut wanted).unwrap();
        file.read_exact(&mut found[..count]).unwrap();
        assert!(wanted[..count] == found[..count], "another byte within {count} from {at}");
    }
}
