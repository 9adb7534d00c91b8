//! What a C caller hears of a failure: one number, from one table.
//!
//! [`raio::Error::errno`] translates what went wrong below; the constants here are the edge's own. Every function
//! enters through [`errno_call`] or [`negative_call`], which also keep panics inside.

use raio::Error;
use std::cell::Cell;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// A failure on its way to a C caller: an errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Errno(pub c_int);

impl Errno {
    /// A pointer that must not be NULL is.
    pub(crate) const NULL: Errno = Errno(libc::EFAULT);
    /// A number, size or combination that can't be meant.
    pub(crate) const INVALID: Errno = Errno(libc::EINVAL);
    /// No session of this process has the handle, or no file is open on it.
    pub(crate) const HANDLE: Errno = Errno(libc::EBADF);
    /// There is one already: a context, an open file.
    pub(crate) const BUSY: Errno = Errno(libc::EBUSY);
    /// The depth is full, or it is too late to cancel.
    pub(crate) const AGAIN: Errno = Errno(libc::EAGAIN);
    /// The connection is gone and every event was returned.
    pub(crate) const LOST: Errno = Errno(libc::ECONNRESET);
    /// Tables of the process are full.
    pub(crate) const NO_ROOM: Errno = Errno(libc::ENFILE);
    /// No memory, or no place for one more registration.
    pub(crate) const NO_MEMORY: Errno = Errno(libc::ENOMEM);
    /// No such transport in this build.
    pub(crate) const TRANSPORT: Errno = Errno(libc::EPROTONOSUPPORT);
    /// An address of a family that the transport does not have.
    pub(crate) const FAMILY: Errno = Errno(libc::EAFNOSUPPORT);
    /// A fault in this library; `RAIO_LOG=error` shows it.
    const PANIC: Errno = Errno(libc::EIO);

    /// As an event's `res` has it.
    pub(crate) fn negative(self) -> i64 {
        -i64::from(self.0)
    }
}

impl From<Error> for Errno {
    fn from(error: Error) -> Errno {
        let errno = Errno(error.errno());
        tracing::debug!(%error, errno = errno.0, "failed");
        errno
    }
}

impl From<libxio::Error> for Errno {
    fn from(error: libxio::Error) -> Errno {
        Error::Local(error).into()
    }
}

impl From<rustix::io::Errno> for Errno {
    fn from(errno: rustix::io::Errno) -> Errno {
        Errno(errno.raw_os_error())
    }
}

/// Runs the body of a function that returns -1 and sets errno where it fails.
pub(crate) fn errno_call<T>(failed: T, body: impl FnOnce() -> Result<T, Errno>) -> T {
    match guarded(body) {
        Ok(value) => value,
        Err(errno) => {
            set_errno(errno);
            failed
        }
    }
}

/// Runs the body of a function that returns -errno where it fails. It sets errno as well, for callers that look there.
pub(crate) fn negative_call(body: impl FnOnce() -> Result<c_int, Errno>) -> c_int {
    match guarded(body) {
        Ok(value) => value,
        Err(errno) => {
            set_errno(errno);
            -errno.0
        }
    }
}

fn guarded<T>(body: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    quiet_panics();
    let outer = INSIDE.replace(true);
    // A session that a panic left in an unknown state is severed by the next call on it (its lock is poisoned).
    let outcome = catch_unwind(AssertUnwindSafe(body));
    INSIDE.set(outer);
    outcome.unwrap_or(Err(Errno::PANIC))
}

thread_local! {
    /// A call of this library runs in this thread.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Panics inside calls go to the log; others to whom they went before.
fn quiet_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if INSIDE.get() {
                tracing::error!(%panic, "a fault in libraio; please report it");
            } else {
                before(panic);
            }
        }));
    });
}

fn set_errno(errno: Errno) {
    // SAFETY: the C library gives a valid pointer to this thread's errno.
    unsafe { *libc::__errno_location() = errno.0 };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errno() -> c_int {
        std::io::Error::last_os_error().raw_os_error().unwrap()
    }

    #[test]
    fn failures_and_panics_become_numbers() {
        assert_eq!(errno_call(-1, || Err(Errno::BUSY)), -1);
        assert_eq!(errno(), libc::EBUSY);
        assert_eq!(negative_call(|| Err(Errno::AGAIN)), -libc::EAGAIN);
        assert_eq!(errno(), libc::EAGAIN);
        assert_eq!(errno_call(-1, || panic!("inside")), -1);
        assert_eq!(errno(), libc::EIO);
        assert_eq!(negative_call(|| panic!("inside")), -libc::EIO);
        assert_eq!(errno_call(-1, || Ok(5)), 5);
    }
}
