//! Signals as something to wait for: blocked in every thread, taken by the main one.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// SIGTERM, SIGINT: stop in good order.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

const TAKEN: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGHUP];

fn set() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset fills the set; sigaddset is given valid signal numbers.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in TAKEN {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        set.assume_init()
    }
}

/// Blocks the signals in this thread and in those that it makes.
pub(super) fn block() -> io::Result<()> {
    // SAFETY: the set is initialised, and the old one is not asked for.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set(), std::ptr::null_mut()) } {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// Waits for a signal; `None` when the time is over.
pub(super) fn wait(time: Duration) -> Option<Asked> {
    let time = libc::timespec {
        // Waits are seconds long.
        tv_sec: time.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(time.subsec_nanos()),
    };
    // SAFETY: the set is initialised, the time valid, and the information about the signal is not asked for.
    match unsafe { libc::sigtimedwait(&set(), std::ptr::null_mut(), &time) } {
        libc::SIGHUP => Some(Asked::Reload),
        signal if signal > 0 => Some(Asked::Stop),
        _ => None,
    }
}
