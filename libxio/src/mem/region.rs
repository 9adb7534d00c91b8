//! A stretch of memory that stays where it is: mapped by us or owned by the application.
//!
//! Transports and rings keep tables that say how they know a region (file descriptor, memory region key, fixed-buffer
//! index); the region itself is only an address range with an owner.

use super::Buffer;
use crate::{Error, Result};
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

/// Size of a huge page on x86-64 and aarch64 with 4 KiB base pages, in bytes.
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
    /// Whether we mapped it, and so unmap it.
    mapped: bool,
    huge: bool,
}

// SAFETY: the mapping is plain memory; all access goes through raw pointers handed out by `Buffer`, whose rules
// (one owner, or nobody forms a slice) hold on every thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; the fields never change after construction.
unsafe impl Sync for Mapping {}

impl Region {
    /// Maps `length` bytes of zeroed memory, in huge pages if the system has some free and the length fills them.
    ///
    /// # Errors
    /// [`Error::System`] (ENOMEM) where the address space or the memory group is full.
    pub fn allocate(length: usize, huge_pages: bool) -> Result<Region> {
        let length = length.max(1);
        if huge_pages
            && length.is_multiple_of(HUGE_PAGE_BYTES)
            && let Ok(pointer) = map(length, libc::MAP_HUGETLB)
        {
            return Ok(Region::from_mapping(pointer, length, true, true));
        }
        match map(length, 0) {
            Ok(pointer) => Ok(Region::from_mapping(pointer, length, true, false)),
            Err(cause) => Err(Error::system(format!("mapping {length} bytes of memory"), &cause)),
        }
    }

    /// Registers memory of the application.
    ///
    /// # Safety
    /// `pointer` must be valid for reads and writes of `length` bytes until the region and every buffer cut from it
    /// are dropped, and the application must not form references into the bytes that an operation is moving.
    #[must_use]
    pub unsafe fn register(pointer: NonNull<u8>, length: usize) -> Region {
        Region::from_mapping(pointer, length, false, false)
    }

    fn from_mapping(pointer: NonNull<u8>, length: usize, mapped: bool, huge: bool) -> Region {
        Region { inner: Arc::new(Mapping { pointer, length, mapped, huge }) }
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

    /// Whether it lies in huge pages.
    #[must_use]
    pub fn is_huge(&self) -> bool {
        self.inner.huge
    }
}

fn map(length: usize, flags: libc::c_int) -> io::Result<NonNull<u8>> {
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no existing memory.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.mapped {
            // SAFETY: the range was mapped by `map` with this length, and the last owner is going away.
            unsafe { libc::munmap(self.pointer.as_ptr().cast(), self.length) };
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
}
