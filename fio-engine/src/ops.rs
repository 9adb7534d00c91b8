//! The table of functions that fio calls, and their entrances: pointers become handles, errors become what fio expects,
//! and a panic ends the job instead of fio.

use crate::error::Error;
use crate::fio::sys::{self, fio_file, fio_q_status, io_u, ioengine_ops, thread_data};
use crate::fio::{self, File, Job, Unit};
use crate::state::{Queued, State};
use crate::{details, layout, memory, opening, options};
use std::ffi::{CString, c_char, c_int, c_uint};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::time::Duration;

/// fio's parts that see to the disk are of no use to a remote file; no `offload`, since other threads would use the job's
/// connection then.
const FLAGS: sys::fio_ioengine_flags = sys::fio_ioengine_flags_FIO_DISKLESSIO
    | sys::fio_ioengine_flags_FIO_NODISKUTIL
    | sys::fio_ioengine_flags_FIO_NO_OFFLOAD
    | sys::fio_ioengine_flags_FIO_ASYNCIO_SETS_ISSUE_TIME;

/// The table's address, made when it is first asked for.
pub fn table() -> *mut ioengine_ops {
    static TABLE: OnceLock<usize> = OnceLock::new();
    let address = *TABLE.get_or_init(|| Box::into_raw(Box::new(make_table())).expose_provenance());
    std::ptr::with_exposed_provenance_mut(address)
}

fn make_table() -> ioengine_ops {
    // SAFETY: numbers, null pointers and absent functions: all of it may be zero, which fio takes for "not there".
    let mut table: ioengine_ops = unsafe { std::mem::zeroed() };
    table.name = c"libraio".as_ptr();
    // Both types differ among versions of fio.
    table.version = sys::FIO_IOOPS_VERSION as _;
    table.flags = FLAGS as _;
    table.setup = Some(setup);
    table.init = Some(init);
    table.cleanup = Some(cleanup);
    table.queue = Some(queue);
    table.commit = Some(commit);
    table.getevents = Some(getevents);
    table.event = Some(event);
    table.errdetails = Some(errdetails);
    #[cfg(has_cancel)]
    {
        table.cancel = Some(cancel);
    }
    table.open_file = Some(open_file);
    table.close_file = Some(close_file);
    table.unlink_file = Some(unlink_file);
    table.get_file_size = Some(get_file_size);
    table.invalidate = Some(invalidate);
    table.iomem_alloc = Some(iomem_alloc);
    table.iomem_free = Some(iomem_free);
    table.options = options::table().as_ptr();
    // A few dozen bytes.
    table.option_struct_size = options::OPTIONS_BYTES as c_int;
    table
}

/// Runs the body of an entrance for a job.
fn enter<T>(job: *mut thread_data, otherwise: T, body: impl FnOnce(Job) -> T) -> T {
    // SAFETY: fio passes the job that it calls for, and the handle is gone when this returns.
    let Some(job) = (unsafe { Job::new(job) }) else { return otherwise };
    match catch_unwind(AssertUnwindSafe(|| body(job))) {
        Ok(value) => value,
        Err(_) => {
            fio::log_error("an error in the engine itself; what is printed above belongs into a report");
            job.fail(libc::EIO, "libraio");
            otherwise
        }
    }
}

/// As [`enter`], with the job's state.
fn with_state<T>(job: *mut thread_data, otherwise: T, body: impl FnOnce(Job, &mut State) -> T) -> T
where
    T: Copy,
{
    enter(job, otherwise, |job| {
        // SAFETY: fio calls for a job from its own thread, one call at a time, and entrances don't nest.
        match unsafe { job.state() } {
            Some(state) => body(job, state),
            None => otherwise,
        }
    })
}

/// 0, or 1 after the error was reported.
fn reported(job: Job, what: &str, result: Result<(), Error>) -> c_int {
    match result {
        Ok(()) => 0,
        Err(error) => {
            error.report(job, what);
            1
        }
    }
}

unsafe extern "C" fn setup(job: *mut thread_data) -> c_int {
    enter(job, 1, |job| reported(job, "setup", layout::lay_out(job)))
}

unsafe extern "C" fn init(job: *mut thread_data) -> c_int {
    enter(job, libc::EIO, |job| match State::connect(job) {
        Ok(state) => {
            job.set_state(Box::new(state));
            0
        }
        Err(error) => {
            error.report(job, "connect");
            error.errno()
        }
    })
}

unsafe extern "C" fn cleanup(job: *mut thread_data) {
    enter(job, (), |job| {
        if let Some(state) = job.take_state() {
            state.links.close();
        }
    });
}

unsafe extern "C" fn queue(job: *mut thread_data, unit: *mut io_u) -> fio_q_status {
    let ended = sys::fio_q_status_FIO_Q_COMPLETED;
    // SAFETY: fio passes a unit of the job, and leaves it alone until it has ended.
    let Some(unit) = (unsafe { Unit::new(unit) }) else { return ended };
    with_state(job, None, |_, state| Some(state.queue(unit))).map_or_else(
        || {
            unit.failed(libc::EIO);
            ended
        },
        |queued| match queued {
            Queued::Taken => sys::fio_q_status_FIO_Q_QUEUED,
            Queued::Full => sys::fio_q_status_FIO_Q_BUSY,
            Queued::Ended => ended,
        },
    )
}

unsafe extern "C" fn commit(job: *mut thread_data) -> c_int {
    with_state(job, -libc::EIO, |job, state| match state.commit(job) {
        Ok(()) => 0,
        Err(error) => -error.errno(),
    })
}

unsafe extern "C" fn getevents(
    job: *mut thread_data,
    least: c_uint,
    most: c_uint,
    time: *const sys::timespec,
) -> c_int {
    // SAFETY: null, or a time that fio has set.
    let time = unsafe { time.as_ref() }.map(|time| {
        let (seconds, rest) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
        Duration::new(seconds.unwrap_or(0), rest.unwrap_or(0).min(999_999_999))
    });
    with_state(job, -libc::EIO, |_, state| match state.wait(least as usize, most as usize, time) {
        // At most the depth, which is an int in fio.
        Ok(count) => count as c_int,
        Err(errno) => -errno,
    })
}

unsafe extern "C" fn event(job: *mut thread_data, index: c_int) -> *mut io_u {
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    with_state(job, None, |_, state| state.event(index)).map_or(std::ptr::null_mut(), Unit::as_ptr)
}

#[cfg(not(errdetails_takes_job))]
unsafe extern "C" fn errdetails(unit: *mut io_u) -> *mut c_char {
    details_of(unit)
}

#[cfg(errdetails_takes_job)]
unsafe extern "C" fn errdetails(_job: *mut thread_data, unit: *mut io_u) -> *mut c_char {
    details_of(unit)
}

/// Text that fio frees.
fn details_of(unit: *mut io_u) -> *mut c_char {
    // SAFETY: fio passes the unit that has failed.
    let text = unsafe { Unit::new(unit) }.map(details::find).unwrap_or_default();
    let text = CString::new(text).unwrap_or_default();
    // SAFETY: a terminated string; the copy is malloc's, as fio expects it.
    unsafe { libc::strdup(text.as_ptr()) }
}

#[cfg(has_cancel)]
unsafe extern "C" fn cancel(job: *mut thread_data, unit: *mut io_u) -> c_int {
    // SAFETY: fio passes a unit in flight.
    let Some(unit) = (unsafe { Unit::new(unit) }) else { return libc::EINVAL };
    // 0: it is back, and there will be no event.
    with_state(job, libc::EINVAL, |_, state| if state.cancel(unit) { 0 } else { libc::EINPROGRESS })
}

/// Runs the body of an entrance for a file, over the job's connections or, before it has some, ones of its own.
fn with_file(
    job: *mut thread_data,
    file: *mut fio_file,
    body: impl FnOnce(Job, File, &mut crate::links::Links) -> c_int,
) -> c_int {
    // SAFETY: fio passes a file of the job.
    let Some(file) = (unsafe { File::new(file) }) else { return libc::EINVAL };
    enter(job, libc::EIO, |job| {
        // SAFETY: as in `with_state`.
        if let Some(state) = unsafe { job.state() } {
            return body(job, file, &mut state.links);
        }
        match options::Settings::of(job) {
            Ok(settings) => {
                let mut links = crate::links::Links::new(settings);
                let result = body(job, file, &mut links);
                links.close();
                result
            }
            Err(error) => {
                error.report(job, "options");
                error.errno()
            }
        }
    })
}

unsafe extern "C" fn open_file(job: *mut thread_data, file: *mut fio_file) -> c_int {
    with_state(job, 1, |job, state| {
        // SAFETY: fio passes a file of the job.
        let Some(file) = (unsafe { File::new(file) }) else { return 1 };
        reported(job, "open", opening::open(job, file, &mut state.links))
    })
}

unsafe extern "C" fn close_file(job: *mut thread_data, file: *mut fio_file) -> c_int {
    with_file(job, file, |_, file, links| match opening::close(file, links) {
        Ok(()) => 0,
        Err(error) => {
            fio::log_error(&error.to_string());
            error.errno()
        }
    })
}

unsafe extern "C" fn unlink_file(job: *mut thread_data, file: *mut fio_file) -> c_int {
    with_file(job, file, |_, file, links| {
        opening::unlink(file, links).map_or_else(|error| error.errno(), |()| 0)
    })
}

unsafe extern "C" fn get_file_size(job: *mut thread_data, file: *mut fio_file) -> c_int {
    // SAFETY: fio passes a file of the job.
    let Some(file) = (unsafe { File::new(file) }) else { return 1 };
    enter(job, 1, |job| reported(job, "get_file_size", layout::find_size(job, file)))
}

/// The client caches nothing, and the server's cache is the server's own: `direct=1` goes past it.
unsafe extern "C" fn invalidate(_job: *mut thread_data, _file: *mut fio_file) -> c_int {
    0
}

unsafe extern "C" fn iomem_alloc(job: *mut thread_data, bytes: usize) -> c_int {
    with_state(job, 1, |job, state| match memory::allocate(bytes) {
        Ok(region) => {
            job.set_memory(region.as_ptr());
            state.memory = Some(region);
            0
        }
        Err(error) => reported(job, "iomem_alloc", Err(error.into())),
    })
}

unsafe extern "C" fn iomem_free(job: *mut thread_data) {
    with_state(job, (), |job, state| {
        job.set_memory(std::ptr::null_mut());
        // Unmapped when the last operation over it has ended.
        state.memory = None;
    });
}
