//! Memory of peers that the ring knows as fixed buffers: its pages are pinned once, and not for each operation. That is
//! worth it for O_DIRECT, where the kernel needs the pages themselves, and costs memory that can't be given back
//! meanwhile; so it is for memory that is used so again and again, up to a number of bytes.

use super::Context;
use crate::mem::{Buffer, PeerMemory, Pin, Share};
use crate::reactor::{Ring, Waker};
use crossbeam_queue::SegQueue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Memories that a ring knows at a time.
const PINNED_MAX: u16 = 1024;
/// Shorter operations gain nothing: below it, looking the buffer up costs what pinning does.
const OPERATION_BYTES_MIN: usize = 64 << 10;
/// Longer memory is not pinned: its pages are all made at once, and nobody else is served meanwhile.
const MEMORY_BYTES_MAX: usize = 64 << 20;
/// Operations on the same memory before it is pinned.
const USES_MIN: u32 = 16;

/// Of what a user may lock, whose rings count too, so much is left to others.
const LOCKED_PARTS: u64 = 4;

/// What all contexts of this process have pinned, where a limit is on it.
static LIMITED: AtomicU64 = AtomicU64::new(0);

/// What a ring has pinned.
#[derive(Debug)]
pub(super) struct FixedBuffers {
    table: Table,
    bytes_max: u64,
    bytes: u64,
    /// For all contexts of the process.
    locked_max: u64,
    /// Of each place that was ever used: what its pages count for, as they stay when the peer takes them out of its file.
    places: Vec<Option<Share>>,
    free: Vec<u16>,
    /// Places of memory that is gone.
    released: Arc<SegQueue<u16>>,
    waker: Arc<Waker>,
}

/// The ring's table of buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    /// Made with the first.
    None,
    Made,
    /// The kernel has none (before 5.19).
    Refused,
}

impl FixedBuffers {
    pub(super) fn new(bytes_max: u64, waker: &Arc<Waker>) -> FixedBuffers {
        FixedBuffers {
            table: if bytes_max == 0 { Table::Refused } else { Table::None },
            bytes_max,
            bytes: 0,
            locked_max: locked_max(),
            places: Vec::new(),
            free: Vec::new(),
            released: Arc::default(),
            waker: Arc::clone(waker),
        }
    }

    /// The place of the memory that a buffer lies in, for an operation of the ring; it may be pinned for that.
    fn place_of(&mut self, buffer: &Buffer, ring: &mut Ring, context: u32) -> Option<u16> {
        if self.table == Table::Refused || buffer.len() < OPERATION_BYTES_MIN {
            return None;
        }
        let memory = buffer.peer_memory()?;
        match memory.pinned_at(context, USES_MIN) {
            Pin::At(place) => Some(place),
            Pin::Worthwhile => self.pin(memory, ring, context),
            Pin::No => None,
        }
    }

    /// Pins memory, if there is room; it is not tried again for this memory.
    fn pin(&mut self, memory: &Arc<PeerMemory>, ring: &mut Ring, context: u32) -> Option<u16> {
        let length = memory.len();
        if length > MEMORY_BYTES_MAX || self.bytes + length as u64 > self.bytes_max {
            return None;
        }
        let share = memory.take_for_pinning()?;
        let before = LIMITED.fetch_add(length as u64, Ordering::Relaxed);
        let place =
            if before + length as u64 <= self.locked_max { self.set_buffer(memory, ring) } else { None };
        let Some(place) = place else {
            LIMITED.fetch_sub(length as u64, Ordering::Relaxed);
            return None;
        };
        self.places[usize::from(place)] = Some(share);
        self.bytes += length as u64;
        let (released, waker) = (Arc::clone(&self.released), Arc::clone(&self.waker));
        memory.pin_at(context, place, move |place| {
            released.push(place);
            waker.wake();
        });
        Some(place)
    }

    /// Makes the table, if there is none yet, and finds a place in it.
    fn set_buffer(&mut self, memory: &PeerMemory, ring: &mut Ring) -> Option<u16> {
        let length = memory.len();
        if self.table == Table::None {
            self.table = Table::Made;
            if let Err(cause) = ring.make_buffer_table(u32::from(PINNED_MAX)) {
                tracing::debug!(%cause, "the ring has no table of fixed buffers");
                self.table = Table::Refused;
                return None;
            }
        }
        let place = match self.free.pop() {
            Some(place) => place,
            // Below PINNED_MAX.
            None if self.places.len() < usize::from(PINNED_MAX) => {
                self.places.push(None);
                self.places.len() as u16 - 1
            }
            None => return None,
        };
        if let Err(cause) = ring.set_buffer(place, memory.as_ptr(), length) {
            // The limit on locked memory, mostly: it goes without.
            tracing::debug!(%cause, length, "memory of a peer can't be pinned");
            self.free.push(place);
            return None;
        }
        Some(place)
    }

    /// Whether memory is gone that is still pinned.
    pub(super) fn has_released(&self) -> bool {
        !self.released.is_empty()
    }

    /// Lets go of what is gone. No operation is in flight there: each would have kept the memory.
    fn unpin_released(&mut self, ring: &mut Ring) -> bool {
        let mut some = false;
        while let Some(place) = self.released.pop() {
            if let Err(cause) = ring.clear_buffer(place) {
                tracing::error!(%cause, place, "a fixed buffer can't be let go");
                continue;
            }
            some = true;
            let length = self.places[usize::from(place)].take().map_or(0, |share| share.bytes());
            self.bytes -= length;
            LIMITED.fetch_sub(length, Ordering::Relaxed);
            self.free.push(place);
        }
        some
    }
}

impl Drop for FixedBuffers {
    fn drop(&mut self) {
        // The ring lets go of all.
        LIMITED.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// What the contexts of this process may pin: all that they like, or a part of what its user may lock.
fn locked_max() -> u64 {
    crate::sys::locked_memory_max().map_or(u64::MAX, |limit| limit / LOCKED_PARTS)
}

impl Context {
    /// The place of an operation's memory among the fixed buffers of the ring.
    pub(super) fn fixed_place(&mut self, buffer: &Buffer) -> Option<u16> {
        let place = self.fixed.place_of(buffer, self.ring.as_mut()?, self.number)?;
        self.statistics.pinned_bytes.set(self.fixed.bytes);
        self.statistics.operations_pinned.add(1);
        Some(place)
    }

    pub(super) fn unpin_released(&mut self) {
        if let Some(ring) = &mut self.ring
            && self.fixed.has_released()
            && self.fixed.unpin_released(ring)
        {
            self.statistics.pinned_bytes.set(self.fixed.bytes);
        }
    }
}
