//! A stretch of memory that stays where it is: mapped by us or owned by the application.
//!
//! What we map is a sealed memfd, so that a peer on the same host can map it too: its pages are then shared, and are
//! taken out of the peer's reach by [`Region::detach`] (`sharing.rs`). Where the system gives no memfd (descriptors have run
//! out), plain memory does: a transport that shares memory copies what lies in it. Transports keep tables that say how they know a
//! region; the region itself is only an address range with an owner.

use super::Buffer;
use super::sharing::{Shared, map};
use crate::{Error, Result};
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;
#[cfg(feature = "rdma")]
use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};
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

/// A region, if it still lives.
#[cfg(feature = "rdma")]
#[derive(Debug, Clone)]
pub(crate) struct WeakRegion(Weak<Mapping>);

#[cfg(feature = "rdma")]
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
        let number = next_number();
        let sharing = if base_page_bytes() == PAGE_BYTES { Shared::new(mapped, number).ok() } else { None };
        let shared = sharing.and_then(|shared| {
            let pointer = map(mapped, libc::MAP_SHARED, Some((shared.first(), 0))).ok()?;
            Some((pointer, shared))
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
        Ok(Region::from_mapping(pointer, length, number, origin))
    }

    /// Registers memory of the application.
    ///
    /// # Safety
    /// `pointer` must be valid for reads and writes of `length` bytes until the region and every buffer cut from it
    /// are dropped, and the application must not form references into the bytes that an operation is moving.
    #[must_use]
    pub unsafe fn register(pointer: NonNull<u8>, length: usize) -> Region {
        Region::from_mapping(pointer, length, next_number(), Origin::Registered)
    }

    fn from_mapping(pointer: NonNull<u8>, length: usize, number: u64, origin: Origin) -> Region {
        Region { inner: Arc::new(Mapping { pointer, length, number, origin }) }
    }

    #[inline]
    fn shared(&self) -> Option<&Shared> {
        match &self.inner.origin {
            Origin::Mapped { shared, .. } => shared.as_ref(),
            Origin::Registered => None,
        }
    }

    /// Whether a peer on the same host can be given this memory to read and write in place.
    #[must_use]
    pub fn is_shareable(&self) -> bool {
        self.shared().is_some()
    }

    /// The number of the memfd in which a range of it lies, for [`Region::memfd_for`]. `None` for memory that can't be
    /// shared, or lies in several.
    #[inline]
    pub(crate) fn memfd_number(&self, offset: usize, length: usize) -> Option<u64> {
        self.shared()?.number_at(offset, length)
    }

    /// As [`Region::memfd_number`], for a range that its caller owns, about to be lent: pages that could not be shared when
    /// they were last replaced, or lie in several memfds, are put into one again, if it is time to try and there is one.
    #[inline]
    pub(crate) fn memfd_number_for_lending(&self, offset: usize, length: usize) -> Option<u64> {
        self.memfd_number(offset, length).or_else(|| self.share_again(offset, length))
    }

    #[cold]
    fn share_again(&self, offset: usize, length: usize) -> Option<u64> {
        let shared = self.shared()?;
        let bytes = (offset + length).next_multiple_of(PAGE_BYTES) - offset;
        if bytes == 0 || !shared.is_due() {
            return None;
        }
        #[cfg(feature = "rdma")]
        tell_watchers(|watcher| watcher.region_torn(self.number()));
        shared.share_again(self.inner.pointer, offset, bytes)
    }

    /// One of its memfds and the length, to be given to a peer with this identity (not 0). Offsets in it are those in the
    /// region. `None` where it is another peer's.
    pub(crate) fn memfd_for(&self, number: u64, peer: u32) -> Option<(Arc<OwnedFd>, usize)> {
        let memfd = self.shared()?.give(number, peer)?;
        Some((memfd, self.len().next_multiple_of(PAGE_BYTES)))
    }

    /// Whether some of its pages were replaced: who knows the old ones by their physical place must not use them.
    #[cfg(feature = "rdma")]
    pub(crate) fn is_torn(&self) -> bool {
        self.shared().is_some_and(Shared::is_torn)
    }

    /// Tells it apart from every other region of this process.
    pub(crate) fn number(&self) -> u64 {
        self.inner.number
    }

    #[cfg(feature = "rdma")]
    pub(crate) fn downgrade(&self) -> WeakRegion {
        WeakRegion(Arc::downgrade(&self.inner))
    }

    /// Puts fresh pages with the same content where the range lies, so that a peer that has mapped the region can't
    /// reach them any more; the range covers whole pages, but for the region's end.
    ///
    /// # Errors
    /// The system has no memory for the pages: the old ones are still there.
    pub(crate) fn detach(&self, offset: usize, length: usize) -> Result<()> {
        let Some(shared) = self.shared() else { return Ok(()) };
        let bytes = (offset + length).next_multiple_of(PAGE_BYTES) - offset;
        if bytes == 0 {
            return Ok(());
        }
        #[cfg(feature = "rdma")]
        {
            shared.tear();
            tell_watchers(|watcher| watcher.region_torn(self.number()));
        }
        let failed = |cause| Error::system(format!("replacing {bytes} bytes of shared memory"), &cause);
        shared.replace(self.inner.pointer, offset, bytes).map_err(failed)
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
    #[inline]
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
    #[inline]
    pub fn as_ptr(&self) -> *mut u8 {
        self.inner.pointer.as_ptr()
    }
}

/// A number that no region or memfd of this process has had.
pub(super) fn next_number() -> u64 {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// Size of the system's pages in bytes. (From the C library: `rustix` reads what the kernel told the program at its start,
/// and crashes under valgrind, where that is not so.)
fn base_page_bytes() -> usize {
    // SAFETY: it asks for a number, and has no other effect.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(0)
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

    /// Some of the region's pages are about to be replaced: who knows them by their physical place, and can't ask
    /// [`Region::is_torn`] each time, gives them up.
    fn region_torn(&self, number: u64) {
        let _ = number;
    }
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

#[cfg(feature = "rdma")]
fn tell_watchers(what: impl Fn(&dyn RegionWatcher)) {
    // Not called under the lock: the last owner of a watcher may be the one that is upgraded here.
    let watchers = WATCHERS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for watcher in watchers.iter().filter_map(Weak::upgrade) {
        what(watcher.as_ref());
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        #[cfg(feature = "rdma")]
        tell_watchers(|watcher| watcher.region_ends(self.number));
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
    use rustix::fs::SealFlags;

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
        let number = region.memfd_number(0, 10_000).unwrap();
        let (memfd, length) = region.memfd_for(number, 7).unwrap();
        assert_eq!(length, 12_288);
        assert_eq!(rustix::fs::fstat(&memfd).unwrap().st_size, 12_288);
        let seals = rustix::fs::fcntl_get_seals(&memfd).unwrap();
        assert!(seals.contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL));
        assert!(region.memfd_for(number, 8).is_none());
        assert!(region.memfd_for(number, 7).is_some());
        assert!(region.memfd_for(u64::MAX, 7).is_none());
    }

    fn number(region: &Region, page: usize, pages: usize) -> Option<u64> {
        region.memfd_number(page * PAGE_BYTES, pages * PAGE_BYTES)
    }

    fn overwrite(memfd: &OwnedFd, byte: u8, pages: usize) {
        rustix::io::pwrite(memfd, &vec![byte; pages * PAGE_BYTES], 0).unwrap();
    }

    #[test]
    fn detached_pages_keep_their_content_and_are_out_of_reach() {
        let region = Region::allocate(3 * PAGE_BYTES, false).unwrap();
        let mut all = region.slice(0, 3 * PAGE_BYTES).unwrap();
        all.copy_from(0, &[7; 3 * PAGE_BYTES]);
        let first = number(&region, 0, 3).unwrap();
        let memfd = region.memfd_for(first, 1).unwrap().0;
        region.detach(PAGE_BYTES, PAGE_BYTES).unwrap();
        assert!(all.to_vec().iter().all(|byte| *byte == 7));
        overwrite(&memfd, 9, 3);
        let seen = all.to_vec();
        assert!(seen[..PAGE_BYTES].iter().all(|byte| *byte == 9));
        assert!(seen[PAGE_BYTES..2 * PAGE_BYTES].iter().all(|byte| *byte == 7), "the peer has reached it");
        assert!(seen[2 * PAGE_BYTES..].iter().all(|byte| *byte == 9));
    }

    #[test]
    fn detached_pages_are_shared_again_by_a_fresh_memfd() {
        let region = Region::allocate(4 * PAGE_BYTES, false).unwrap();
        let first = number(&region, 0, 4).unwrap();
        region.memfd_for(first, 1).unwrap();
        region.detach(PAGE_BYTES, PAGE_BYTES).unwrap();
        region.detach(3 * PAGE_BYTES, PAGE_BYTES).unwrap();
        assert_eq!((number(&region, 0, 1), number(&region, 2, 1)), (Some(first), Some(first)));
        assert_eq!(number(&region, 0, 2), None, "it lies in two");
        let second = number(&region, 1, 1).unwrap();
        assert!(second != first && number(&region, 3, 1) == Some(second), "one memfd does for both");
        assert!(region.memfd_for(second, 2).is_none(), "another peer's");
        let (memfd, length) = region.memfd_for(second, 1).unwrap();
        assert_eq!(length, 4 * PAGE_BYTES);
        overwrite(&memfd, 5, 4);
        assert!(region.slice(PAGE_BYTES, PAGE_BYTES).unwrap().to_vec() == [5; PAGE_BYTES]);
        assert!(region.slice(0, PAGE_BYTES).unwrap().to_vec() == [0; PAGE_BYTES]);
        // A memfd that a peer has takes no more pages.
        region.detach(0, PAGE_BYTES).unwrap();
        let third = number(&region, 0, 1).unwrap();
        assert!(third != first && third != second);
        region.detach(0, 4 * PAGE_BYTES).unwrap();
        assert_eq!(number(&region, 0, 4), Some(third), "nobody has seen it");
        assert!(region.memfd_for(second, 1).is_none(), "it is closed");
        region.memfd_for(third, 1).unwrap();
        for _ in 0..1000 {
            region.detach(0, 4 * PAGE_BYTES).unwrap();
            let number = number(&region, 0, 4).unwrap();
            region.memfd_for(number, 1).unwrap();
        }
    }

    #[test]
    fn more_memfds_than_are_allowed_are_private_pages() {
        let region = Region::allocate(100 * PAGE_BYTES, false).unwrap();
        let mut all = region.slice(0, 100 * PAGE_BYTES).unwrap();
        all.copy_from(0, &[7; 100 * PAGE_BYTES]);
        let mut shared = 0;
        for page in 0..100 {
            region.detach(page * PAGE_BYTES, PAGE_BYTES).unwrap();
            if let Some(number) = number(&region, page, 1) {
                region.memfd_for(number, 1).unwrap();
                shared += 1;
            }
        }
        assert_eq!(shared, 32);
        assert!(all.to_vec() == [7; 100 * PAGE_BYTES]);
        // There is room for one more: what is private, or lies in several, is shared again in time.
        let lend = |page, pages| region.memfd_number_for_lending(page * PAGE_BYTES, pages * PAGE_BYTES);
        let tries = || (0..3000).position(|_| lend(60, 1).is_some());
        assert_eq!(tries(), None, "there is none");
        region.detach(0, PAGE_BYTES).unwrap();
        assert!(tries().is_some());
        let place = lend(60, 1).unwrap();
        assert!(lend(50, 20) == Some(place) && number(&region, 50, 20) == Some(place), "at once after that");
        let memfd = region.memfd_for(place, 1).unwrap().0;
        assert!(all.to_vec() == [7; 100 * PAGE_BYTES]);
        overwrite(&memfd, 9, 100);
        let seen = all.to_vec();
        assert!(seen[50 * PAGE_BYTES..70 * PAGE_BYTES].iter().all(|byte| *byte == 9));
        assert!(seen[70 * PAGE_BYTES..].iter().all(|byte| *byte == 7));
    }
}
