//! Huge pages for memory that is there already: fewer entries of page tables to be looked up for a copy at a random place.

use std::io;

/// Asks the kernel to put huge pages under some memory of this process, now, whatever the system's setting for transparent
/// huge pages says: madvise(2), MADV_COLLAPSE, since Linux 6.1. Its content stays; what of it was never touched is there
/// afterwards, as zeros. It may take milliseconds for each huge page, most of them for making one; while this is copied, other
/// threads wait that touch this part of the memory, or map and unmap any. Only huge pages that lie entirely in the range can
/// be had, so it should begin at a multiple of their size, which is 2 MiB nearly everywhere; where there are none in it, nothing
/// happens.
///
/// An address and not a slice, since that would keep others from writing the memory meanwhile. It need not be there any more;
/// what is there instead keeps its content too.
///
/// # Errors
/// As madvise(2): EINVAL where the kernel does not know this or the memory can't have huge pages, ENOMEM where there is nothing,
/// or no huge page to be had.
pub fn collapse_memory(start: usize, length: usize) -> io::Result<()> {
    // SAFETY: no content changes, whatever lies there; the kernel checks the range.
    let outcome = unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_COLLAPSE) };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_an_error() {
        const HUGE: usize = 2 << 20;
        assert!(collapse_memory(HUGE, HUGE).is_err(), "nothing is there");
        assert!(collapse_memory(HUGE + 1, HUGE).is_err(), "no page begins there");
    }
}
