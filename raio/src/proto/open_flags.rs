//! How a file is opened: a bit set of our own, so that the wire does not depend on an architecture's `O_*` values.

use super::Invalid;
use std::fmt;

/// Flags of an open command.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct OpenFlags(u32);

/// The bit on the wire, the flag of open(2), and its name.
const TABLE: [(OpenFlags, libc::c_int, &str); 9] = [
    (OpenFlags::CREATE, libc::O_CREAT, "create"),
    (OpenFlags::EXCLUSIVE, libc::O_EXCL, "exclusive"),
    (OpenFlags::TRUNCATE, libc::O_TRUNC, "truncate"),
    (OpenFlags::DIRECT, libc::O_DIRECT, "direct"),
    (OpenFlags::DIRECTORY, libc::O_DIRECTORY, "directory"),
    (OpenFlags::NO_ATIME, libc::O_NOATIME, "noatime"),
    (OpenFlags::NO_FOLLOW, libc::O_NOFOLLOW, "nofollow"),
    // O_SYNC contains O_DSYNC's bit, so the order matters to `from_os`.
    (OpenFlags::SYNC, libc::O_SYNC, "sync"),
    (OpenFlags::DATA_SYNC, libc::O_DSYNC, "dsync"),
];

/// The kernel's own bit for O_LARGEFILE on x86-64, which 64-bit C libraries define as 0 but some programs pass.
const O_LARGEFILE_KERNEL: libc::c_int = 0o100_000;

/// Flags of open(2) that say something about the caller's process only.
const MEANINGLESS: libc::c_int = libc::O_CLOEXEC
    | libc::O_NOCTTY
    | libc::O_NONBLOCK
    | libc::O_LARGEFILE
    | if cfg!(target_arch = "x86_64") { O_LARGEFILE_KERNEL } else { 0 };

impl OpenFlags {
    /// The file will be read.
    pub const READ: OpenFlags = OpenFlags(1);
    /// The file will be written.
    pub const WRITE: OpenFlags = OpenFlags(1 << 1);
    /// Create it if it does not exist.
    pub const CREATE: OpenFlags = OpenFlags(1 << 2);
    /// With `CREATE`: fail if it exists.
    pub const EXCLUSIVE: OpenFlags = OpenFlags(1 << 3);
    /// Cut it to no bytes; needs `WRITE`.
    pub const TRUNCATE: OpenFlags = OpenFlags(1 << 4);
    /// Refused by every server; it has a bit so that the refusal can say so.
    pub const APPEND: OpenFlags = OpenFlags(1 << 5);
    /// Bypass the server's page cache.
    pub const DIRECT: OpenFlags = OpenFlags(1 << 6);
    /// Fail unless it is a directory.
    pub const DIRECTORY: OpenFlags = OpenFlags(1 << 7);
    /// Leave the access time alone.
    pub const NO_ATIME: OpenFlags = OpenFlags(1 << 8);
    /// Every write is on stable storage, with the metadata needed to read it back, before it is answered.
    pub const DATA_SYNC: OpenFlags = OpenFlags(1 << 9);
    /// As `DATA_SYNC`, with all metadata.
    pub const SYNC: OpenFlags = OpenFlags(1 << 10);
    /// Fail if the last component is a symbolic link.
    pub const NO_FOLLOW: OpenFlags = OpenFlags(1 << 11);

    /// All bits known here.
    const ALL: u32 = (1 << 12) - 1;

    /// Both sets of flags.
    #[must_use]
    pub const fn with(self, other: OpenFlags) -> OpenFlags {
        OpenFlags(self.0 | other.0)
    }

    /// These flags but for those in `other`.
    #[must_use]
    pub const fn without(self, other: OpenFlags) -> OpenFlags {
        OpenFlags(self.0 & !other.0)
    }

    /// Whether all flags of `other` are set.
    #[must_use]
    pub const fn contains(self, other: OpenFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits as they travel.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Checks bits that were received.
    ///
    /// # Errors
    /// [`Invalid::Flags`] for unknown bits or a combination without meaning, [`Invalid::Append`].
    pub fn from_bits(bits: u32) -> Result<OpenFlags, Invalid> {
        let flags = OpenFlags(bits);
        let bad = |bits| Err(Invalid::Flags { what: "open", bits });
        if bits & !Self::ALL != 0 {
            return bad(bits & !Self::ALL);
        }
        if flags.contains(Self::APPEND) {
            return Err(Invalid::Append);
        }
        if bits & (Self::READ.0 | Self::WRITE.0) == 0 {
            return bad(0);
        }
        if flags.contains(Self::TRUNCATE) && !flags.contains(Self::WRITE) {
            return bad(Self::TRUNCATE.0);
        }
        if flags.contains(Self::CREATE.with(Self::DIRECTORY)) {
            return bad(Self::CREATE.with(Self::DIRECTORY).0);
        }
        Ok(flags)
    }

    /// Translates the flags of open(2). Those that only concern the caller's process (O_CLOEXEC, O_NONBLOCK, ...) are
    /// left out.
    ///
    /// # Errors
    /// As [`OpenFlags::from_bits`]; O_PATH, O_TMPFILE and unknown flags are refused.
    pub fn from_os(flags: libc::c_int) -> Result<OpenFlags, Invalid> {
        let mut found = match flags & libc::O_ACCMODE {
            libc::O_RDONLY => Self::READ,
            libc::O_WRONLY => Self::WRITE,
            libc::O_RDWR => Self::READ.with(Self::WRITE),
            other => return Err(Invalid::Flags { what: "open", bits: other.cast_unsigned() }),
        };
        if flags & libc::O_APPEND != 0 {
            return Err(Invalid::Append);
        }
        // O_TMPFILE contains O_DIRECTORY's bit.
        let mut left = flags & !libc::O_ACCMODE & !MEANINGLESS;
        if flags & libc::O_TMPFILE == libc::O_TMPFILE {
            return Err(Invalid::Flags { what: "open", bits: libc::O_TMPFILE.cast_unsigned() });
        }
        for (flag, os, _) in TABLE {
            if left & os == os {
                found = found.with(flag);
                left &= !os;
            }
        }
        if left != 0 {
            return Err(Invalid::Flags { what: "open", bits: left.cast_unsigned() });
        }
        Self::from_bits(found.0)
    }

    /// The flags of open(2).
    #[must_use]
    pub fn to_os(self) -> libc::c_int {
        let access = match (self.contains(Self::READ), self.contains(Self::WRITE)) {
            (true, true) => libc::O_RDWR,
            (false, true) => libc::O_WRONLY,
            _ => libc::O_RDONLY,
        };
        TABLE.iter().filter(|(flag, ..)| self.contains(*flag)).fold(access, |flags, (_, os, _)| flags | os)
    }
}

impl fmt::Debug for OpenFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = [(Self::READ, "read"), (Self::WRITE, "write"), (Self::APPEND, "append")];
        let names = access.iter().copied().chain(TABLE.iter().map(|(flag, _, name)| (*flag, *name)));
        f.debug_set().entries(names.filter(|(flag, _)| self.contains(*flag)).map(|(_, name)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_open_go_there_and_back() {
        for os in [
            libc::O_RDONLY,
            libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
            libc::O_WRONLY | libc::O_TRUNC | libc::O_DIRECT,
            libc::O_RDWR | libc::O_SYNC,
            libc::O_RDWR | libc::O_DSYNC | libc::O_NOATIME,
            libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW,
        ] {
            assert_eq!(OpenFlags::from_os(os).unwrap().to_os(), os, "{os:#o}");
        }
        let caller_only =
            libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_LARGEFILE;
        assert_eq!(OpenFlags::from_os(caller_only), Ok(OpenFlags::READ));
    }

    #[test]
    fn sync_is_told_from_data_sync() {
        assert_eq!(OpenFlags::from_os(libc::O_SYNC), Ok(OpenFlags::READ.with(OpenFlags::SYNC)));
        assert_eq!(OpenFlags::from_os(libc::O_DSYNC), Ok(OpenFlags::READ.with(OpenFlags::DATA_SYNC)));
    }

    #[test]
    fn impossible_flags_are_refused() {
        assert_eq!(OpenFlags::from_os(libc::O_RDWR | libc::O_APPEND), Err(Invalid::Append));
        for os in [
            libc::O_ACCMODE,
            libc::O_RDONLY | libc::O_TRUNC,
            libc::O_RDWR | libc::O_TMPFILE,
            libc::O_PATH,
            libc::O_RDWR | libc::O_CREAT | libc::O_DIRECTORY,
            libc::O_RDONLY | 1 << 30,
        ] {
            assert!(matches!(OpenFlags::from_os(os), Err(Invalid::Flags { .. })), "{os:#o}");
        }
        for bits in [0, 1 << 12, 1 | 1 << 31, 1 | 1 << 4] {
            assert!(matches!(OpenFlags::from_bits(bits), Err(Invalid::Flags { .. })), "{bits:#x}");
        }
    }
}
