//! Memory of a peer on the same host, mapped here: it is read and written in place, and its owner may change it, or take
//! it away, at any time.
//!
//! Kernel calls on it fail with EFAULT where a page is missing; our own copies go through [`guard::touch`]. Memory that
//! has vanished once stays broken, and its link is given up.

use super::budget::{Account, Share};
use super::guard::{self, Vanished};
use super::pinned::{Pin, Pinning};
use super::{Buffer, PAGE_BYTES};
use rustix::fs::SealFlags;
use rustix::mm::{MapFlags, ProtFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A link's socket, held by the link and by all memory that came over it. It is closed when nothing here can reach that
/// memory any more, which is how the peer learns of it.
#[derive(Debug)]
pub(crate) struct PeerHold {
    socket: OwnedFd,
    /// Some of the memory has vanished under a touch.
    vanished: AtomicBool,
    /// What may be mapped of the peer's memory, and what is.
    account: Account,
}

impl PeerHold {
    pub(crate) fn new(socket: OwnedFd, account: Account) -> Arc<PeerHold> {
        Arc::new(PeerHold { socket, vanished: AtomicBool::new(false), account })
    }

    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    #[inline]
    pub(crate) fn has_vanished(&self) -> bool {
        self.vanished.load(Ordering::Relaxed)
    }
}

/// A mapped memfd of a peer; unmapped when the last buffer over it is gone.
pub(crate) struct PeerMemory {
    /// First byte; mapped for `length` bytes as long as this value lives.
    pointer: NonNull<u8>,
    length: usize,
    /// What follows is dropped after the memory is unmapped.
    pinning: Pinning,
    hold: Arc<PeerHold>,
}

impl std::fmt::Debug for PeerMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PeerMemory({} bytes at {:p})", self.length, self.pointer)
    }
}

// SAFETY: the memory is reached through raw copies only; the fields don't change.
unsafe impl Send for PeerMemory {}
// SAFETY: as above.
unsafe impl Sync for PeerMemory {}

impl PeerMemory {
    /// Maps a peer's memfd, if it is one, has this length, and can neither shrink nor grow.
    ///
    /// # Errors
    /// EINVAL for anything but such a memfd; ENOBUFS where the link's account has no room for it; what mapping it says.
    pub(crate) fn map(
        memfd: BorrowedFd<'_>,
        length: usize,
        hold: Arc<PeerHold>,
    ) -> io::Result<Arc<PeerMemory>> {
        let wrong = || io::Error::from_raw_os_error(libc::EINVAL);
        let seals = rustix::fs::fcntl_get_seals(memfd).map_err(|_| wrong())?;
        if !seals.contains(SealFlags::SHRINK | SealFlags::GROW) || seals.contains(SealFlags::WRITE) {
            return Err(wrong());
        }
        let size = rustix::fs::fstat(memfd)?.st_size;
        if length == 0 || !length.is_multiple_of(PAGE_BYTES) || usize::try_from(size) != Ok(length) {
            return Err(wrong());
        }
        guard::prepare();
        if !hold.account.charge(length as u64) {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no existing memory.
        let mapped = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                memfd,
                0,
            )
        };
        let address = mapped.inspect_err(|_| hold.account.release(length as u64))?;
        let pointer = NonNull::new(address.cast()).ok_or_else(wrong)?;
        // SAFETY: the range was just mapped; a child process has no business with a peer's memory.
        unsafe { libc::madvise(address, length, libc::MADV_DONTFORK) };
        Ok(Arc::new(PeerMemory { pointer, length, pinning: Pinning::default(), hold }))
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Room for its pages to be pinned, in the budget that its mapping is in; `None` where there is none.
    pub(crate) fn take_for_pinning(&self) -> Option<Share> {
        self.hold.account.take_for_pinning(self.length as u64)
    }

    /// Where the ring of this context has it pinned; counts the uses that make it worthwhile.
    pub(crate) fn pinned_at(&self, context: u32, uses_min: u32) -> Pin {
        self.pinning.at(context, uses_min)
    }

    /// It is pinned; `release` is told the place when it is unmapped, from any thread.
    pub(crate) fn pin_at(&self, context: u32, place: u16, release: impl Fn(u16) + Send + Sync + 'static) {
        self.pinning.pin(context, place, release);
    }

    /// A buffer over a range of it; `None` where the range leaves it.
    #[inline]
    pub(crate) fn slice(self: &Arc<Self>, offset: u64, length: u32) -> Option<Buffer> {
        let (offset, length) = (usize::try_from(offset).ok()?, length as usize);
        if offset.checked_add(length)? > self.length {
            return None;
        }
        // SAFETY: the range was checked.
        let pointer = unsafe { self.pointer.add(offset) };
        Some(Buffer::in_peer(pointer, length, Arc::clone(self)))
    }

    /// First byte.
    #[inline]
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.pointer.as_ptr()
    }

    /// Touches the memory; what vanished is noted.
    #[inline]
    pub(crate) fn touch<R>(&self, access: impl FnOnce() -> R) -> Result<R, Vanished> {
        let outcome = guard::touch(self.pointer.as_ptr(), self.length, access);
        if outcome.is_err() {
            self.hold.vanished.store(true, Ordering::Relaxed);
        }
        outcome
    }
}

impl Drop for PeerMemory {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and no buffer over it is left.
        let _ = unsafe { rustix::mm::munmap(self.pointer.as_ptr().cast(), self.length) };
        self.hold.account.release(self.length as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::{Amount, Budget, Purpose};
    use super::*;
    use crate::Region;
    use rustix::fs::{FallocateFlags, MemfdFlags};
    use std::os::fd::{AsFd, OwnedFd};

    fn memfd(length: u64, seals: SealFlags, flags: MemfdFlags) -> OwnedFd {
        let memfd = rustix::fs::memfd_create("test", MemfdFlags::ALLOW_SEALING | flags).unwrap();
        rustix::fs::ftruncate(&memfd, length).unwrap();
        rustix::fs::fcntl_add_seals(&memfd, seals).unwrap();
        memfd
    }

    fn hold() -> Arc<PeerHold> {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        PeerHold::new(one.into(), Account::unlimited())
    }

    fn refused(descriptor: &OwnedFd, length: usize) -> bool {
        PeerMemory::map(descriptor.as_fd(), length, hold()).is_err()
    }

    #[test]
    fn only_sealed_memory_of_the_right_length_is_mapped() {
        let sealed = SealFlags::SHRINK | SealFlags::GROW;
        assert!(refused(&memfd(4096, SealFlags::SHRINK, MemfdFlags::CLOEXEC), 4096));
        assert!(refused(&memfd(4096, SealFlags::GROW, MemfdFlags::CLOEXEC), 4096));
        assert!(refused(&memfd(4096, sealed | SealFlags::WRITE, MemfdFlags::CLOEXEC), 4096));
        let good = memfd(8192, sealed, MemfdFlags::CLOEXEC);
        for length in [0, 4096, 4097, 12_288, usize::MAX & !4095] {
            assert!(refused(&good, length), "{length}");
        }
        assert!(refused(&tempfile::tempfile().unwrap().into(), 0));
        assert!(!refused(&good, 8192));
    }

    /// Whoever keeps a buffer keeps it mapped, and that counts.
    #[test]
    fn what_is_mapped_counts_until_it_is_unmapped() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let account = Account::new(Budget::new(Amount::new(9, 8192)));
        assert!(account.reserve(Amount::new(9, 8192), Purpose::Needed));
        let hold = PeerHold::new(one.into(), account);
        let sealed = SealFlags::SHRINK | SealFlags::GROW;
        let region = memfd(8192, sealed, MemfdFlags::CLOEXEC);
        let map = || PeerMemory::map(region.as_fd(), 8192, Arc::clone(&hold));
        let memory = map().unwrap();
        let kept = memory.slice(0, 1).unwrap();
        drop(memory);
        assert_eq!(map().unwrap_err().raw_os_error(), Some(libc::ENOBUFS));
        drop(kept);
        assert!(map().is_ok());
    }

    #[test]
    fn ranges_stay_inside_and_bytes_are_shared() {
        let region = Region::allocate(8192, false).unwrap();
        let (memfd, length) = region.memfd_for(region.number(), 1).unwrap();
        let memfd = memfd.as_fd();
        let peer = PeerMemory::map(memfd, length, hold()).unwrap();
        assert!(peer.slice(8192, 1).is_none() && peer.slice(u64::MAX, 2).is_none());
        assert!(peer.slice(8191, u32::MAX).is_none());
        let mut buffer = peer.slice(4096, 10).unwrap();
        assert!(buffer.try_as_slice().is_none());
        region.slice(4096, 10).unwrap().copy_from(0, b"0123456789");
        assert_eq!(buffer.to_vec(), b"0123456789");
        buffer.copy_from(5, b"abcde");
        assert_eq!(region.slice(4096, 10).unwrap().to_vec(), b"01234abcde");
    }

    /// A page that the kernel can't give is what a hole in exhausted memory looks like: here by a file that its owner
    /// has cut short, which seals forbid to real peers.
    #[test]
    fn memory_that_vanishes_is_survived_and_known() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        // SAFETY: a fresh mapping; it is unmapped below.
        let address = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                8192,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )
            .unwrap()
        };
        let pointer = NonNull::new(address.cast::<u8>()).unwrap();
        let hold = hold();
        assert!(hold.account.charge(8192));
        let peer = Arc::new(PeerMemory { pointer, length: 8192, pinning: Pinning::default(), hold });
        guard::prepare();
        let mut buffer = peer.slice(0, 8192).unwrap();
        buffer.copy_from(4000, b"here");
        assert!(!peer.hold.has_vanished());
        file.set_len(0).unwrap();
        buffer.copy_from(4096, b"into nothing");
        assert!(peer.hold.has_vanished());
        // What is there now is private and harmless.
        buffer.copy_from(0, &[1; 8192]);
        assert_eq!(buffer.to_vec().len(), 8192);
    }

    #[test]
    fn a_hole_is_filled_with_zeros() {
        let region = Region::allocate(8192, false).unwrap();
        region.slice(0, 4).unwrap().copy_from(0, b"data");
        let (memfd, length) = region.memfd_for(region.number(), 1).unwrap();
        let memfd = memfd.as_fd();
        let peer = PeerMemory::map(memfd, length, hold()).unwrap();
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(memfd, punch, 0, 8192).unwrap();
        assert_eq!(peer.slice(0, 4).unwrap().to_vec(), [0; 4]);
        assert!(!peer.hold.has_vanished());
    }
}
