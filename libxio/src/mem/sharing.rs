//! How a region's pages are shared with a peer on the same host, and taken from it again.
//!
//! A region begins in one sealed memfd. Pages that a peer may still be at, though their owner has to go on, are replaced by
//! those of a fresh memfd at the same offset, so that they can be shared again at once, with a peer that answers. A fresh
//! memfd takes pages only until it is given to somebody; the next ones go into the next. Where there is no memfd, or there
//! are too many, private pages take the place, and what lies in them is copied until a later try finds a memfd for them.

use super::region::{PAGE_BYTES, next_number};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Fresh memfds of one region at a time. Each is the memory of one lost peer; one whose pages were all replaced again is
/// closed.
const FRESH_MAX: usize = 32;
/// Uses of pages that can't be shared between two tries to share them again.
const TRY_AGAIN: u32 = 1024;
/// In the table of pages: in the region's first memfd, in nobody's; other numbers count the fresh memfds from 1.
const FIRST: u8 = 0;
const PRIVATE: u8 = u8::MAX;
const _: () = assert!(FRESH_MAX < PRIVATE as usize);

/// How peers can map a region.
#[derive(Debug)]
pub(super) struct Shared {
    first: Arc<OwnedFd>,
    /// Names the first memfd in this process.
    number: u64,
    /// Of every memfd of the region, in bytes.
    length: usize,
    /// The peer that may see it: one identity for life, since other pieces of the region hold other dialogues' data.
    /// 0: none so far.
    peer: AtomicU32,
    /// Some of its pages are others than the first memfd's. Set before the first is replaced.
    torn: AtomicBool,
    /// Locked only once pages were replaced.
    replaced: Mutex<Replaced>,
}

#[derive(Debug, Default)]
struct Replaced {
    /// Where each page lies; empty before the first is replaced.
    pages: Vec<u8>,
    fresh: Vec<Option<Fresh>>,
    /// Uses of pages that could not be shared, since the last try that failed.
    unshared: u32,
}

#[derive(Debug)]
struct Fresh {
    memfd: Arc<OwnedFd>,
    number: u64,
    /// Pages of the region that lie in it.
    pages: usize,
    /// A peer may have it.
    given: bool,
}

impl Shared {
    /// A memfd for `length` bytes, whole pages.
    pub(super) fn new(length: usize, number: u64) -> io::Result<Shared> {
        Ok(Shared {
            first: Arc::new(sealed_memfd(length)?),
            number,
            length,
            peer: AtomicU32::new(0),
            torn: AtomicBool::new(false),
            replaced: Mutex::default(),
        })
    }

    /// The memfd that the region begins in.
    pub(super) fn first(&self) -> BorrowedFd<'_> {
        self.first.as_fd()
    }

    /// Some of its pages are about to be replaced.
    #[cfg(feature = "rdma")]
    pub(super) fn tear(&self) {
        self.torn.store(true, Ordering::Release);
    }

    #[inline]
    pub(super) fn is_torn(&self) -> bool {
        self.torn.load(Ordering::Acquire)
    }

    fn replaced(&self) -> MutexGuard<'_, Replaced> {
        self.replaced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the memfd in which all of this range lies.
    #[inline]
    pub(super) fn number_at(&self, offset: usize, length: usize) -> Option<u64> {
        if self.is_torn() { self.number_in_fresh(offset, length) } else { Some(self.number) }
    }

    #[cold]
    fn number_in_fresh(&self, offset: usize, length: usize) -> Option<u64> {
        let replaced = self.replaced();
        let range = pages_of(offset, length);
        let pages = replaced.pages.get(range)?;
        match *pages.first()? {
            place if pages.iter().any(|other| *other != place) => None,
            FIRST => Some(self.number),
            place => Some(replaced.fresh.get(usize::from(place) - 1)?.as_ref()?.number),
        }
    }

    /// The memfd with this number, to be given to a peer with this identity (not 0); none for another peer's.
    pub(super) fn give(&self, number: u64, peer: u32) -> Option<Arc<OwnedFd>> {
        let claimed = self.peer.compare_exchange(0, peer, Ordering::Relaxed, Ordering::Relaxed);
        if claimed.is_err_and(|owner| owner != peer) {
            return None;
        }
        if number == self.number {
            return Some(Arc::clone(&self.first));
        }
        let mut replaced = self.replaced();
        let fresh = replaced.fresh.iter_mut().flatten().find(|fresh| fresh.number == number)?;
        fresh.given = true;
        Some(Arc::clone(&fresh.memfd))
    }

    /// Puts fresh pages with the same content in a range of the region that begins at `start`; it is made of whole pages,
    /// and the caller owns all buffers in it.
    ///
    /// # Errors
    /// The system has no memory for the pages: the old ones are still there, and are shared with nobody any more.
    pub(super) fn replace(&self, start: NonNull<u8>, offset: usize, length: usize) -> io::Result<()> {
        let range = pages_of(offset, length);
        debug_assert!(offset.is_multiple_of(PAGE_BYTES) && length.is_multiple_of(PAGE_BYTES));
        debug_assert!(offset + length <= self.length);
        let mut replaced = self.replaced();
        // Who looks from now on waits for the lock.
        self.torn.store(true, Ordering::Release);
        if replaced.pages.is_empty() {
            replaced.pages = vec![FIRST; self.length / PAGE_BYTES];
        }
        // SAFETY: the offset is inside the region.
        let place = unsafe { start.add(offset) };
        if let Some(index) = replaced.move_to_fresh(place, offset, length, self.length) {
            replaced.note(range, index);
            return Ok(());
        }
        let outcome = map(length, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, None)
            .and_then(|pages| move_to(pages, place, length));
        replaced.note(range, PRIVATE);
        outcome
    }

    /// Whether it is time to try to share pages again that lie in no memfd, or in several: now and then, and as long as it
    /// succeeds. To be asked at each use of them.
    pub(super) fn is_due(&self) -> bool {
        let mut replaced = self.replaced();
        replaced.unshared = replaced.unshared.saturating_add(1);
        replaced.unshared > TRY_AGAIN
    }

    /// Puts pages of a fresh memfd with the same content in a range that lies in no memfd, or in several; the number of that
    /// memfd. Where there is none all stays as it is. The range is as for [`Shared::replace`].
    pub(super) fn share_again(&self, start: NonNull<u8>, offset: usize, length: usize) -> Option<u64> {
        let mut replaced = self.replaced();
        // SAFETY: the offset is inside the region.
        let place = unsafe { start.add(offset) };
        let Some(index) = replaced.move_to_fresh(place, offset, length, self.length) else {
            replaced.unshared = 0;
            return None;
        };
        replaced.note(pages_of(offset, length), index);
        replaced.fresh.get(usize::from(index) - 1)?.as_ref().map(|fresh| fresh.number)
    }
}

impl Replaced {
    /// A fresh memfd that nobody has, and its number in the table.
    fn fresh_for(&mut self, length: usize) -> Option<(u8, Arc<OwnedFd>)> {
        let nobodys = |fresh: &Option<Fresh>| fresh.as_ref().is_some_and(|fresh| !fresh.given);
        let at = match self.fresh.iter().position(nobodys) {
            Some(at) => at,
            None => {
                let memfd = Arc::new(sealed_memfd(length).ok()?);
                let fresh = Some(Fresh { memfd, number: next_number(), pages: 0, given: false });
                match self.fresh.iter().position(Option::is_none) {
                    Some(at) => {
                        self.fresh[at] = fresh;
                        at
                    }
                    None if self.fresh.len() < FRESH_MAX => {
                        self.fresh.push(fresh);
                        self.fresh.len() - 1
                    }
                    None => return None,
                }
            }
        };
        // Below FRESH_MAX.
        Some((at as u8 + 1, Arc::clone(&self.fresh[at].as_ref()?.memfd)))
    }

    /// Moves a range to a fresh memfd; its number in the table, to be noted.
    fn move_to_fresh(
        &mut self,
        place: NonNull<u8>,
        offset: usize,
        length: usize,
        region_length: usize,
    ) -> Option<u8> {
        let (index, memfd) = self.fresh_for(region_length)?;
        // A page that can't be had would be SIGBUS at the first touch: it has to be there before.
        let (at, bytes) = (offset as u64, length as u64);
        rustix::fs::fallocate(&*memfd, FallocateFlags::empty(), at, bytes).ok()?;
        let pages = map(length, libc::MAP_SHARED, Some((memfd.as_fd(), offset))).ok()?;
        // SAFETY: it was just mapped by us; a child process has no business with a peer's memory.
        unsafe { libc::madvise(pages.as_ptr().cast(), length, libc::MADV_DONTFORK) };
        move_to(pages, place, length).ok()?;
        Some(index)
    }

    /// These pages lie there now.
    fn note(&mut self, range: std::ops::Range<usize>, place: u8) {
        for at in range {
            let Some(page) = self.pages.get_mut(at) else { continue };
            let before = std::mem::replace(page, place);
            for (place, enters) in [(before, false), (place, true)] {
                if place == FIRST || place == PRIVATE {
                    continue;
                }
                let fresh = self.fresh.get_mut(usize::from(place) - 1).and_then(Option::as_mut);
                if let Some(fresh) = fresh {
                    fresh.pages = if enters { fresh.pages + 1 } else { fresh.pages - 1 };
                }
            }
        }
        for fresh in &mut self.fresh {
            fresh.take_if(|fresh| fresh.pages == 0);
        }
    }
}

fn pages_of(offset: usize, length: usize) -> std::ops::Range<usize> {
    offset / PAGE_BYTES..(offset + length).div_ceil(PAGE_BYTES)
}

/// Copies a range to pages that nobody knows, and puts them in its place.
fn move_to(pages: NonNull<u8>, place: NonNull<u8>, length: usize) -> io::Result<()> {
    // SAFETY: both ranges are mapped and `length` long; the caller owns the buffers in the old one, and nobody knows the
    // new one. Moving it over the old one replaces exactly those pages.
    let moved = unsafe {
        std::ptr::copy_nonoverlapping(place.as_ptr(), pages.as_ptr(), length);
        libc::mremap(
            pages.as_ptr().cast(),
            length,
            length,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            place.as_ptr(),
        )
    };
    if moved != libc::MAP_FAILED {
        return Ok(());
    }
    let cause = io::Error::last_os_error();
    // SAFETY: the new mapping is still where it was, and nobody else's.
    unsafe { libc::munmap(pages.as_ptr().cast(), length) };
    Err(cause)
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

/// A fresh mapping, of a memfd from an offset or of memory of nobody else.
pub(super) fn map(
    length: usize,
    flags: libc::c_int,
    memfd: Option<(BorrowedFd<'_>, usize)>,
) -> io::Result<NonNull<u8>> {
    let (descriptor, offset) = memfd.map_or((-1, 0), |(memfd, offset)| (memfd.as_raw_fd(), offset));
    let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    // SAFETY: a fresh mapping at an address of the kernel's choice touches no existing memory.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            flags | libc::MAP_NORESERVE,
            descriptor,
            offset,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
}
