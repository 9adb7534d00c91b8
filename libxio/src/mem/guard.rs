//! Memory of a peer may vanish while it is touched: a hole is punched into it and there is no page to fill the hole. So may
//! pages of a mapped file, when it is cut short. The kernel then sends SIGBUS. [`touch`] survives that: the handler puts fresh
//! memory where the mapping was, and the touch reports that it happened.
//!
//! The way is that of libwayland (`wl_shm_buffer_begin_access`): the thread says beforehand which range it touches, the
//! handler looks there and hands every other SIGBUS to whoever had the signal before.

use std::cell::Cell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::compiler_fence;

/// A range that the thread is touching; it lies on the stack of [`touch`].
struct Touched {
    start: usize,
    length: usize,
    vanished: Cell<bool>,
    /// The range of the touch around this one.
    outer: *const Touched,
}

thread_local! {
    /// The innermost touch of this thread. Written only around a touch, so the handler finds it initialised.
    static INNERMOST: Cell<*const Touched> = const { Cell::new(ptr::null()) };
}

/// What handled SIGBUS before us.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// The memory was taken away by its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Vanished;

/// Runs `access`, which touches the page-aligned mapping of `length` bytes at `start`. If the memory vanished under
/// it, the rest of the access went to fresh private memory, which is now in the mapping's place, whole.
#[inline]
pub(crate) fn touch<R>(start: *mut u8, length: usize, access: impl FnOnce() -> R) -> Result<R, Vanished> {
    /// Leaves the touch, also by a panic.
    struct Leave(*const Touched);
    impl Drop for Leave {
        fn drop(&mut self) {
            INNERMOST.set(self.0);
        }
    }
    let outer = INNERMOST.get();
    let touched = Touched { start: start as usize, length, vanished: Cell::new(false), outer };
    INNERMOST.set(&raw const touched);
    let leave = Leave(outer);
    // The handler runs in the middle of the access, which stays between the two.
    compiler_fence(SeqCst);
    let result = access();
    compiler_fence(SeqCst);
    drop(leave);
    if touched.vanished.get() { Err(Vanished) } else { Ok(result) }
}

/// Installs the handler, once per process; before the first touch.
pub(crate) fn prepare() {
    BEFORE.get_or_init(|| {
        let mut before = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: all-zero is a valid sigaction to be filled in below, and `on_bus_error` has the signature that
        // SA_SIGINFO asks for and calls only what a signal handler may.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_bus_error as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGBUS, &raw const action, before.as_mut_ptr());
            before.assume_init()
        }
    });
}

extern "C" fn on_bus_error(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo to a handler with SA_SIGINFO.
    let address = unsafe { (*info).si_addr() } as usize;
    let mut at = INNERMOST.get();
    while !at.is_null() {
        // SAFETY: the list is made of values on this thread's own stack, each alive while it is linked.
        let touched = unsafe { &*at };
        if address.wrapping_sub(touched.start) < touched.length && replace(touched) {
            touched.vanished.set(true);
            return;
        }
        at = touched.outer;
    }
    pass_on(signal, info, context);
}

/// Puts fresh memory where the mapping was. A huge page can't be replaced in part, so all of it is.
fn replace(touched: &Touched) -> bool {
    // SAFETY: the range is a mapping of a peer's memory or of a file, made by us and held by whoever touches it; nothing else
    // lies there. mmap is a plain system call.
    let address = unsafe {
        libc::mmap(
            touched.start as *mut libc::c_void,
            touched.length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    address != libc::MAP_FAILED
}

/// Not our doing: as if we had never been here.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let before = BEFORE.get();
    let handler = before.map_or(libc::SIG_DFL, |before| before.sa_sigaction);
    if handler == libc::SIG_DFL || handler == libc::SIG_IGN {
        // The faulting instruction runs again and meets the default, which ends the process.
        // SAFETY: resetting a signal to its default is always allowed.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    let with_info = before.is_some_and(|before| before.sa_flags & libc::SA_SIGINFO != 0);
    // SAFETY: the address was given to sigaction by whoever installed it, with the signature that its flags name.
    unsafe {
        if with_info {
            let call: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                std::mem::transmute(handler);
            call(signal, info, context);
        } else {
            let call: extern "C" fn(libc::c_int) = std::mem::transmute(handler);
            call(signal);
        }
    }
}
