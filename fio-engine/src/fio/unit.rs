//! One I/O unit: a read, write, trim or flush that fio wants done.

use super::File;
use super::sys::{self, io_u};
use std::ptr::NonNull;

/// One I/O unit, from its being queued until fio has it back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Unit(NonNull<io_u>);

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Read,
    Write,
    Trim,
    /// Flush, with or without metadata that is not needed to read the data back.
    Sync {
        data_only: bool,
    },
    /// Not for an engine.
    Other,
}

/// A member of the unit's structure.
macro_rules! member {
    ($unit:ident . $name:ident) => {
        // SAFETY: units live as long as their job; between `queue` and its end the engine owns this one (see
        // `Unit::new`). Members are read as plain values.
        unsafe { (*$unit.as_ptr()).$name }
    };
}

impl Unit {
    /// # Safety
    /// `pointer` must be a unit that fio has passed to the engine, and fio must not have taken it back as long as
    /// the handle is used.
    pub unsafe fn new(pointer: *mut io_u) -> Option<Unit> {
        NonNull::new(pointer).map(Unit)
    }

    /// The unit behind a token.
    ///
    /// # Safety
    /// `token` must come from [`Unit::token`], and the promise of [`Unit::new`] must hold.
    pub unsafe fn from_token(token: u64) -> Option<Unit> {
        // A pointer fits 64 bits and came from one.
        NonNull::new(std::ptr::with_exposed_provenance_mut(token as usize)).map(Unit)
    }

    /// A number that stands for this unit while it is in flight.
    pub fn token(self) -> u64 {
        self.as_ptr().expose_provenance() as u64
    }

    pub fn as_ptr(self) -> *mut io_u {
        self.0.as_ptr()
    }

    pub fn direction(self) -> Direction {
        match member!(self.ddir) {
            sys::fio_ddir_DDIR_READ => Direction::Read,
            sys::fio_ddir_DDIR_WRITE => Direction::Write,
            sys::fio_ddir_DDIR_TRIM => Direction::Trim,
            sys::fio_ddir_DDIR_SYNC => Direction::Sync { data_only: false },
            // The range is one that was written; all that was written is more than enough.
            sys::fio_ddir_DDIR_DATASYNC | sys::fio_ddir_DDIR_SYNC_FILE_RANGE => {
                Direction::Sync { data_only: true }
            }
            _ => Direction::Other,
        }
    }

    /// The file; a unit on its way has one.
    pub fn file(self) -> Option<File> {
        let file = member!(self.file);
        // SAFETY: the file of a unit in flight is one of its job's.
        unsafe { File::new(file) }
    }

    /// First byte in the file.
    pub fn offset(self) -> u64 {
        member!(self.offset)
    }

    /// Memory to read into or write from.
    pub fn memory(self) -> *mut u8 {
        member!(self.xfer_buf).cast()
    }

    /// Bytes to move.
    pub fn length(self) -> u64 {
        member!(self.xfer_buflen)
    }

    /// So many bytes were moved; fio asks again for the rest.
    pub fn moved(self, bytes: u64) {
        let left = self.length().saturating_sub(bytes);
        // SAFETY: as in `member!`.
        unsafe {
            (*self.as_ptr()).resid = left;
            (*self.as_ptr()).error = 0;
        }
    }

    /// It has failed.
    pub fn failed(self, errno: i32) {
        // SAFETY: as in `member!`.
        unsafe { (*self.as_ptr()).error = errno.unsigned_abs() };
    }

    pub fn set_issue_time(self, time: sys::timespec) {
        // SAFETY: as in `member!`.
        unsafe { (*self.as_ptr()).issue_time = time };
    }
}
