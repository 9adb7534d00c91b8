//! One file of a job.

use super::sys::{self, fio_file};
use crate::opening::OpenFile;
use std::ffi::CStr;
use std::ptr::NonNull;

/// One file: its name, its size as fio believes it, and a place for what the engine knows about it while it is open.
#[derive(Clone, Copy)]
pub struct File(NonNull<fio_file>);

/// Size of a file of which nothing is known.
pub const SIZE_UNKNOWN: u64 = u64::MAX;

impl File {
    /// # Safety
    /// `pointer` must be that of a file of the job that fio called the engine for, and the handle must not be used
    /// after that call has returned.
    pub unsafe fn new(pointer: *mut fio_file) -> Option<File> {
        NonNull::new(pointer).map(File)
    }

    pub fn as_ptr(self) -> *mut fio_file {
        self.0.as_ptr()
    }

    /// The name as the user gave it.
    pub fn name(self) -> Vec<u8> {
        // SAFETY: the file lives as long as the call that this handle was made in (see `new`).
        let name = unsafe { (*self.as_ptr()).file_name };
        if name.is_null() {
            return Vec::new();
        }
        // SAFETY: fio's strings are terminated.
        unsafe { CStr::from_ptr(name) }.to_bytes().to_vec()
    }

    /// Size in bytes; [`SIZE_UNKNOWN`] where that is not known.
    pub fn size(self) -> u64 {
        // SAFETY: as in `name`.
        unsafe { (*self.as_ptr()).real_file_size }
    }

    /// The size is known now.
    pub fn set_size(self, bytes: u64) {
        // SAFETY: as in `name`; finding out sizes is the engine's part.
        unsafe {
            (*self.as_ptr()).real_file_size = bytes;
            (*self.as_ptr()).flags |= sys::fio_file_flags_FIO_FILE_size_known;
        }
    }

    /// What the file is, which decides what fio does with it.
    pub fn set_kind(self, kind: raio::proto::FileKind) {
        use raio::proto::FileKind;
        let kind = match kind {
            FileKind::BlockDevice => sys::fio_filetype_FIO_TYPE_BLOCK,
            FileKind::CharacterDevice => sys::fio_filetype_FIO_TYPE_CHAR,
            _ => sys::fio_filetype_FIO_TYPE_FILE,
        };
        // SAFETY: as in `name`.
        unsafe { (*self.as_ptr()).filetype = kind };
    }

    /// It is a regular file, as far as is known.
    pub fn is_regular(self) -> bool {
        // SAFETY: as in `name`.
        unsafe { (*self.as_ptr()).filetype == sys::fio_filetype_FIO_TYPE_FILE }
    }

    /// What the engine knows about the open file.
    ///
    /// # Safety
    /// The reference must not outlive the file's being open.
    pub unsafe fn open<'a>(self) -> Option<&'a OpenFile> {
        // SAFETY: null, or made by `set_open`; the caller promises not to use it after `take_open`.
        unsafe { (*self.as_ptr()).engine_data.cast::<OpenFile>().as_ref() }
    }

    /// The file is open.
    pub fn set_open(self, open: OpenFile) {
        // SAFETY: as in `name`; this member is the engine's.
        unsafe { (*self.as_ptr()).engine_data = Box::into_raw(Box::new(open)).cast() };
    }

    /// The file is closed.
    pub fn take_open(self) -> Option<OpenFile> {
        // SAFETY: null, or made by `set_open`, and not left behind.
        unsafe {
            let place = &raw mut (*self.as_ptr()).engine_data;
            let open: *mut OpenFile = std::mem::replace(&mut *place, std::ptr::null_mut()).cast();
            (!open.is_null()).then(|| *Box::from_raw(open))
        }
    }
}
