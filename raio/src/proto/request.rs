//! Commands: 48 fixed bytes and up to two paths.

use super::{Invalid, Op, OpenFlags};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a command without its paths.
pub const COMMAND_BYTES: usize = 48;

/// The fixed part as it travels.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Command {
    pub(super) op: U16,
    pub(super) flags: U16,
    /// Bytes of the first path, which follows this struct.
    pub(super) path_length: U16,
    /// Bytes of the second path, which follows the first.
    pub(super) second_path_length: U16,
    pub(super) handle: U64,
    pub(super) offset: U64,
    pub(super) length: U64,
    pub(super) open_flags: U32,
    pub(super) mode: U32,
    pub(super) reserved: [u8; 8],
}

const _: () = assert!(size_of::<Command>() == COMMAND_BYTES);

/// An open file at the server: an index and a generation, so that a stale one is told from a live one. Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle(pub u64);

/// What a stat command asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// An open file.
    Handle(Handle),
    /// A path, its last symbolic link followed.
    Path(&'a [u8]),
}

/// A command, decoded and checked; paths are bytes without NUL, from 1 to [`PATH_BYTES_MAX`](super::PATH_BYTES_MAX) of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// Open a file. Answered with a handle and the attributes.
    Open {
        /// Which.
        path: &'a [u8],
        /// How.
        flags: OpenFlags,
        /// Permission bits (at most 0o7777) of a file that is created, less the server's umask.
        mode: u32,
    },
    /// Close it; the handle is stale afterwards.
    Close {
        /// Which file.
        handle: Handle,
    },
    /// Read. Answered with the number of bytes, fewer than asked for at the end of the file only, and the data.
    Read {
        /// Which file.
        handle: Handle,
        /// From this offset in bytes.
        offset: u64,
        /// So many bytes.
        length: u32,
    },
    /// Write the message's data. Answered with the number of bytes written.
    Write {
        /// Which file.
        handle: Handle,
        /// To this offset in bytes.
        offset: u64,
        /// Bytes of the message's data.
        length: u32,
        /// On stable storage (as by fdatasync) before it is answered.
        durable: bool,
    },
    /// Put everything written so far on stable storage.
    Flush {
        /// Which file.
        handle: Handle,
        /// Leave out metadata that is not needed to read the data back.
        data_only: bool,
    },
    /// Give the storage of a range back.
    Discard {
        /// Which file.
        handle: Handle,
        /// First byte.
        offset: u64,
        /// Number of bytes, more than 0.
        length: u64,
    },
    /// Set the size.
    Truncate {
        /// Which file.
        handle: Handle,
        /// In bytes.
        size: u64,
    },
    /// Answered with attributes.
    Stat(Target<'a>),
    /// Answered with entries as the message's data, and a cookie to go on with.
    List {
        /// The directory.
        path: &'a [u8],
        /// 0 for the start, else the last answer's.
        cookie: u64,
    },
    /// Remove a name.
    Unlink {
        /// Which.
        path: &'a [u8],
        /// It is an (empty) directory.
        directory: bool,
    },
    /// Give a file another name in the same export.
    Rename {
        /// The name now.
        from: &'a [u8],
        /// The new one.
        to: &'a [u8],
        /// Fail if the new name exists, rather than replace it.
        no_replace: bool,
    },
    /// Answered with [`ServerInfo`](super::ServerInfo) as the message's data.
    Info,
}

/// The one flag of write, flush, unlink and rename.
pub(super) const FLAG: u16 = 1;

impl<'a> Request<'a> {
    /// Its number.
    #[must_use]
    #[inline]
    pub fn op(&self) -> Op {
        match self {
            Request::Open { .. } => Op::Open,
            Request::Close { .. } => Op::Close,
            Request::Read { .. } => Op::Read,
            Request::Write { .. } => Op::Write,
            Request::Flush { .. } => Op::Flush,
            Request::Discard { .. } => Op::Discard,
            Request::Truncate { .. } => Op::Truncate,
            Request::Stat(_) => Op::Stat,
            Request::List { .. } => Op::List,
            Request::Unlink { .. } => Op::Unlink,
            Request::Rename { .. } => Op::Rename,
            Request::Info => Op::Info,
        }
    }

    /// Checks it and writes its bytes over `out`, whose memory is used again.
    ///
    /// # Errors
    /// The rule that it breaks; `out` is empty then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), Invalid> {
        out.clear();
        self.check()?;
        self.write(out);
        Ok(())
    }

    /// As [`Request::encode`], of a command that was checked.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.clear();
        let (path, second) = self.paths();
        out.extend_from_slice(&self.fixed());
        out.extend_from_slice(path);
        out.extend_from_slice(second);
    }

    /// What follows the fixed part.
    #[inline]
    fn paths(&self) -> (&[u8], &[u8]) {
        match *self {
            Request::Open { path, .. }
            | Request::Stat(Target::Path(path))
            | Request::List { path, .. }
            | Request::Unlink { path, .. } => (path, &[]),
            Request::Rename { from, to, .. } => (from, to),
            _ => (&[], &[]),
        }
    }

    /// The fixed part, of a command that was checked: all of a command without paths.
    #[inline]
    pub(crate) fn fixed(&self) -> [u8; COMMAND_BYTES] {
        let (path, second) = self.paths();
        let (mut flags, mut handle, mut offset, mut length, mut open_flags, mut mode) = (0, 0, 0, 0, 0, 0);
        match *self {
            Request::Open { flags: how, mode: bits, .. } => (open_flags, mode) = (how.bits(), bits),
            Request::Close { handle: Handle(file) } => handle = file,
            Request::Read { handle: Handle(file), offset: at, length: bytes } => {
                (handle, offset, length) = (file, at, u64::from(bytes));
            }
            Request::Write { handle: Handle(file), offset: at, length: bytes, durable } => {
                (handle, offset, length, flags) = (file, at, u64::from(bytes), u16::from(durable));
            }
            Request::Flush { handle: Handle(file), data_only } => {
                (handle, flags) = (file, u16::from(data_only))
            }
            Request::Discard { handle: Handle(file), offset: at, length: bytes } => {
                (handle, offset, length) = (file, at, bytes);
            }
            Request::Truncate { handle: Handle(file), size } => (handle, length) = (file, size),
            Request::Stat(Target::Handle(Handle(file))) => handle = file,
            Request::List { cookie, .. } => offset = cookie,
            Request::Unlink { directory, .. } => flags = u16::from(directory),
            Request::Rename { no_replace, .. } => flags = u16::from(no_replace),
            Request::Stat(Target::Path(_)) | Request::Info => {}
        }
        let command = Command {
            op: U16::new(self.op() as u16),
            flags: U16::new(flags),
            // `check` has seen that both are at most PATH_BYTES_MAX.
            path_length: U16::new(path.len() as u16),
            second_path_length: U16::new(second.len() as u16),
            handle: U64::new(handle),
            offset: U64::new(offset),
            length: U64::new(length),
            open_flags: U32::new(open_flags),
            mode: U32::new(mode),
            reserved: [0; 8],
        };
        zerocopy::transmute!(command)
    }

    /// Decodes and checks the header of a request that came with `data_length` bytes of data.
    ///
    /// # Errors
    /// The rule that it breaks; a server answers with its errno.
    #[inline]
    pub fn decode(header: &'a [u8], data_length: usize) -> Result<Request<'a>, Invalid> {
        let (command, paths) = Command::ref_from_prefix(header).map_err(|_| Invalid::Length {
            what: "command",
            found: header.len() as u64,
            expected: COMMAND_BYTES as u64,
        })?;
        let op = Op::from_number(command.op.get())?;
        let lengths = (usize::from(command.path_length.get()), usize::from(command.second_path_length.get()));
        if lengths.0 + lengths.1 != paths.len() {
            return Err(Invalid::Length {
                what: "paths",
                found: paths.len() as u64,
                expected: (lengths.0 + lengths.1) as u64,
            });
        }
        let (path, second) = paths.split_at(lengths.0);
        let handle = Handle(command.handle.get());
        let (offset, length) = (command.offset.get(), command.length.get());
        let flag = command.flags.get() & FLAG != 0;
        let fits = |length| u32::try_from(length).map_err(|_| Invalid::LengthLimit(length));
        let request = match op {
            Op::Open => {
                let flags = OpenFlags::from_bits(command.open_flags.get())?;
                Request::Open { path, flags, mode: command.mode.get() }
            }
            Op::Close => Request::Close { handle },
            Op::Read => Request::Read { handle, offset, length: fits(length)? },
            Op::Write => Request::Write { handle, offset, length: fits(length)?, durable: flag },
            Op::Flush => Request::Flush { handle, data_only: flag },
            Op::Discard => Request::Discard { handle, offset, length },
            Op::Truncate => Request::Truncate { handle, size: length },
            Op::Stat if path.is_empty() => Request::Stat(Target::Handle(handle)),
            Op::Stat => Request::Stat(Target::Path(path)),
            Op::List => Request::List { path, cookie: offset },
            Op::Unlink => Request::Unlink { path, directory: flag },
            Op::Rename => Request::Rename { from: path, to: second, no_replace: flag },
            Op::Info => Request::Info,
        };
        request.check()?;
        request.check_unused(command, data_length)?;
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::super::PATH_BYTES_MAX;
    use super::*;

    const FILE: Handle = Handle(0x0000_0002_0000_0001);

    fn all() -> Vec<Request<'static>> {
        let create = OpenFlags::READ.with(OpenFlags::WRITE).with(OpenFlags::CREATE);
        vec![
            Request::Open { path: b"/data/\xff", flags: create, mode: 0o644 },
            Request::Close { handle: FILE },
            Request::Read { handle: FILE, offset: 4096, length: 512 },
            Request::Write { handle: FILE, offset: 1 << 40, length: 77, durable: true },
            Request::Flush { handle: FILE, data_only: true },
            Request::Discard { handle: FILE, offset: 0, length: 1 << 50 },
            Request::Truncate { handle: FILE, size: i64::MAX as u64 },
            Request::Stat(Target::Handle(FILE)),
            Request::Stat(Target::Path(b"/")),
            Request::List { path: b"/data", cookie: u64::MAX },
            Request::Unlink { path: b"/data/x", directory: true },
            Request::Rename { from: b"/data/x", to: b"/data/yy", no_replace: true },
            Request::Info,
        ]
    }

    fn data_length(request: &Request<'_>) -> usize {
        if let Request::Write { length, .. } = request { *length as usize } else { 0 }
    }

    #[test]
    fn every_command_goes_there_and_back() {
        let mut bytes = Vec::new();
        for request in all() {
            request.encode(&mut bytes).unwrap();
            assert_eq!(Request::decode(&bytes, data_length(&request)), Ok(request));
        }
    }

    #[test]
    fn golden_bytes() {
        let mut bytes = Vec::new();
        let write = Request::Write { handle: FILE, offset: 0x1122_3344, length: 0x55, durable: true };
        write.encode(&mut bytes).unwrap();
        let golden = [
            4, 0, 1, 0, 0, 0, 0, 0, // op, flags, path lengths
            1, 0, 0, 0, 2, 0, 0, 0, // handle
            0x44, 0x33, 0x22, 0x11, 0, 0, 0, 0, // offset
            0x55, 0, 0, 0, 0, 0, 0, 0, // length
            0, 0, 0, 0, 0, 0, 0, 0, // open flags, mode
            0, 0, 0, 0, 0, 0, 0, 0, // reserved
        ];
        assert_eq!(bytes, golden);
        let open = Request::Open { path: b"/a", flags: OpenFlags::READ.with(OpenFlags::DIRECT), mode: 0o600 };
        open.encode(&mut bytes).unwrap();
        let golden =
            [&[1, 0, 0, 0, 2, 0, 0, 0][..], &[0; 24], &[0x41, 0, 0, 0, 0x80, 1, 0, 0], &[0; 8], b"/a"]
                .concat();
        assert_eq!(bytes, golden);
    }

    #[test]
    fn a_cut_or_lengthened_command_is_refused() {
        let mut bytes = Vec::new();
        for request in all() {
            request.encode(&mut bytes).unwrap();
            for length in 0..bytes.len() {
                assert!(
                    Request::decode(&bytes[..length], data_length(&request)).is_err(),
                    "{request:?} at {length}"
                );
            }
            bytes.push(b'x');
            assert!(Request::decode(&bytes, data_length(&request)).is_err());
            bytes.pop();
            assert!(Request::decode(&bytes, data_length(&request) + 1).is_err());
        }
    }

    #[test]
    fn a_changed_byte_is_refused_or_means_something_else() {
        let mut bytes = Vec::new();
        let mut again = Vec::new();
        for request in all() {
            request.encode(&mut bytes).unwrap();
            for index in 0..bytes.len() {
                for bit in 0..8 {
                    bytes[index] ^= 1 << bit;
                    if let Ok(other) = Request::decode(&bytes, data_length(&request)) {
                        assert_ne!(other, request, "byte {index} has no meaning");
                        other.encode(&mut again).unwrap();
                        assert_eq!(again, bytes);
                    }
                    bytes[index] ^= 1 << bit;
                }
            }
        }
    }

    #[test]
    fn ranges_end_below_the_largest_offset() {
        let mut out = Vec::new();
        for (offset, length, fits) in [
            (i64::MAX as u64, 0, true),
            (i64::MAX as u64 - 1, 1, true),
            (i64::MAX as u64, 1, false),
            (u64::MAX, 1, false),
            (1 << 63, 0, false),
        ] {
            let read = Request::Read { handle: FILE, offset, length };
            assert_eq!(read.encode(&mut out).is_ok(), fits, "{read:?}");
        }
        let nothing = Request::Discard { handle: FILE, offset: 0, length: 0 };
        assert!(matches!(nothing.encode(&mut out), Err(Invalid::Range { .. })));
    }

    #[test]
    fn paths_are_bounded_and_have_no_nul() {
        let mut out = Vec::new();
        let long = vec![b'a'; PATH_BYTES_MAX + 1];
        for (path, expected) in [
            (&long[..PATH_BYTES_MAX], Ok(())),
            (&long[..], Err(Invalid::PathTooLong(PATH_BYTES_MAX + 1))),
            (&b"/a\0b"[..], Err(Invalid::PathNul)),
            (&b""[..], Err(Invalid::PathEmpty)),
        ] {
            assert_eq!(Request::List { path, cookie: 0 }.encode(&mut out), expected);
            assert_eq!(
                Request::Rename { from: b"/x", to: path, no_replace: false }.encode(&mut out),
                expected
            );
        }
        assert_eq!(Request::Close { handle: Handle(0) }.encode(&mut out), Err(Invalid::NoHandle));
    }
}
