//! What a client can ask of a server, and what comes back: the owned counterparts of [`proto`](crate::proto).

use crate::Error;
use crate::engine::pool_bytes;
use crate::proto::{
    Attributes, FileKind, Handle, INFO_BYTES_MAX, LIST_BYTES_MAX, Op, OpenFlags, Request, ServerInfo, Target,
};
use libxio::{Landing, Sgl};

/// Something to ask the server for.
#[derive(Debug)]
#[non_exhaustive]
pub enum Operation {
    /// Open a file, in [`Outcome::Opened`].
    Open {
        /// Its path at the server, with the export's name in front.
        path: Vec<u8>,
        /// How.
        flags: OpenFlags,
        /// Permission bits of a file that is created, less the server's umask.
        mode: u32,
    },
    /// Close it.
    Close {
        /// Which.
        handle: Handle,
    },
    /// Read, in [`Outcome::Read`].
    Read {
        /// From which file.
        handle: Handle,
        /// At which offset in bytes.
        offset: u64,
        /// How many bytes; at most [`EngineLimits::io_bytes_max`](crate::EngineLimits::io_bytes_max).
        length: u32,
        /// Where the data lands: memory with room for `length` bytes.
        landing: Landing,
    },
    /// Write, in [`Outcome::Written`].
    Write {
        /// To which file.
        handle: Handle,
        /// At which offset in bytes.
        offset: u64,
        /// What; at most [`EngineLimits::io_bytes_max`](crate::EngineLimits::io_bytes_max) bytes.
        data: Sgl,
        /// On stable storage before it is answered.
        durable: bool,
    },
    /// Put what was written on stable storage.
    Flush {
        /// Of which file.
        handle: Handle,
        /// Leave out metadata that is not needed to read the data back.
        data_only: bool,
    },
    /// Give the storage of a range back; it reads as zeros.
    Discard {
        /// Of which file.
        handle: Handle,
        /// First byte.
        offset: u64,
        /// Number of bytes, more than 0.
        length: u64,
    },
    /// Set the size.
    Truncate {
        /// Of which file.
        handle: Handle,
        /// In bytes.
        size: u64,
    },
    /// Look up attributes, in [`Outcome::Attributes`].
    Stat(StatTarget),
    /// A part of a directory, in [`Outcome::Entries`].
    List {
        /// Which directory.
        path: Vec<u8>,
        /// 0 for the start, else the last outcome's.
        cookie: u64,
    },
    /// Remove a name.
    Unlink {
        /// Which.
        path: Vec<u8>,
        /// It is an empty directory.
        directory: bool,
    },
    /// Give a file another name in its export.
    Rename {
        /// The name now.
        from: Vec<u8>,
        /// The new one.
        to: Vec<u8>,
        /// Fail if the new name exists.
        no_replace: bool,
    },
    /// What the server is, in [`Outcome::Info`].
    Info,
}

/// What to look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatTarget {
    /// An open file.
    Handle(Handle),
    /// A path, its last symbolic link followed.
    Path(Vec<u8>),
}

impl Operation {
    /// Its command, borrowed, as it goes on the wire.
    #[inline]
    pub(crate) fn request(&self) -> Request<'_> {
        match self {
            Operation::Open { path, flags, mode } => Request::Open { path, flags: *flags, mode: *mode },
            Operation::Close { handle } => Request::Close { handle: *handle },
            Operation::Read { handle, offset, length, landing: _ } => {
                Request::Read { handle: *handle, offset: *offset, length: *length }
            }
            Operation::Write { handle, offset, data, durable } => Request::Write {
                handle: *handle,
                offset: *offset,
                // A list holds at most `u32::MAX` bytes.
                length: data.len() as u32,
                durable: *durable,
            },
            Operation::Flush { handle, data_only } => {
                Request::Flush { handle: *handle, data_only: *data_only }
            }
            Operation::Discard { handle, offset, length } => {
                Request::Discard { handle: *handle, offset: *offset, length: *length }
            }
            Operation::Truncate { handle, size } => Request::Truncate { handle: *handle, size: *size },
            Operation::Stat(StatTarget::Handle(handle)) => Request::Stat(Target::Handle(*handle)),
            Operation::Stat(StatTarget::Path(path)) => Request::Stat(Target::Path(path)),
            Operation::List { path, cookie } => Request::List { path, cookie: *cookie },
            Operation::Unlink { path, directory } => Request::Unlink { path, directory: *directory },
            Operation::Rename { from, to, no_replace } => {
                Request::Rename { from, to, no_replace: *no_replace }
            }
            Operation::Info => Request::Info,
        }
    }

    /// Most that its answer will take from the pool, in bytes.
    #[inline]
    pub(crate) fn pool_bytes(&self) -> usize {
        match self {
            Operation::Read { landing, .. } => pool_bytes(landing),
            Operation::List { .. } => pool_bytes(&Landing::Pool(LIST_BYTES_MAX as u32)),
            Operation::Info => pool_bytes(&Landing::Pool(INFO_BYTES_MAX as u32)),
            _ => 0,
        }
    }

    /// Takes out what travels beside the command: the data to write, and where the answer's data land.
    #[inline]
    pub(crate) fn into_memory(self) -> (Sgl, Landing) {
        match self {
            Operation::Write { data, .. } => (data, Landing::None),
            Operation::Read { landing, .. } => (Sgl::new(), landing),
            Operation::List { .. } => (Sgl::new(), Landing::Pool(LIST_BYTES_MAX as u32)),
            Operation::Info => (Sgl::new(), Landing::Pool(INFO_BYTES_MAX as u32)),
            _ => (Sgl::new(), Landing::None),
        }
    }

    /// The number of its command.
    #[must_use]
    #[inline]
    pub fn op(&self) -> Op {
        match self {
            Operation::Open { .. } => Op::Open,
            Operation::Close { .. } => Op::Close,
            Operation::Read { .. } => Op::Read,
            Operation::Write { .. } => Op::Write,
            Operation::Flush { .. } => Op::Flush,
            Operation::Discard { .. } => Op::Discard,
            Operation::Truncate { .. } => Op::Truncate,
            Operation::Stat(_) => Op::Stat,
            Operation::List { .. } => Op::List,
            Operation::Unlink { .. } => Op::Unlink,
            Operation::Rename { .. } => Op::Rename,
            Operation::Info => Op::Info,
        }
    }
}

/// How an operation ended well.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The file is open.
    Opened {
        /// Names it in later operations on this connection.
        handle: Handle,
        /// What is known about it.
        attributes: Box<Attributes>,
    },
    /// Bytes were read, fewer than asked for only at the end of the file.
    Read {
        /// How many.
        bytes: u32,
        /// Where they landed, cut to their number.
        data: Sgl,
    },
    /// Bytes were written.
    Written {
        /// How many.
        bytes: u32,
    },
    /// A file was looked up.
    Attributes(Box<Attributes>),
    /// A part of a directory.
    Entries {
        /// The names.
        entries: Vec<Entry>,
        /// Go on with this.
        cookie: u64,
        /// There is more.
        more: bool,
    },
    /// What the server is.
    Info(Box<ServerInfo>),
    /// Done; there is nothing to tell.
    Done,
}

impl Outcome {
    /// Bytes read or written; 0 for anything else.
    #[must_use]
    #[inline]
    pub fn bytes(&self) -> usize {
        match self {
            Outcome::Read { bytes, .. } | Outcome::Written { bytes } => *bytes as usize,
            _ => 0,
        }
    }

    /// The data that was read; empty for anything else.
    #[must_use]
    pub fn into_data(self) -> Sgl {
        match self {
            Outcome::Read { data, .. } => data,
            _ => Sgl::new(),
        }
    }

    /// An outcome that the engine never gives for this operation.
    pub(crate) fn unexpected(op: Op) -> Error {
        Error::Operation { op, path: None, errno: libc::EPROTO }
    }
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name: bytes without NUL and `/`.
    pub name: Vec<u8>,
    /// `st_mode` of the name itself (links are not followed).
    pub mode: u32,
    /// Size in bytes.
    pub size: u64,
    /// Last change of the content, in nanoseconds since 1970.
    pub modified_ns: i64,
}

impl Entry {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        FileKind::from_mode(self.mode)
    }
}

/// An operation has ended.
#[derive(Debug)]
pub struct Completion {
    /// The token given with it.
    pub token: u64,
    /// How.
    pub result: Result<Outcome, Error>,
}
