//! Once warm, reads and writes allocate nothing in the client.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fake;

use fake::{Fake, greeting, made};
use raio::proto::{Answer, Attributes, Handle, Request};
use raio::{File, OpenOptions, Queue};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Counts the allocations of each thread; the server's are none of ours.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does the work; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
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

fn serve() -> Fake {
    Fake::start(greeting(), |request, _| match request {
        Request::Open { .. } => {
            let attributes = Attributes { size: 1 << 30, io_bytes_max: 1 << 20, ..Attributes::default() };
            made(Answer::Opened(Handle(7), attributes), b"")
        }
        Request::Read { length, .. } => made(Answer::Moved(length), &vec![0; length as usize]),
        Request::Write { length, .. } => made(Answer::Moved(length), b""),
        _ => made(Answer::DONE, b""),
    })
}

/// Allocations of the second half of `rounds` rounds: in the first all that is kept for reuse is made.
fn once_warm(rounds: u64, mut round: impl FnMut(u64)) -> u64 {
    let mut before = 0;
    for number in 0..rounds {
        if number == rounds / 2 {
            before = ALLOCATIONS.get();
        }
        round(number);
    }
    ALLOCATIONS.get() - before
}

#[test]
fn a_queue() {
    let fake = serve();
    let uri = format!("{}x", fake.uri);
    let mut queue = Queue::open(&uri, OpenOptions::new().read(true).write(true), 32).unwrap();
    let allocations = once_warm(400, |_| {
        for token in 0..16 {
            let buffer = queue.buffer(4096).unwrap();
            queue.submit_read(token * 4096, 4096, token).unwrap();
            queue.submit_write(token * 4096, buffer, token).unwrap();
        }
        assert_eq!(queue.wait(32, None).unwrap(), 32);
        while let Some(completion) = queue.next() {
            assert_eq!(completion.result.unwrap().bytes(), 4096);
        }
    });
    assert_eq!(allocations, 0);
}

#[test]
fn a_file() {
    let fake = serve();
    let file: File = OpenOptions::new().read(true).write(true).open(&format!("{}x", fake.uri)).unwrap();
    let mut buffer = vec![0; 16 << 10];
    let allocations = once_warm(400, |_| {
        assert_eq!(file.read_at(&mut buffer, 0).unwrap(), buffer.len());
        assert_eq!(file.write_at(&buffer, 0).unwrap(), buffer.len());
    });
    assert_eq!(allocations, 0);
}
