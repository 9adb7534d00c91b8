//! Reads and writes of borrowed memory, and a borrowed descriptor: the unsafe part of this crate, beside the C interface.
//!
//! The transport moves bytes straight from and to the caller's slices. The invariant: [`read`] and [`write`] return,
//! or unwind, only after every request over the slices has ended or the connection was severed, which fences it
//! ([`libxio::Context::abort`]). No buffer over a slice outlives the call that borrowed it.

use crate::engine::{Completion, Engine, Operation, Outcome};
use crate::proto::Handle;
use crate::{Error, Result};
use libxio::{Buffer, Landing, SGL_PIECES_MAX, Sgl};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;

/// Pieces of one call in flight: with [`PIECE_BYTES`] enough to fill any pipe that this machine has.
const PIECES_IN_FLIGHT: usize = 16;

/// Longest piece of a call in bytes.
const PIECE_BYTES: usize = 1 << 20;

/// Reads into the slices one after the other; returns how many bytes, fewer than there is room for only at the end of
/// the file or before an error (which the next call will meet).
pub(crate) fn read(
    engine: &mut Engine,
    handle: Handle,
    slices: &mut [IoSliceMut<'_>],
    offset: u64,
    piece_max: u32,
) -> Result<usize> {
    let memory = slices.iter_mut().map(|slice| (NonNull::from(&mut **slice).cast(), slice.len()));
    run(engine, memory, offset, piece_max, |offset, list| Operation::Read {
        handle,
        offset,
        // A piece is at most `piece_max` long.
        length: list.len() as u32,
        landing: Landing::Place(list),
    })
}

/// Writes the slices one after the other; returns how many bytes, fewer than given only before an error (which the
/// next call will meet).
pub(crate) fn write(
    engine: &mut Engine,
    handle: Handle,
    slices: &[IoSlice<'_>],
    offset: u64,
    piece_max: u32,
    durable: bool,
) -> Result<usize> {
    // The transport only reads what it sends.
    let memory = slices.iter().map(|slice| (NonNull::from(&**slice).cast(), slice.len()));
    run(engine, memory, offset, piece_max, |offset, data| Operation::Write { handle, offset, data, durable })
}

/// A descriptor of its own for the engine's [`Engine::poll_fd`], readable when that is.
pub(crate) fn duplicate_poll_fd(engine: &mut Engine) -> Result<OwnedFd> {
    let fd = engine.poll_fd()?;
    // SAFETY: the descriptor belongs to the engine, which is borrowed, and so alive, for longer than `fd` is used.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let failed = |cause| Error::Local(libxio::Error::system("duplicating a connection's descriptor", &cause));
    fd.try_clone_to_owned().map_err(failed)
}

/// Cuts memory into pieces, keeps some of them in flight, and waits for all. The memory stays borrowed by the caller
/// for the length of this call.
fn run(
    engine: &mut Engine,
    memory: impl Iterator<Item = (NonNull<u8>, usize)>,
    offset: u64,
    piece_max: u32,
    operation: impl Fn(u64, Sgl) -> Operation,
) -> Result<usize> {
    let piece_max = PIECE_BYTES.min(piece_max as usize).max(1);
    let mut pieces = Pieces { memory, rest: None };
    let mut fence = Fence { engine, passed: false };
    let mut flight = Flight::default();
    let mut at = offset;
    let mut next = Some(pieces.next_list(piece_max)?);
    loop {
        while let Some(list) = next.take_if(|_| flight.has_room()) {
            let length = list.len();
            let token = flight.launch(length);
            if let Err(error) = fence.engine.submit(operation(at, list), token) {
                flight.land(token, Err(error));
                break;
            }
            at = at.saturating_add(length as u64);
            let list = pieces.next_list(piece_max)?;
            next = (!list.is_empty()).then_some(list);
        }
        if flight.is_empty() {
            fence.passed = true;
            return flight.result();
        }
        fence.engine.poll(None)?;
        let before = flight.landed;
        while let Some(Completion { token, result }) = fence.engine.next() {
            flight.land(token, result);
        }
        if flight.landed == before
            && let Some(error) = fence.engine.lost()
        {
            return Err(error.clone());
        }
    }
}

/// Severs the connection if the call is left, by an error or a panic, before all its requests have ended and their
/// completions were taken.
struct Fence<'a> {
    engine: &'a mut Engine,
    passed: bool,
}

impl Drop for Fence<'_> {
    fn drop(&mut self) {
        if !self.passed {
            self.engine.sever();
        }
    }
}

/// Cuts a sequence of slices into lists.
struct Pieces<I> {
    memory: I,
    /// What is left of the slice that was cut last.
    rest: Option<(NonNull<u8>, usize)>,
}

impl<I: Iterator<Item = (NonNull<u8>, usize)>> Pieces<I> {
    /// The next list of at most `piece_max` bytes; empty when there is no more.
    fn next_list(&mut self, piece_max: usize) -> Result<Sgl> {
        let mut list = Sgl::new();
        while list.len() < piece_max && list.pieces().len() < SGL_PIECES_MAX {
            let Some((pointer, length)) = self.rest.take().or_else(|| self.memory.next()) else { break };
            if length == 0 {
                continue;
            }
            let taken = length.min(piece_max - list.len());
            // SAFETY: pointer and length are those of a slice (or what is left of one) that the caller of `read` or
            // `write` has borrowed for the length of that call, exclusively for a read; by this module's invariant no
            // buffer outlives the call.
            let buffer = unsafe { Buffer::foreign(pointer, taken) };
            list.push(buffer).map_err(Error::Local)?;
            if taken < length {
                // SAFETY: `taken < length`, so the pointer stays inside the slice.
                self.rest = Some((unsafe { pointer.add(taken) }, length - taken));
            }
        }
        Ok(list)
    }
}

/// The pieces in flight, and what is known of those that ended.
#[derive(Default)]
struct Flight {
    launched: u64,
    landed: u64,
    /// Length and, once ended, result of the pieces from `first` on, at their number modulo the array's length.
    window: [(usize, Option<Result<usize>>); PIECES_IN_FLIGHT],
    /// The oldest piece that has not ended.
    first: u64,
    /// Bytes moved by pieces that stand one after the other from the start.
    moved: usize,
    /// Set by the first piece, in order, that fell short or failed: what follows it does not count.
    cut: bool,
    error: Option<Error>,
}

impl Flight {
    fn has_room(&self) -> bool {
        !self.cut && self.launched - self.first < PIECES_IN_FLIGHT as u64
    }

    fn is_empty(&self) -> bool {
        self.launched == self.landed
    }

    fn launch(&mut self, length: usize) -> u64 {
        let number = self.launched;
        self.launched += 1;
        self.window[number as usize % PIECES_IN_FLIGHT] = (length, None);
        number
    }

    fn land(&mut self, number: u64, result: Result<Outcome>) {
        self.landed += 1;
        let result = match result {
            Ok(Outcome::Read { bytes, .. } | Outcome::Written { bytes }) => Ok(bytes as usize),
            Ok(_) => Ok(0),
            Err(error) => Err(error),
        };
        self.window[number as usize % PIECES_IN_FLIGHT].1 = Some(result);
        while self.first < self.launched {
            let (length, result) = &mut self.window[self.first as usize % PIECES_IN_FLIGHT];
            let Some(result) = result.take() else { break };
            self.first += 1;
            if self.cut {
                continue;
            }
            match result {
                Ok(bytes) => {
                    self.moved += bytes.min(*length);
                    self.cut = bytes < *length;
                }
                Err(error) => {
                    self.error = Some(error);
                    self.cut = true;
                }
            }
        }
    }

    fn result(self) -> Result<usize> {
        match self.error {
            Some(error) if self.moved == 0 => Err(error),
            _ => Ok(self.moved),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Op;

    fn moved(bytes: u32) -> Result<Outcome> {
        Ok(Outcome::Written { bytes })
    }

    fn failed() -> Result<Outcome> {
        Err(Error::Operation { op: Op::Write, path: None, errno: libc::EIO })
    }

    #[test]
    fn only_what_stands_before_the_first_gap_counts() {
        let mut flight = Flight::default();
        for _ in 0..4 {
            flight.launch(10);
        }
        flight.land(3, moved(10));
        flight.land(1, moved(10));
        assert_eq!(flight.moved, 0);
        flight.land(0, moved(10));
        assert_eq!(flight.moved, 20);
        flight.land(2, moved(4));
        assert!(flight.is_empty() && !flight.has_room());
        assert_eq!(flight.result().unwrap(), 24);
    }

    #[test]
    fn an_error_is_told_when_nothing_was_moved_before_it() {
        let mut flight = Flight::default();
        flight.launch(10);
        flight.launch(10);
        flight.land(1, moved(10));
        flight.land(0, failed());
        assert_eq!(flight.result().unwrap_err().errno(), libc::EIO);
        let mut flight = Flight::default();
        flight.launch(10);
        flight.launch(10);
        flight.land(0, moved(10));
        flight.land(1, failed());
        assert_eq!(flight.result().unwrap(), 10);
    }

    #[test]
    fn the_window_moves_over_many_pieces() {
        let mut flight = Flight::default();
        for _ in 0..100 {
            while flight.has_room() {
                flight.launch(1);
            }
            for number in (flight.first..flight.launched).rev() {
                flight.land(number, moved(1));
            }
        }
        assert_eq!(flight.result().unwrap(), 100 * PIECES_IN_FLIGHT);
    }

    #[test]
    fn slices_are_cut_and_joined() {
        let mut bytes: Vec<u8> = (0..10).collect();
        let (one, two) = bytes.split_at_mut(3);
        let memory = [&mut *one, &mut [], &mut *two];
        let memory = memory.into_iter().map(|slice| (NonNull::from(&mut *slice).cast(), slice.len()));
        let mut pieces = Pieces { memory, rest: None };
        let lists: Vec<_> = std::iter::from_fn(|| {
            let list = pieces.next_list(4).unwrap();
            (!list.is_empty()).then(|| list.to_vec())
        })
        .collect();
        assert_eq!(lists, [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]]);
    }

    #[test]
    fn many_small_slices_make_several_lists() {
        let mut bytes = vec![7_u8; SGL_PIECES_MAX + 1];
        let memory = bytes.chunks_mut(1).map(|slice| (NonNull::from(&mut *slice).cast(), slice.len()));
        let mut pieces = Pieces { memory, rest: None };
        let lengths: Vec<_> = (0..3).map(|_| pieces.next_list(1 << 20).unwrap().len()).collect();
        assert_eq!(lengths, [SGL_PIECES_MAX, 1, 0]);
    }
}
