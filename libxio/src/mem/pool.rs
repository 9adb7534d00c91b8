//! Size-classed buffers over regions: taken and given back from any thread without lock or allocation.
//!
//! Each class keeps its free buffers in a Treiber stack (R. K. Treiber, "Systems Programming: Coping with
//! Parallelism", 1986) of indices; a tag beside the index, changed by every push and pop, keeps a slow thread from
//! mistaking a reused head for the one that it read (the ABA problem). Growing maps a new chunk under a lock, which
//! happens a bounded number of times in the life of a pool.

use super::{Buffer, PAGE_BYTES, Region};
use crate::{Error, Result};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Greatest length of one pool buffer in bytes.
pub const BUFFER_LEN_MAX: usize = 4 << 20;

/// (buffer size in bytes, buffers in a chunk): both powers of two; chunks are 256 KiB to 8 MiB.
const CLASSES: [(usize, usize); 7] =
    [(512, 512), (4 << 10, 256), (16 << 10, 64), (64 << 10, 32), (256 << 10, 8), (1 << 20, 4), (4 << 20, 2)];

/// Chunks a class may have; 1,024 chunks of 256 KiB to 8 MiB give 256 MiB to 8 GiB a class.
const CHUNKS_MAX: usize = 1024;

/// The free list's end.
const NONE: u32 = u32::MAX;

/// A buffer's index is its chunk's number above so many bits of its number in the chunk: no class has more in one.
const IN_CHUNK_BITS: u32 = 9;

/// The number of a buffer's chunk, and its own in it.
#[inline]
fn place_of(index: u32) -> (usize, usize) {
    ((index >> IN_CHUNK_BITS) as usize, (index & ((1 << IN_CHUNK_BITS) - 1)) as usize)
}

/// The smallest class whose buffers hold so many bytes.
#[inline]
fn class_of(length: usize) -> Option<usize> {
    match length {
        0..=512 => Some(0),
        513..=BUFFER_LEN_MAX => {
            // From 4 KiB on each class is four times the one before.
            let bits = (usize::BITS - (length - 1).leading_zeros()).max(12) as usize;
            Some((bits - 11) / 2 + 1)
        }
        _ => None,
    }
}

/// How a pool is made.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Most bytes in use at a time, counted in whole buffers. Memory kept for reuse is never given back before the
    /// pool is dropped, and each size class may keep as much.
    pub bytes_max: usize,
    /// Ask for huge pages; plain ones where the system gives none.
    pub huge_pages: bool,
}

impl Default for PoolOptions {
    /// 1 GiB, huge pages if there are any.
    fn default() -> Self {
        PoolOptions { bytes_max: 1 << 30, huge_pages: true }
    }
}

/// Hands out buffers. Clones share the memory.
#[derive(Debug, Clone)]
pub struct Pool {
    shared: Arc<PoolShared>,
}

#[derive(Debug)]
pub(super) struct PoolShared {
    options: PoolOptions,
    /// Sum of the class sizes of the buffers that are out.
    bytes_in_use: AtomicUsize,
    classes: [Class; CLASSES.len()],
}

#[derive(Debug, Default)]
struct Class {
    /// Top of the free stack: tag in the upper half, index (or `NONE`) in the lower.
    head: AtomicU64,
    /// Filled front to back by `grow`; entries never change once set.
    chunks: OnceLock<Box<[OnceLock<Chunk>]>>,
    /// Number of chunks, and the lock for growing.
    chunk_count: Mutex<usize>,
}

#[derive(Debug)]
struct Chunk {
    region: Region,
    /// For each buffer on the free stack the index below it.
    next: Box<[AtomicU32]>,
}

impl Pool {
    /// A pool that has taken no memory yet.
    #[must_use]
    pub fn new(options: PoolOptions) -> Pool {
        let classes = std::array::from_fn(|_| Class {
            head: AtomicU64::new(u64::from(NONE)),
            chunks: OnceLock::new(),
            chunk_count: Mutex::new(0),
        });
        Pool { shared: Arc::new(PoolShared { options, bytes_in_use: AtomicUsize::new(0), classes }) }
    }

    /// A buffer of `length` bytes, aligned to 512 bytes, or to 4 KiB from 4 KiB on. Its content is whatever its last
    /// user left.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] above [`BUFFER_LEN_MAX`]; [`Error::PoolExhausted`] at the pool's limit;
    /// [`Error::System`] when the system has no memory.
    #[inline]
    pub fn take(&self, length: usize) -> Result<Buffer> {
        match self.take_kept(length) {
            Some(buffer) => Ok(buffer),
            None => self.take_other(length),
        }
    }

    /// A buffer that the pool has kept; `None` where there is none, or none may be taken. Put together where it is wanted: one
    /// that comes by memory, written field by field, is moved on in words that the processor has to wait for.
    #[inline]
    fn take_kept(&self, length: usize) -> Option<Buffer> {
        let class = class_of(length)?;
        let (pointer, index) = self.shared.take_kept(class)?;
        // The class number is below 7.
        Some(Buffer::in_pool(pointer, length, Arc::clone(&self.shared), class as u8, index))
    }

    #[cold]
    fn take_other(&self, length: usize) -> Result<Buffer> {
        let Some(class) = class_of(length) else {
            return Err(Error::LimitExceeded {
                what: "length of a pool buffer in bytes",
                value: length as u64,
                limit: BUFFER_LEN_MAX as u64,
            });
        };
        let (size, _) = CLASSES[class];
        let limit = self.shared.options.bytes_max;
        if self.shared.bytes_in_use.fetch_add(size, Ordering::Relaxed) + size > limit {
            self.shared.bytes_in_use.fetch_sub(size, Ordering::Relaxed);
            return Err(Error::PoolExhausted { asked: size, limit });
        }
        let index = match self.shared.classes[class].pop() {
            Some(index) => index,
            None => self.take_fresh(class)?,
        };
        let pointer = self.shared.start_of(class, index);
        // The class number is below 7.
        Ok(Buffer::in_pool(pointer, length, Arc::clone(&self.shared), class as u8, index))
    }

    /// As a `pop` that grows the class until there is something; what was added to the bytes in use is taken back where
    /// that fails.
    #[cold]
    fn take_fresh(&self, class: usize) -> Result<u32> {
        let (size, _) = CLASSES[class];
        loop {
            if let Err(error) = self.grow(class) {
                self.shared.bytes_in_use.fetch_sub(size, Ordering::Relaxed);
                return Err(error);
            }
            if let Some(index) = self.shared.classes[class].pop() {
                return Ok(index);
            }
        }
    }

    /// A list of `length` bytes in as few pool buffers as possible.
    ///
    /// # Errors
    /// As [`Pool::take`], or [`Error::LimitExceeded`] beyond the pieces of a list.
    #[inline]
    pub fn take_list(&self, length: usize) -> Result<super::Sgl> {
        match length {
            0 => Ok(super::Sgl::new()),
            1..=BUFFER_LEN_MAX => Ok(super::Sgl::from(self.take(length)?)),
            _ => self.take_long_list(length),
        }
    }

    fn take_long_list(&self, length: usize) -> Result<super::Sgl> {
        let mut list = super::Sgl::new();
        let mut left = length;
        while left > 0 {
            let piece = left.min(BUFFER_LEN_MAX);
            list.push(self.take(piece)?)?;
            left -= piece;
        }
        Ok(list)
    }

    /// Bytes of the buffers that are out, counted in whole buffers.
    #[must_use]
    #[inline]
    pub fn bytes_in_use(&self) -> usize {
        self.shared.bytes_in_use.load(Ordering::Relaxed)
    }

    /// The limit on bytes in use.
    #[must_use]
    #[inline]
    pub fn bytes_max(&self) -> usize {
        self.shared.options.bytes_max
    }

    /// Bytes that the pool has taken from the system, in use or kept for reuse.
    #[must_use]
    pub fn bytes_kept(&self) -> usize {
        self.chunk_counts().zip(CLASSES).map(|(count, (size, per_chunk))| count * size * per_chunk).sum()
    }

    /// Regions that the pool has taken from the system: each is a mapping and holds one descriptor.
    #[must_use]
    pub fn regions_kept(&self) -> usize {
        self.chunk_counts().sum()
    }

    fn chunk_counts(&self) -> impl Iterator<Item = usize> {
        let classes = self.shared.classes.iter();
        classes.map(|class| *class.chunk_count.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn grow(&self, class: usize) -> Result<()> {
        let (size, per_chunk) = CLASSES[class];
        let this = &self.shared.classes[class];
        let mut count = this.chunk_count.lock().unwrap_or_else(PoisonError::into_inner);
        // The stack's lower half is an index only if another thread grew the class while we waited.
        if this.head.load(Ordering::Acquire) as u32 != NONE {
            return Ok(());
        }
        let chunks = this.chunks.get_or_init(|| (0..CHUNKS_MAX).map(|_| OnceLock::new()).collect());
        let Some(place) = chunks.get(*count) else {
            return Err(Error::PoolExhausted { asked: size, limit: CHUNKS_MAX * per_chunk * size });
        };
        let region = Region::allocate(size * per_chunk, self.shared.options.huge_pages)?;
        let next = (0..per_chunk).map(|_| AtomicU32::new(NONE)).collect();
        let newly_set = place.set(Chunk { region, next }).is_ok();
        debug_assert!(newly_set, "only the holder of the lock fills this place");
        // Below CHUNKS_MAX.
        let first = (*count as u32) << IN_CHUNK_BITS;
        *count += 1;
        drop(count);
        for number in (0..per_chunk as u32).rev() {
            this.push(first | number);
        }
        Ok(())
    }
}

impl PoolShared {
    /// First byte and number of a buffer of this class that was kept, which counts as in use from now on.
    fn take_kept(&self, class: usize) -> Option<(NonNull<u8>, u32)> {
        let (size, _) = CLASSES[class];
        if self.bytes_in_use.fetch_add(size, Ordering::Relaxed) + size <= self.options.bytes_max
            && let Some(index) = self.classes[class].pop()
        {
            return Some((self.start_of(class, index), index));
        }
        self.bytes_in_use.fetch_sub(size, Ordering::Relaxed);
        None
    }

    /// First byte of the buffer with a number that was taken from the free list.
    #[inline]
    fn start_of(&self, class: usize, index: u32) -> NonNull<u8> {
        let (size, _) = CLASSES[class];
        let (chunk, number) = place_of(index);
        let start = self.classes[class].chunk(chunk).region.as_ptr();
        // SAFETY: the chunk's region holds buffers of `size` bytes, and `grow` has given numbers to those only.
        unsafe { NonNull::new_unchecked(start.add(number * size)) }
    }

    /// The region of a buffer that is out, if the buffer's pages are its own.
    #[inline]
    pub(super) fn region_of(&self, class: u8, index: u32) -> Option<&Region> {
        let (size, _) = CLASSES[usize::from(class)];
        size.is_multiple_of(PAGE_BYTES).then(|| self.chunk_region(class, index))
    }

    /// The region of a buffer that is out.
    pub(super) fn chunk_region(&self, class: u8, index: u32) -> &Region {
        &self.classes[usize::from(class)].chunk(place_of(index).0).region
    }

    #[inline]
    pub(super) fn give_back(&self, class: u8, index: u32) {
        let (size, _) = CLASSES[usize::from(class)];
        self.classes[usize::from(class)].push(index);
        self.bytes_in_use.fetch_sub(size, Ordering::Relaxed);
    }
}

impl Class {
    #[inline]
    fn chunk(&self, number: usize) -> &Chunk {
        self.chunks
            .get()
            .and_then(|chunks| chunks.get(number))
            .and_then(OnceLock::get)
            .expect("an index exists only after its chunk")
    }

    #[inline]
    fn pop(&self) -> Option<u32> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let index = head as u32;
            if index == NONE {
                return None;
            }
            let (chunk, number) = place_of(index);
            let below = self.chunk(chunk).next[number].load(Ordering::Relaxed);
            let new = next_tag(head) | u64::from(below);
            match self.head.compare_exchange_weak(head, new, Ordering::Acquire, Ordering::Acquire) {
                Ok(_) => return Some(index),
                Err(seen) => head = seen,
            }
        }
    }

    #[inline]
    fn push(&self, index: u32) {
        let (chunk, number) = place_of(index);
        let link = &self.chunk(chunk).next[number];
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            link.store(head as u32, Ordering::Relaxed);
            let new = next_tag(head) | u64::from(index);
            match self.head.compare_exchange_weak(head, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => head = seen,
            }
        }
    }
}

/// The tag after that of `head`, in the upper half.
fn next_tag(head: u64) -> u64 {
    (head & !u64::from(u32::MAX)).wrapping_add(1 << 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_buffer_is_out_once_and_comes_back() {
        let pool = Pool::new(PoolOptions::default());
        for length in [0, 1, 512, 513, 4096, 65_536, 1 << 20, BUFFER_LEN_MAX] {
            let out: Vec<_> = (0..20).map(|_| pool.take(length).unwrap()).collect();
            let addresses: HashSet<_> = out.iter().map(|buffer| buffer.as_ptr() as usize).collect();
            assert_eq!(addresses.len(), 20);
            assert!(out.iter().all(|buffer| buffer.len() == length));
            let alignment = if length >= 4096 { 4096 } else { 512 };
            assert!(addresses.iter().all(|address| address % alignment == 0));
            drop(out);
            assert_eq!(pool.bytes_in_use(), 0);
        }
        assert!(matches!(pool.take(BUFFER_LEN_MAX + 1), Err(Error::LimitExceeded { .. })));
    }

    #[test]
    fn the_class_is_the_smallest_that_holds_the_length() {
        for length in (0..70_000).chain((0..=BUFFER_LEN_MAX + 1).step_by(511)).chain([BUFFER_LEN_MAX]) {
            assert_eq!(class_of(length), CLASSES.iter().position(|(size, _)| length <= *size), "{length}");
        }
        assert!(CLASSES.iter().all(|(_, per_chunk)| *per_chunk <= 1 << IN_CHUNK_BITS));
    }

    #[test]
    fn the_limit_holds_and_heals() {
        let pool = Pool::new(PoolOptions { bytes_max: 8192, huge_pages: false });
        let one = pool.take(4096).unwrap();
        let _two = pool.take(100).unwrap();
        assert!(matches!(pool.take(4096), Err(Error::PoolExhausted { .. })));
        drop(one);
        assert!(pool.take(4096).is_ok());
    }

    #[test]
    fn what_is_kept_is_counted() {
        let pool = Pool::new(PoolOptions { bytes_max: 1 << 20, huge_pages: false });
        assert_eq!((pool.regions_kept(), pool.bytes_kept()), (0, 0));
        drop(pool.take(100).unwrap());
        drop(pool.take(5000).unwrap());
        assert_eq!((pool.regions_kept(), pool.bytes_kept()), (2, (256 << 10) + (1 << 20)));
    }

    #[test]
    fn threads_share_a_pool() {
        let pool = Pool::new(PoolOptions::default());
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let pool = &pool;
                scope.spawn(move || {
                    for round in 0..20_000_usize {
                        let mut buffers: Vec<_> =
                            (0..1 + round % 7).map(|_| pool.take(4096).unwrap()).collect();
                        for buffer in &mut buffers {
                            buffer.try_as_mut_slice().unwrap().fill(thread);
                        }
                        let all_ours = buffers.iter().all(|buffer| {
                            buffer.try_as_slice().unwrap().iter().step_by(512).all(|byte| *byte == thread)
                        });
                        assert!(all_ours, "a buffer was handed out twice");
                    }
                });
            }
        });
        assert_eq!(pool.bytes_in_use(), 0);
    }
}
