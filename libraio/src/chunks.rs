//! A table that grows in steps and never moves or frees a place, so that a place is found without a lock.

use std::sync::OnceLock;

/// Places per step.
const STEP: usize = 64;

/// Up to `STEPS * 64` places.
#[derive(Debug)]
pub(crate) struct Chunks<T, const STEPS: usize> {
    steps: Box<[OnceLock<Box<[T]>>]>,
}

impl<T: Default, const STEPS: usize> Chunks<T, STEPS> {
    /// Number of places at most.
    pub(crate) const PLACES: usize = STEPS * STEP;

    pub(crate) fn new() -> Self {
        Chunks { steps: (0..STEPS).map(|_| OnceLock::new()).collect() }
    }

    /// The place with this number, if it was ever made.
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.steps.get(index / STEP)?.get()?.get(index % STEP)
    }

    /// The place with this number, made now if need be; `None` beyond the last.
    pub(crate) fn make(&self, index: usize) -> Option<&T> {
        let step = self.steps.get(index / STEP)?;
        step.get_or_init(|| (0..STEP).map(|_| T::default()).collect()).get(index % STEP)
    }
}

/// Hands out the numbers of places: those given back first, the last of them first.
#[derive(Debug, Default)]
pub(crate) struct Numbers {
    free: Vec<usize>,
    /// Numbers from here on were never handed out.
    fresh: usize,
}

impl Numbers {
    /// A number below `limit`; `None` when all are out.
    pub(crate) fn take(&mut self, limit: usize) -> Option<usize> {
        if let Some(number) = self.free.pop() {
            return Some(number);
        }
        let number = self.fresh;
        (number < limit).then(|| {
            self.fresh += 1;
            number
        })
    }

    pub(crate) fn give_back(&mut self, number: usize) {
        self.free.push(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_stay_where_they_are() {
        let table: Chunks<u8, 2> = Chunks::new();
        assert!(table.get(0).is_none());
        let first: *const u8 = table.make(0).unwrap();
        assert!(table.make(127).is_some() && table.make(128).is_none() && table.get(128).is_none());
        assert_eq!(table.get(0).map(std::ptr::from_ref), Some(first));
    }

    #[test]
    fn numbers_end_and_come_back() {
        let mut numbers = Numbers::default();
        assert_eq!((numbers.take(2), numbers.take(2), numbers.take(2)), (Some(0), Some(1), None));
        numbers.give_back(0);
        assert_eq!((numbers.take(2), numbers.take(2)), (Some(0), None));
    }
}
