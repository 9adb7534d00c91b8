//! The fio ioengine `libraio`: fio reads and writes files that a raio-server serves.
//!
//! fio loads this library and asks [`get_ioengine`] for a table of functions ([`ops`]); it calls them with its own
//! structures, which [`fio`] wraps. A job's connections and what it has in flight are a [`state::State`], made in the
//! job's own thread or process; before that, [`layout`] finds out sizes, and lays files out, over a short connection.
//! Everything runs in fio's threads: there is no helper thread, and once warm nothing is allocated per I/O.
//!
//! `unsafe` is in `fio` (its structures, behind handles that are made where fio calls), `ops` (the table), `memory`
//! and `options`.

// fio calls all of it through the table; nothing of it is an interface for Rust.
#![allow(missing_docs, reason = "a plug-in without a Rust interface")]

mod details;
mod error;
mod fio;
mod layout;
mod links;
mod memory;
mod opening;
mod ops;
mod options;
mod parts;
mod place;
mod state;

#[cfg(test)]
mod symbols;

/// What fio looks up in a library that it has loaded for an ioengine: puts the table's address where `table` points.
///
/// # Safety
/// `table` must be valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn get_ioengine(table: *mut *mut fio::sys::ioengine_ops) {
    if !table.is_null() {
        // SAFETY: the caller's promise.
        unsafe { *table = ops::table() };
    }
}
