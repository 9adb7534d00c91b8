//! The table with a clock of the test's own. What needs a kernel with cachestat(2) and a file system that may have windows ends
//! early where there is none.

#![allow(clippy::unwrap_used, reason = "a test")]

use super::*;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};

const LENGTH: usize = 4096;

struct Fixture {
    windows: Windows,
    counters: Arc<Counters>,
    file: File,
    key: FileKey,
    bytes: Vec<u8>,
    now_ms: u64,
}

impl Fixture {
    /// Over a file of so many bytes, none of them zero, all in memory. None where the system has no windows.
    fn new(length: usize) -> Option<Fixture> {
        let bytes: Vec<u8> = (0..length).map(|at| (at * 7 % 255) as u8 + 1).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        let known = sys::cached_pages(file.as_fd(), 0, length as u64);
        if known != Ok((length as u64).div_ceil(PAGE_BYTES)) {
            eprintln!("not tested here: {known:?}");
            return None;
        }
        let metadata = file.metadata().unwrap();
        let key = FileKey { device: metadata.dev(), inode: metadata.ino() };
        let counters = Arc::<Counters>::default();
        let windows = Windows::new(1, Arc::clone(&counters));
        Some(Fixture { windows, counters, file, key, bytes, now_ms: 1_000_000 })
    }

    /// A read at the test's time; true if a window had it, and then it has to be right.
    fn read(&mut self, offset: usize, length: usize) -> bool {
        (self.windows.now_ms, self.windows.copies) = (Some(self.now_ms), 0);
        let mut target = Buffer::from_vec(vec![0; length]);
        let is_mapped = self.windows.read(self.key, self.file.as_fd(), offset as u64, &mut target);
        if is_mapped {
            assert!(target.to_vec() == self.bytes[offset..offset + length], "{length} bytes at {offset}");
        }
        is_mapped
    }

    /// Reads until a window has them; how many that took.
    fn admit(&mut self, offset: usize) -> usize {
        (1..10_000).find(|_| self.read(offset, LENGTH)).expect("a window is mapped")
    }

    fn mapped(&self) -> usize {
        self.windows.mapped.len()
    }
}

#[test]
fn reads_that_would_have_paid_for_it_map_a_window() {
    let Some(mut fixture) = Fixture::new(5 << 20) else { return };
    let reads = fixture.admit(0);
    let price = MAPPING_NS / (SAVED_NS + LENGTH as u32 / BYTES_PER_SAVED_NS);
    assert!(reads.abs_diff(price as usize) <= 1, "{reads} reads, {price} were expected");
    assert_eq!((fixture.mapped(), fixture.counters.windows_mapped.get()), (1, 1));
    for offset in [0, 1, 4095, 1 << 20, (2 << 20) - LENGTH] {
        assert!(fixture.read(offset, LENGTH), "{offset}");
    }
    assert!(fixture.read(0, 2 << 20));
    // Of two windows, and of another one.
    assert!(!fixture.read((2 << 20) - 1, 2));
    assert!(!fixture.read(2 << 20, LENGTH));
    assert_eq!(fixture.counters.reads_mapped.get(), 7);
}

#[test]
fn files_of_every_length_are_shown_to_their_end_and_no_further() {
    for length in [1, 4095, 4096, 4097, (2 << 20) - 1, 2 << 20, (2 << 20) + 1] {
        let Some(mut fixture) = Fixture::new(length) else { return };
        let number = (length - 1) / (2 << 20);
        let start = number * (2 << 20);
        (1..10_000).find(|_| fixture.read(start, 1)).expect("a window is mapped");
        assert!(fixture.read(start, length - start), "{length}");
        assert!(fixture.read(length - 1, 1), "{length}");
        assert!(!fixture.read(length - 1, 2), "{length}");
        assert!(!fixture.read(length, 1), "{length}");
    }
}

#[test]
fn a_lease_ends_and_is_given_again_to_who_used_it() {
    let Some(mut fixture) = Fixture::new(2 << 20) else { return };
    fixture.admit(0);
    for _ in 0..ASKING_NS / SAVED_NS {
        assert!(fixture.read(0, LENGTH));
    }
    fixture.now_ms += LEASE_MS;
    assert!(fixture.read(0, LENGTH), "asked for again");
    fixture.now_ms += LEASE_MS;
    assert!(!fixture.read(0, LENGTH), "one read in a lease does not pay for the question");
    // It is mapped still, so that fewer reads bring it back.
    assert_eq!(fixture.mapped(), 1);
    assert!(fixture.admit(0) < 50);
    assert_eq!(fixture.counters.windows_mapped.get(), 1);
}

#[test]
fn reads_too_few_for_the_time_map_nothing() {
    let Some(mut fixture) = Fixture::new(2 << 20) else { return };
    for _ in 0..1000 {
        assert!(!fixture.read(0, LENGTH));
        fixture.now_ms += COUNTING_MS / 100;
    }
    assert_eq!(fixture.mapped(), 0);
}

#[test]
fn a_window_whose_pages_are_not_all_there_is_not_mapped() {
    let Some(mut fixture) = Fixture::new(2 << 20) else { return };
    let advise = |advice| rustix::fs::fadvise(&fixture.file, 0, None, advice).unwrap();
    fixture.file.sync_all().unwrap();
    advise(rustix::fs::Advice::DontNeed);
    advise(rustix::fs::Advice::Random);
    fixture.file.read_exact_at(&mut [0; LENGTH], 0).unwrap();
    for _ in 0..2000 {
        assert!(!fixture.read(0, LENGTH));
    }
    assert_eq!((fixture.mapped(), fixture.counters.windows_mapped.get()), (0, 0));
    // When they have come, it is asked again after a while.
    fixture.file.read_exact_at(&mut vec![0; 2 << 20], 0).unwrap();
    assert!(!fixture.read(0, LENGTH));
    fixture.now_ms += REFUSED_MS;
    fixture.admit(0);
}

#[test]
fn a_read_that_waits_for_the_device_ends_a_lease() {
    let Some(mut fixture) = Fixture::new(2 << 20) else { return };
    fixture.admit(0);
    fixture.windows.missed(fixture.key, 5000);
    assert!(!fixture.read(0, LENGTH));
    fixture.now_ms += REFUSED_MS;
    fixture.admit(0);
}

#[test]
fn a_file_that_shrinks_and_grows_is_not_mistaken() {
    let Some(mut fixture) = Fixture::new(2 << 20) else { return };
    fixture.admit(0);
    fixture.file.set_len((1 << 20) + 100).unwrap();
    assert!(!fixture.read(1 << 20, 101));
    assert!(fixture.read(1 << 20, 100));
    // Certainly no page: the guard survives it, and the window is given up.
    assert!(!fixture.read((1 << 20) + 4096, LENGTH));
    assert_eq!((fixture.mapped(), fixture.windows.take_retired()._windows.len()), (0, 1));
    fixture.file.write_all_at(&fixture.bytes, 0).unwrap();
    fixture.admit(0);
    assert!(fixture.read((1 << 20) + 4096, LENGTH));
    // To nothing, and half of it again.
    fixture.file.set_len(0).unwrap();
    assert!(!fixture.read(0, LENGTH));
    assert_eq!(fixture.mapped(), 0);
    fixture.file.write_all_at(&fixture.bytes[..1 << 20], 0).unwrap();
    fixture.admit(0);
    fixture.file.write_all_at(&fixture.bytes[1 << 20..], 1 << 20).unwrap();
    assert!(!fixture.read(1 << 20, LENGTH), "beyond what it was when it was mapped");
    while fixture.read(0, LENGTH) && fixture.windows.slots.iter().all(|slot| slot.saved_ns < ASKING_NS) {}
    fixture.now_ms += LEASE_MS;
    assert!(fixture.read(0, LENGTH));
    assert!(fixture.read(1 << 20, LENGTH), "seen when the lease was renewed");
    fixture.windows.take_retired();
}

/// A file of zeros can't be told from one that was cut: it is no faster than without windows, nor much slower.
#[test]
fn a_file_of_zeros_is_left_alone() {
    let Some(mut fixture) = Fixture::new(2 << 20) else { return };
    fixture.file.write_all_at(&vec![0; 2 << 20], 0).unwrap();
    let mut looks = 0;
    for _ in 0..20_000 {
        let slot = fixture.windows.slots.iter().find(|slot| slot.key.file == fixture.key);
        looks += usize::from(slot.is_some_and(|slot| slot.state == State::Leased));
        assert!(!fixture.read(0, LENGTH));
        fixture.now_ms += 1;
    }
    assert!((1..=20_000 / 5).contains(&looks), "{looks} of 20,000 reads were looked for in vain");
    assert_eq!(fixture.counters.reads_mapped.get(), 0);
}

#[test]
fn holes_that_are_punched_read_as_zeros() {
    let Some(mut fixture) = Fixture::new(2 << 20) else { return };
    fixture.admit(0);
    let mode = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    if rustix::fs::fallocate(&fixture.file, mode, 4096, 8192).is_err() {
        return;
    }
    fixture.bytes[4096..12_288].fill(0);
    assert!(fixture.read(0, 3 * 4096 + 1), "its last byte is no zero");
    assert!(!fixture.read(4096, LENGTH));
}

#[test]
fn a_file_whose_storage_goes_is_left_alone_for_a_while() {
    let Some(mut fixture) = Fixture::new(2 << 20) else { return };
    fixture.admit(0);
    fixture.windows.now_ms = Some(fixture.now_ms);
    fixture.windows.refuse(FileKey { inode: fixture.key.inode + 1, ..fixture.key });
    assert!(fixture.read(0, LENGTH), "another file");
    fixture.windows.refuse(fixture.key);
    for _ in 0..1000 {
        assert!(!fixture.read(0, LENGTH));
    }
    fixture.now_ms += REFUSED_MS;
    fixture.admit(0);
}

#[test]
fn the_clock_is_read_again_within_a_turn() {
    let Some(mut fixture) = Fixture::new(2 << 20) else { return };
    fixture.admit(0);
    let mut target = Buffer::from_vec(vec![0; LENGTH]);
    fixture.windows.now_ms = Some(fixture.now_ms);
    // The real clock is far from the test's.
    let reads = (0..100).take_while(|_| {
        let _ = fixture.windows.read(fixture.key, fixture.file.as_fd(), 0, &mut target);
        fixture.windows.now_ms == Some(fixture.now_ms)
    });
    assert!(reads.count() <= COPIES_PER_LOOK as usize);
}

#[test]
fn nothing_is_mapped_while_too_much_waits_to_be_unmapped() {
    let Some(mut fixture) = Fixture::new(2 << 20) else { return };
    let waiting: Vec<_> = (0..=UNMAPPING_MAX).map(|_| fixture.windows.take_retired()).collect();
    for _ in 0..1000 {
        assert!(!fixture.read(0, LENGTH));
    }
    drop(waiting);
    fixture.now_ms += REFUSED_MS;
    fixture.admit(0);
}

#[test]
fn a_sweep_takes_what_was_not_used() {
    let Some(mut fixture) = Fixture::new(6 << 20) else { return };
    for number in 0..3 {
        fixture.admit(number << 21);
    }
    fixture.windows.sweep();
    assert_eq!(fixture.mapped(), 3);
    assert!(fixture.read(2 << 20, LENGTH));
    fixture.windows.sweep();
    assert_eq!((fixture.mapped(), fixture.windows.take_retired()._windows.len()), (1, 2));
    assert!(fixture.read(2 << 20, LENGTH), "it is the one that was used");
    fixture.windows.sweep();
    fixture.windows.sweep();
    assert!(fixture.windows.is_empty() && fixture.windows.has_retired());
}

#[test]
fn the_last_handle_takes_the_windows_of_its_file() {
    let Some(mut fixture) = Fixture::new(6 << 20) else { return };
    let Some(mut other) = Fixture::new(2 << 20) else { return };
    std::mem::swap(&mut other.windows, &mut fixture.windows);
    other.admit(0);
    std::mem::swap(&mut other.windows, &mut fixture.windows);
    fixture.windows.opened(fixture.key);
    fixture.windows.opened(fixture.key);
    fixture.windows.opened(other.key);
    for number in 0..3 {
        fixture.admit(number << 21);
    }
    fixture.windows.closed(fixture.key);
    assert_eq!(fixture.mapped(), 4);
    fixture.windows.closed(fixture.key);
    assert_eq!((fixture.mapped(), fixture.windows.take_retired()._windows.len()), (1, 3));
    fixture.windows.closed(fixture.key);
    fixture.windows.closed(other.key);
    assert!(fixture.windows.is_empty());
}

/// One slot for all: who reads more has it, and nobody is shown another's bytes.
#[test]
fn windows_that_meet_in_a_slot_take_turns() {
    let Some(mut fixture) = Fixture::new(4 << 20) else { return };
    fixture.windows = Windows::new(SLOTS_TOTAL, Arc::clone(&fixture.counters));
    assert_eq!(fixture.windows.slots_max, 1);
    fixture.admit(0);
    assert!(!fixture.read(2 << 20, LENGTH), "it is leased to the other");
    assert!(fixture.read(0, LENGTH));
    fixture.now_ms += 2 * LEASE_MS;
    fixture.admit(2 << 20);
    assert_eq!((fixture.mapped(), fixture.windows.take_retired()._windows.len()), (1, 1));
    assert!(!fixture.read(0, LENGTH));
    // Read alike, neither gets what it would lose again at once.
    fixture.now_ms += 2 * LEASE_MS;
    for _ in 0..5000 {
        fixture.read(0, LENGTH);
        fixture.read(2 << 20, LENGTH);
    }
    assert!(fixture.counters.windows_mapped.get() <= 4, "{:?}", fixture.counters);
}

#[test]
fn major_faults_switch_windows_off_for_a_while() {
    let Some(mut fixture) = Fixture::new(2 << 20) else { return };
    fixture.admit(0);
    let before = sys::major_faults();
    fixture.windows.note_faults(before, fixture.now_ms);
    assert!(fixture.read(0, LENGTH), "there were none");
    fixture.windows.note_faults(before + 1, fixture.now_ms);
    assert_eq!(fixture.counters.major_faults.get(), 1);
    for _ in 0..1000 {
        assert!(!fixture.read(0, LENGTH));
    }
    fixture.now_ms += 1000;
    fixture.admit(0);
}
