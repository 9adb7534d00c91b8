//! The functions on sessions and files. `include/libraio.h` documents them for callers.

use crate::errno::{Errno, errno_call};
use crate::session::Session;
use crate::state::{is_inherited, state};
use crate::{address, log, on_handle};
use raio::engine::Operation;
use raio::proto::{Attributes, PATH_BYTES_MAX};
use std::ffi::{c_char, c_int, c_longlong, c_ulonglong};

/// Connects to a server and opens a session: a handle, or -1 and errno.
///
/// # Safety
/// `transport` is NULL or a string; `addr` is NULL or valid for `addrlen` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raio_start(
    transport: *const c_char,
    addr: *const libc::sockaddr,
    addrlen: libc::socklen_t,
) -> c_int {
    errno_call(-1, || {
        log::start();
        let state = state();
        // SAFETY: the caller's promise is passed on.
        let uri = unsafe { address::uri(transport, addr, addrlen) }?;
        state.add(Session::start(&uri)?)
    })
}

/// Disconnects and frees all of a session: 0, or -1 and errno.
#[unsafe(no_mangle)]
pub extern "C" fn raio_stop(fd: c_int) -> c_int {
    errno_call(-1, || match state().remove(fd) {
        Some(session) => {
            session.stop();
            Ok(0)
        }
        None if is_inherited(fd) => Err(Errno::HANDLE),
        None => Err(Errno::INVALID),
    })
}

/// Opens the session's file: 0, or -1 and errno.
///
/// # Safety
/// `pathname` is NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raio_open(fd: c_int, pathname: *const c_char, flags: c_int) -> c_int {
    errno_call(-1, || {
        on_handle(fd, |session, _| {
            // SAFETY: the caller's promise is passed on.
            session.open(unsafe { path(pathname) }?, flags)
        })?;
        Ok(0)
    })
}

/// Attributes of the session's file: 0, or -1 and errno.
///
/// # Safety
/// `buf` is NULL or valid for a `struct stat64`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raio_fstat(fd: c_int, buf: *mut libc::stat64) -> c_int {
    errno_call(-1, || {
        let attributes = on_handle(fd, |session, _| session.stat())?;
        // SAFETY: the caller's promise is passed on.
        unsafe { put(&attributes, buf) }
    })
}

/// Attributes of a path: 0, or -1 and errno.
///
/// # Safety
/// `pathname` is NULL or a string; `buf` is NULL or valid for a `struct stat64`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raio_stat(fd: c_int, pathname: *const c_char, buf: *mut libc::stat64) -> c_int {
    errno_call(-1, || {
        // SAFETY: the caller's promise is passed on.
        let attributes = on_handle(fd, |session, _| session.stat_path(unsafe { path(pathname) }?))?;
        // SAFETY: as above.
        unsafe { put(&attributes, buf) }
    })
}

/// Closes the session's file: 0, or -1 and errno.
#[unsafe(no_mangle)]
pub extern "C" fn raio_close(fd: c_int) -> c_int {
    errno_call(-1, || {
        on_handle(fd, |session, _| session.close())?;
        Ok(0)
    })
}

/// Puts what was written on stable storage: 0, or -1 and errno.
#[unsafe(no_mangle)]
pub extern "C" fn raio_fsync(fd: c_int) -> c_int {
    flush(fd, false)
}

/// As `raio_fsync`, without metadata that is not needed to read the data back.
#[unsafe(no_mangle)]
pub extern "C" fn raio_fdatasync(fd: c_int) -> c_int {
    flush(fd, true)
}

fn flush(fd: c_int, data_only: bool) -> c_int {
    errno_call(-1, || {
        on_handle(fd, |session, _| {
            let handle = session.file()?.handle;
            session.call(Operation::Flush { handle, data_only })
        })?;
        Ok(0)
    })
}

/// Gives the storage of a range back: 0, or -1 and errno.
#[unsafe(no_mangle)]
pub extern "C" fn raio_discard(fd: c_int, offset: c_longlong, length: c_ulonglong) -> c_int {
    errno_call(-1, || {
        on_handle(fd, |session, _| {
            let handle = session.file()?.handle;
            let offset = u64::try_from(offset).map_err(|_| Errno::INVALID)?;
            session.call(Operation::Discard { handle, offset, length })
        })?;
        Ok(0)
    })
}

/// Sets the file's size: 0, or -1 and errno.
#[unsafe(no_mangle)]
pub extern "C" fn raio_ftruncate(fd: c_int, size: c_longlong) -> c_int {
    errno_call(-1, || {
        on_handle(fd, |session, _| {
            let handle = session.file()?.handle;
            session
                .call(Operation::Truncate { handle, size: u64::try_from(size).map_err(|_| Errno::INVALID)? })
        })?;
        Ok(0)
    })
}

/// Removes a file's name: 0, or -1 and errno.
///
/// # Safety
/// `pathname` is NULL or a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raio_unlink(fd: c_int, pathname: *const c_char) -> c_int {
    errno_call(-1, || {
        on_handle(fd, |session, _| {
            // SAFETY: the caller's promise is passed on.
            let path = unsafe { path(pathname) }?.to_vec();
            session.call(Operation::Unlink { path, directory: false })
        })?;
        Ok(0)
    })
}

/// Gives a file another name: 0, or -1 and errno.
///
/// # Safety
/// `from` and `to` are NULL or strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raio_rename(fd: c_int, from: *const c_char, to: *const c_char) -> c_int {
    errno_call(-1, || {
        on_handle(fd, |session, _| {
            // SAFETY: the caller's promise is passed on.
            let (from, to) = unsafe { (path(from)?.to_vec(), path(to)?.to_vec()) };
            session.call(Operation::Rename { from, to, no_replace: false })
        })?;
        Ok(0)
    })
}

/// The library's version: a string that lives as long as the program.
#[unsafe(no_mangle)]
pub extern "C" fn raio_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// A path of the caller.
///
/// # Safety
/// `pathname` is NULL or a string.
unsafe fn path<'a>(pathname: *const c_char) -> Result<&'a [u8], Errno> {
    if pathname.is_null() {
        return Err(Errno::NULL);
    }
    // SAFETY: the caller promises a string; no more of it is looked at than a path may have.
    let length = unsafe { libc::strnlen(pathname, PATH_BYTES_MAX + 1) };
    match length {
        0 => Err(Errno(libc::ENOENT)),
        length if length > PATH_BYTES_MAX => Err(Errno(libc::ENAMETOOLONG)),
        // SAFETY: as many bytes were looked at.
        length => Ok(unsafe { std::slice::from_raw_parts(pathname.cast(), length) }),
    }
}

/// Attributes as C has them.
///
/// # Safety
/// `buf` is NULL or valid for a `struct stat64`.
unsafe fn put(attributes: &Attributes, buf: *mut libc::stat64) -> Result<c_int, Errno> {
    if buf.is_null() {
        return Err(Errno::NULL);
    }
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    const SECOND: i64 = 1_000_000_000;
    // SAFETY: all-zero is a valid stat64.
    let mut stat: libc::stat64 = unsafe { std::mem::zeroed() };
    stat.st_dev = attributes.device;
    stat.st_ino = attributes.inode;
    stat.st_rdev = attributes.special_device;
    stat.st_mode = attributes.mode;
    stat.st_nlink = attributes.links.into();
    stat.st_uid = attributes.user;
    stat.st_gid = attributes.group;
    stat.st_size = number(attributes.size);
    stat.st_blocks = number(attributes.blocks);
    stat.st_blksize = attributes.block_bytes.into();
    (stat.st_atime, stat.st_atime_nsec) =
        (attributes.accessed_ns.div_euclid(SECOND), attributes.accessed_ns.rem_euclid(SECOND));
    (stat.st_mtime, stat.st_mtime_nsec) =
        (attributes.modified_ns.div_euclid(SECOND), attributes.modified_ns.rem_euclid(SECOND));
    (stat.st_ctime, stat.st_ctime_nsec) =
        (attributes.changed_ns.div_euclid(SECOND), attributes.changed_ns.rem_euclid(SECOND));
    // SAFETY: not NULL, so the caller promises room.
    unsafe { buf.write_unaligned(stat) };
    Ok(0)
}
