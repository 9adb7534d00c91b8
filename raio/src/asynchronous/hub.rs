//! Where completions meet the futures that wait for them.

use crate::engine::Slab;
use crate::{Outcome, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};

/// One place per operation in flight.
#[derive(Debug)]
pub(super) struct Hub {
    places: Mutex<Slab<Place>>,
    /// The loop has something to do: operations to send, or the descriptor was readable. Whoever takes the flag runs it.
    work: AtomicBool,
}

#[derive(Debug)]
enum Place {
    /// In flight; the task to wake, once it has been polled.
    Waiting(Option<Waker>),
    /// Ended, and not taken yet.
    Ended(Result<Outcome>),
    /// In flight, and nobody waits any more.
    Abandoned,
}

impl Hub {
    pub(super) fn new() -> Arc<Hub> {
        Arc::new(Hub { places: Mutex::new(Slab::new()), work: AtomicBool::new(false) })
    }

    /// The loop has something to do.
    pub(super) fn set_work(&self) {
        self.work.store(true, Ordering::Release);
    }

    /// Whether the loop has something to do; the caller does it.
    pub(super) fn take_work(&self) -> bool {
        self.work.swap(false, Ordering::AcqRel)
    }

    fn places(&self) -> MutexGuard<'_, Slab<Place>> {
        // No code of others runs under the lock but wakers; the table is whole at every moment.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for an operation; its number is the operation's token.
    pub(super) fn insert(&self) -> usize {
        self.places().insert(Place::Waiting(None))
    }

    /// The operation was not taken after all.
    pub(super) fn remove(&self, index: usize) {
        self.places().remove(index);
    }

    /// Takes the result if there is one, else notes whom to wake.
    pub(super) fn take(&self, index: usize, waker: &Waker) -> Option<Result<Outcome>> {
        let mut places = self.places();
        match places.get_mut(index) {
            Some(Place::Waiting(Some(known))) if known.will_wake(waker) => None,
            Some(Place::Waiting(slot)) => {
                *slot = Some(waker.clone());
                None
            }
            Some(Place::Ended(_)) => match places.remove(index) {
                Some(Place::Ended(result)) => Some(result),
                _ => None,
            },
            _ => None,
        }
    }

    /// Nobody waits for it any more.
    pub(super) fn abandon(&self, index: usize) {
        let mut places = self.places();
        match places.get_mut(index) {
            Some(place @ Place::Waiting(_)) => *place = Place::Abandoned,
            Some(Place::Ended(_)) => drop(places.remove(index)),
            _ => {}
        }
    }

    /// An operation has ended.
    pub(super) fn complete(&self, index: usize, result: Result<Outcome>) {
        let mut places = self.places();
        let waker = match places.get_mut(index) {
            Some(Place::Waiting(waker)) => waker.take(),
            Some(Place::Abandoned) => {
                places.remove(index);
                return;
            }
            _ => return,
        };
        if let Some(place) = places.get_mut(index) {
            *place = Place::Ended(result);
        }
        drop(places);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The descriptor is readable: any of the tasks will do to run the loop, but one alone might be dropped, or not polled
/// for long, before it does.
impl Wake for Hub {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.set_work();
        for place in self.places().iter_mut() {
            if let Place::Waiting(Some(waker)) = place {
                waker.wake_by_ref();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_result_wakes_its_task_and_is_taken_once() {
        let hub = Hub::new();
        let counting = Arc::new(Counting::default());
        let waker = Waker::from(Arc::clone(&counting));
        let (one, two) = (hub.insert(), hub.insert());
        assert!(hub.take(one, &waker).is_none() && hub.take(two, &waker).is_none());
        assert!(!hub.take_work());
        Waker::from(Arc::clone(&hub)).wake();
        assert!(hub.take_work() && !hub.take_work());
        assert_eq!(counting.0.load(Ordering::Relaxed), 2);
        hub.complete(one, Ok(Outcome::Done));
        assert_eq!(counting.0.load(Ordering::Relaxed), 3);
        assert!(matches!(hub.take(one, &waker), Some(Ok(Outcome::Done))));
        assert!(hub.take(one, &waker).is_none());
    }

    #[test]
    fn an_abandoned_place_is_freed_when_its_operation_ends() {
        let hub = Hub::new();
        let index = hub.insert();
        hub.abandon(index);
        assert_ne!(hub.insert(), index, "the operation still has that token");
        hub.complete(index, Ok(Outcome::Done));
        assert_eq!(hub.insert(), index);
        let ended = hub.insert();
        hub.complete(ended, Ok(Outcome::Done));
        hub.abandon(ended);
        assert_eq!(hub.insert(), ended);
    }
}
