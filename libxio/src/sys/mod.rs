//! The few raw calls, each wrapped once: gathered socket I/O over memory that may be shared, and random bytes.
//! Everything else goes through `rustix`, `socket2` or `io-uring`.

use crate::mem::IoVec;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Entries of one gathered call; the kernel takes 1,024 (`UIO_MAXIOV`), fewer keep them on the stack.
pub(crate) const IO_VECS_MAX: usize = 192;

/// Sends the pieces in order without blocking; `WouldBlock` where there is no room.
pub(crate) fn send_vectored(socket: BorrowedFd<'_>, pieces: &[IoVec<'_>]) -> io::Result<usize> {
    let message = message_header(pieces);
    // SAFETY: `message` points to `pieces.len()` entries (IoVec is repr(transparent) over iovec), whose memory is
    // kept alive by the lists that they borrow; the kernel only reads it.
    let sent =
        unsafe { libc::sendmsg(socket.as_raw_fd(), &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Receives into the pieces in order without blocking; 0 is the end of the stream.
pub(crate) fn receive_vectored(socket: BorrowedFd<'_>, pieces: &mut [IoVec<'_>]) -> io::Result<usize> {
    let mut message = message_header(pieces);
    // SAFETY: as in `send_vectored`; the memory is valid for writes, since the entries come from landing lists
    // (whose owners gave the right to write) or from mutable slices.
    let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_DONTWAIT) };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

fn message_header(pieces: &[IoVec<'_>]) -> libc::msghdr {
    // SAFETY: all-zero is a valid msghdr: no name, no control data, no pieces.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = pieces.as_ptr().cast_mut().cast();
    message.msg_iovlen = pieces.len();
    message
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
