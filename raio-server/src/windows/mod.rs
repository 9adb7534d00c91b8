//! Windows: parts of files that are in the page cache, mapped, so that reads of them need no system call each.
//!
//! A window is a 2 MiB part of a file. Reads of it are counted; when they would have paid for a mapping, the kernel is asked
//! (cachestat(2)) whether all its pages are in memory. If so it is mapped and has a *lease*: for a short time reads are
//! copied out of it. Then the kernel is asked again. So a worker does not wait for a device, but where a page is evicted within
//! a lease, which [`faults`] limits. What a copy can't answer (the end of the file, a range of two windows, data that ends with a
//! zero: see [`FileWindow::copy_to`]) is left to preadv2(2).
//!
//! Each worker has its own table, of a fixed number of slots, and no locks. A window goes when it was not used for a second or
//! two, when its file's last handle was closed, or when a busier one wants its slot. It is unmapped off the loop.

mod faults;
mod slot;

use crate::counters::Counters;
use crate::sys;
use faults::Faults;
use libxio::{Buffer, FileWindow};
use slot::{Slot, State};
use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of a window: what a page table covers, so that a slot costs one page of it at most.
const WINDOW_BYTES: u64 = 2 << 20;

const PAGE_BYTES: u64 = 4096;

/// Slots of a worker: 2 GiB of files, 4 MiB of page tables, 100 KiB for the table.
const SLOTS_MAX: usize = 1024;

/// Slots of all workers: a quarter of the mappings that a process may have (vm.max_map_count is 65,530 as a rule).
const SLOTS_TOTAL: usize = 16_384;

/// Time for which pages that were in memory are taken to be there still, in milliseconds.
const LEASE_MS: u64 = 100;

/// Time in which reads have to pay for a mapping, in milliseconds.
const COUNTING_MS: u64 = 500;

/// Time for which a window that was no use is left alone, in milliseconds.
const REFUSED_MS: u64 = 500;

/// Reads that end with a zero, or leave a window, beyond those that don't, after which a lease ends: a file of zeros is no
/// faster by windows, and each look at its pages is in vain.
const DOUBTS_MAX: u32 = 64;

/// Time between two sweeps.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Copies after which the clock is read again within a turn, and with it, in time, whether any has waited for a device: so
/// that a turn's worth of them can't wait one after the other.
const COPIES_PER_LOOK: u32 = 8;

/// Batches of windows that may wait to be unmapped, as they do where all threads for that are busy with a dead mount. With more,
/// none are mapped: their number has a limit in the process.
const UNMAPPING_MAX: usize = 4;

/// What a copy saves beside preadv2, in nanoseconds: 0.8 us for 4 KiB, 5 for 64 KiB, 70 for 1 MiB were measured.
const SAVED_NS: u32 = 500;
const BYTES_PER_SAVED_NS: u32 = 16;

/// What a window costs whose pages are all touched, in nanoseconds: 3 us to map it, 32 faults (one for 64 KiB) of 4.7, 92 to
/// unmap it. Once so much would have been saved, mapping it costs at most as much again, whatever comes (the ski-rental rule).
const MAPPING_NS: u32 = 250_000;

/// Twice what asking for its pages costs: 10 us were measured.
const ASKING_NS: u32 = 20_000;

/// Which file: no other one has both as long as it is open or mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileKey {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// Which window of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct WindowKey {
    file: FileKey,
    /// Its offset by its length.
    number: u64,
}

impl WindowKey {
    /// Offsets end long before it.
    const NONE: WindowKey = WindowKey { file: FileKey { device: 0, inode: 0 }, number: u64::MAX };

    /// The window of a file that an offset lies in.
    #[inline]
    fn at(file: FileKey, offset: u64) -> WindowKey {
        WindowKey { file, number: offset / WINDOW_BYTES }
    }

    /// The one slot where it may be. Neighbours don't meet; different files begin anywhere (Fibonacci hashing).
    #[inline]
    fn slot(&self, slots: usize) -> usize {
        let hash = (self.file.inode ^ self.file.device.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // `slots` is a power of two, or 0 while there are none.
        (hash >> 32).wrapping_add(self.number) as usize & slots.saturating_sub(1)
    }
}

/// A worker's windows.
#[derive(Debug)]
pub struct Windows {
    /// None until something is counted; then a power of two.
    slots: Vec<Slot>,
    slots_max: usize,
    /// Slots with a window.
    mapped: Vec<usize>,
    /// To be unmapped off the loop.
    retired: Vec<FileWindow>,
    /// Held by each batch of them that was handed over, until it is unmapped.
    unmapping: Arc<()>,
    /// Handles of this worker, of files that may have windows.
    handles: HashMap<FileKey, usize>,
    faults: Faults,
    /// The coarse clock in milliseconds; read once in a turn, and again after some copies.
    now_ms: Option<u64>,
    /// Copies since it was read.
    copies: u32,
    counters: Arc<Counters>,
}

impl Windows {
    /// Whether the kernel can say what is in memory.
    pub(crate) fn are_possible() -> bool {
        sys::has_cachestat()
    }

    /// For one of so many workers.
    pub(crate) fn new(workers: usize, counters: Arc<Counters>) -> Windows {
        let share = (SLOTS_TOTAL / workers.max(1)).clamp(1, SLOTS_MAX);
        Windows {
            slots: Vec::new(),
            slots_max: 1 << share.ilog2(),
            mapped: Vec::new(),
            retired: Vec::new(),
            unmapping: Arc::default(),
            handles: HashMap::new(),
            faults: Faults::default(),
            now_ms: None,
            copies: 0,
            counters,
        }
    }

    /// The loop begins a turn: the clock has gone on.
    #[inline]
    pub(crate) fn begin_turn(&mut self) {
        self.now_ms = None;
    }

    /// Fills `target` with what a file has at `offset`, if a window shows it; else counts the read. `fd` is open for reading,
    /// of a regular file whose mappings agree with its reads.
    #[inline]
    pub(crate) fn read(
        &mut self,
        file: FileKey,
        fd: BorrowedFd<'_>,
        offset: u64,
        target: &mut Buffer,
    ) -> bool {
        // Below 2 MiB.
        let start = (offset % WINDOW_BYTES) as usize;
        if target.is_empty() || start + target.len() > WINDOW_BYTES as usize {
            return false;
        }
        if self.copies >= COPIES_PER_LOOK {
            self.now_ms = None;
        }
        let now_ms = self.now();
        let key = WindowKey::at(file, offset);
        // At most 2 MiB.
        let worth_ns = SAVED_NS + target.len() as u32 / BYTES_PER_SAVED_NS;
        let mut index = key.slot(self.slots.len());
        if !self.slots.get(index).is_some_and(|slot| slot.is_leased(key, now_ms)) {
            match self.consider(key, fd, worth_ns, now_ms) {
                Some(admitted) => index = admitted,
                None => return false,
            }
        }
        let slot = &mut self.slots[index];
        let Some(window) = &mut slot.window else { return false };
        if window.copy_to(start, target) {
            self.copies += 1;
            slot.is_used = true;
            slot.doubts = slot.doubts.saturating_sub(1);
            slot.saved_ns = slot.saved_ns.saturating_add(worth_ns);
            self.counters.reads_mapped.add(1);
            return true;
        }
        slot.doubts += 1;
        if window.has_vanished() {
            self.retire(index);
        } else if slot.doubts > DOUBTS_MAX {
            slot.enter(State::Refused, now_ms + REFUSED_MS);
        }
        false
    }

    /// A read is about to come, after another that is first: asks the processor for the memory that it needs, where it is
    /// mapped.
    #[inline]
    pub(crate) fn expect(&self, file: FileKey, offset: u64, length: usize) {
        let key = WindowKey::at(file, offset);
        let slot = self.slots.get(key.slot(self.slots.len()));
        if let Some(window) = slot.filter(|slot| slot.key == key).and_then(|slot| slot.window.as_ref()) {
            window.prefetch((offset % WINDOW_BYTES) as usize, length);
        }
    }

    /// A read of a file would have had to wait for the device.
    #[cold]
    pub(crate) fn missed(&mut self, file: FileKey, offset: u64) {
        let now_ms = self.now();
        let key = WindowKey::at(file, offset);
        let index = key.slot(self.slots.len());
        if let Some(slot) = self.slots.get_mut(index).filter(|slot| slot.key == key) {
            slot.enter(State::Refused, now_ms + REFUSED_MS);
        }
    }

    /// The clock of this turn. When it was read, it may be time to look for faults.
    #[inline]
    fn now(&mut self) -> u64 {
        match self.now_ms {
            Some(now_ms) => now_ms,
            None => self.look_at_clock(),
        }
    }

    fn look_at_clock(&mut self) -> u64 {
        let now_ms = sys::coarse_clock_ms();
        self.now_ms = Some(now_ms);
        self.copies = 0;
        if !self.mapped.is_empty() && self.faults.is_due(now_ms) {
            self.note_faults(sys::major_faults(), now_ms);
        }
        now_ms
    }

    /// The thread has had so many major faults until now: after new ones there are no leases for a while.
    fn note_faults(&mut self, count: u64, now_ms: u64) {
        let new = self.faults.look(count, now_ms);
        if new == 0 {
            return;
        }
        self.counters.major_faults.add(new);
        tracing::debug!(faults = new, "pages were read from a device under a copy: no windows for a while");
        for index in &self.mapped {
            self.slots[*index].enter(State::Counting, now_ms);
        }
    }

    /// A read of a window without a lease: where to copy from, if it has got one by this.
    fn consider(&mut self, key: WindowKey, fd: BorrowedFd<'_>, worth_ns: u32, now_ms: u64) -> Option<usize> {
        if self.slots.is_empty() {
            self.slots.resize_with(self.slots_max, Slot::vacant);
            self.mapped.reserve(self.slots_max);
        }
        if self.faults.is_paused(now_ms) {
            return None;
        }
        let index = key.slot(self.slots.len());
        let slot = &mut self.slots[index];
        if slot.key != key {
            if slot.keeps_place(worth_ns, now_ms) {
                return None;
            }
            self.retire(index);
            let slot = &mut self.slots[index];
            slot.key = key;
            slot.enter(State::Counting, now_ms + COUNTING_MS);
        }
        let slot = &mut self.slots[index];
        if now_ms >= slot.until_ms {
            match slot.state {
                State::Leased if slot.saved_ns >= ASKING_NS => return self.lease(index, fd, now_ms),
                State::Leased if slot.doubts > 0 => slot.enter(State::Refused, now_ms + REFUSED_MS),
                _ => {
                    let time = if slot.window.is_some() { LEASE_MS } else { COUNTING_MS };
                    slot.enter(State::Counting, now_ms + time);
                }
            }
        }
        if slot.state != State::Counting {
            return None;
        }
        slot.saved_ns = slot.saved_ns.saturating_add(worth_ns);
        let price = if slot.window.is_some() { ASKING_NS } else { MAPPING_NS };
        if slot.saved_ns < price {
            return None;
        }
        self.lease(index, fd, now_ms)
    }

    /// Gives a slot's window a lease, if all its pages are in memory.
    fn lease(&mut self, index: usize, fd: BorrowedFd<'_>, now_ms: u64) -> Option<usize> {
        let slot = &mut self.slots[index];
        let offset = slot.key.number * WINDOW_BYTES;
        // The file may have grown or shrunk since it was mapped.
        let length = in_memory(fd, offset).unwrap_or_else(|errno| {
            tracing::debug!(%errno, "the kernel does not say what of a file is in memory");
            0
        });
        if length == 0 {
            slot.enter(State::Refused, now_ms + REFUSED_MS);
            return None;
        }
        if slot.window.as_ref().is_none_or(|window| window.len() != length) {
            self.retire(index);
            self.map(index, fd, offset, length, now_ms);
        }
        let slot = &mut self.slots[index];
        if slot.window.is_none() {
            slot.enter(State::Refused, now_ms + REFUSED_MS);
            return None;
        }
        slot.enter(State::Leased, now_ms + LEASE_MS);
        Some(index)
    }

    fn map(&mut self, index: usize, fd: BorrowedFd<'_>, offset: u64, length: usize, now_ms: u64) {
        // One is our own.
        if Arc::strong_count(&self.unmapping) > 1 + UNMAPPING_MAX {
            return;
        }
        match FileWindow::map(fd, offset, length) {
            Ok(window) => {
                if self.mapped.is_empty() {
                    self.faults.forget(sys::major_faults(), now_ms);
                }
                let slot = &mut self.slots[index];
                slot.window = Some(window);
                slot.is_used = true;
                self.mapped.push(index);
                self.counters.windows_mapped.add(1);
            }
            Err(error) => tracing::debug!(%error, "a file can't be mapped"),
        }
    }

    /// Takes a slot's window away, if it has one; its reads are counted from now on.
    fn retire(&mut self, index: usize) {
        let Some(window) = self.slots[index].window.take() else { return };
        self.slots[index].enter(State::Counting, 0);
        if let Some(place) = self.mapped.iter().position(|mapped| *mapped == index) {
            self.mapped.swap_remove(place);
        }
        self.retired.push(window);
    }

    /// Takes away the windows that `which` says.
    fn retire_if(&mut self, which: impl Fn(&mut Slot) -> bool) {
        let mut place = self.mapped.len();
        while place > 0 {
            place -= 1;
            // What takes its place was looked at already.
            let index = self.mapped[place];
            if which(&mut self.slots[index]) {
                self.retire(index);
            }
        }
    }

    /// Takes away what was not used since the last sweep.
    pub(crate) fn sweep(&mut self) {
        self.retire_if(|slot| !std::mem::take(&mut slot.is_used));
    }

    /// A client has opened a file that may have windows.
    pub(crate) fn opened(&mut self, file: FileKey) {
        *self.handles.entry(file).or_default() += 1;
    }

    /// A client has closed it: with the last handle its windows go, so that nothing holds the file.
    pub(crate) fn closed(&mut self, file: FileKey) {
        let Some(count) = self.handles.get_mut(&file) else { return };
        *count -= 1;
        if *count == 0 {
            self.handles.remove(&file);
            self.retire_if(|slot| slot.key.file == file);
        }
    }

    /// Storage of a file is about to be taken away, during which the kernel holds up faults: its windows are left alone.
    pub(crate) fn refuse(&mut self, file: FileKey) {
        let until_ms = self.now() + REFUSED_MS;
        for index in &self.mapped {
            let slot = &mut self.slots[*index];
            if slot.key.file == file {
                slot.enter(State::Refused, until_ms);
            }
        }
    }

    /// Whether there are any.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.mapped.is_empty()
    }

    /// Whether some have to be unmapped.
    #[inline]
    pub(crate) fn has_retired(&self) -> bool {
        !self.retired.is_empty()
    }

    /// What has to be unmapped, which may take its time: by dropping it.
    pub(crate) fn take_retired(&mut self) -> Retired {
        Retired { _windows: std::mem::take(&mut self.retired), _counted: Arc::clone(&self.unmapping) }
    }
}

/// Windows that are to be unmapped, and count until they are.
#[derive(Debug)]
pub(crate) struct Retired {
    _windows: Vec<FileWindow>,
    _counted: Arc<()>,
}

/// Bytes of the window at `offset` that the file has, if all their pages are in memory; else 0.
fn in_memory(fd: BorrowedFd<'_>, offset: u64) -> rustix::io::Result<usize> {
    let size = u64::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or_default();
    let length = size.saturating_sub(offset).min(WINDOW_BYTES);
    if length == 0 || sys::cached_pages(fd, offset, length)? < length.div_ceil(PAGE_BYTES) {
        return Ok(0);
    }
    // At most 2 MiB.
    Ok(length as usize)
}

#[cfg(test)]
mod tests;
