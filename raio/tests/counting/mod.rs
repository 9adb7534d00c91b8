//! A server for those whose allocations are counted, and the counting. The C library's tests use it too.

#[path = "../../../libxio/tests/counting/mod.rs"]
mod allocator;

use super::fake::{Fake, greeting, made};
use allocator::allocations;
use raio::proto::{Answer, Attributes, Handle, Request};

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
            before = allocations();
        }
        round(number);
    }
    allocations() - before
}
