//! An allocator that counts for each thread, and a server for those who are counted. The C library's tests use it too.

use super::fake::{Fake, greeting, made};
use raio::proto::{Answer, Attributes, Handle, Request};
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

pub fn serve() -> Fake {
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
pub fn once_warm(rounds: u64, mut round: impl FnMut(u64)) -> u64 {
    let mut before = 0;
    for number in 0..rounds {
        if number == rounds / 2 {
            before = ALLOCATIONS.get();
        }
        round(number);
    }
    ALLOCATIONS.get() - before
}
