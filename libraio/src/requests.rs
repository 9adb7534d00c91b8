//! The functions on contexts, requests and their memory. `include/libraio.h` documents them for callers.

use crate::abi::{ContextToken, Event, Iocb, MemoryToken};
use crate::context::count;
use crate::errno::{Errno, errno_call, negative_call};
use crate::state::state;
use crate::{on_context, on_handle, token};
use std::ffi::{c_int, c_long, c_void};
use std::time::Duration;

/// Makes the session's context: 0, or -1 and errno.
///
/// # Safety
/// `ctxp` is NULL or valid for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raio_setup(fd: c_int, maxevents: c_int, ctxp: *mut ContextToken) -> c_int {
    errno_call(-1, || {
        if ctxp.is_null() {
            return Err(Errno::NULL);
        }
        let made = on_handle(fd, |session, place| session.setup(place, maxevents))?;
        // SAFETY: not NULL, so the caller promises room.
        unsafe { ctxp.write_unaligned(token::to_pointer(made)) };
        Ok(0)
    })
}

/// Ends every request of a context and frees it: 0, or -1 and errno.
#[unsafe(no_mangle)]
pub extern "C" fn raio_destroy(ctx: ContextToken) -> c_int {
    errno_call(-1, || {
        let ctx = token::from_pointer(ctx);
        on_context(ctx, |session, place| session.destroy(place, ctx))?;
        Ok(0)
    })
}

/// Takes requests: how many, or -errno.
///
/// # Safety
/// `ios` is NULL or points to `nr` pointers, each NULL or to an iocb. A taken iocb stays until its event is returned,
/// its memory until its event is released.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raio_submit(ctx: ContextToken, nr: c_long, ios: *const *mut Iocb) -> c_int {
    negative_call(|| {
        let ctx = token::from_pointer(ctx);
        let state = state();
        on_context(ctx, |session, _| {
            let (context, engine, file) = session.context(ctx)?;
            let nr = usize::try_from(nr).map_err(|_| Errno::INVALID)?.min(c_int::MAX as usize);
            if engine.lost().is_some() {
                return Err(Errno::LOST);
            }
            let file = file.ok_or(Errno::HANDLE)?;
            if ios.is_null() && nr > 0 {
                return Err(Errno::NULL);
            }
            // SAFETY: the caller's promise is passed on.
            unsafe { context.submit(engine, file, &state.memory, ios, nr) }.map(count)
        })
    })
}

/// Waits for events: how many, or -errno.
///
/// # Safety
/// `events` is NULL or has room for `nr` events; `timeout` is NULL or points to a timespec; the iocbs of pending requests
/// are still there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raio_getevents(
    ctx: ContextToken,
    min_nr: c_long,
    nr: c_long,
    events: *mut Event,
    timeout: *mut libc::timespec,
) -> c_int {
    negative_call(|| {
        let ctx = token::from_pointer(ctx);
        on_context(ctx, |session, _| {
            let (context, engine, file) = session.context(ctx)?;
            let min = usize::try_from(min_nr).map_err(|_| Errno::INVALID)?;
            let nr = usize::try_from(nr).map_err(|_| Errno::INVALID)?.min(c_int::MAX as usize);
            if nr < min {
                return Err(Errno::INVALID);
            }
            if events.is_null() && nr > 0 {
                return Err(Errno::NULL);
            }
            // SAFETY: NULL or a timespec, by the caller's promise.
            let timeout = unsafe { duration(timeout) }?;
            // SAFETY: the caller's promise is passed on.
            unsafe { context.get_events(engine, file, min, nr, events, timeout) }.map(count)
        })
    })
}

/// Gives back what the library holds for events: 0, or -1 and errno.
///
/// # Safety
/// `events` is NULL or points to `nr` events.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raio_release(ctx: ContextToken, nr: c_long, events: *const Event) -> c_int {
    errno_call(-1, || {
        let ctx = token::from_pointer(ctx);
        on_context(ctx, |session, _| {
            let (context, ..) = session.context(ctx)?;
            let nr = usize::try_from(nr).map_err(|_| Errno::INVALID)?;
            if events.is_null() && nr > 0 {
                return Err(Errno::NULL);
            }
            let mut outcome = Ok(0);
            for index in 0..nr {
                // SAFETY: the index is below the number that the caller promises.
                let handle = unsafe { (&raw const (*events.add(index)).handle).read_unaligned() };
                // One that is stale does not keep the others.
                outcome = context.release(handle).and(outcome);
            }
            outcome
        })
    })
}

/// Takes a request back: 0 and its event, or -1 and errno.
///
/// # Safety
/// `evt` is NULL or has room for an event.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raio_cancel(ctx: ContextToken, iocb: *mut Iocb, evt: *mut Event) -> c_int {
    errno_call(-1, || {
        let ctx = token::from_pointer(ctx);
        if iocb.is_null() || evt.is_null() {
            return Err(Errno::NULL);
        }
        let event = on_context(ctx, |session, _| {
            let (context, engine, file) = session.context(ctx)?;
            context.collect(engine, file);
            context.cancel(engine, iocb)
        })?;
        // SAFETY: not NULL, so the caller promises room.
        unsafe { evt.write_unaligned(event) };
        Ok(0)
    })
}

/// A descriptor that is readable when there may be something to reap, or -1 and errno.
#[unsafe(no_mangle)]
pub extern "C" fn raio_poll_fd(ctx: ContextToken) -> c_int {
    errno_call(-1, || {
        let ctx = token::from_pointer(ctx);
        on_context(ctx, |session, _| session.poll_fd(ctx))
    })
}

/// Registers memory of the caller: 0, or -1 and errno. The context is not looked at.
///
/// # Safety
/// `buf` is valid for `len` bytes until it is deregistered and requests over it have ended; `mr` is NULL or valid for a
/// pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raio_reg_mr(
    _ctx: ContextToken,
    buf: *mut c_void,
    len: usize,
    mr: *mut MemoryToken,
) -> c_int {
    errno_call(-1, || {
        if mr.is_null() {
            return Err(Errno::NULL);
        }
        // SAFETY: the caller's promise is passed on.
        let made = unsafe { state().memory.register(buf.cast(), len) }?;
        // SAFETY: not NULL, so the caller promises room.
        unsafe { mr.write_unaligned(token::to_pointer(made)) };
        Ok(0)
    })
}

/// Takes a registration back: 0, or -1 and errno. The context is not looked at.
#[unsafe(no_mangle)]
pub extern "C" fn raio_dereg_mr(_ctx: ContextToken, mr: MemoryToken) -> c_int {
    errno_call(-1, || {
        state().memory.deregister(token::from_pointer(mr))?;
        Ok(0)
    })
}

/// Zeroed, registered memory, or NULL and errno.
///
/// # Safety
/// `mr` is NULL or valid for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn raio_alloc(len: usize, mr: *mut MemoryToken) -> *mut c_void {
    errno_call(std::ptr::null_mut(), || {
        let (address, made) = state().memory.allocate(len)?;
        if !mr.is_null() {
            // SAFETY: not NULL, so the caller promises room.
            unsafe { mr.write_unaligned(token::to_pointer(made)) };
        }
        Ok(address.cast())
    })
}

/// Gives memory of `raio_alloc` back: 0, or -1 and errno. NULL is nothing.
#[unsafe(no_mangle)]
pub extern "C" fn raio_free(buf: *mut c_void) -> c_int {
    errno_call(-1, || {
        if !buf.is_null() {
            state().memory.free(buf.cast())?;
        }
        Ok(0)
    })
}

/// # Safety
/// `timeout` is NULL or points to a timespec.
unsafe fn duration(timeout: *const libc::timespec) -> Result<Option<Duration>, Errno> {
    if timeout.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL, so the caller promises a timespec.
    let libc::timespec { tv_sec, tv_nsec } = unsafe { timeout.read_unaligned() };
    match (u64::try_from(tv_sec), u32::try_from(tv_nsec)) {
        (Ok(seconds), Ok(nanoseconds)) if nanoseconds < 1_000_000_000 => {
            Ok(Some(Duration::new(seconds, nanoseconds)))
        }
        _ => Err(Errno::INVALID),
    }
}
