//! Registered memory for the bytes that are put together for messages: taken in turn, free again when the device has
//! read them.

use super::domain::{Domain, MESSAGE_BYTES};
use super::endpoint::LocalPiece;
use super::verbs::RegisteredRegion;
use std::io;

/// Registered memory for the heads of messages, and for small data: at least eight of the longest messages.
pub(super) const STAGING_BYTES: usize = 64 << 10;

/// A ring of registered memory for the bytes that are put together for a message.
#[derive(Debug)]
pub(super) struct Staging {
    memory: RegisteredRegion,
    /// Positions counted from the beginning; what lies between them is with the device.
    start: u64,
    pub end: u64,
    /// Place and length of what was taken last.
    last: (usize, usize),
}

impl Staging {
    pub(super) fn new(domain: &Domain) -> io::Result<Staging> {
        let memory = RegisteredRegion::allocate(domain.protection(), STAGING_BYTES)?;
        Ok(Staging { memory, start: 0, end: 0, last: (0, 0) })
    }

    pub(super) fn take(&mut self, length: usize) -> Option<&mut [u8]> {
        debug_assert!(length <= MESSAGE_BYTES);
        // The remainder is below STAGING_BYTES.
        let at = (self.end % STAGING_BYTES as u64) as usize;
        let skipped = if at + length > STAGING_BYTES { STAGING_BYTES - at } else { 0 };
        let end = self.end + (skipped + length) as u64;
        if end - self.start > STAGING_BYTES as u64 {
            return None;
        }
        self.end = end;
        let at = if skipped > 0 { 0 } else { at };
        self.last = (at, length);
        // SAFETY: the range is inside the memory, which is this ring's alone; the device reads only what is between
        // `start` and the old `end`, which it does not overlap.
        Some(unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr().add(at), length) })
    }

    pub(super) fn last(&self) -> LocalPiece {
        let (at, length) = self.last;
        // SAFETY: `take` found the range inside the memory.
        let address = unsafe { self.memory.as_ptr().add(at) };
        LocalPiece { address, length, key: self.memory.local_key() }
    }

    pub(super) fn release(&mut self, upto: u64) {
        self.start = self.start.max(upto);
    }
}
