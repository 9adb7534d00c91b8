//! The few raw calls that no library wraps, each wrapped once.

use rustix::io::Errno;
use rustix::ioctl::{Getter, ioctl, opcode};
use std::os::fd::BorrowedFd;

/// FS_IOC_GETVERSION (linux/fs.h). Its type says `long`, the kernel writes an int.
const GET_VERSION: rustix::ioctl::Opcode = opcode::read::<libc::c_long>(b'v', 1);

/// The generation of an inode: the number that tells a file from an earlier one with the same inode number.
///
/// # Errors
/// ENOTTY where the file system has none, EBADF for a descriptor that is open for its path only.
pub(crate) fn generation(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    // The kernel writes 4 bytes; the rest stays zero, and on little-endian the whole is the number. Room for a long is
    // given since some file systems did write one.
    // SAFETY: FS_IOC_GETVERSION writes at most a long through the pointer, for which `u64` has the room.
    let number: u64 = unsafe { ioctl(fd, Getter::<GET_VERSION, u64>::new()) }?;
    Ok(number & u64::from(u32::MAX))
}
