//! Timers in a heap. Cancelling leaves the heap alone: an entry whose key is stale is skipped when its time comes.

use super::{Key, Slab};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// One-shot timers with a token each.
#[derive(Debug)]
pub(crate) struct Timers {
    tokens: Slab<u64>,
    /// (time, index, generation), earliest on top; entries of cancelled timers are dropped as they surface.
    heap: BinaryHeap<Reverse<(Instant, u32, u32)>>,
}

impl Timers {
    pub(crate) fn new() -> Self {
        Timers { tokens: Slab::new(), heap: BinaryHeap::new() }
    }

    pub(crate) fn set(&mut self, at: Instant, token: u64) -> Key {
        // Cancelled entries can't outnumber the live ones for long.
        if self.heap.len() > 64 && self.heap.len() > 2 * self.tokens.len() {
            let tokens = &self.tokens;
            self.heap.retain(|Reverse((_, index, generation))| {
                tokens.get(Key { index: *index, generation: *generation }).is_some()
            });
        }
        let key = self.tokens.insert(token);
        self.heap.push(Reverse((at, key.index, key.generation)));
        key
    }

    pub(crate) fn cancel(&mut self, key: Key) -> bool {
        self.tokens.remove(key).is_some()
    }

    /// When the next timer fires.
    pub(crate) fn next(&mut self) -> Option<Instant> {
        while let Some(Reverse((at, index, generation))) = self.heap.peek() {
            if self.tokens.get(Key { index: *index, generation: *generation }).is_some() {
                return Some(*at);
            }
            self.heap.pop();
        }
        None
    }

    /// A timer whose time has come.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<(Key, u64)> {
        if self.next()? > now {
            return None;
        }
        let Reverse((_, index, generation)) = self.heap.pop()?;
        let key = Key { index, generation };
        self.tokens.remove(key).map(|token| (key, token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn they_fire_in_order_and_cancelled_ones_do_not() {
        let start = Instant::now();
        let mut timers = Timers::new();
        let at = |ms| start + Duration::from_millis(ms);
        timers.set(at(30), 3);
        let second = timers.set(at(20), 2);
        timers.set(at(10), 1);
        assert!(timers.cancel(second));
        assert!(!timers.cancel(second));
        assert_eq!(timers.next(), Some(at(10)));
        assert_eq!(timers.expire(at(9)), None);
        assert_eq!(timers.expire(at(40)).map(|(_, token)| token), Some(1));
        assert_eq!(timers.expire(at(40)).map(|(_, token)| token), Some(3));
        assert_eq!(timers.expire(at(40)), None);
    }

    #[test]
    fn cancelled_timers_do_not_pile_up() {
        let mut timers = Timers::new();
        for _ in 0..10_000 {
            let key = timers.set(Instant::now() + Duration::from_secs(60), 0);
            timers.cancel(key);
        }
        assert!(timers.heap.len() <= 65);
    }
}
