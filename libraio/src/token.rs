//! Tokens: what C callers hold in place of pointers. A stale or invented one is found out, never followed.
//!
//! A token is a kind (8 bits, which also makes it an address that no program has), a generation that is never given
//! twice, and the number of a place in a table:
//!
//! | token | generation | place |
//! |---|---|---|
//! | context | 40 bits | 16 bits: the session's |
//! | memory | 36 bits | 20 bits |
//! | event handle | 36 bits | 20 bits |

use std::ffi::c_void;

/// What a token stands for: the layout of its bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TokenKind {
    /// The highest byte.
    mark: u8,
    /// Bits of the place's number.
    place_bits: u32,
}

/// `raio_context_t`.
pub(crate) const CONTEXT: TokenKind = TokenKind { mark: b'C', place_bits: 16 };
/// `raio_mr_t`.
pub(crate) const MEMORY: TokenKind = TokenKind { mark: b'M', place_bits: 20 };
/// `handle` of an event that holds a buffer.
pub(crate) const EVENT: TokenKind = TokenKind { mark: b'E', place_bits: 20 };

/// `handle` of an event that holds nothing: it may be released any number of times.
pub(crate) const NOTHING_HELD: u64 = (b'N' as u64) << 56;

const BELOW_MARK: u64 = (1 << 56) - 1;

impl TokenKind {
    /// The token of a place in one generation. The generation is counted from 1 and cut to its bits.
    pub(crate) fn token(self, generation: u64, place: usize) -> u64 {
        u64::from(self.mark) << 56 | (generation << self.place_bits) & BELOW_MARK | place as u64
    }

    /// The number of the place; `None` for what is no token of this kind.
    pub(crate) fn place(self, token: u64) -> Option<usize> {
        (token >> 56 == u64::from(self.mark)).then_some((token & ((1 << self.place_bits) - 1)) as usize)
    }

    /// The generation of a token of this kind.
    pub(crate) fn generation(self, token: u64) -> u64 {
        (token & BELOW_MARK) >> self.place_bits
    }
}

/// As C holds it.
pub(crate) fn to_pointer(token: u64) -> *mut c_void {
    std::ptr::without_provenance_mut(token as usize)
}

/// As C gave it.
pub(crate) fn from_pointer(pointer: *mut c_void) -> u64 {
    pointer.addr() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_there_and_back_and_kinds_are_told_apart() {
        let token = CONTEXT.token(7, 65_535);
        assert_eq!(from_pointer(to_pointer(token)), token);
        assert_eq!((CONTEXT.place(token), CONTEXT.generation(token)), (Some(65_535), 7));
        assert_eq!((MEMORY.place(token), EVENT.place(token), CONTEXT.place(0)), (None, None, None));
        assert_eq!(CONTEXT.place(0x7fff_ffff_f000), None);
        assert_eq!(MEMORY.place(MEMORY.token(u64::MAX, 3)), Some(3));
        assert_eq!(EVENT.place(NOTHING_HELD), None);
    }
}
