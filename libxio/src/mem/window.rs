//! A part of a file, mapped for reading: what is in the page cache is copied out of it without a system call.
//!
//! The mapping shows the file as it is, so bytes may change while they are copied, and pages may go: those wholly beyond the
//! end of a file that was cut short are SIGBUS, which [`guard::touch`] survives. Where a file ends within a page, the rest
//! of the page reads as zeros. A copy is therefore good only if it can be shown that the file reached to its end.

use super::guard;
use super::{Buffer, PAGE_BYTES};
use crate::sys;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::Acquire;
use std::sync::atomic::fence;

/// A range of a file, mapped read-only.
///
/// Dropping it unmaps it, which takes a tenth of a millisecond for 2 MiB, and much longer where it was the last that held a
/// large file which has been removed: a thread that must not wait leaves that to another.
pub struct FileWindow {
    /// First byte; `mapped` bytes are mapped as long as this value lives, by nobody else.
    pointer: NonNull<u8>,
    /// Bytes that may be asked for, at most `mapped`.
    length: usize,
    /// Whole pages, in bytes.
    mapped: usize,
    /// Pages of it were gone when they were touched; private zeros are there now.
    has_vanished: bool,
}

impl std::fmt::Debug for FileWindow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileWindow({} bytes at {:p})", self.length, self.pointer)
    }
}

// SAFETY: the mapping belongs to this value alone, and every touch of it borrows the value uniquely; so it is touched, and
// in the end unmapped, by one thread at a time, whichever that is.
unsafe impl Send for FileWindow {}

impl FileWindow {
    /// Maps `length` bytes of a file from `offset` on, a multiple of the page size. Nothing is read: a touch of a page that
    /// is not in the page cache waits for the device.
    ///
    /// # Errors
    /// What mmap(2) says; EINVAL for an offset within a page, or no bytes.
    pub fn map(file: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<FileWindow> {
        let wrong = || io::Error::from_raw_os_error(libc::EINVAL);
        let mapped = length.checked_next_multiple_of(PAGE_BYTES).filter(|_| length > 0).ok_or_else(wrong)?;
        guard::prepare();
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no existing memory.
        let address = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), mapped, ProtFlags::READ, MapFlags::SHARED, file, offset)?
        };
        let pointer = NonNull::new(address.cast()).ok_or_else(wrong)?;
        let window = FileWindow { pointer, length, mapped, has_vanished: false };
        // A child has no business with it. Refused, it is merely copied.
        // SAFETY: the range was just mapped, and is not in use.
        let _ = unsafe { rustix::mm::madvise(address, mapped, Advice::LinuxDontFork) };
        Ok(window)
    }

    /// Bytes that were mapped.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none, which is never so.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether pages of it were gone when they were touched. It is of no use any more.
    #[must_use]
    #[inline]
    pub fn has_vanished(&self) -> bool {
        self.has_vanished
    }

    /// Asks the processor for the beginning of a range, as [`prefetch_memory`](crate::prefetch_memory) does.
    #[inline]
    pub fn prefetch(&self, start: usize, length: usize) {
        if start < self.length {
            sys::prefetch_page(self.pointer.as_ptr().wrapping_add(start), length.min(self.length - start));
        }
    }

    /// Fills a buffer with the file's bytes from `start` of the window on. True if at some time during the call the file
    /// reached to the last of them; else the buffer's content says nothing about the file, and who wants to know reads it
    /// by a system call.
    ///
    /// How that is known without asking for the file's size: cutting a file short makes its new end known, then takes away
    /// the pages behind it, and fills what is left of the last page with zeros, all before the call returns. So once a file
    /// was cut before the end of a range, the last byte of the range either has no page, or is zero. The other way round, a
    /// last byte that is there and not zero shows that no such call had returned. It is looked at before the copy, since a
    /// file of zeros would be copied in vain, and after it, so that a file which is cut during the copy is noticed like one that
    /// was cut before. A range whose last byte is a zero of the file's own is not known from here; it is for the system call.
    ///
    /// It holds for file systems whose mappings and reads share the page cache, and but for a program that stores behind the end
    /// of a file, into the rest of its last page, by a mapping of its own: mmap(2) leaves open what becomes of that.
    ///
    /// A range that leaves the window is refused.
    #[inline]
    #[must_use]
    pub fn copy_to(&mut self, start: usize, target: &mut Buffer) -> bool {
        let length = target.len();
        let fits = start.checked_add(length).is_some_and(|end| end <= self.length);
        if !fits || length == 0 || self.has_vanished || !target.is_writable() {
            return false;
        }
        let source = self.pointer.as_ptr().wrapping_add(start);
        let copied = guard::touch(self.pointer.as_ptr(), self.mapped, || {
            // SAFETY: the range is inside the mapping, which lives as long as this value; a page that is gone is replaced
            // under the guard. Others may write the file, so the byte is read as it is at this moment, and no reference is made.
            let ends_in_data = || unsafe { source.wrapping_add(length - 1).read_volatile() } != 0;
            if !ends_in_data() {
                return false;
            }
            // SAFETY: as above; the target has `length` bytes, and is other memory than this mapping, which nobody else has.
            unsafe { target.fill_from_raw(source) };
            // The second look comes behind the copy's.
            fence(Acquire);
            ends_in_data()
        });
        copied.unwrap_or_else(|guard::Vanished| {
            self.has_vanished = true;
            false
        })
    }
}

impl Drop for FileWindow {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length (or replaced by the guard, whole), and nobody else knows the address.
        let _ = unsafe { rustix::mm::munmap(self.pointer.as_ptr().cast(), self.mapped) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;

    fn file(length: usize) -> (File, Vec<u8>) {
        let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8 | 1).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        (file, bytes)
    }

    fn target(length: usize) -> Buffer {
        Buffer::from_vec(vec![0xee; length])
    }

    #[test]
    fn ranges_are_copied_and_those_that_leave_it_refused() {
        let (file, bytes) = file(3 * PAGE_BYTES + 5);
        let mut window = FileWindow::map(file.as_fd(), PAGE_BYTES as u64, 2 * PAGE_BYTES + 5).unwrap();
        for (start, length) in
            [(0, 1), (7, 100), (PAGE_BYTES - 1, 2), (0, window.len()), (window.len() - 1, 1)]
        {
            let mut buffer = target(length);
            assert!(window.copy_to(start, &mut buffer), "{start} {length}");
            let from = PAGE_BYTES + start;
            assert_eq!(buffer.to_vec(), bytes[from..from + length], "{start} {length}");
        }
        for (start, length) in [(0, 0), (window.len(), 1), (1, window.len()), (usize::MAX, 2)] {
            assert!(!window.copy_to(start, &mut target(length)), "{start} {length}");
        }
        assert!(!window.copy_to(0, &mut Buffer::from_static(b"fixed")));
        assert!(!window.has_vanished());
        assert!(FileWindow::map(file.as_fd(), 1, 10).is_err());
        assert!(FileWindow::map(file.as_fd(), 0, 0).is_err());
        assert!(FileWindow::map(file.as_fd(), 0, usize::MAX).is_err());
    }

    #[test]
    fn what_is_written_shows_at_once() {
        let (file, _) = file(PAGE_BYTES);
        let mut window = FileWindow::map(file.as_fd(), 0, PAGE_BYTES).unwrap();
        assert!(window.copy_to(0, &mut target(10)));
        for round in 1..100 {
            file.write_all_at(&[round; 10], 0).unwrap();
            let mut buffer = target(10);
            assert!(window.copy_to(0, &mut buffer));
            assert_eq!(buffer.to_vec(), [round; 10]);
        }
    }

    #[test]
    fn a_file_that_was_cut_within_a_page_is_noticed() {
        let (file, bytes) = file(2 * PAGE_BYTES);
        let mut window = FileWindow::map(file.as_fd(), 0, 2 * PAGE_BYTES).unwrap();
        file.set_len(PAGE_BYTES as u64 + 100).unwrap();
        assert!(!window.copy_to(0, &mut target(2 * PAGE_BYTES)));
        assert!(!window.copy_to(PAGE_BYTES, &mut target(101)));
        assert!(!window.has_vanished(), "the page is there");
        let mut buffer = target(100);
        assert!(window.copy_to(PAGE_BYTES, &mut buffer));
        assert_eq!(buffer.to_vec(), bytes[PAGE_BYTES..PAGE_BYTES + 100]);
        // What it grows by is zeros, of which nothing is known from here; then data.
        file.set_len(2 * PAGE_BYTES as u64).unwrap();
        assert!(!window.copy_to(PAGE_BYTES, &mut target(101)));
        file.write_all_at(&[9; 10], PAGE_BYTES as u64 + 100).unwrap();
        assert!(window.copy_to(PAGE_BYTES, &mut target(101)));
    }

    /// No page is there to be touched: without the guard this test would end the process.
    #[test]
    fn a_file_that_was_cut_before_a_page_is_survived() {
        let (file, _) = file(4 * PAGE_BYTES);
        let mut window = FileWindow::map(file.as_fd(), 0, 4 * PAGE_BYTES).unwrap();
        assert!(window.copy_to(0, &mut target(4 * PAGE_BYTES)));
        file.set_len(PAGE_BYTES as u64).unwrap();
        assert!(!window.copy_to(PAGE_BYTES, &mut target(PAGE_BYTES)));
        assert!(window.has_vanished());
        // Nothing is taken from what is in its place now.
        assert!(!window.copy_to(0, &mut target(10)));
    }

    /// A hole reads as zeros, and so does what a file has grown by.
    #[test]
    fn zeros_of_the_file_are_left_to_the_system_call() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(PAGE_BYTES as u64).unwrap();
        let mut window = FileWindow::map(file.as_fd(), 0, PAGE_BYTES).unwrap();
        assert!(!window.copy_to(0, &mut target(PAGE_BYTES)));
        file.write_all_at(b"x", 9).unwrap();
        assert!(window.copy_to(0, &mut target(10)));
        assert!(!window.copy_to(0, &mut target(11)));
    }
}
