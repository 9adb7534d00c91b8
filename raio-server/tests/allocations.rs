//! Once warm, reads and writes allocate nothing: neither in the worker nor in the client.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use raio::{OpenOptions, Queue};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use support::{Server, minute};

/// Counts the allocations of all threads.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: the system's allocator does the work; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn reads_and_writes_of_a_file() {
    let _watchdog = minute();
    let server = Server::start();
    server.file("some", 1 << 20);
    let mut options = OpenOptions::new();
    let mut queue = Queue::open(&server.uri("/data/some"), options.read(true).write(true), 32).unwrap();
    let mut before = 0;
    // What is kept for reuse grows to the deepest moment so far, which comes early, but not on command.
    let rounds = 4000;
    for round in 0..rounds {
        if round == rounds / 2 {
            before = ALLOCATIONS.load(Ordering::Relaxed);
        }
        for token in 0..16 {
            let buffer = queue.buffer(4096).unwrap();
            queue.submit_read(token << 12, 4096, token).unwrap();
            queue.submit_write(token << 12, buffer, token).unwrap();
        }
        assert_eq!(queue.wait(32, None).unwrap(), 32);
        while let Some(completion) = queue.next() {
            assert_eq!(completion.result.unwrap().bytes(), 4096);
        }
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    let operations = rounds / 2 * 32;
    assert!(allocations < 100, "{allocations} allocations for {operations} operations");
}
