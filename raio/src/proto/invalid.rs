//! What can be wrong with a command or an answer, a variant per rule.

/// A broken rule of the file protocol. A server answers with [`Invalid::errno`]; a client that receives such an answer
/// gives the connection up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// The message is shorter or longer than its fixed parts and paths say.
    #[error("{what} has {found} bytes, expected {expected}")]
    Length {
        /// Which part.
        what: &'static str,
        /// Bytes there.
        found: u64,
        /// Bytes that it must have.
        expected: u64,
    },
    /// A command that is not known here.
    #[error("unknown command {0}")]
    UnknownOp(u16),
    /// Flag bits that the command does not have.
    #[error("{what}: unknown or impossible flags {bits:#x}")]
    Flags {
        /// Of what.
        what: &'static str,
        /// The offending bits.
        bits: u32,
    },
    /// Bytes kept for later versions are not zero, or a field is set that the command does not use.
    #[error("{0}: a field that must be zero is set")]
    NotZero(&'static str),
    /// A path of more than [`PATH_BYTES_MAX`](super::PATH_BYTES_MAX) bytes, or a name above its limit.
    #[error("path of {0} bytes, at most {max} are allowed", max = super::PATH_BYTES_MAX)]
    PathTooLong(usize),
    /// A path is missing where the command needs one.
    #[error("the path is empty")]
    PathEmpty,
    /// A path contains a NUL byte.
    #[error("the path contains a NUL byte")]
    PathNul,
    /// Handle 0 where an open file is needed.
    #[error("no file handle given")]
    NoHandle,
    /// An offset, a size, or the end of a range is above `i64::MAX`.
    #[error("offset {offset} and length {length} reach beyond the largest file offset")]
    Range {
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        length: u64,
    },
    /// A length above its 32-bit limit.
    #[error("length {0} does not fit one message")]
    LengthLimit(u64),
    /// O_APPEND: writes carry their offset, so there is no end to append to.
    #[error("append mode is not offered: every write names its offset")]
    Append,
    /// A greeting that is not one of this protocol.
    #[error("the peer does not speak the raio file protocol")]
    NotRaio,
    /// No common version.
    #[error(
        "the peer speaks versions {min} to {max} of the raio file protocol, here are {} to {}",
        super::VERSION_MIN,
        super::VERSION
    )]
    Version {
        /// Oldest of the peer.
        min: u16,
        /// Newest of the peer.
        max: u16,
    },
    /// An errno outside 0 to 4095.
    #[error("errno {0} is out of range")]
    Errno(i32),
    /// Text that is not UTF-8 where it has to be.
    #[error("{0} is not UTF-8")]
    NotText(&'static str),
}

impl Invalid {
    /// The errno (Linux numbering) that a server answers with.
    #[must_use]
    pub fn errno(self) -> i32 {
        match self {
            Invalid::UnknownOp(_) | Invalid::Append => libc::EOPNOTSUPP,
            Invalid::PathTooLong(_) => libc::ENAMETOOLONG,
            Invalid::PathEmpty => libc::ENOENT,
            Invalid::NoHandle => libc::EBADF,
            Invalid::LengthLimit(_) => libc::EMSGSIZE,
            Invalid::NotRaio | Invalid::Version { .. } => libc::EPROTONOSUPPORT,
            Invalid::Length { .. } | Invalid::Errno(_) | Invalid::NotText(_) => libc::EPROTO,
            Invalid::Flags { .. } | Invalid::NotZero(_) | Invalid::PathNul | Invalid::Range { .. } => {
                libc::EINVAL
            }
        }
    }
}
