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
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("raio.sock");
    let listen = raio_server::parse_listen(&format!("shm://{}", socket.display())).unwrap();
    let server = Server::with(|config| config.listen.push(listen));
    server.file("some", 1 << 20);
    // One after the other: the counter is everybody's.
    once_warm(&server.uri("/data/some"));
    once_warm(&format!("shm:///data/some?socket={}", socket.display()));
}

fn once_warm(uri: &str) {
    let mut options = OpenOptions::new();
    let mut queue = Queue::open(uri, options.read(true).write(true), 32).unwrap();
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
    assert!(allocations < 100, "{uri}: {allocations} allocations for {operations} operations");
}
