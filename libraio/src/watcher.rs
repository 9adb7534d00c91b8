//! The one helper thread of this crate. An application that sleeps on an eventfd runs no loop, so the first request
//! that names one starts a watcher for its session: it waits on the link, runs the loop when something came and no call
//! runs on the session, and so the eventfd is written. It touches no memory of the application.

use crate::errno::Errno;
use crate::fork::PrivateFd;
use crate::session::Session;
use crate::state::Place;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::ffi::c_int;
use std::os::fd::{BorrowedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Longest sleep with requests on their way: the engine counts the server's silence in steps of at most a second.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

/// A session's watcher, as the session has it.
#[derive(Debug)]
pub(crate) struct Watcher {
    signal: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

/// How calls speak to the watcher.
#[derive(Debug)]
pub(crate) struct Signal {
    bell: PrivateFd,
    stop: AtomicBool,
}

impl Signal {
    /// Makes the watcher look at its session. To be called without the session's lock.
    pub(crate) fn ring(&self) {
        // A full counter rings as well.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

impl Watcher {
    /// Starts a watcher for the session with this handle, which lives at this place.
    pub(crate) fn start(place: &'static Place, handle: c_int, ring: RawFd) -> Result<Watcher, Errno> {
        let bell = PrivateFd::make(|| eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK))?;
        let signal = Arc::new(Signal { bell, stop: AtomicBool::new(false) });
        let theirs = Arc::clone(&signal);
        let body = move || {
            // A fault here must not end the process; requests then complete when the application asks for them.
            let _ = catch_unwind(AssertUnwindSafe(|| watch(place, handle, ring, &theirs)));
        };
        let builder = std::thread::Builder::new().name("raio-watcher".into()).stack_size(256 << 10);
        let spawned = without_signals(|| builder.spawn(body));
        let thread = spawned.map_err(|cause| Errno(cause.raw_os_error().unwrap_or(libc::EAGAIN)))?;
        Ok(Watcher { signal, thread: Some(thread) })
    }

    pub(crate) fn signal(&self) -> Arc<Signal> {
        Arc::clone(&self.signal)
    }
}

impl Drop for Watcher {
    /// Waits for the thread's end, which comes at once: it never waits for the session's lock.
    fn drop(&mut self) {
        self.signal.stop.store(true, Ordering::Release);
        self.signal.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(place: &Place, handle: c_int, ring: RawFd, signal: &Signal) {
    // Wait on the link only after a look at the session has left it armed.
    let mut armed = false;
    while !signal.stop.load(Ordering::Acquire) {
        // SAFETY: the session, which owns the ring, joins this thread before it closes it.
        let ring = unsafe { BorrowedFd::borrow_raw(ring) };
        let mut sources = [PollFd::new(&signal.bell, PollFlags::IN), PollFd::new(&ring, PollFlags::IN)];
        let sources = if armed { &mut sources[..] } else { &mut sources[..1] };
        let _ = poll(sources, armed.then_some(&NAP));
        let _ = rustix::io::read(&signal.bell, &mut [0; 8]);
        // While a call runs it does the work, and rings when it is done.
        armed = place.try_lock().is_some_and(|mut session| {
            session.as_mut().filter(|session| session.handle() == handle).is_some_and(Session::watch)
        });
    }
}

/// Runs something with all signals blocked, which a thread that it starts inherits: the application's handlers run in
/// the application's threads.
fn without_signals<T>(run: impl FnOnce() -> T) -> T {
    // SAFETY: an all-zero set is valid memory for sigfillset to fill.
    let (mut all, mut before): (libc::sigset_t, libc::sigset_t) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    // SAFETY: both sets are valid; the mask concerns this thread alone and is put back below.
    unsafe {
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
    }
    let outcome = run();
    // SAFETY: `before` was filled by the first call.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
    outcome
}
