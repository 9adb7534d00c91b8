//! An owned piece of memory that moves into an operation and comes back with its completion.

use super::{PAGE_BYTES, PeerMemory, Region, pool::PoolShared};
use std::ptr::NonNull;
use std::sync::{Arc, OnceLock};

/// Memory for one piece of a message: from a pool, a region, the heap, a static, a peer, or the caller's own.
///
/// Moving a buffer moves the right to its bytes, so neither side needs a lock. Dropping a pool buffer gives it back
/// from any thread.
pub struct Buffer {
    /// First byte; valid for `length` bytes for as long as `owner` lives.
    pointer: NonNull<u8>,
    length: usize,
    owner: Owner,
}

enum Owner {
    /// `index` within `class` goes back to the pool's free list on drop.
    Pool {
        pool: Arc<PoolShared>,
        class: u8,
        index: u32,
    },
    /// A part of a region, perhaps one of several over the same bytes.
    Region {
        region: Region,
    },
    /// A part of a peer's memory, which is touched with care.
    Peer {
        memory: Arc<PeerMemory>,
    },
    /// `pointer` is the start of a boxed slice of this length.
    Heap {
        allocated: usize,
    },
    Static,
    /// The caller of [`Buffer::foreign`] promised that the memory lives long enough.
    Foreign,
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let owner = match self.owner {
            Owner::Pool { .. } => "pool",
            Owner::Region { .. } => "region",
            Owner::Peer { .. } => "peer",
            Owner::Heap { .. } => "heap",
            Owner::Static => "static",
            Owner::Foreign => "foreign",
        };
        write!(f, "Buffer({owner}, {} bytes at {:p})", self.length, self.pointer)
    }
}

// SAFETY: a buffer is the only way to its bytes (pool, heap), or makes no reference to them (region, foreign), so it
// can be used from any one thread at a time.
unsafe impl Send for Buffer {}

impl Buffer {
    pub(super) fn in_region(pointer: NonNull<u8>, length: usize, region: Region) -> Buffer {
        Buffer { pointer, length, owner: Owner::Region { region } }
    }

    #[inline]
    pub(super) fn in_peer(pointer: NonNull<u8>, length: usize, memory: Arc<PeerMemory>) -> Buffer {
        Buffer { pointer, length, owner: Owner::Peer { memory } }
    }

    #[inline]
    pub(super) fn in_pool(
        pointer: NonNull<u8>,
        length: usize,
        pool: Arc<PoolShared>,
        class: u8,
        index: u32,
    ) -> Buffer {
        Buffer { pointer, length, owner: Owner::Pool { pool, class, index } }
    }

    /// The bytes of a vector, without a copy where its capacity is its length.
    #[must_use]
    pub fn from_vec(bytes: Vec<u8>) -> Buffer {
        let bytes = bytes.into_boxed_slice();
        let length = bytes.len();
        let pointer = NonNull::from(Box::leak(bytes)).cast();
        Buffer { pointer, length, owner: Owner::Heap { allocated: length } }
    }

    /// Bytes that live as long as the program; to be sent only (writing to it panics).
    #[must_use]
    pub fn from_static(bytes: &'static [u8]) -> Buffer {
        Buffer { pointer: NonNull::from(bytes).cast(), length: bytes.len(), owner: Owner::Static }
    }

    /// Memory of the caller.
    ///
    /// # Safety
    /// `pointer` must be valid for `length` bytes (for writes too, if the buffer is a place where data lands) and not
    /// be touched by anyone else until the buffer comes back or is dropped. The library drops it only when no
    /// transport or file operation can touch it any more.
    #[must_use]
    pub unsafe fn foreign(pointer: NonNull<u8>, length: usize) -> Buffer {
        Buffer { pointer, length, owner: Owner::Foreign }
    }

    /// Length in bytes.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether it has no bytes.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// First byte.
    #[must_use]
    #[inline]
    pub fn as_ptr(&self) -> *mut u8 {
        self.pointer.as_ptr()
    }

    /// Whether data may land in it: all but static memory.
    #[inline]
    pub(crate) fn is_writable(&self) -> bool {
        !matches!(self.owner, Owner::Static)
    }

    /// Keeps the first `length` bytes; a greater length changes nothing.
    #[inline]
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Copies `target.len()` bytes from `offset` out of the buffer.
    ///
    /// # Panics
    /// When the range leaves the buffer.
    pub fn copy_to(&self, offset: usize, target: &mut [u8]) {
        assert!(
            offset.checked_add(target.len()).is_some_and(|end| end <= self.length),
            "range leaves the buffer"
        );
        // SAFETY: the range was checked; `target` is a unique reference, so it can't overlap memory that only this
        // buffer (or a raw-pointer owner) reaches.
        self.touch(|| unsafe {
            std::ptr::copy(self.pointer.as_ptr().add(offset), target.as_mut_ptr(), target.len());
        });
    }

    /// Copies `length` bytes from `offset` to raw memory.
    ///
    /// # Safety
    /// The range is inside the buffer, and `target` valid for writes of it.
    #[inline]
    pub(crate) unsafe fn copy_to_raw(&self, offset: usize, target: *mut u8, length: usize) {
        debug_assert!(offset + length <= self.length);
        // SAFETY: promised by the caller; the range is inside the buffer.
        self.touch(|| unsafe { std::ptr::copy(self.pointer.as_ptr().add(offset), target, length) });
    }

    /// Copies `source` into the buffer at `offset`.
    ///
    /// # Panics
    /// When the range leaves the buffer, or the buffer is a static one.
    #[inline]
    pub fn copy_from(&mut self, offset: usize, source: &[u8]) {
        assert!(
            offset.checked_add(source.len()).is_some_and(|end| end <= self.length),
            "range leaves the buffer"
        );
        assert!(!matches!(self.owner, Owner::Static), "a static buffer is read-only");
        // SAFETY: the range was checked and is writable (not static); slices of the bytes borrow the buffer, which is
        // borrowed uniquely here, so none exists.
        self.touch(|| unsafe {
            std::ptr::copy(source.as_ptr(), self.pointer.as_ptr().add(offset), source.len());
        });
    }

    /// Fills the buffer with as many bytes from raw memory.
    ///
    /// # Safety
    /// The buffer is writable, `source` is valid for reads of its length, and does not overlap it.
    #[inline]
    pub(super) unsafe fn fill_from_raw(&mut self, source: *const u8) {
        debug_assert!(self.is_writable());
        // SAFETY: promised by the caller; slices of the bytes borrow the buffer, which is borrowed uniquely here.
        self.touch(|| unsafe {
            std::ptr::copy_nonoverlapping(source, self.pointer.as_ptr(), self.length);
        });
    }

    /// Copies the first `length` bytes of another buffer into this one at `offset`.
    ///
    /// # Panics
    /// When a range leaves its buffer, or the buffer is a static one.
    pub(crate) fn copy_from_buffer(&self, offset: usize, source: &Buffer, start: usize, length: usize) {
        let fits =
            |buffer: &Buffer, at: usize| at.checked_add(length).is_some_and(|end| end <= buffer.length);
        assert!(fits(self, offset) && fits(source, start), "range leaves the buffer");
        assert!(!matches!(self.owner, Owner::Static), "a static buffer is read-only");
        self.touch(|| {
            // SAFETY: both ranges were checked; `copy` allows them to overlap, and nobody holds a reference to the bytes
            // of a buffer that its owner gave away for the copy.
            source.touch(|| unsafe {
                std::ptr::copy(source.pointer.as_ptr().add(start), self.pointer.as_ptr().add(offset), length);
            });
        });
    }

    /// Touches each page, so that what has no memory is known to be gone, and is replaced.
    pub(super) fn look_for_pages(&self) {
        for offset in (0..self.length).step_by(PAGE_BYTES).chain(self.length.checked_sub(1)) {
            // SAFETY: the offset is inside the buffer; any bytes are a u8, and whoever writes it meanwhile does no harm.
            self.touch(|| unsafe {
                self.pointer.add(offset).read_volatile();
            });
        }
    }

    /// Runs an access to the bytes; a peer may take its memory away meanwhile, of which [`PeerMemory`] takes note.
    #[inline]
    fn touch(&self, access: impl FnOnce()) {
        match &self.owner {
            Owner::Peer { memory } => {
                // What vanished shows at the link, which looks before it trusts anything of this peer again.
                let _ = memory.touch(access);
            }
            _ => access(),
        }
    }

    /// Another buffer over the first `length` bytes of a peer's memory; `None` for other memory, or less of it.
    #[inline]
    pub(crate) fn peer_part(&self, length: usize) -> Option<Buffer> {
        match &self.owner {
            Owner::Peer { memory } if length <= self.length => {
                Some(Buffer::in_peer(self.pointer, length, Arc::clone(memory)))
            }
            _ => None,
        }
    }

    /// The peer's memory that these bytes lie in.
    #[inline]
    pub(crate) fn peer_memory(&self) -> Option<&Arc<PeerMemory>> {
        match &self.owner {
            Owner::Peer { memory } => Some(memory),
            _ => None,
        }
    }

    /// The region that these bytes lie in, if a device may go on knowing it: its pages are the same for life.
    #[cfg(feature = "rdma")]
    pub(crate) fn lasting_region(&self) -> Option<&Region> {
        let region = match &self.owner {
            Owner::Pool { pool, class, index } => pool.chunk_region(*class, *index),
            Owner::Region { region } => region,
            _ => return None,
        };
        (!region.is_torn()).then_some(region)
    }

    /// Where a peer on the same host finds these bytes: the region that they lie in, and their offset. Only for bytes
    /// whose pages are nobody else's, so that the pages can be taken from the peer without touching other bytes.
    #[inline]
    pub(crate) fn place_in_region(&self) -> Option<(&Region, usize)> {
        let region = match &self.owner {
            Owner::Pool { pool, class, index } => pool.region_of(*class, *index)?,
            Owner::Region { region } => region,
            _ => return None,
        };
        // The buffer was cut from this region, so its address is not below the region's.
        let offset = self.pointer.as_ptr() as usize - region.as_ptr() as usize;
        let end = offset + self.length;
        let whole_pages = offset.is_multiple_of(PAGE_BYTES)
            && (end.is_multiple_of(PAGE_BYTES)
                || end == region.len()
                || matches!(self.owner, Owner::Pool { .. }));
        whole_pages.then_some((region, offset))
    }

    /// The bytes, where nobody else can write them: pool, heap and static buffers. `None` for region and foreign
    /// memory, which a peer or the application may be writing. (Of a pool whose memory is shared with a server on the
    /// same host, the server keeps its hands off what is not part of a request: it is trusted with that.)
    #[must_use]
    pub fn try_as_slice(&self) -> Option<&[u8]> {
        match self.owner {
            Owner::Region { .. } | Owner::Peer { .. } | Owner::Foreign => None,
            Owner::Pool { .. } | Owner::Heap { .. } | Owner::Static => {
                // SAFETY: these owners hold `length` initialised bytes (mappings start zeroed, boxes filled) that are
                // reached through this buffer alone, and the borrow of `self` covers the slice.
                Some(unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.length) })
            }
        }
    }

    /// The bytes for writing, where nobody else can reach them: pool and heap buffers.
    #[must_use]
    pub fn try_as_mut_slice(&mut self) -> Option<&mut [u8]> {
        match self.owner {
            Owner::Region { .. } | Owner::Peer { .. } | Owner::Foreign | Owner::Static => None,
            Owner::Pool { .. } | Owner::Heap { .. } => {
                // SAFETY: these owners hold `length` initialised bytes (mappings start zeroed, boxes filled) that are
                // reached through this buffer alone, and the borrow of `self` covers the slice.
                Some(unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.length) })
            }
        }
    }

    #[inline]
    pub(super) fn is_static(&self) -> bool {
        matches!(self.owner, Owner::Static)
    }

    /// A copy of the bytes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length];
        self.copy_to(0, &mut bytes);
        bytes
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(bytes: Vec<u8>) -> Buffer {
        Buffer::from_vec(bytes)
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        match &self.owner {
            Owner::Pool { pool, class, index } => pool.give_back(*class, *index),
            Owner::Heap { allocated } => {
                let bytes = std::ptr::slice_from_raw_parts_mut(self.pointer.as_ptr(), *allocated);
                // SAFETY: `from_vec` leaked a box of this start and length; cutting a buffer changes neither.
                drop(unsafe { Box::from_raw(bytes) });
            }
            Owner::Region { .. } | Owner::Peer { .. } | Owner::Static | Owner::Foreign => {}
        }
    }
}

/// Length of the shared zero memory in bytes: one piece of [`zeros`].
const ZEROS_BYTES: usize = 1 << 20;

/// The memory behind [`zeros`].
pub(crate) fn zeros_memory() -> &'static [u8] {
    static ZEROS: OnceLock<&'static [u8]> = OnceLock::new();
    ZEROS.get_or_init(|| Box::leak(vec![0_u8; ZEROS_BYTES].into_boxed_slice()))
}

/// A list of `length` zero bytes that takes no memory of its own, for senders that have nothing to say.
/// The greatest length is [`super::SGL_PIECES_MAX`] MiB; a longer one is cut to it.
#[must_use]
pub fn zeros(length: usize) -> super::Sgl {
    let memory = zeros_memory();
    let mut list = super::Sgl::new();
    let mut left = length;
    while left > 0 {
        let piece = left.min(ZEROS_BYTES);
        if list.push(Buffer::from_static(&memory[..piece])).is_err() {
            break;
        }
        left -= piece;
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_exist_only_where_nobody_else_writes() {
        let mut heap = Buffer::from_vec(b"hello".to_vec());
        heap.try_as_mut_slice().unwrap()[0] = b'H';
        assert_eq!(heap.try_as_slice().unwrap(), b"Hello");
        let mut fixed = Buffer::from_static(b"fixed");
        assert!(fixed.try_as_mut_slice().is_none());
        assert_eq!(fixed.try_as_slice().unwrap(), b"fixed");
        let mut memory = [1_u8, 2, 3];
        // SAFETY: `memory` outlives the buffer and is not used meanwhile.
        let foreign = unsafe { Buffer::foreign(NonNull::from(&mut memory).cast(), 3) };
        assert!(foreign.try_as_slice().is_none());
        assert_eq!(foreign.to_vec(), [1, 2, 3]);
    }

    #[test]
    #[should_panic(expected = "leaves the buffer")]
    fn copies_outside_are_refused() {
        Buffer::from_vec(vec![0; 4]).copy_to(3, &mut [0; 2]);
    }

    #[test]
    fn zeros_have_the_length_asked_for() {
        for length in [0, 1, 4096, ZEROS_BYTES, ZEROS_BYTES + 1] {
            let list = zeros(length);
            assert_eq!(list.len(), length);
            assert!(list.to_vec().iter().all(|byte| *byte == 0));
        }
    }
}
