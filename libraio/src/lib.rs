//! `libraio.so`: raio for C, as `include/libraio.h` declares it. From Rust, use the crate raio.
//!
//! | file | what it has |
//! |---|---|
//! | `files.rs`, `requests.rs` | the functions; each checks its arguments, finds its session, and keeps panics inside |
//! | `abi.rs`, `errno.rs`, `address.rs` | C's types, errors and addresses |
//! | `state.rs`, `token.rs`, `fork.rs` | which sessions this process has, and how callers name them |
//! | `session.rs`, `context.rs`, `request.rs` | what the functions do |
//! | `held.rs`, `memory.rs` | memory that callers have of the library, and that they registered |
//! | `eventfds.rs`, `notifier.rs`, `watcher.rs` | callers that wait outside of the library |
//!
//! What callers name by handle, context, registration or event is looked up, never followed: a stale or wrong one is an
//! error. Only pointers to their own memory are followed, as far as the header asks them to be valid.

#![expect(unsafe_code, reason = "the edge to C; every block says what it relies on")]

mod abi;
mod address;
#[cfg(test)]
mod allocations;
mod chunks;
mod context;
mod errno;
mod eventfds;
mod files;
mod fork;
mod held;
mod log;
mod memory;
mod notifier;
mod request;
mod requests;
mod session;
mod state;
mod token;
mod watcher;

pub use abi::{ContextToken, Event, Iocb, IocbCommon, MemoryToken};
pub use files::{
    raio_close, raio_discard, raio_fdatasync, raio_fstat, raio_fsync, raio_ftruncate, raio_open, raio_rename,
    raio_start, raio_stat, raio_stop, raio_unlink, raio_version,
};
pub use requests::{
    raio_alloc, raio_cancel, raio_dereg_mr, raio_destroy, raio_free, raio_getevents, raio_poll_fd,
    raio_reg_mr, raio_release, raio_setup, raio_submit,
};

use errno::Errno;
use session::Session;
use state::{Place, state};
use std::ffi::c_int;
use std::sync::MutexGuard;

/// Runs a call on the session with this handle.
fn on_handle<T>(
    handle: c_int,
    call: impl FnOnce(&mut Session, &Place) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let place = state().by_handle(handle)?;
    on_session(place, place.lock(), |session| session.handle() == handle, call).unwrap_or(Err(Errno::HANDLE))
}

/// Runs a call on the session that has this context.
fn on_context<T>(
    token: u64,
    call: impl FnOnce(&mut Session, &Place) -> Result<T, Errno>,
) -> Result<T, Errno> {
    let place = state().by_context(token)?;
    // The call itself checks the token once more.
    on_session(place, place.lock(), |_| true, call).unwrap_or(Err(Errno::INVALID))
}

/// Runs a call on a locked session, if it is the right one, and leaves everything so that whoever waits outside is
/// woken.
fn on_session<T>(
    place: &'static Place,
    mut guard: MutexGuard<'_, Option<Session>>,
    is_it: impl Fn(&Session) -> bool,
    call: impl FnOnce(&mut Session, &Place) -> Result<T, Errno>,
) -> Option<Result<T, Errno>> {
    let session = guard.as_mut().filter(|session| is_it(session))?;
    let outcome = call(session, place);
    let bell = session.settle(place);
    drop(guard);
    if let Some(bell) = bell {
        bell.ring();
    }
    Some(outcome)
}
