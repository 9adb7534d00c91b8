//! Whether copies out of windows have waited for a device: major page faults of the thread say so.
//!
//! A page can leave memory between the question whether it is there and the copy. That is rare, unless memory is short; then
//! windows do without for a while, and longer each time.

/// Time between two looks, in milliseconds: about what the coarse clock can tell apart. A look is a system call of 0.3 us.
const LOOK_MS: u64 = 10;

/// Time without windows after a major fault, in milliseconds; it doubles each time, to the most.
const PAUSE_MS: u64 = 1000;
const PAUSE_MS_MAX: u64 = 60_000;

#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Of this thread, as last seen.
    seen: u64,
    /// When to look again, and until when there are no windows, by the coarse clock in milliseconds.
    look_ms: u64,
    paused_until_ms: u64,
    /// The last pause, in milliseconds.
    pause_ms: u64,
}

impl Faults {
    /// Faults until now were of other things.
    pub(super) fn forget(&mut self, count: u64, now_ms: u64) {
        self.seen = count;
        self.look_ms = now_ms + LOOK_MS;
    }

    /// Whether it is time to look.
    #[inline]
    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        now_ms >= self.look_ms
    }

    /// There were so many until now. How many are new: then there is a pause.
    pub(super) fn look(&mut self, count: u64, now_ms: u64) -> u64 {
        let new = count.saturating_sub(self.seen);
        self.forget(count, now_ms);
        if new > 0 {
            // After as long a time without any as the longest pause it begins again.
            let is_long_ago = now_ms >= self.paused_until_ms.saturating_add(PAUSE_MS_MAX);
            self.pause_ms =
                if is_long_ago { PAUSE_MS } else { (2 * self.pause_ms).clamp(PAUSE_MS, PAUSE_MS_MAX) };
            self.paused_until_ms = now_ms + self.pause_ms;
        }
        new
    }

    /// Whether there is a pause.
    pub(super) fn is_paused(&self, now_ms: u64) -> bool {
        now_ms < self.paused_until_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_the_most_and_begin_again_after_a_calm() {
        let mut faults = Faults::default();
        let mut now = 100_000;
        faults.forget(7, now);
        assert!(!faults.is_due(now + LOOK_MS - 1) && faults.is_due(now + LOOK_MS));
        assert_eq!(faults.look(7, now), 0);
        assert!(!faults.is_paused(now));
        let mut count = 7;
        for pause in [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000] {
            count += 2;
            assert_eq!(faults.look(count, now), 2);
            assert!(faults.is_paused(now + pause - 1) && !faults.is_paused(now + pause), "{pause}");
            now += pause;
        }
        now += PAUSE_MS_MAX;
        assert_eq!(faults.look(count + 1, now), 1);
        assert!(faults.is_paused(now + PAUSE_MS - 1) && !faults.is_paused(now + PAUSE_MS));
    }
}
