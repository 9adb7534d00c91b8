//! Files, devices and directories. Data goes through the worker's ring; what is in memory already is taken without it.
//!
//! A read of a buffered file is copied from one of the worker's [`Windows`](crate::windows::Windows), if one shows it. Else it is
//! first tried with `RWF_NOWAIT`: from the page cache it is done at once, with no completion to wait for. What the device has
//! to be waited for goes to the ring, and so does all of O_DIRECT. Only what is left over after an early return of the
//! kernel is done off the loop.

use super::{
    Backend, Command, Done, Errno, Listing, Memory, OpenFile, Outcome, Step, attributes, errno, only_itself,
    path,
};
use crate::windows::{FileKey, Windows};
use libxio::{Buffer, Completion, FileOp, Sgl};
use raio::proto::{Attributes, DirectoryEntry, EntryWriter, ExportKind, FileKind, OpenFlags};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, Mode, OFlags, RawDir, RenameFlags, SeekFrom, StatxFlags, fcntl_getfl,
    fcntl_setfl, fstatfs, ftruncate, open as open_path, renameat_with, seek, statx, unlinkat,
};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Permission bits that a client may give to a new file: no set-user-ID, set-group-ID or sticky bit.
const MODE_MASK: u32 = 0o777;

/// Names read from the kernel at a time, in bytes.
const NAMES_BYTES: usize = 32 << 10;

/// What the smallest buffers are aligned to, in bytes.
const SMALL_ALIGNMENT: usize = 512;

/// f_type of tmpfs and ramfs (statfs(2)): there is no device to wait for, and no RWF_NOWAIT.
const MEMORY_FILE_SYSTEMS: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// ext2 to ext4, XFS, btrfs, F2FS. They are known to keep RWF_DSYNC's promise, which others may ignore (FUSE did); and what a
/// mapping shows is what a read gives, since both are the page cache.
const KNOWN_FILE_SYSTEMS: [i64; 4] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010];

/// A directory and everything beneath it.
#[derive(Debug)]
pub struct DirectoryBackend {
    root: OwnedFd,
}

impl DirectoryBackend {
    /// Over a directory.
    ///
    /// # Errors
    /// What open(2) says.
    pub fn open(path: &Path) -> Result<DirectoryBackend, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = open_path(path, flags, Mode::empty()).map_err(|cause| cause.raw_os_error())?;
        Ok(DirectoryBackend { root })
    }
}

impl Backend for DirectoryBackend {
    fn kind(&self) -> ExportKind {
        ExportKind::Directory
    }

    fn size(&self) -> u64 {
        0
    }

    fn open(&self, name: &[u8], flags: OpenFlags, mode: u32) -> Result<Arc<dyn OpenFile>, Errno> {
        let (os, mode) = os_flags(flags, mode);
        let fd = path::open(self.root.as_fd(), name, os, mode)?;
        Ok(Arc::new(UringFile::new(fd, flags)?))
    }

    fn stat(&self, name: &[u8]) -> Result<Attributes, Errno> {
        let found = path::open(self.root.as_fd(), name, OFlags::PATH, Mode::empty())?;
        let attributes = attributes::of(found.as_fd())?;
        // The size of a device, and a generation, are told by the open file only. Where it may not be read there is
        // none, which is no reason to tell nothing.
        if matches!(attributes.kind(), FileKind::BlockDevice | FileKind::File) {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
            if let Ok(opened) = path::open(self.root.as_fd(), name, flags, Mode::empty()) {
                return attributes::of(opened.as_fd());
            }
        }
        Ok(attributes)
    }

    fn list(&self, name: &[u8], cookie: u64, room: usize) -> Result<Listing, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let directory = path::open(self.root.as_fd(), name, flags, Mode::empty())?;
        list(&directory, cookie, room).map_err(|cause| cause.raw_os_error())
    }

    fn unlink(&self, name: &[u8], directory: bool) -> Result<(), Errno> {
        let (parent, last) = path::open_parent(self.root.as_fd(), name)?;
        let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        unlinkat(&parent, last, flags).map_err(|cause| cause.raw_os_error())
    }

    fn rename(&self, from: &[u8], to: &[u8], no_replace: bool) -> Result<(), Errno> {
        let (from_parent, from_last) = path::open_parent(self.root.as_fd(), from)?;
        let (to_parent, to_last) = path::open_parent(self.root.as_fd(), to)?;
        let flags = if no_replace { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
        renameat_with(&from_parent, from_last, &to_parent, to_last, flags)
            .map_err(|cause| cause.raw_os_error())
    }
}

/// Packs the entries of a directory from `cookie` on.
fn list(directory: &OwnedFd, cookie: u64, room: usize) -> rustix::io::Result<Listing> {
    // A cookie is whatever the file system gave out as the position after an entry; for one that a client made up it
    // gives some other entries, or none.
    seek(directory, SeekFrom::Start(cookie & i64::MAX as u64))?;
    let mut names: Vec<u8> = Vec::with_capacity(NAMES_BYTES);
    let mut reader = RawDir::new(directory, names.spare_capacity_mut());
    let mut entries = EntryWriter::new(room);
    let mut cookie = cookie;
    while let Some(entry) = reader.next() {
        let entry = entry?;
        let name = entry.file_name();
        let next = entry.next_entry_cookie();
        if matches!(name.to_bytes(), b"." | b"..") {
            cookie = next;
            continue;
        }
        let wanted = StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::SIZE | StatxFlags::MTIME;
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        // Removed meanwhile: it is not there. Other troubles leave the name.
        let (mode, size, modified_ns) = match statx(directory, name, flags, wanted) {
            Ok(found) => {
                let time = found.stx_mtime;
                let seconds = time.tv_sec.saturating_mul(1_000_000_000);
                (u32::from(found.stx_mode), found.stx_size, seconds.saturating_add(i64::from(time.tv_nsec)))
            }
            Err(rustix::io::Errno::NOENT) => {
                cookie = next;
                continue;
            }
            Err(_) => (entry.file_type().as_raw_mode(), 0, 0),
        };
        let fits = entries.push(&DirectoryEntry { mode, size, modified_ns, name: name.to_bytes() });
        if !fits {
            if entries.is_empty() {
                // The client has no room for even one.
                return Err(rustix::io::Errno::MSGSIZE);
            }
            return Ok(Listing { bytes: entries.finish(), cookie, more: true });
        }
        cookie = next;
    }
    Ok(Listing { bytes: entries.finish(), cookie, more: false })
}

/// One file or block device.
#[derive(Debug)]
pub struct FileBackend {
    path: PathBuf,
    kind: ExportKind,
    /// As it was last seen, in bytes.
    size: AtomicU64,
}

impl FileBackend {
    /// Over a file or block device that exists.
    ///
    /// # Errors
    /// What open(2) says; EINVAL for anything else than a file or block device.
    pub fn open(path: &Path) -> Result<FileBackend, Errno> {
        let found = FileBackend::look(path)?;
        let kind = match found.kind() {
            FileKind::File => ExportKind::File,
            FileKind::BlockDevice => ExportKind::BlockDevice,
            _ => return Err(libc::EINVAL),
        };
        Ok(FileBackend { path: path.to_owned(), kind, size: AtomicU64::new(found.size) })
    }

    fn look(path: &Path) -> Result<Attributes, Errno> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = open_path(path, flags, Mode::empty()).map_err(|cause| cause.raw_os_error())?;
        attributes::of(fd.as_fd())
    }
}

impl Backend for FileBackend {
    fn kind(&self) -> ExportKind {
        self.kind
    }

    fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    fn open(&self, name: &[u8], flags: OpenFlags, mode: u32) -> Result<Arc<dyn OpenFile>, Errno> {
        only_itself(name)?;
        let (os, mode) = os_flags(flags, mode);
        let fd = rustix::fs::openat(CWD, &self.path, os | OFlags::CLOEXEC, mode)
            .map_err(|cause| cause.raw_os_error())?;
        let file = UringFile::new(fd, flags)?;
        self.size.store(file.attributes()?.size, Ordering::Relaxed);
        Ok(Arc::new(file))
    }

    fn stat(&self, name: &[u8]) -> Result<Attributes, Errno> {
        only_itself(name)?;
        let found = FileBackend::look(&self.path)?;
        self.size.store(found.size, Ordering::Relaxed);
        Ok(found)
    }

    fn stays(&self) -> Errno {
        libc::EBUSY
    }
}

/// The flags and mode of open(2). `O_NONBLOCK` keeps the open of a pipe from waiting for its other end.
fn os_flags(flags: OpenFlags, mode: u32) -> (OFlags, Mode) {
    // The bits of open(2) are not negative.
    let os = OFlags::from_bits_retain(flags.to_os() as u32) | OFlags::NONBLOCK | OFlags::NOCTTY;
    // Without O_CREAT openat2 refuses a mode.
    let mode = if flags.contains(OpenFlags::CREATE) { mode & MODE_MASK } else { 0 };
    (os, Mode::from_raw_mode(mode))
}

/// How a file's data can be moved without waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direct {
    /// By `RWF_NOWAIT`, as far as the page cache has it.
    Cached,
    /// Always: the file system is memory.
    Memory,
    /// Never: O_DIRECT.
    Never,
}

/// An open file or device.
#[derive(Debug)]
struct UringFile {
    fd: OwnedFd,
    flags: OpenFlags,
    direct: Direct,
    /// Memory alignment for O_DIRECT in bytes, else 1.
    alignment: usize,
    /// `RWF_NOWAIT` was not refused yet, for reads and for writes.
    read_now: AtomicBool,
    write_now: AtomicBool,
    /// Which file it is, if reads may be copied out of mappings.
    windows: Option<FileKey>,
    /// A durable write is one operation (RWF_DSYNC) rather than a write and fdatasync; never true again once it is false.
    dsync: AtomicBool,
}

impl UringFile {
    fn new(fd: OwnedFd, flags: OpenFlags) -> Result<UringFile, Errno> {
        let os = |cause: rustix::io::Errno| cause.raw_os_error();
        let found = attributes::of(fd.as_fd())?;
        match found.kind() {
            FileKind::File | FileKind::BlockDevice => {}
            FileKind::Directory if flags.contains(OpenFlags::DIRECTORY) => {}
            FileKind::Directory => return Err(libc::EISDIR),
            // Pipes, sockets and character devices have no offsets.
            _ => return Err(libc::ENXIO),
        }
        // The ring does not wait for files that are open with O_NONBLOCK, but gives EAGAIN.
        fcntl_setfl(&fd, fcntl_getfl(&fd).map_err(os)? - OFlags::NONBLOCK).map_err(os)?;
        let file_system = fstatfs(&fd).map_err(os)?.f_type;
        let direct = if flags.contains(OpenFlags::DIRECT) {
            Direct::Never
        } else if found.kind() == FileKind::File && MEMORY_FILE_SYSTEMS.contains(&file_system) {
            Direct::Memory
        } else {
            Direct::Cached
        };
        let alignment = match direct {
            Direct::Never => (found.memory_alignment as usize).max(512),
            _ => 1,
        };
        let now = direct != Direct::Never;
        let is_known = KNOWN_FILE_SYSTEMS.contains(&file_system);
        let dsync = found.kind() == FileKind::BlockDevice || is_known;
        let is_mapped = is_known
            && found.kind() == FileKind::File
            && direct == Direct::Cached
            && flags.contains(OpenFlags::READ);
        let windows = is_mapped.then_some(FileKey { device: found.device, inode: found.inode });
        Ok(UringFile {
            fd,
            flags,
            direct,
            alignment,
            windows,
            read_now: AtomicBool::new(now),
            write_now: AtomicBool::new(now),
            dsync: AtomicBool::new(dsync),
        })
    }

    fn read(&self, offset: u64, length: usize, memory: &mut dyn Memory) -> Step {
        let buffer = if length < self.alignment && self.alignment > SMALL_ALIGNMENT {
            // Buffers are aligned to their size class: a longer one is aligned better.
            let buffer = memory.buffer(self.alignment).map(|mut buffer| {
                buffer.truncate(length);
                buffer
            });
            Ok(buffer)
        } else {
            memory.response_buffer(length)
        };
        let mut buffer = match buffer {
            Ok(Some(buffer)) => buffer,
            Ok(None) => return Step::Memory(Sgl::new()),
            Err(errno) => return Step::Ended(Err(errno)),
        };
        if self.read_mapped(offset, &mut buffer, memory) {
            return Step::Ended(Ok(Done::Data(buffer.into())));
        }
        let mut list = Sgl::from(buffer);
        if self.read_now.load(Ordering::Relaxed) {
            match self.read_at_once(offset, &mut list) {
                Ok(Some(done)) => {
                    list.truncate(done);
                    return Step::Ended(Ok(Done::Data(list)));
                }
                Ok(None) => self.missed(offset, memory),
                Err(errno) => return Step::Ended(Err(errno)),
            }
        }
        let mut pieces = list.into_pieces();
        match pieces.next() {
            Some(buffer) => Step::Ring(FileOp::Read { fd: self.fd.as_raw_fd(), offset, buffer }),
            None => Step::Ended(Ok(Done::Data(Sgl::new()))),
        }
    }

    /// Whether one of the worker's windows shows the range; then it is in the buffer.
    #[inline]
    fn read_mapped(&self, offset: u64, buffer: &mut Buffer, memory: &mut dyn Memory) -> bool {
        let Some(file) = self.windows else { return false };
        let Some(windows) = memory.windows() else { return false };
        windows.read(file, self.fd.as_fd(), offset, buffer)
    }

    /// Storage of the file is about to be taken away, which a copy out of a window would have to wait for.
    fn will_shrink(&self, memory: &mut dyn Memory) {
        if let (Some(file), Some(windows)) = (self.windows, memory.windows()) {
            windows.refuse(file);
        }
    }

    /// A read goes to the ring: its window is not in memory as a whole.
    fn missed(&self, offset: u64, memory: &mut dyn Memory) {
        if let (Some(file), Some(windows)) = (self.windows, memory.windows()) {
            windows.missed(file, offset);
        }
    }

    /// Reads what can be read without waiting; `None` where that is not all that there is.
    fn read_at_once(&self, offset: u64, list: &mut Sgl) -> Result<Option<usize>, Errno> {
        let mut done = 0;
        while done < list.len() {
            let now = self.direct == Direct::Cached;
            match list.read_file(done, self.fd.as_fd(), offset + done as u64, now) {
                Ok(0) => return Ok(Some(done)),
                Ok(count) => done += count,
                Err(cause) => match errno(&cause) {
                    libc::EAGAIN | libc::EINTR => return Ok(None),
                    libc::EOPNOTSUPP if now => {
                        self.read_now.store(false, Ordering::Relaxed);
                        return Ok(None);
                    }
                    errno => return Err(errno),
                },
            }
        }
        Ok(Some(done))
    }

    fn write(&self, command: &mut Command, offset: u64, data: Sgl) -> Step {
        let durable = matches!(command, Command::Write { durable: true, .. }) && !data.is_empty();
        if durable && self.dsync.load(Ordering::Relaxed) {
            return Step::Ring(FileOp::Write { fd: self.fd.as_raw_fd(), offset, data, durable });
        }
        if self.write_now.load(Ordering::Relaxed) {
            match data.write_file(0, self.fd.as_fd(), offset, self.direct == Direct::Cached) {
                Ok(count) if count == data.len() => return self.written(command, data.len()),
                // A part: the whole again, which changes nothing.
                Ok(_) => {}
                Err(cause) => match errno(&cause) {
                    libc::EAGAIN | libc::EINTR => {}
                    libc::EOPNOTSUPP if self.direct == Direct::Cached => {
                        self.write_now.store(false, Ordering::Relaxed);
                    }
                    errno => return Step::Ended(Err(errno)),
                },
            }
        }
        Step::Ring(FileOp::Write { fd: self.fd.as_raw_fd(), offset, data, durable: false })
    }

    /// The ring has taken all bytes of a write command. What was begun with RWF_DSYNC is durable; if that was refused to
    /// another write meanwhile, this one is made so twice.
    fn written_by_ring(&self, command: &mut Command, bytes: usize) -> Step {
        if bytes > 0 && self.dsync.load(Ordering::Relaxed) {
            return Step::Ended(Ok(Done::Moved(bytes as u32)));
        }
        self.written(command, bytes)
    }

    /// So many bytes of a write command were taken.
    fn written(&self, command: &mut Command, bytes: usize) -> Step {
        // At most the length of a list.
        let written = bytes as u32;
        if let Command::Write { durable: true, .. } = command {
            *command = Command::Settle { written };
            return Step::Ring(FileOp::Sync { fd: self.fd.as_raw_fd(), data_only: true });
        }
        Step::Ended(Ok(Done::Moved(written)))
    }

    /// The rest of a read, waiting for it.
    fn block_read(&self, offset: u64, mut list: Sgl, mut done: usize) -> Outcome {
        while done < list.len() {
            // A direct read that ended off the grid has met the end of the file.
            if self.direct == Direct::Never && !done.is_multiple_of(512) {
                break;
            }
            match list.read_file(done, self.fd.as_fd(), offset + done as u64, false) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(cause) if errno(&cause) == libc::EINTR => {}
                Err(_) if done > 0 => break,
                Err(cause) => return Err(errno(&cause)),
            }
        }
        list.truncate(done);
        Ok(Done::Data(list))
    }

    /// The rest of a write, waiting for it.
    fn block_write(&self, offset: u64, data: &Sgl, mut done: usize, durable: bool) -> Outcome {
        while done < data.len() {
            match data.write_file(done, self.fd.as_fd(), offset + done as u64, false) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(cause) if errno(&cause) == libc::EINTR => {}
                // What was taken is told; who goes on with the rest meets the error.
                Err(_) if done > 0 => break,
                Err(cause) => return Err(errno(&cause)),
            }
        }
        if durable {
            rustix::fs::fdatasync(&self.fd).map_err(|cause| cause.raw_os_error())?;
        }
        Ok(Done::Moved(done as u32))
    }
}

impl OpenFile for UringFile {
    fn attributes(&self) -> Result<Attributes, Errno> {
        let mut attributes = attributes::of(self.fd.as_fd())?;
        attributes.read_only = !self.flags.contains(OpenFlags::WRITE);
        Ok(attributes)
    }

    fn start(&self, command: &mut Command, data: Sgl, memory: &mut dyn Memory) -> Step {
        let fd = self.fd.as_raw_fd();
        match *command {
            Command::Read { .. } if !self.flags.contains(OpenFlags::READ) => Step::Ended(Err(libc::EBADF)),
            Command::Read { offset, length } => self.read(offset, length as usize, memory),
            Command::Write { .. } if !self.flags.contains(OpenFlags::WRITE) => Step::Ended(Err(libc::EBADF)),
            Command::Write { offset, .. } => {
                // Small pieces of memory are aligned to 512 bytes.
                let aligned = data
                    .pieces()
                    .iter()
                    .all(|piece| (piece.as_ptr() as usize).is_multiple_of(self.alignment));
                if aligned {
                    return self.write(command, offset, data);
                }
                let Some(mut copy) = memory.buffer(data.len().max(self.alignment)) else {
                    return Step::Memory(data);
                };
                copy.truncate(data.len());
                if let Some(bytes) = copy.try_as_mut_slice() {
                    data.gather(0, bytes);
                }
                self.write(command, offset, copy.into())
            }
            Command::Settle { written } => Step::Ended(Ok(Done::Moved(written))),
            Command::Flush { data_only } => Step::Ring(FileOp::Sync { fd, data_only }),
            Command::Discard { offset, length } => {
                self.will_shrink(memory);
                let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                // The flags are a few low bits.
                Step::Ring(FileOp::Allocate { fd, mode: mode.bits() as i32, offset, length })
            }
            Command::Truncate { .. } => {
                self.will_shrink(memory);
                Step::Block(data, 0)
            }
            Command::Stat => Step::Block(data, 0),
        }
    }

    fn resume(&self, command: &mut Command, completion: Completion) -> Step {
        let Completion { result, data, .. } = completion;
        // The kernel does not hand these out for files; if some file system does, it is done off the loop.
        let again = matches!(result, Err(libc::EAGAIN | libc::EINTR));
        match (*command, result) {
            _ if again => Step::Block(data, 0),
            (Command::Write { durable: true, .. }, Err(libc::EOPNOTSUPP)) => {
                // The flag is not known; what else may be wrong shows again.
                self.dsync.store(false, Ordering::Relaxed);
                Step::Block(data, 0)
            }
            (_, Err(errno)) => Step::Ended(Err(errno)),
            (Command::Read { .. }, Ok(count)) if count as usize == data.len() || count == 0 => {
                let mut list = data;
                list.truncate(count as usize);
                Step::Ended(Ok(Done::Data(list)))
            }
            (Command::Read { .. }, Ok(count)) => Step::Block(data, count as usize),
            (Command::Write { .. }, Ok(count)) if count as usize == data.len() => {
                self.written_by_ring(command, data.len())
            }
            (Command::Write { .. }, Ok(count)) => Step::Block(data, count as usize),
            (Command::Settle { written }, Ok(_)) => Step::Ended(Ok(Done::Moved(written))),
            (_, Ok(_)) => Step::Ended(Ok(Done::Moved(0))),
        }
    }

    fn is_direct(&self) -> bool {
        self.direct == Direct::Never
    }

    fn expect(&self, command: &Command, windows: Option<&Windows>) {
        if let (Command::Read { offset, length }, Some(file), Some(windows)) =
            (command, self.windows, windows)
        {
            windows.expect(file, *offset, *length as usize);
        }
    }

    fn windows_key(&self) -> Option<FileKey> {
        self.windows
    }

    fn block(&self, command: Command, memory: Sgl, done: usize) -> Outcome {
        let os = |cause: rustix::io::Errno| cause.raw_os_error();
        match command {
            Command::Read { offset, .. } => return self.block_read(offset, memory, done),
            Command::Write { offset, durable, .. } => {
                return self.block_write(offset, &memory, done, durable);
            }
            Command::Settle { written } => {
                rustix::fs::fdatasync(&self.fd).map_err(os)?;
                return Ok(Done::Moved(written));
            }
            Command::Flush { data_only: true } => rustix::fs::fdatasync(&self.fd).map_err(os)?,
            Command::Flush { data_only: false } => rustix::fs::fsync(&self.fd).map_err(os)?,
            Command::Discard { offset, length } => {
                let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&self.fd, mode, offset, length).map_err(os)?;
            }
            Command::Truncate { size } => ftruncate(&self.fd, size).map_err(os)?,
            Command::Stat => return Ok(Done::Attributes(Box::new(self.attributes()?))),
        }
        Ok(Done::Moved(0))
    }
}

#[cfg(test)]
mod tests;
