//! How long to poll before sleeping. Being woken costs 40 to 90 us on a small virtual machine, polling costs a core: so
//! poll while waits have lately been short, and look again now and then whether they have become so.

use std::time::Duration;

/// Of the waits that would sleep at once, one in this many polls, to notice that waits have become short.
const PROBE_EVERY: u32 = 32;

/// A bounded, adaptive budget. In nanoseconds: it is asked and told for each wait, and durations are slow to reckon with.
#[derive(Debug)]
pub(crate) struct SpinBudget {
    limit_ns: u64,
    /// Moving average of the waits (each cut at four budgets), weight 1/8.
    average_ns: u64,
    /// Waits since the last probe.
    unprobed: u32,
}

impl SpinBudget {
    pub(crate) fn new(limit: Duration) -> Self {
        // Nine years are enough, and leave room to reckon.
        let limit_ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX).min(u64::MAX / 64);
        SpinBudget { limit_ns, average_ns: 0, unprobed: 0 }
    }

    /// How many nanoseconds the coming wait may poll.
    pub(crate) fn next_ns(&mut self) -> u64 {
        if self.average_ns <= self.limit_ns {
            return self.limit_ns;
        }
        self.unprobed += 1;
        if self.unprobed >= PROBE_EVERY {
            self.unprobed = 0;
            return self.limit_ns;
        }
        0
    }

    /// Whether the coming wait polls, but for one that only probes.
    pub(crate) fn polls(&self) -> bool {
        self.limit_ns > 0 && self.average_ns <= self.limit_ns
    }

    /// A wait took so many nanoseconds.
    pub(crate) fn waited(&mut self, time_ns: u64) {
        self.average_ns = (self.average_ns * 7 + time_ns.min(self.limit_ns * 4)) / 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_polls_while_waits_are_short() {
        let limit_ns = 50_000;
        let mut budget = SpinBudget::new(Duration::from_nanos(limit_ns));
        assert_eq!(budget.next_ns(), limit_ns);
        for _ in 0..16 {
            budget.waited(5_000_000);
        }
        let polled = (0..PROBE_EVERY * 4).filter(|_| budget.next_ns() > 0).count();
        assert_eq!(polled, 4);
        for _ in 0..32 {
            budget.waited(10_000);
        }
        assert_eq!(budget.next_ns(), limit_ns);
        assert_eq!(SpinBudget::new(Duration::ZERO).next_ns(), 0);
        let mut endless = SpinBudget::new(Duration::MAX);
        endless.waited(u64::MAX);
        assert!(endless.next_ns() > 1 << 57);
    }
}
