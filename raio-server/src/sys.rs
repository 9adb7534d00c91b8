//! The few raw calls that no library wraps, each wrapped once.

use crate::{Error, Result};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::ioctl::{Getter, ioctl, opcode};
use std::net::TcpListener;
use std::os::fd::BorrowedFd;

/// FS_IOC_GETVERSION (linux/fs.h). Its type says `long`, the kernel writes an int.
const GET_VERSION: rustix::ioctl::Opcode = opcode::read::<libc::c_long>(b'v', 1);

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
