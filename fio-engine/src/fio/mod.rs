//! fio's structures and functions, as far as the engine uses them, behind handles without a lifetime of their own.
//!
//! A handle is made from a pointer that fio passes to one of the engine's functions, and is used until that function
//! returns (an I/O unit: until fio has it back). fio's structures are only ever reached through raw pointers here,
//! since other threads of fio look at them at the same time.

mod file;
mod job;
mod unit;

pub use file::{File, SIZE_UNKNOWN};
pub use job::Job;
pub use unit::{Direction, Unit};

/// Generated from fio's headers when this crate is built.
#[allow(warnings, clippy::all, clippy::undocumented_unsafe_blocks, reason = "generated")]
pub mod sys {
    include!(concat!(env!("OUT_DIR"), "/fio.rs"));
}

use std::ffi::CString;

/// A line for the user that something went wrong.
pub fn log_error(text: &str) {
    let text = line(text);
    // SAFETY: the format takes one string, and both are terminated.
    unsafe { sys::log_err(c"libraio: %s\n".as_ptr(), text.as_ptr()) };
}

/// A line for the user.
pub fn log_info(text: &str) {
    let text = line(text);
    // SAFETY: the format takes one string, and both are terminated.
    unsafe { sys::log_info(c"%s\n".as_ptr(), text.as_ptr()) };
}

/// fio was told `--readonly`.
pub fn is_read_only() -> bool {
    // SAFETY: a variable of fio that is set while it reads its command line, before any engine is loaded.
    unsafe { sys::read_only }
}

fn line(text: &str) -> CString {
    CString::new(text.replace('\0', "?")).unwrap_or_default()
}
