//! CRC-32C (Castagnoli, as in iSCSI and RFC 3720), in pieces.

use crc_fast::{CrcAlgorithm, Digest};
use std::fmt;

/// A checksum under way. That of no bytes is 0.
#[derive(Clone, Copy)]
pub struct Checksum(Digest);

impl Checksum {
    /// Nothing added yet.
    #[must_use]
    pub fn new() -> Checksum {
        Checksum(Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    /// The checksum of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> u32 {
        let mut sum = Checksum::new();
        sum.add(bytes);
        sum.value()
    }

    /// Adds the next bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of all bytes added so far.
    #[must_use]
    pub fn value(&self) -> u32 {
        // The algorithm has 32 bits; the crate gives every width as u64.
        self.0.finalize() as u32
    }
}

impl Default for Checksum {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checksum({:#010x})", self.value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_values_come_out() {
        assert_eq!(Checksum::of(b""), 0);
        assert_eq!(Checksum::of(b"123456789"), 0xE306_9283);
        // RFC 3720, B.4: 32 bytes of zeros, of ones, and counting up.
        assert_eq!(Checksum::of(&[0; 32]), 0x8A91_36AA);
        assert_eq!(Checksum::of(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(Checksum::of(&std::array::from_fn::<u8, 32, _>(|at| at as u8)), 0x46DD_794E);
    }

    #[test]
    fn pieces_give_what_the_whole_gives() {
        let bytes: Vec<u8> = (0..1000u32).map(|at| (at * 7) as u8).collect();
        for cut in [0, 1, 15, 16, 500, 999, 1000] {
            let mut sum = Checksum::new();
            sum.add(&bytes[..cut]);
            sum.add(&bytes[cut..]);
            assert_eq!(sum.value(), Checksum::of(&bytes));
        }
    }
}
