//! The few raw calls, each wrapped once: gathered socket I/O over memory that may be shared, huge pages, and random bytes.
//! Everything else goes through `rustix`, `socket2` or `io-uring`.

mod huge_pages;
mod memory_group;
mod prefetch;

use crate::mem::IoVec;
pub use huge_pages::collapse_memory;
pub(crate) use memory_group::usable_memory;
pub use prefetch::prefetch_memory;
pub(crate) use prefetch::{prefetch, prefetch_bytes, prefetch_page};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Entries of one gathered call; the kernel takes 1,024 (`UIO_MAXIOV`), fewer keep them on the stack.
pub(crate) const IO_VECS_MAX: usize = 192;

/// Sends the pieces in order without blocking; `WouldBlock` where there is no room.
///
/// # Errors
/// As sendmsg(2). There is no SIGPIPE.
pub fn send_vectored(socket: BorrowedFd<'_>, pieces: &[IoVec<'_>]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `pieces` are iovec entries (IoVec is repr(transparent) over it), whose memory is kept alive by the lists
    // that they borrow; the kernel only reads it.
    let sent = unsafe {
        on_socket(libc::SYS_sendto, libc::SYS_sendmsg, socket, pieces.as_ptr().cast(), pieces.len(), flags)
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives into the pieces in order without blocking; 0 is the end of the stream.
///
/// # Errors
/// As recvmsg(2); `WouldBlock` where there is nothing.
pub fn receive_vectored(socket: BorrowedFd<'_>, pieces: &mut [IoVec<'_>]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: as in `send_vectored`; the memory is valid for writes, since the entries come from landing lists
    // (whose owners gave the right to write) or from mutable slices.
    let received = unsafe {
        on_socket(
            libc::SYS_recvfrom,
            libc::SYS_recvmsg,
            socket,
            pieces.as_mut_ptr().cast(),
            pieces.len(),
            flags,
        )
    };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

/// A call of a socket: `plain`, sendto(2) or recvfrom(2) without an address, for a single piece, which the kernel need not
/// fetch a message header and a list for; else `gathered`, sendmsg(2) or recvmsg(2). Directly, since the C library makes
/// each a point where a thread can be cancelled: atomic instructions before and after it.
///
/// # Safety
/// As for the call.
unsafe fn on_socket(
    plain: libc::c_long,
    gathered: libc::c_long,
    socket: BorrowedFd<'_>,
    pieces: *const libc::iovec,
    count: usize,
    flags: libc::c_int,
) -> libc::c_long {
    let socket = socket.as_raw_fd();
    if count == 1 {
        // SAFETY: by this function's own contract there is one entry, whose memory the call may use. No address is given
        // or asked for.
        return unsafe {
            let libc::iovec { iov_base, iov_len } = *pieces;
            let none = std::ptr::null::<libc::sockaddr>();
            libc::syscall(plain, socket, iov_base, iov_len, flags, none, none)
        };
    }
    // SAFETY: all-zero is a valid msghdr: no name, no control data, no pieces.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = pieces.cast_mut();
    message.msg_iovlen = count as _;
    // SAFETY: by this function's own contract; the header lives as long as the call.
    unsafe { libc::syscall(gathered, socket, &raw mut message, flags) }
}

/// Reads a file at an offset into the pieces, in order. With `now` it never waits for the device: `WouldBlock` where the
/// data is not in memory (a shorter count where only its beginning is), EOPNOTSUPP where the file system can't tell.
pub(crate) fn read_vectored_at(
    file: BorrowedFd<'_>,
    pieces: &mut [IoVec<'_>],
    offset: u64,
    now: bool,
) -> io::Result<usize> {
    let (flags, offset) = (if now { libc::RWF_NOWAIT } else { 0 }, file_offset(offset)?);
    // SAFETY: as in `receive_vectored`.
    let read = unsafe {
        at_offset(libc::SYS_preadv2, file, pieces.as_mut_ptr().cast(), pieces.len(), offset, flags)
    };
    usize::try_from(read).map_err(|_| io::Error::last_os_error())
}

/// Writes the pieces to a file at an offset, in order; `now` as in [`read_vectored_at`].
pub(crate) fn write_vectored_at(
    file: BorrowedFd<'_>,
    pieces: &[IoVec<'_>],
    offset: u64,
    now: bool,
) -> io::Result<usize> {
    let (flags, offset) = (if now { libc::RWF_NOWAIT } else { 0 }, file_offset(offset)?);
    // SAFETY: as in `send_vectored`.
    let written =
        unsafe { at_offset(libc::SYS_pwritev2, file, pieces.as_ptr().cast(), pieces.len(), offset, flags) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// preadv2(2) or pwritev2(2), without what the C library adds so that a thread can be cancelled in it: atomic instructions
/// before and after each call.
///
/// # Safety
/// As for the call.
unsafe fn at_offset(
    call: libc::c_long,
    file: BorrowedFd<'_>,
    pieces: *const libc::iovec,
    count: usize,
    offset: libc::off_t,
    flags: libc::c_int,
) -> libc::c_long {
    // The kernel takes the offset in two parts, the upper of which is not looked at where a part holds all of it.
    let upper = (offset as u64 >> 32) as libc::c_ulong;
    // SAFETY: by this function's own contract.
    unsafe { libc::syscall(call, file.as_raw_fd(), pieces, count, offset as libc::c_ulong, upper, flags) }
}

/// An offset as the kernel takes it; -1 would mean the file's own position.
fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// Who made the other end of a Unix socket: user, group and process (0 where our namespace does not show it).
pub(crate) fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<libc::ucred> {
    let mut credentials = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to the struct, any bytes of which are valid.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    };
    if outcome == 0 { Ok(credentials) } else { Err(io::Error::last_os_error()) }
}

/// Bytes that this process may lock; `None` where there is no limit, or none for this thread. A container's root has that
/// right (CAP_IPC_LOCK) seldom.
pub(crate) fn locked_memory_max() -> Option<u64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    let may_lock_all = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::IPC_LOCK));
    limit.filter(|_| !may_lock_all)
}

/// Random bytes of the kernel, for session identities and keys.
pub(crate) fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        // SAFETY: the range is inside the array.
        let count = unsafe { libc::getrandom(bytes[filled..].as_mut_ptr().cast(), N - filled, 0) };
        match usize::try_from(count) {
            Ok(count) => filled += count,
            Err(_) => {
                let cause = io::Error::last_os_error();
                if cause.kind() != io::ErrorKind::Interrupted {
                    return Err(cause);
                }
            }
        }
    }
    Ok(bytes)
}

/// Compares secrets without telling by the time how much of them agrees.
pub(crate) fn equal_in_constant_time(left: &[u8; 16], right: &[u8; 16]) -> bool {
    left.iter().zip(right).fold(0, |difference, (one, other)| difference | (one ^ other)) == 0
}
