//! Where a context's time comes from: the machine, or a simulation that moves it by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A source of time.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The machine's monotonic clock.
    #[default]
    Real,
    /// A simulation's clock. A context on it has no ring: it never sleeps, and runs no file operations.
    Virtual(VirtualClock),
}

impl Clock {
    /// The time now.
    #[must_use]
    pub fn now(&self) -> Instant {
        match self {
            Clock::Real => Instant::now(),
            Clock::Virtual(clock) => clock.now(),
        }
    }

    pub(crate) fn is_virtual(&self) -> bool {
        matches!(self, Clock::Virtual(_))
    }
}

/// Time that stands still until it is advanced. Clones show the same time.
#[derive(Debug, Clone)]
pub struct VirtualClock {
    start: Instant,
    elapsed_ns: Arc<AtomicU64>,
}

impl VirtualClock {
    /// A clock that has just started.
    #[must_use]
    pub fn new() -> Self {
        VirtualClock { start: Instant::now(), elapsed_ns: Arc::new(AtomicU64::new(0)) }
    }

    /// The time on it.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.start + self.elapsed()
    }

    /// Time since it started.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed_ns.load(Ordering::Relaxed))
    }

    /// Moves it on.
    pub fn advance(&self, time: Duration) {
        let step = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.elapsed_ns.fetch_add(step, Ordering::Relaxed);
    }
}

impl Default for VirtualClock {
    fn default() -> Self {
        Self::new()
    }
}
