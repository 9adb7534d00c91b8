//! How long to poll before sleeping. Being woken costs 40 to 90 us on a small virtual machine, polling costs a core: so
//! poll while waits have lately been short, and look again now and then whether they have become so.

use std::time::Duration;

/// Of the waits that would sleep at once, one in this many polls, to notice that waits have become short.
const PROBE_EVERY: u32 = 32;

/// A bounded, adaptive budget.
#[derive(Debug)]
pub(crate) struct SpinBudget {
    limit: Duration,
    /// Moving average of the waits (each cut at four budgets), weight 1/8.
    average: Duration,
    /// Waits since the last probe.
    unprobed: u32,
}

impl SpinBudget {
    pub(crate) fn new(limit: Duration) -> Self {
        SpinBudget { limit, average: Duration::ZERO, unprobed: 0 }
    }

    /// How long the coming wait may poll.
    pub(crate) fn next(&mut self) -> Duration {
        if self.limit.is_zero() || self.average <= self.limit {
            return self.limit;
        }
        self.unprobed += 1;
        if self.unprobed >= PROBE_EVERY {
            self.unprobed = 0;
            return self.limit;
        }
        Duration::ZERO
    }

    /// A wait took this long.
    pub(crate) fn waited(&mut self, time: Duration) {
        self.average = (self.average * 7 + time.min(self.limit * 4)) / 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_polls_while_waits_are_short() {
        let limit = Duration::from_micros(50);
        let mut budget = SpinBudget::new(limit);
        assert_eq!(budget.next(), limit);
        for _ in 0..16 {
            budget.waited(Duration::from_millis(5));
        }
        let polled = (0..PROBE_EVERY * 4).filter(|_| !budget.next().is_zero()).count();
        assert_eq!(polled, 4);
        for _ in 0..32 {
            budget.waited(Duration::from_micros(10));
        }
        assert_eq!(budget.next(), limit);
        assert_eq!(SpinBudget::new(Duration::ZERO).next(), Duration::ZERO);
    }
}
