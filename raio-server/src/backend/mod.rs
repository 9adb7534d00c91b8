//! What can be exported: a [`Backend`] finds and opens, an [`OpenFile`] reads and writes.
//!
//! Calls of a [`Backend`] and [`OpenFile::block`] may wait for a disk or another machine, so they run off the loop, on
//! the server's few threads for that. [`OpenFile::start`] and [`OpenFile::resume`] run on the worker's loop and must
//! not wait: they end at once, hand an operation to the worker's ring, or ask to be continued off the loop.

mod attributes;
mod huge_pages;
mod memory;
mod null;
mod path;
mod uring;

pub use memory::MemoryBackend;
pub use null::NullBackend;
pub use uring::{DirectoryBackend, FileBackend};

use crate::windows::{FileKey, Windows};
use libxio::{Buffer, Completion, FileOp, Sgl};
use raio::proto::{Attributes, ExportKind, OpenFlags};
use std::sync::Arc;

/// An errno value (Linux numbering).
pub type Errno = i32;

/// What an export stands for. Names are relative to the export, in bytes, without NUL; the export itself is `.`. What is not
/// said otherwise is that of an export of one file.
pub trait Backend: Send + Sync {
    /// What it is.
    fn kind(&self) -> ExportKind;

    /// Size in bytes, 0 for a directory. It may be out of date, but does not wait.
    fn size(&self) -> u64;

    /// Opens a file.
    ///
    /// # Errors
    /// What open(2) says; EISDIR for a directory that was not asked for as one.
    fn open(&self, name: &[u8], flags: OpenFlags, mode: u32) -> Result<Arc<dyn OpenFile>, Errno>;

    /// Attributes of a name, its last symbolic link followed.
    ///
    /// # Errors
    /// What stat(2) says.
    fn stat(&self, name: &[u8]) -> Result<Attributes, Errno>;

    /// Entries of a directory from `cookie` on (0: the first), in at most `room` bytes.
    ///
    /// # Errors
    /// What getdents(2) says; ENOTDIR.
    fn list(&self, name: &[u8], cookie: u64, room: usize) -> Result<Listing, Errno> {
        let _ = (name, cookie, room);
        Err(libc::ENOTDIR)
    }

    /// Removes a name.
    ///
    /// # Errors
    /// What unlink(2) says.
    fn unlink(&self, name: &[u8], directory: bool) -> Result<(), Errno> {
        let _ = directory;
        only_itself(name)?;
        Err(self.stays())
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// What rename(2) says.
    fn rename(&self, from: &[u8], to: &[u8], no_replace: bool) -> Result<(), Errno> {
        let _ = (to, no_replace);
        only_itself(from)?;
        Err(self.stays())
    }

    /// What who would remove or rename an export hears that is one file.
    fn stays(&self) -> Errno {
        libc::EPERM
    }
}

/// A part of a directory.
#[derive(Debug)]
pub struct Listing {
    /// Packed by [`raio::proto::EntryWriter`].
    pub bytes: Vec<u8>,
    /// Where to go on.
    pub cookie: u64,
    /// Whether there is more.
    pub more: bool,
}

/// What an open file is asked for. Offsets and ends of ranges fit `i64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Bytes from an offset on, fewer than `length` at the end only.
    Read {
        /// In bytes.
        offset: u64,
        /// In bytes.
        length: u32,
    },
    /// The data to an offset.
    Write {
        /// In bytes.
        offset: u64,
        /// Bytes of the data.
        length: u32,
        /// On stable storage before it is answered.
        durable: bool,
    },
    /// The last part of a durable write: so many bytes were taken and go to stable storage.
    Settle {
        /// In bytes.
        written: u32,
    },
    /// All that was written to stable storage.
    Flush {
        /// Without metadata that is not needed to read the data back.
        data_only: bool,
    },
    /// A range's storage back.
    Discard {
        /// In bytes.
        offset: u64,
        /// In bytes.
        length: u64,
    },
    /// Another size.
    Truncate {
        /// In bytes.
        size: u64,
    },
    /// Attributes.
    Stat,
}

/// How a command has ended well.
#[derive(Debug)]
pub enum Done {
    /// So many bytes written; 0 for commands that move none.
    Moved(u32),
    /// These bytes read.
    Data(Sgl),
    /// These attributes.
    Attributes(Box<Attributes>),
}

/// How a command has ended.
pub type Outcome = Result<Done, Errno>;

/// What a command needs next.
#[derive(Debug)]
pub enum Step {
    /// Nothing: it has ended.
    Ended(Outcome),
    /// This operation on the worker's ring, then [`OpenFile::resume`].
    Ring(FileOp),
    /// [`OpenFile::block`] off the loop, with this memory and so many bytes of it done.
    Block(Sgl, usize),
    /// Memory, which there is none of now. The command comes again with its data.
    Memory(Sgl),
}

/// Where memory for a command comes from.
pub trait Memory {
    /// A buffer of `length` bytes for the data of a response; `None` when there is none now.
    ///
    /// # Errors
    /// EMSGSIZE above what the client has room for.
    fn response_buffer(&mut self, length: usize) -> Result<Option<Buffer>, Errno>;

    /// A buffer of `length` bytes; `None` when there is none now.
    fn buffer(&mut self, length: usize) -> Option<Buffer>;

    /// The worker's windows onto files in the page cache, if it has such.
    fn windows(&mut self) -> Option<&mut Windows> {
        None
    }
}

/// An open file.
pub trait OpenFile: Send + Sync {
    /// Attributes at the time of the call, which may wait.
    ///
    /// # Errors
    /// What fstat(2) says.
    fn attributes(&self) -> Result<Attributes, Errno>;

    /// A command is about to be started, after another that is first: time to ask for memory that it needs. Nothing hangs on it.
    fn expect(&self, command: &Command, windows: Option<&Windows>) {
        let _ = (command, windows);
    }

    /// Begins a command; runs on the loop and does not wait.
    fn start(&self, command: &mut Command, data: Sgl, memory: &mut dyn Memory) -> Step;

    /// Goes on after an operation of the ring; runs on the loop and does not wait. A file that hands none to it has nothing to
    /// go on with.
    fn resume(&self, command: &mut Command, completion: Completion) -> Step {
        let _ = (command, completion);
        Step::Ended(Err(libc::EIO))
    }

    /// Whether its data goes past the page cache: memory for it is worth pinning.
    fn is_direct(&self) -> bool {
        false
    }

    /// Which file it is, if it may have windows.
    fn windows_key(&self) -> Option<FileKey> {
        None
    }

    /// Does the rest of a command from byte `done` of its memory on; runs off the loop and may wait.
    fn block(&self, command: Command, memory: Sgl, done: usize) -> Outcome;
}

/// EOK for the export itself, else the errno that a path below a file gets.
fn only_itself(name: &[u8]) -> Result<(), Errno> {
    if name == b"." { Ok(()) } else { Err(libc::ENOTDIR) }
}

/// Whether a file of one export can be opened so.
fn check_flags(flags: OpenFlags) -> Result<(), Errno> {
    if flags.contains(OpenFlags::DIRECTORY) {
        return Err(libc::ENOTDIR);
    }
    if flags.contains(OpenFlags::CREATE.with(OpenFlags::EXCLUSIVE)) {
        return Err(libc::EEXIST);
    }
    Ok(())
}

/// The errno of a failed call.
fn errno(cause: &std::io::Error) -> Errno {
    cause.raw_os_error().unwrap_or(libc::EIO)
}
