//! The few raw calls that no library wraps, each wrapped once.

use crate::{Error, Result};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::ioctl::{Getter, ioctl, opcode};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// FS_IOC_GETVERSION (linux/fs.h). Its type says `long`, the kernel writes an int.
const GET_VERSION: rustix::ioctl::Opcode = opcode::read::<libc::c_long>(b'v', 1);

/// The number of cachestat(2), the same on all architectures.
const CACHESTAT: libc::c_long = 451;

/// The generation of an inode: the number that tells a file from an earlier one with the same inode number.
///
/// # Errors
/// ENOTTY where the file system has none, EBADF for a descriptor that is open for its path only.
pub(crate) fn generation(fd: BorrowedFd<'_>) -> std::result::Result<u64, Errno> {
    // The kernel writes 4 bytes; the rest stays zero, and on little-endian the whole is the number. Room for a long is
    // given since some file systems did write one.
    // SAFETY: FS_IOC_GETVERSION writes at most a long through the pointer, for which `u64` has the room.
    let number: u64 = unsafe { ioctl(fd, Getter::<GET_VERSION, u64>::new()) }?;
    Ok(number & u64::from(u32::MAX))
}

/// The listening sockets that a service manager has passed to this process (sd_listen_fds(3)), each as a descriptor of our
/// own. That they are TCP sockets shows when they are used.
///
/// # Errors
/// [`Error::Inherited`].
pub fn inherited_sockets() -> Result<Vec<TcpListener>> {
    let passed = sd_notify::listen_fds().map_err(|cause| Error::Inherited { cause })?;
    let own = |fd| {
        // SAFETY: borrowed for this call; the service manager says that it is open, and one that is not gives EBADF.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let owned = fcntl_dupfd_cloexec(fd, 0).map_err(|errno| Error::Inherited { cause: errno.into() })?;
        Ok(TcpListener::from(owned))
    };
    passed.map(own).collect()
}

/// How many pages of a range of a file are in the page cache: cachestat(2), of Linux 6.5.
///
/// # Errors
/// ENOSYS before; EPERM for a file that this process may neither write nor owns.
pub(crate) fn cached_pages(fd: BorrowedFd<'_>, offset: u64, length: u64) -> std::result::Result<u64, Errno> {
    cachestat(fd.as_raw_fd(), offset, length)
}

/// Whether the kernel has cachestat(2): it would know that this is no file.
pub(crate) fn has_cachestat() -> bool {
    cachestat(-1, 0, 1) == Err(Errno::BADF)
}

fn cachestat(fd: RawFd, offset: u64, length: u64) -> std::result::Result<u64, Errno> {
    // struct cachestat_range (linux/mman.h): offset and length in bytes.
    let range: [u64; 2] = [offset, length];
    // struct cachestat: the first number is the one of pages in the cache.
    let mut counts = [0_u64; 5];
    // SAFETY: the call reads a range of two and writes a result of five numbers, which live as long as it.
    let outcome = unsafe { libc::syscall(CACHESTAT, fd, range.as_ptr(), counts.as_mut_ptr(), 0) };
    if outcome == 0 {
        return Ok(counts[0]);
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// Page faults of this thread until now for which it had to wait for a device.
pub(crate) fn major_faults() -> u64 {
    // SAFETY: all-zero is a valid rusage to be filled in.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes one rusage.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
    // Not negative; zero if the call should fail, which it has no reason to.
    usage.ru_majflt as u64
}

/// CLOCK_MONOTONIC_COARSE in milliseconds: exact to a tick of the kernel (1 to 10 ms), and read in 5 ns. By the C library, since
/// rustix looks for the vDSO in a way that valgrind does not survive.
pub(crate) fn coarse_clock_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    // Neither is negative.
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}
