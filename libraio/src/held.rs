//! Buffers of the library that the caller reads until it releases their events.

use crate::errno::Errno;
use crate::token::{EVENT, NOTHING_HELD};
use libxio::Buffer;
use raio::engine::Slab;
use std::sync::atomic::{AtomicU64, Ordering};

/// Events held at a time: the place in a handle has 20 bits. The pool's limit comes first unless reads are tiny.
const HELD_MAX: usize = 1 << 20;

/// Generation of the next context's first event: handles of different contexts differ too.
static GENERATIONS: AtomicU64 = AtomicU64::new(0);

/// Between the first generations of two contexts: 2^36 divided by the golden ratio keeps any number of them far apart
/// (Knuth, "The Art of Computer Programming", 6.4).
const GENERATION_STRIDE: u64 = 0x9_E377_9B97;

/// What a context holds for events that were not released.
#[derive(Debug)]
pub(crate) struct Held {
    buffers: Slab<(u64, Buffer)>,
    generation: u64,
}

impl Held {
    pub(crate) fn new() -> Held {
        let generation = GENERATIONS.fetch_add(GENERATION_STRIDE, Ordering::Relaxed);
        Held { buffers: Slab::new(), generation }
    }

    /// Keeps a buffer; gives the event's handle.
    pub(crate) fn hold(&mut self, buffer: Buffer) -> Result<u64, Errno> {
        if self.buffers.len() >= HELD_MAX {
            return Err(Errno::NO_MEMORY);
        }
        self.generation += 1;
        let place = self.buffers.insert((0, buffer));
        let handle = EVENT.token(self.generation, place);
        if let Some(entry) = self.buffers.get_mut(place) {
            entry.0 = handle;
        }
        Ok(handle)
    }

    /// Gives a buffer back.
    pub(crate) fn release(&mut self, handle: u64) -> Result<(), Errno> {
        if handle == NOTHING_HELD {
            return Ok(());
        }
        let place = EVENT.place(handle).ok_or(Errno::INVALID)?;
        match self.buffers.get_mut(place) {
            Some((found, _)) if *found == handle => {
                self.buffers.remove(place);
                Ok(())
            }
            _ => Err(Errno::INVALID),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_good_once_and_for_its_context() {
        let (mut one, mut other) = (Held::new(), Held::new());
        let first = one.hold(Buffer::from_vec(vec![1])).unwrap();
        let second = one.hold(Buffer::from_vec(vec![2])).unwrap();
        let strange = other.hold(Buffer::from_vec(vec![3])).unwrap();
        assert_eq!(one.release(strange), Err(Errno::INVALID));
        assert_eq!(one.release(first), Ok(()));
        assert_eq!(one.release(first), Err(Errno::INVALID));
        assert_eq!(one.hold(Buffer::from_vec(vec![4])).map(|third| third != first), Ok(true));
        assert_eq!(one.release(first), Err(Errno::INVALID));
        assert_eq!((one.release(second), one.release(0)), (Ok(()), Err(Errno::INVALID)));
        assert_eq!((one.release(NOTHING_HELD), one.release(NOTHING_HELD)), (Ok(()), Ok(())));
    }
}
