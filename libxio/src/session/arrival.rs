//! Bounds how long the data of one frame may take to arrive, because memory waits for it all the while.
//!
//! Keepalive does not bound it: a peer whose loop its caller runs may be silent for long, and one that sends a byte now
//! and then is never silent. Whoever looks counts the time in steps, none longer than [`STEP_MAX`], so that a side that
//! was itself held up, or away, blames nobody for it.

use std::time::Duration;

/// Most that one step counts for.
pub const STEP_MAX: Duration = Duration::from_secs(1);
/// Bytes in a second that every peer is taken to manage: half a megabit.
pub const RATE_MIN: u32 = 64 << 10;

/// Data on its way into memory of this side.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// In bytes.
    length: u32,
    /// How long it has been under way, as far as it was counted.
    lasted: Duration,
}

impl Arrival {
    /// Data of `length` bytes begins to arrive.
    #[must_use]
    pub fn begin(length: u32) -> Arrival {
        Arrival { length, lasted: Duration::ZERO }
    }

    /// Its length in bytes.
    #[must_use]
    pub fn length(&self) -> u32 {
        self.length
    }

    /// Counts the time since the last look. When it has taken longer than `lease`, and a second for each `RATE_MIN` bytes,
    /// says how long it has taken. A lease of zero never ends.
    pub fn look(&mut self, since: Duration, lease: Duration) -> Option<Duration> {
        self.lasted += since.min(STEP_MAX);
        let limit = lease + Duration::from_secs(u64::from(self.length.div_ceil(RATE_MIN)));
        (!lease.is_zero() && self.lasted > limit).then_some(self.lasted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);
    const STEP: Duration = Duration::from_millis(500);

    /// Steps until it is given up.
    fn steps(length: u32) -> u32 {
        let mut arrival = Arrival::begin(length);
        (1..).find(|_| arrival.look(STEP, LEASE).is_some()).unwrap_or_default()
    }

    #[test]
    fn a_long_one_has_more_time() {
        assert_eq!(steps(1), 2 * (10 + 1) + 1);
        assert_eq!(steps(4 << 20), 2 * (10 + 64) + 1);
    }

    #[test]
    fn an_absence_counts_as_one_step_and_no_lease_never_ends() {
        let mut arrival = Arrival::begin(1);
        assert_eq!(arrival.look(Duration::from_secs(3600), LEASE), None);
        assert_eq!(arrival.look(STEP, LEASE), None);
        for _ in 0..10_000 {
            assert_eq!(arrival.look(STEP_MAX, Duration::ZERO), None);
        }
    }
}
