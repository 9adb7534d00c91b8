//! One job of fio, as its thread or process sees it.

use super::sys::{self, thread_data};
use super::{File, Unit};
use crate::options::Options;
use crate::state::State;
use std::ffi::{CStr, CString, c_char};
use std::ptr::NonNull;

/// One job: its options, its files, and a place for the engine's state.
#[derive(Clone, Copy)]
pub struct Job(NonNull<thread_data>);

/// A member of the job's structure.
macro_rules! member {
    ($job:ident . $($path:tt)+) => {
        // SAFETY: the structure lives as long as the call of fio that this handle was made in (see `Job::new`), and
        // its layout is that of the headers of the fio that runs. Members are read as plain values.
        unsafe { (*$job.0.as_ptr()).$($path)+ }
    };
}

/// Where a member of the job's structure is.
macro_rules! place {
    ($job:ident . $name:ident) => {
        // SAFETY: as in `member!`; only the address is taken.
        unsafe { &raw mut (*$job.0.as_ptr()).$name }
    };
}

impl Job {
    /// # Safety
    /// `pointer` must be what fio passed to a function of the engine, and the handle must not be used after that
    /// function has returned.
    pub unsafe fn new(pointer: *mut thread_data) -> Option<Job> {
        NonNull::new(pointer).map(Job)
    }

    pub fn name(self) -> String {
        text(member!(self.o.name))
    }

    pub fn reads(self) -> bool {
        member!(self.o.td_ddir) & sys::td_ddir_TD_DDIR_READ != 0
    }

    pub fn writes(self) -> bool {
        member!(self.o.td_ddir) & sys::td_ddir_TD_DDIR_WRITE != 0
    }

    /// The job trims and does nothing else.
    pub fn only_trims(self) -> bool {
        member!(self.o.td_ddir) & sys::td_ddir_TD_DDIR_TRIM != 0 && !self.reads() && !self.writes()
    }

    /// Most I/O units in flight.
    pub fn depth(self) -> usize {
        member!(self.o.iodepth) as usize
    }

    pub fn is_direct(self) -> bool {
        member!(self.o.odirect) != 0
    }

    /// The flags of open(2) that the option `sync` stands for.
    pub fn sync_flags(self) -> i32 {
        member!(self.o.sync_io).cast_signed()
    }

    pub fn may_create(self) -> bool {
        member!(self.o.allow_create) != 0
    }

    pub fn creates_on_open(self) -> bool {
        member!(self.o.create_on_open) != 0
    }

    pub fn overwrites(self) -> bool {
        member!(self.o.overwrite) != 0
    }

    pub fn appends(self) -> bool {
        member!(self.o.file_append) != 0
    }

    /// Write until there is no room left.
    pub fn fills_device(self) -> bool {
        member!(self.o.fill_device) != 0
    }

    /// The file system shall give storage to a new file at once (`fallocate=` anything but none and keep).
    pub fn sets_size_first(self) -> bool {
        let mode = member!(self.o.fallocate_mode);
        mode != sys::fio_fallocate_mode_FIO_FALLOCATE_NONE
            && mode != sys::fio_fallocate_mode_FIO_FALLOCATE_KEEP_SIZE
    }

    /// New files shall be on stable storage before the job starts.
    pub fn syncs_new_files(self) -> bool {
        member!(self.o.create_fsync) != 0
    }

    /// What it does is read from a log, not made up.
    pub fn replays_log(self) -> bool {
        !member!(self.o.read_iolog_file).is_null()
    }

    /// The option `size` in bytes; 0 where it is not given.
    pub fn size(self) -> u64 {
        member!(self.o.size)
    }

    /// Least and greatest size of a file, where the option `filesize` is given.
    pub fn file_sizes(self) -> Option<(u64, u64)> {
        let (low, high) = (member!(self.o.file_size_low), member!(self.o.file_size_high));
        (low > 0).then_some((low, high.max(low)))
    }

    /// A size within `filesize`.
    pub fn random_file_size(self) -> u64 {
        // SAFETY: the job is fio's own.
        unsafe { sys::get_rand_file_size(self.0.as_ptr()) }
    }

    /// Where this job starts in a file whose size is known.
    pub fn start_offset(self, file: File) -> u64 {
        // SAFETY: job and file are fio's own.
        unsafe { sys::get_start_offset(self.0.as_ptr(), file.as_ptr()) }
    }

    /// Number of files among which the size is divided.
    pub fn files_planned(self) -> u64 {
        u64::from(member!(self.o.nr_files))
    }

    /// Smallest block of reads, writes and trims in bytes; at least 1.
    pub fn block_min(self) -> u64 {
        member!(self.o.min_bs).into_iter().min().unwrap_or(1).max(1)
    }

    /// Whether fio wants to know when each unit was issued.
    pub fn wants_issue_times(self) -> bool {
        self.replays_log()
            || member!(self.o.disable_clat) == 0
            || member!(self.o.disable_slat) == 0
            || member!(self.o.disable_bw) == 0
    }

    /// Whether fio asks for the events of all that it has committed before it sleeps. It does not where a log says when
    /// to do what, and where other threads verify and it waits for one of them.
    pub fn asks_for_events_before_it_waits(self) -> bool {
        !self.replays_log() && member!(self.o.verify_async) == 0
    }

    /// The user, or a limit of time, wants the job to end.
    pub fn is_ending(self) -> bool {
        let place = place!(self.terminate);
        // SAFETY: as in `member!`; another thread may set it at any time.
        unsafe { place.read_volatile() }
    }

    /// The engine's options; `None` where fio has made none.
    pub fn options(self) -> Option<NonNull<Options>> {
        NonNull::new(member!(self.eo).cast())
    }

    /// The job's files.
    pub fn files(self) -> impl Iterator<Item = File> {
        let (files, count) = (member!(self.files), member!(self.files_index) as usize);
        (0..if files.is_null() { 0 } else { count }).filter_map(move |index| {
            // SAFETY: `files` points to `files_index` pointers to files of this job.
            unsafe { File::new(*files.add(index)) }
        })
    }

    /// The engine's state of this job, where there is one in this thread or process.
    ///
    /// # Safety
    /// At most one such reference may be in use.
    pub unsafe fn state<'a>(self) -> Option<&'a mut State> {
        let state: *mut State = member!(self.io_ops_data).cast();
        // SAFETY: it is null, or was made by `set_state`; the caller promises that the reference is the only one.
        unsafe { state.as_mut() }
    }

    /// Keeps the engine's state with the job.
    pub fn set_state(self, state: Box<State>) {
        let place = place!(self.io_ops_data);
        // SAFETY: as in `member!`; this member is the engine's.
        unsafe { *place = Box::into_raw(state).cast() };
    }

    /// Takes the state back, to be dropped.
    pub fn take_state(self) -> Option<Box<State>> {
        let place = place!(self.io_ops_data);
        // SAFETY: as in `member!`; a pointer there is one that `set_state` has put there, and is not left behind.
        unsafe {
            let state: *mut State = std::mem::replace(&mut *place, std::ptr::null_mut()).cast();
            (!state.is_null()).then(|| Box::from_raw(state))
        }
    }

    /// The memory that all units' buffers will be cut from.
    pub fn set_memory(self, memory: *mut u8) {
        let place = place!(self.orig_buffer);
        // SAFETY: as in `member!`; fio expects an engine that has `iomem_alloc` to set it.
        unsafe { *place = memory.cast() };
    }

    /// Fills memory with what the job's options say that files shall contain.
    pub fn fill(self, memory: &mut [u8]) {
        let length = memory.len();
        // SAFETY: fio writes `length` bytes at most.
        unsafe {
            sys::fill_io_buffer(self.0.as_ptr(), memory.as_mut_ptr().cast(), length as u64, length as u64);
        }
    }

    /// Notes that units are on their way, for fio's latencies.
    pub fn issued(self, units: &[Unit]) {
        if !self.wants_issue_times() {
            return;
        }
        let mut now = sys::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: fio writes the time; its second argument is not used.
        unsafe { sys::fio_gettime(&raw mut now, std::ptr::null_mut()) };
        for unit in units {
            unit.set_issue_time(now);
            // SAFETY: job and unit are fio's own, and the unit is in flight.
            unsafe { sys::io_u_queued(self.0.as_ptr(), unit.as_ptr()) };
        }
        if self.replays_log() {
            let place = place!(self.last_issue);
            // SAFETY: as in `member!`; the engine that sets issue times sets this too.
            unsafe { *place = now };
        }
    }

    /// The job has failed: keeps the first error, and says where it was met, as fio's own code does.
    pub fn fail(self, errno: i32, what: &str) {
        self.note_failure(errno, what);
        let parent = member!(self.parent);
        if let Some(parent) = NonNull::new(parent) {
            Job(parent).note_failure(errno, what);
        }
    }

    fn note_failure(self, errno: i32, what: &str) {
        if member!(self.error) != 0 {
            return;
        }
        let (error, verror) = (place!(self.error), place!(self.verror));
        // SAFETY: as in `member!`; these are the job's own and it is in a call of ours.
        unsafe { error.write(errno) };
        if member!(self.first_error) == 0 {
            let text = format!("engine=libraio, func={what}, error={}", raio::describe_errno(errno));
            let text = CString::new(text).unwrap_or_default();
            // SAFETY: as above; the text is cut to the array and its last byte stays 0.
            unsafe {
                let bytes = &mut *verror;
                let room = bytes.len() - 1;
                for (to, from) in bytes[..room].iter_mut().zip(text.as_bytes_with_nul()) {
                    *to = *from as c_char;
                }
                bytes[room] = 0;
            }
        }
    }
}

/// A string of fio's.
pub(super) fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: fio's strings are terminated, and live as long as the structure that they were found in.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}
