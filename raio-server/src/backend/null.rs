//! The null backend: zeros to read up to its size, and nothing kept of what is written. For measuring everything but
//! the storage, and because programs of R-AIO open `/dev/null` for that.

use super::{Backend, Command, Done, Errno, Memory, OpenFile, Outcome, Step, check_flags, only_itself};
use libxio::{Sgl, zeros};
use raio::proto::{Attributes, ExportKind, OpenFlags};
use std::sync::Arc;

/// Inode that the null device shows; it is the only file of its export.
const INODE: u64 = 1;

/// A file of zeros that takes everything.
#[derive(Debug, Clone)]
pub struct NullBackend {
    /// In bytes.
    size: u64,
}

impl NullBackend {
    /// One of `size` bytes.
    #[must_use]
    pub fn new(size: u64) -> NullBackend {
        NullBackend { size }
    }

    fn attributes(&self, flags: OpenFlags) -> Attributes {
        Attributes {
            size: self.size,
            inode: INODE,
            mode: libc::S_IFCHR | 0o666,
            links: 1,
            block_bytes: 4096,
            logical_block_bytes: 512,
            memory_alignment: 1,
            offset_alignment: 1,
            read_only: !flags.contains(OpenFlags::WRITE),
            ..Attributes::default()
        }
    }
}

impl Backend for NullBackend {
    fn kind(&self) -> ExportKind {
        ExportKind::Null
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn open(&self, name: &[u8], flags: OpenFlags, _mode: u32) -> Result<Arc<dyn OpenFile>, Errno> {
        only_itself(name)?;
        check_flags(flags)?;
        Ok(Arc::new(NullFile { backend: self.clone(), flags }))
    }

    fn stat(&self, name: &[u8]) -> Result<Attributes, Errno> {
        only_itself(name)?;
        Ok(self.attributes(OpenFlags::WRITE))
    }
}

#[derive(Debug)]
struct NullFile {
    backend: NullBackend,
    flags: OpenFlags,
}

impl OpenFile for NullFile {
    fn attributes(&self) -> Result<Attributes, Errno> {
        Ok(self.backend.attributes(self.flags))
    }

    fn start(&self, command: &mut Command, _data: Sgl, _memory: &mut dyn Memory) -> Step {
        let writable = self.flags.contains(OpenFlags::WRITE);
        Step::Ended(match *command {
            Command::Read { .. } if !self.flags.contains(OpenFlags::READ) => Err(libc::EBADF),
            Command::Read { offset, length } => {
                let left = self.backend.size.saturating_sub(offset).min(u64::from(length));
                // At most a u32.
                Ok(Done::Data(zeros(left as usize)))
            }
            Command::Write { .. } | Command::Discard { .. } if !writable => Err(libc::EBADF),
            Command::Write { length, .. } => Ok(Done::Moved(length)),
            Command::Truncate { .. } if !writable => Err(libc::EINVAL),
            Command::Settle { written } => Ok(Done::Moved(written)),
            Command::Flush { .. } | Command::Discard { .. } | Command::Truncate { .. } => Ok(Done::Moved(0)),
            Command::Stat => Ok(Done::Attributes(Box::new(self.backend.attributes(self.flags)))),
        })
    }

    fn block(&self, _command: Command, _memory: Sgl, _done: usize) -> Outcome {
        Err(libc::EIO)
    }
}
