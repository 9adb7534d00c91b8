//! A stretch of memory that stays where it is: mapped by us or owned by the application.
//!
//! What we map is a sealed memfd, so that a peer on the same host can map it too: its pages are then shared, and are
//! taken out of the peer's reach by [`Region::detach`]. Where the system gives no memfd (descriptors have run out), plain
//! memory does: a transport that shares memory copies what lies in it. Transports keep tables that say how they know a
//! region; the region itself is only an address range with an owner.

use super::Buffer;
use crate::{Error, Result};
use rustix::fs::{MemfdFlags, SealFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
#[cfg(feature = "rdma")]
use std::sync::{Mutex, PoisonError};

/// Size of a page in bytes, as far as sharing is concerned: memory is shared and detached in these units. Systems with
/// larger base pages share nothing.
pub(crate) const PAGE_BYTES: usize = 4096;
/// Length from which huge pages are asked for, in bytes.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// A registered stretch of memory. Clones share it; it is unmapped after the last buffer cut from it is gone.
#[derive(Debug, Clone)]
pub struct Region {
    inner: Arc<Mapping>,
}

#[derive(Debug)]
struct Mapping {
    /// First byte; valid for `length` bytes as long as this value lives.
    pointer: NonNull<u8>,
    length: usize,
    /// Tells it apart from every other region that this process has had.
    number: u64,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    /// The application's own memory.
    Registered,
    /// Mapped by us: to be unmapped, but not by a child of the process that mapped it, which does not inherit it.
    Mapped { length: usize, process: u32, shared: Option<Shared> },
}

/// How a peer can map it.
#[derive(Debug)]
struct Shared {
    memfd: OwnedFd,
    /// The peer that may see it: one identity for life, since other pieces of the region hold other dialogues' data.
    /// 0: none so far.
    peer: AtomicU32,
    /// Some of its pages are others than the memfd's.
    torn: AtomicBool,
}

/// A region, if it still lives.
#[derive(Debug, Clone)]
pub(crate) struct WeakRegion(Weak<Mapping>);

impl WeakRegion {
    pub(crate) fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

// SAFETY: the mapping is plain memory; all access goes through raw pointers handed out by `Buffer`, whose rules
// (one owner, or nobody forms a slice) hold on every thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; the fields never change after construction, but for atomic ones.
unsafe impl Sync for Mapping {}

impl Region {
    /// Maps `length` bytes of zeroed memory that transports on the same host can share, in huge pages where they are
    /// asked for and the system gives them (`/sys/kernel/mm/transparent_hugepage/shmem_enabled`). A child process does not
    /// inherit it.
    ///
    /// # Errors
    /// [`Error::System`] (ENOMEM) where the address space or the memory group is full.
    pub fn allocate(length: usize, huge_pages: bool) -> Result<Region> {
        let length = length.max(1);
        let failed = |cause| Error::system(format!("mapping {length} bytes of memory"), &cause);
        let mapped = length
            .checked_next_multiple_of(PAGE_BYTES)
            .ok_or_else(|| failed(io::Error::from_raw_os_error(libc::ENOMEM)))?;
        let memfd = if base_page_bytes() == PAGE_BYTES { sealed_memfd(mapped).ok() } else { None };
        let shared = memfd.and_then(|memfd| {
            let pointer = map(mapped, libc::MAP_SHARED, Some(memfd.as_fd())).ok()?;
            Some((pointer, Shared { memfd, peer: AtomicU32::new(0), torn: AtomicBool::new(false) }))
        });
        let (pointer, shared) = match shared {
            Some((pointer, shared)) => (pointer, Some(shared)),
            None => (map(mapped, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None).map_err(failed)?, None),
        };
        if shared.is_some() {
            advise(pointer, mapped, libc::MADV_DONTFORK);
        }
        if huge_pages && mapped >= HUGE_PAGE_BYTES {
            advise(pointer, mapped, libc::MADV_HUGEPAGE);
        }
        let origin = Origin::Mapped { length: mapped, process: std::process::id(), shared };
        Ok(Region::from_mapping(pointer, length, origin))
    }

    /// Registers memory of the application.
    ///
    /// # Safety
    /// `pointer` must be valid for reads and writes of `length` bytes until the region and every buffer cut from it
    /// are dropped, and the application must not form references into the bytes that an operation is moving.
    #[must_use]
    pub unsafe fn register(pointer: NonNull<u8>, length: usize) -> Region {
        Region::from_mapping(pointer, length, Origin::Registered)
    }

    fn from_mapping(pointer: NonNull<u8>, length: usize, origin: Origin) -> Region {
        static NUMBERS: AtomicU64 = AtomicU64::new(1);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Region { inner: Arc::new(Mapping { pointer, length, number, origin }) }
    }

    fn shared(&self) -> Option<&Shared> {
        match &self.inner.origin {
            Origin::Mapped { shared, .. } => shared.as_ref(),
            Origin::Registered => None,
        }
    }

    /// Whether a peer on the same host can be given this memory to read and write in place.
    #[must_use]
    pub fn is_shareable(&self) -> bool {
        self.shared().is_some_and(|shared| !shared.torn.load(Ordering::Relaxed))
    }

    /// The memfd and its length, to be given to a peer with this identity (not 0). `None` for memory that can't be
    /// shared, or is another peer's.
    pub(crate) fn memfd_for(&self, peer: u32) -> Option<(BorrowedFd<'_>, usize)> {
        let shared = self.shared().filter(|shared| !shared.torn.load(Ordering::Relaxed))?;
        let claimed = shared.peer.compare_exchange(0, peer, Ordering::Relaxed, Ordering::Relaxed);
        if claimed.is_err_and(|owner| owner != peer) {
            return None;
        }
        let length = self.len().next_multiple_of(PAGE_BYTES);
        Some((shared.memfd.as_fd(), length))
    }

    /// Whether some of its pages were replaced: who knows the old ones by their physical place must not use them.
    #[cfg(feature = "rdma")]
    pub(crate) fn is_torn(&self) -> bool {
        self.shared().is_some_and(|shared| shared.torn.load(Ordering::Relaxed))
    }

    /// Tells it apart from every other region of this process.
    pub(crate) fn number(&self) -> u64 {
        self.inner.number
    }

    pub(crate) fn downgrade(&self) -> WeakRegion {
        WeakRegion(Arc::downgrade(&self.inner))
    }

    /// Puts fresh pages with the same content where the range lies, so that a peer that has mapped the region can't
    /// reach them any more; the range covers whole pages, but for the region's end. From now on the region is not
    /// shared.
    ///
    /// # Errors
    /// The system has no memory for the pages: the old ones are still there.
    pub(crate) fn detach(&self, offset: usize, length: usize) -> Result<()> {
        let Some(shared) = self.shared() else { return Ok(()) };
        shared.torn.store(true, Ordering::Relaxed);
        let end = (offset + length).next_multiple_of(PAGE_BYTES);
        debug_assert!(offset.is_multiple_of(PAGE_BYTES) && end <= self.len().next_multiple_of(PAGE_BYTES));
        let bytes = end - offset;
        let failed = |cause| Error::system(format!("replacing {bytes} bytes of shared memory"), &cause);
        if bytes == 0 {
            return Ok(());
        }
        let fresh = map(bytes, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None).map_err(failed)?;
        // SAFETY: `offset` is inside the mapping.
        let place = unsafe { self.inner.pointer.add(offset) };
        // SAFETY: both ranges are mapped and `bytes` long; the caller owns the buffers in the old one, and nobody knows
        // the fresh one. Moving it over the old one replaces exactly those pages.
        let moved = unsafe {
            std::ptr::copy_nonoverlapping(place.as_ptr(), fresh.as_ptr(), bytes);
            libc::mremap(
                fresh.as_ptr().cast(),
                bytes,
                bytes,
                libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                place.as_ptr(),
            )
        };
        if moved == libc::MAP_FAILED {
            let cause = io::Error::last_os_error();
            // SAFETY: the fresh mapping is still where it was, and nobody else's.
            unsafe { libc::munmap(fresh.as_ptr().cast(), bytes) };
            return Err(failed(cause));
        }
        Ok(())
    }

    /// A buffer over `length` bytes from `offset`. Several buffers may cover the same bytes.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] where the range leaves the region.
    pub fn slice(&self, offset: usize, length: usize) -> Result<Buffer> {
        let end =
            offset.checked_add(length).filter(|end| *end <= self.len()).ok_or(Error::LimitExceeded {
                what: "end of a region's slice in bytes",
                value: (offset as u64).saturating_add(length as u64),
                limit: self.len() as u64,
            })?;
        debug_assert!(end <= self.inner.length);
        // SAFETY: `offset <= end <= length`, so the result stays inside (or one past) the mapping.
        let pointer = unsafe { self.inner.pointer.add(offset) };
        Ok(Buffer::in_region(pointer, length, self.clone()))
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.length
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// First byte.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.inner.pointer.as_ptr()
    }
}

/// A memfd of this length that can neither shrink nor grow: a peer that maps it can rely on its length.
fn sealed_memfd(length: usize) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 don't know that it can be sealed against execution, newer ones may insist on it.
    let memfd = rustix::fs::memfd_create("libxio", flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| rustix::fs::memfd_create("libxio", flags))?;
    rustix::fs::ftruncate(&memfd, length as u64)?;
    rustix::fs::fcntl_add_seals(&memfd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(memfd)
}

/// Size of the system's pages in bytes. (From the C library: `rustix` reads what the kernel told the program at its start,
/// and crashes under valgrind, where that is not so.)
fn base_page_bytes() -> usize {
    // SAFETY: it asks for a number, and has no other effect.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0)
}

fn map(length: usize, flags: libc::c_int, memfd: Option<BorrowedFd<'_>>) -> io::Result<NonNull<u8>> {
    let descriptor = memfd.map_or(-1, |memfd| memfd.as_raw_fd());
    // SAFETY: a fresh mapping at an address of the kernel's choice touches no existing memory.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            flags | libc::MAP_NORESERVE,
            descriptor,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
}

/// A wish to the kernel, which may refuse it.
fn advise(pointer: NonNull<u8>, length: usize, advice: libc::c_int) {
    // SAFETY: the range was just mapped by us; neither advice used here changes its content.
    unsafe { libc::madvise(pointer.as_ptr().cast(), length, advice) };
}

/// Wants to know when a region's memory is about to go: who has registered it with a device takes that back first.
#[cfg(feature = "rdma")]
pub(crate) trait RegionWatcher: Send + Sync {
    /// When this returns, nobody reaches the region's memory by this watcher's doing any more.
    fn region_ends(&self, number: u64);
}

/// Locked when a watcher is added and when a region ends: rare events.
#[cfg(feature = "rdma")]
static WATCHERS: Mutex<Vec<Weak<dyn RegionWatcher>>> = Mutex::new(Vec::new());

/// Tells the watcher of every region that ends from now on, as long as it lives.
#[cfg(feature = "rdma")]
pub(crate) fn watch_regions(watcher: &Arc<dyn RegionWatcher>) {
    let mut watchers = WATCHERS.lock().unwrap_or_else(PoisonError::into_inner);
    watchers.retain(|known| known.strong_count() > 0);
    watchers.push(Arc::downgrade(watcher));
}

impl Drop for Mapping {
    fn drop(&mut self) {
        #[cfg(feature = "rdma")]
        {
            // Not called under the lock: the last owner of a watcher may be the one that is upgraded here.
            let watchers = WATCHERS.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for watcher in watchers.iter().filter_map(Weak::upgrade) {
                watcher.region_ends(self.number);
            }
        }
        if let Origin::Mapped { length, process, .. } = self.origin
            && process == std::process::id()
        {
            // SAFETY: the range was mapped by `map` with this length in this process, and the last owner is going away.
            unsafe { libc::munmap(self.pointer.as_ptr().cast(), length) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_stay_inside() {
        let region = Region::allocate(8192, false).unwrap();
        let mut buffer = region.slice(4096, 4096).unwrap();
        buffer.copy_from(4090, b"abcdef");
        let mut read = [0; 6];
        region.slice(8186, 6).unwrap().copy_to(0, &mut read);
        assert_eq!(&read, b"abcdef");
        assert!(region.slice(4096, 4097).is_err());
        assert!(region.slice(usize::MAX, 2).is_err());
        assert!(region.slice(8192, 0).unwrap().is_empty());
        drop(region);
        assert_eq!(buffer.len(), 4096);
    }

    #[test]
    fn huge_pages_degrade_to_plain_ones() {
        let region = Region::allocate(HUGE_PAGE_BYTES, true).unwrap();
        region.slice(0, 1).unwrap().copy_from(0, b"x");
    }

    #[test]
    fn one_peer_alone_gets_the_memfd() {
        let region = Region::allocate(10_000, false).unwrap();
        assert!(region.is_shareable());
        let (memfd, length) = region.memfd_for(7).unwrap();
        assert_eq!(length, 12_288);
        assert_eq!(rustix::fs::fstat(memfd).unwrap().st_size, 12_288);
        let seals = rustix::fs::fcntl_get_seals(memfd).unwrap();
        assert!(seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL));
        assert!(region.memfd_for(8).is_none());
        assert!(region.memfd_for(7).is_some());
    }

    #[test]
    fn detached_pages_keep_their_content_and_are_out_of_reach() {
        let region = Region::allocate(3 * PAGE_BYTES, false).unwrap();
        let mut all = region.slice(0, 3 * PAGE_BYTES).unwrap();
        all.copy_from(0, &[7; 3 * PAGE_BYTES]);
        let memfd = region.memfd_for(1).unwrap().0.try_clone_to_owned().unwrap();
        region.detach(PAGE_BYTES, PAGE_BYTES).unwrap();
        assert!(!region.is_shareable() && region.memfd_for(1).is_none());
        assert!(all.to_vec().iter().all(|byte| *byte == 7));
        rustix::io::pwrite(&memfd, &[9; 3 * PAGE_BYTES], 0).unwrap();
        let seen = all.to_vec();
        assert!(seen[..PAGE_BYTES].iter().all(|byte| *byte == 9));
        assert!(seen[PAGE_BYTES..2 * PAGE_BYTES].iter().all(|byte| *byte == 7), "the peer has reached it");
        assert!(seen[2 * PAGE_BYTES..].iter().all(|byte| *byte == 9));
    }
}
