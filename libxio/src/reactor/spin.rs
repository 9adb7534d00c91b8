//! How long to poll before sleeping. Being woken costs 40 to 90 us on a small virtual machine, polling costs a core: so
//! poll while waits have lately been short, and look again now and then whether they have become so.
//!
//! Short waits are not enough: where the other side runs on the same processor, it has its turn only once this one sleeps. Then a
//! poll uses up its budget, and what was waited for comes as soon as it has. A few such polls without one that has seen something
//! between them, and only probes poll, ever fewer of them.

use std::time::Duration;

/// Of the waits that would sleep at once, one in this many polls, to notice that waits have become short.
const PROBE_EVERY: u32 = 32;
/// As many, where probes have shown again and again that polling is in vain.
const PROBE_EVERY_MAX: u32 = 1024;
/// Polls in vain, one after the other, until only probes poll.
const VAIN_MAX: u32 = 4;

/// A bounded, adaptive budget. In nanoseconds: it is asked and told for each wait, and durations are slow to reckon with.
#[derive(Debug)]
pub(crate) struct SpinBudget {
    limit_ns: u64,
    /// Moving average of the waits (each cut at four budgets), weight 1/8.
    average_ns: u64,
    /// Waits since the last probe.
    unprobed: u32,
    /// Polls in vain since the last one that has seen something.
    vain: u32,
    /// Of waits that would sleep at once, one in this many polls.
    probe_every: u32,
}

impl SpinBudget {
    pub(crate) fn new(limit: Duration) -> Self {
        // Nine years are enough, and leave room to reckon.
        let limit_ns = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX).min(u64::MAX / 64);
        SpinBudget { limit_ns, average_ns: 0, unprobed: 0, vain: 0, probe_every: PROBE_EVERY }
    }

    /// How many nanoseconds the coming wait may poll.
    pub(crate) fn next_ns(&mut self) -> u64 {
        if self.pays() {
            return self.limit_ns;
        }
        self.unprobed += 1;
        if self.unprobed >= self.probe_every {
            self.unprobed = 0;
            return self.limit_ns;
        }
        0
    }

    /// Whether the coming wait polls, but for one that only probes.
    pub(crate) fn polls(&self) -> bool {
        self.limit_ns > 0 && self.pays()
    }

    #[inline]
    fn pays(&self) -> bool {
        self.average_ns <= self.limit_ns && self.vain < VAIN_MAX
    }

    /// A wait took so many nanoseconds, of which it may have polled `budget_ns`, and has `won` if it saw what came by that.
    pub(crate) fn waited(&mut self, time_ns: u64, budget_ns: u64, won: bool) {
        self.average_ns = (self.average_ns * 7 + time_ns.min(self.limit_ns * 4)) / 8;
        if budget_ns == 0 {
            return;
        }
        if won {
            (self.vain, self.probe_every) = (0, PROBE_EVERY);
        } else if (budget_ns..budget_ns.saturating_mul(2)).contains(&time_ns) {
            if self.vain >= VAIN_MAX {
                self.probe_every = (self.probe_every * 2).min(PROBE_EVERY_MAX);
            }
            self.vain = (self.vain + 1).min(VAIN_MAX);
        }
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
            budget.waited(5_000_000, 0, false);
        }
        let polled = (0..PROBE_EVERY * 4).filter(|_| budget.next_ns() > 0).count();
        assert_eq!(polled, 4);
        for _ in 0..32 {
            budget.waited(10_000, limit_ns, true);
        }
        assert_eq!(budget.next_ns(), limit_ns);
        assert_eq!(SpinBudget::new(Duration::ZERO).next_ns(), 0);
        let mut endless = SpinBudget::new(Duration::MAX);
        endless.waited(u64::MAX, u64::MAX, false);
        assert!(endless.next_ns() > 1 << 57);
    }

    /// A wait by itself: it polls if it may, and takes `time_ns` unless it polls in vain.
    fn wait(budget: &mut SpinBudget, time_ns: u64, same_processor: bool) -> bool {
        let budget_ns = budget.next_ns();
        let polled_ns = if same_processor { budget_ns } else { 0 };
        budget.waited(polled_ns + time_ns, budget_ns, polled_ns + time_ns < budget_ns);
        budget_ns > 0
    }

    #[test]
    fn it_polls_seldom_where_what_is_waited_for_comes_when_it_sleeps() {
        let mut budget = SpinBudget::new(Duration::from_micros(100));
        let polled = (0..10_000).filter(|_| wait(&mut budget, 10_000, true)).count();
        assert!((10..30).contains(&polled), "{polled}");
        // The other side has moved to another processor: the next probe sees it.
        let polled = (0..2 * PROBE_EVERY_MAX).filter(|_| wait(&mut budget, 10_000, false)).count();
        assert!(polled as u32 >= PROBE_EVERY_MAX, "{polled}");
        assert!((0..100).all(|_| wait(&mut budget, 10_000, false)));
    }

    #[test]
    fn a_few_late_answers_do_not_end_polling() {
        let mut budget = SpinBudget::new(Duration::from_micros(100));
        for round in 0..1000 {
            let time_ns = if round % 4 == 0 { 20_000 } else { 110_000 };
            let polls = wait(&mut budget, time_ns, false);
            assert!(polls || budget.average_ns > 100_000, "round {round}");
        }
    }
}
