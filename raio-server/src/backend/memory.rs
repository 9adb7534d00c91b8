//! The memory backend: one file in the server's memory, gone with it. For tests, and for measuring without storage.
//!
//! The memory is cut into segments, each under a lock of its own, so that workers seldom meet. A segment is a mapping, so
//! that a block of a page lies in one page; its pages are taken from the system when they are first written, and become one
//! huge page once all of them were written.

use super::huge_pages::HugePages;
use super::{
    Backend, Command, Done, Errno, Memory, OpenFile, Outcome, Step, check_flags, errno, only_itself,
};
use crate::windows::Windows;
use libxio::Sgl;
use memmap2::MmapMut;
use raio::proto::{Attributes, ExportKind, OpenFlags};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Bytes of a segment: of a huge page, nearly everywhere.
const SEGMENT_BYTES: usize = 2 << 20;

/// Inode that the file shows; it is the only one of its export.
const INODE: u64 = 2;

/// A file in memory, of a size between 0 and its capacity.
#[derive(Debug, Clone)]
pub struct MemoryBackend {
    store: Arc<Store>,
}

/// What was never written.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Bytes of a small page.
const PAGE_BYTES: usize = 4 << 10;
/// Small pages of a segment.
const PAGES: usize = SEGMENT_BYTES / PAGE_BYTES;

/// A part of the file.
#[derive(Debug, Default)]
struct Part {
    /// Of SEGMENT_BYTES also at the file's end. `None` until it is written, and all zeros then.
    bytes: Option<MmapMut>,
    /// Its pages that were written, a bit each, and how many these are. With the last one it will have a huge page: to take one
    /// at once would be a waste where few pages are written, and take a worker milliseconds where memory is in small pieces.
    written: [u64; PAGES / u64::BITS as usize],
    written_count: usize,
    has_asked: bool,
}

impl Part {
    /// Notes a write of at least a byte.
    #[inline]
    fn note(&mut self, start: usize, length: usize, huge_pages: &HugePages) {
        if self.has_asked {
            return;
        }
        for page in start / PAGE_BYTES..=(start + length - 1) / PAGE_BYTES {
            let (word, bit) = (&mut self.written[page / 64], 1 << (page % 64));
            self.written_count += usize::from(*word & bit == 0);
            *word |= bit;
        }
        if self.written_count == PAGES
            && let Some(bytes) = &self.bytes
        {
            // Where others wait, the next write asks again.
            self.has_asked = huge_pages.ask(bytes);
        }
    }
}

type Segment = RwLock<Part>;

#[derive(Debug)]
struct Store {
    segments: Vec<Segment>,
    huge_pages: HugePages,
    /// Size of the file in bytes, at most `capacity`. What is above it is zero.
    size: AtomicU64,
    /// In bytes.
    capacity: u64,
}

impl MemoryBackend {
    /// A file of `capacity` zero bytes, which is also the most that it can grow to again once it was cut.
    #[must_use]
    pub fn new(capacity: u64) -> MemoryBackend {
        let count = capacity.div_ceil(SEGMENT_BYTES as u64);
        let segments = (0..count).map(|_| Segment::default()).collect();
        let huge_pages = HugePages::new();
        let size = AtomicU64::new(capacity);
        MemoryBackend { store: Arc::new(Store { segments, huge_pages, size, capacity }) }
    }
}

impl Store {
    /// Calls `each` for the parts of segments that make up a range: segment, start within it, start within the range,
    /// length.
    fn walk(&self, offset: u64, length: u64, mut each: impl FnMut(&Segment, usize, usize, usize)) {
        let mut done = 0;
        while done < length {
            let at = offset + done;
            // The remainder is below SEGMENT_BYTES; the quotient is an index, since the range was cut to the capacity.
            let (index, start) = ((at / SEGMENT_BYTES as u64) as usize, (at % SEGMENT_BYTES as u64) as usize);
            let Some(segment) = self.segments.get(index) else { return };
            let part = (length - done).min((SEGMENT_BYTES - start) as u64);
            each(segment, start, done as usize, part as usize);
            done += part;
        }
    }

    /// Bytes of a range that are below `end`.
    fn clip(offset: u64, length: u64, end: u64) -> u64 {
        end.saturating_sub(offset).min(length)
    }

    fn read(&self, offset: u64, memory: &mut Sgl) {
        self.walk(offset, memory.len() as u64, |segment, start, at, length| {
            match &segment.read().unwrap_or_else(PoisonError::into_inner).bytes {
                Some(bytes) => memory.scatter(at, &bytes[start..start + length]),
                // Never written.
                None => {
                    for done in (0..length).step_by(ZEROS.len()) {
                        memory.scatter(at + done, &ZEROS[..(length - done).min(ZEROS.len())]);
                    }
                }
            }
        });
    }

    /// Asks for the memory of the beginning of a range, unless somebody writes there.
    fn expect(&self, offset: u64, length: usize) {
        let start = (offset % SEGMENT_BYTES as u64) as usize;
        let segment =
            usize::try_from(offset / SEGMENT_BYTES as u64).ok().and_then(|index| self.segments.get(index));
        if let Some(Ok(segment)) = segment.map(RwLock::try_read)
            && let Some(bytes) = &segment.bytes
        {
            libxio::prefetch_memory(&bytes[start..(start + length).min(SEGMENT_BYTES)]);
        }
    }

    fn write(&self, offset: u64, data: &Sgl) -> Result<u32, Errno> {
        let length = Store::clip(offset, data.len() as u64, self.capacity);
        if length == 0 && !data.is_empty() {
            return Err(libc::ENOSPC);
        }
        let (mut taken, mut failed) = (0, None);
        self.walk(offset, length, |segment, start, at, length| {
            // What comes behind a failure would stand above the size.
            if failed.is_some() {
                return;
            }
            let mut segment = segment.write().unwrap_or_else(PoisonError::into_inner);
            let bytes = match &mut segment.bytes {
                Some(bytes) => bytes,
                unwritten => match MmapMut::map_anon(SEGMENT_BYTES) {
                    Ok(bytes) => unwritten.insert(bytes),
                    Err(cause) => return failed = Some(errno(&cause)),
                },
            };
            data.gather(at, &mut bytes[start..start + length]);
            segment.note(start, length, &self.huge_pages);
            taken = at + length;
        });
        if let (Some(errno), 0) = (failed, taken) {
            return Err(errno);
        }
        let end = offset + taken as u64;
        // Nearly all writes are inside, and would otherwise take the line from other workers.
        if self.size.load(Ordering::Acquire) < end {
            self.size.fetch_max(end, Ordering::AcqRel);
        }
        // At most the length of a list.
        Ok(taken as u32)
    }

    fn zero(&self, offset: u64, length: u64) {
        let length = Store::clip(offset, length, self.capacity);
        self.walk(offset, length, |segment, start, at, length| {
            let mut segment = segment.write().unwrap_or_else(PoisonError::into_inner);
            let is_last = offset + (at + length) as u64 == self.capacity;
            if start == 0 && (length == SEGMENT_BYTES || is_last) {
                *segment = Part::default();
            } else if let Some(bytes) = &mut segment.bytes {
                bytes[start..start + length].fill(0);
            }
        });
    }

    fn truncate(&self, size: u64) -> Result<(), Errno> {
        if size > self.capacity {
            return Err(libc::ENOSPC);
        }
        let before = self.size.swap(size, Ordering::AcqRel);
        self.zero(size, before.saturating_sub(size));
        Ok(())
    }

    fn attributes(&self, flags: OpenFlags) -> Attributes {
        Attributes {
            size: self.size.load(Ordering::Acquire),
            inode: INODE,
            blocks: self.capacity.div_ceil(512),
            mode: libc::S_IFREG | 0o666,
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

impl Backend for MemoryBackend {
    fn kind(&self) -> ExportKind {
        ExportKind::Memory
    }

    fn size(&self) -> u64 {
        self.store.size.load(Ordering::Acquire)
    }

    fn open(&self, name: &[u8], flags: OpenFlags, _mode: u32) -> Result<Arc<dyn OpenFile>, Errno> {
        only_itself(name)?;
        check_flags(flags)?;
        if flags.contains(OpenFlags::TRUNCATE) {
            self.store.truncate(0)?;
        }
        Ok(Arc::new(MemoryFile { store: Arc::clone(&self.store), flags }))
    }

    fn stat(&self, name: &[u8]) -> Result<Attributes, Errno> {
        only_itself(name)?;
        Ok(self.store.attributes(OpenFlags::WRITE))
    }
}

#[derive(Debug)]
struct MemoryFile {
    store: Arc<Store>,
    flags: OpenFlags,
}

impl MemoryFile {
    fn read(&self, offset: u64, length: u32, memory: &mut dyn Memory) -> Step {
        let size = self.store.size.load(Ordering::Acquire);
        // At most a u32.
        let length = Store::clip(offset, u64::from(length), size) as usize;
        if length == 0 {
            return Step::Ended(Ok(Done::Data(Sgl::new())));
        }
        match memory.response_buffer(length) {
            Ok(Some(buffer)) => {
                let mut list = Sgl::from(buffer);
                self.store.read(offset, &mut list);
                Step::Ended(Ok(Done::Data(list)))
            }
            Ok(None) => Step::Memory(Sgl::new()),
            Err(errno) => Step::Ended(Err(errno)),
        }
    }
}

impl OpenFile for MemoryFile {
    fn attributes(&self) -> Result<Attributes, Errno> {
        Ok(self.store.attributes(self.flags))
    }

    fn expect(&self, command: &Command, _windows: Option<&Windows>) {
        if let Command::Read { offset, length } | Command::Write { offset, length, .. } = *command {
            self.store.expect(offset, length as usize);
        }
    }

    fn start(&self, command: &mut Command, data: Sgl, memory: &mut dyn Memory) -> Step {
        let writable = self.flags.contains(OpenFlags::WRITE);
        Step::Ended(match *command {
            Command::Read { .. } if !self.flags.contains(OpenFlags::READ) => Err(libc::EBADF),
            Command::Read { offset, length } => return self.read(offset, length, memory),
            Command::Write { .. } | Command::Discard { .. } if !writable => Err(libc::EBADF),
            Command::Write { offset, .. } => self.store.write(offset, &data).map(Done::Moved),
            Command::Settle { written } => Ok(Done::Moved(written)),
            Command::Flush { .. } => Ok(Done::Moved(0)),
            Command::Truncate { .. } if !writable => Err(libc::EINVAL),
            // Both free memory, a segment after the other, which takes a while for many.
            Command::Discard { .. } | Command::Truncate { .. } => return Step::Block(data, 0),
            Command::Stat => Ok(Done::Attributes(Box::new(self.store.attributes(self.flags)))),
        })
    }

    fn block(&self, command: Command, _memory: Sgl, _done: usize) -> Outcome {
        match command {
            Command::Discard { offset, length } => self.store.zero(offset, length),
            Command::Truncate { size } => self.store.truncate(size)?,
            _ => return Err(libc::EIO),
        }
        Ok(Done::Moved(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn bytes_cross_segments_and_end_at_the_size() {
        let store = MemoryBackend::new(3 * SEGMENT_BYTES as u64 / 2).store;
        let bytes: Vec<u8> = (0..SEGMENT_BYTES).map(|at| at as u8 | 1).collect();
        let offset = SEGMENT_BYTES as u64 / 2 + 3;
        let taken = store.write(offset, &Sgl::from(bytes.clone())).unwrap();
        assert_eq!(taken as usize, SEGMENT_BYTES - 3, "cut at the capacity");
        assert_eq!(store.write(store.capacity, &Sgl::from(vec![1])), Err(libc::ENOSPC));
        let mut back = Sgl::from(vec![9; SEGMENT_BYTES]);
        store.read(offset - 3, &mut back);
        let back = back.to_vec();
        assert!(back[..3] == [0; 3] && back[3..] == bytes[..SEGMENT_BYTES - 3]);
        store.truncate(offset).unwrap();
        store.truncate(store.capacity).unwrap();
        let mut back = Sgl::from(vec![9; 100]);
        store.read(offset, &mut back);
        assert_eq!(back.to_vec(), [0; 100], "what was cut off is zero");
        assert_eq!(store.truncate(store.capacity + 1), Err(libc::ENOSPC));
    }

    /// Of the mapping that an address lies in, in KiB.
    fn huge_pages_at(address: usize) -> u64 {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut is_it = false;
        for line in maps.lines() {
            let first = line.split_whitespace().next().unwrap_or_default();
            if let Some((start, end)) = first.split_once('-') {
                let number = |text| usize::from_str_radix(text, 16);
                is_it = number(start).is_ok_and(|start| start <= address)
                    && number(end).is_ok_and(|end| address < end);
            } else if let (true, Some(size)) = (is_it, line.strip_prefix("AnonHugePages:")) {
                return size.trim().trim_end_matches(" kB").parse().unwrap();
            }
        }
        0
    }

    #[test]
    fn memory_that_has_filled_gets_huge_pages() {
        let store = MemoryBackend::new(SEGMENT_BYTES as u64).store;
        let address = || {
            let part = store.segments[0].read().unwrap();
            part.bytes.as_ref().unwrap().as_ptr() as usize
        };
        let data: Vec<u8> = (0..SEGMENT_BYTES / 2).map(|at| (at % 251) as u8).collect();
        store.write(0, &Sgl::from(data.clone())).unwrap();
        for _ in 0..PAGES {
            store.write(0, &Sgl::from(data[..PAGE_BYTES].to_vec())).unwrap();
        }
        assert!(!store.segments[0].read().unwrap().has_asked, "half of its pages were never written");
        let other = MmapMut::map_anon(SEGMENT_BYTES).unwrap();
        let probe = other.as_ptr() as usize;
        if !(probe | address()).is_multiple_of(SEGMENT_BYTES) {
            println!("skipped: this kernel does not align mappings to huge pages");
            return;
        }
        if let Err(cause) = libxio::collapse_memory(probe, SEGMENT_BYTES)
            && cause.raw_os_error() == Some(libc::EINVAL)
        {
            println!("skipped: this kernel knows no MADV_COLLAPSE");
            return;
        }
        drop(other);
        let before = huge_pages_at(address());
        store.write(data.len() as u64, &Sgl::from(data.clone())).unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while huge_pages_at(address()) == before {
            assert!(Instant::now() < end, "no huge page");
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut back = Sgl::from(vec![0; SEGMENT_BYTES]);
        store.read(0, &mut back);
        assert!(back.to_vec() == [data.clone(), data].concat(), "the content stays");
    }
}
