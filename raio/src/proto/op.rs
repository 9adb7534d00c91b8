//! The commands' numbers, and what is true of each.

use super::Invalid;

/// The commands' numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Op {
    /// Open, perhaps create, a file.
    Open = 1,
    /// Close it.
    Close = 2,
    /// Read at an offset.
    Read = 3,
    /// Write at an offset.
    Write = 4,
    /// Put what was written on stable storage.
    Flush = 5,
    /// Give the storage of a range back; it reads as zeros afterwards.
    Discard = 6,
    /// Set the size.
    Truncate = 7,
    /// Attributes of an open file or of a path.
    Stat = 8,
    /// Entries of a directory.
    List = 9,
    /// Remove a name.
    Unlink = 10,
    /// Give a file another name.
    Rename = 11,
    /// What the server is, exports and counts.
    Info = 12,
}

impl Op {
    /// All of them, in the order of their numbers, which count from 1.
    pub const ALL: [Op; 12] = [
        Op::Open,
        Op::Close,
        Op::Read,
        Op::Write,
        Op::Flush,
        Op::Discard,
        Op::Truncate,
        Op::Stat,
        Op::List,
        Op::Unlink,
        Op::Rename,
        Op::Info,
    ];

    /// Whether executing it twice does no harm. The answers to the others fit
    /// [`REPLAY_BYTES_MAX`](super::REPLAY_BYTES_MAX).
    #[must_use]
    #[inline]
    pub fn is_idempotent(self) -> bool {
        matches!(self, Op::Read | Op::Stat | Op::List | Op::Info)
    }

    /// Its name in lower case, for messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Op::Open => "open",
            Op::Close => "close",
            Op::Read => "read",
            Op::Write => "write",
            Op::Flush => "flush",
            Op::Discard => "discard",
            Op::Truncate => "truncate",
            Op::Stat => "stat",
            Op::List => "list",
            Op::Unlink => "unlink",
            Op::Rename => "rename",
            Op::Info => "info",
        }
    }

    #[inline]
    pub(super) fn from_number(number: u16) -> Result<Op, Invalid> {
        let found = usize::from(number).checked_sub(1).and_then(|index| Op::ALL.get(index));
        found.copied().ok_or(Invalid::UnknownOp(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_unknown_ones_are_named() {
        for (index, op) in Op::ALL.into_iter().enumerate() {
            assert_eq!(op as usize, index + 1);
        }
        assert_eq!(Op::from_number(99), Err(Invalid::UnknownOp(99)));
        assert_eq!(Invalid::UnknownOp(99).errno(), libc::EOPNOTSUPP);
    }
}
