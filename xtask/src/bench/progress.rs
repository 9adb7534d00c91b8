//! What is going on, for the person at the terminal: each run a line, with its number and the time that is left.

use super::measured::Measured;
use std::time::{Duration, Instant};

/// How far the measuring is.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    deadline: Instant,
    /// Runs there will be if time suffices.
    planned: usize,
    done: usize,
}

impl Progress {
    /// Of so many runs, from now on, within a time.
    pub(crate) fn new(planned: usize, limit: Duration) -> Progress {
        let started = Instant::now();
        Progress { started, deadline: started + limit, planned, done: 0 }
    }

    /// Whether the time is over.
    pub(crate) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Tells what a run gave.
    pub(crate) fn measured(&mut self, who: &str, what: &str, measured: &Measured) {
        self.done += 1;
        let Measured { rate, p50_ns, .. } = measured;
        println!("{} {who:24} {what:52} {rate:>10.0}/s  p50 {:>8.1} us", self.head(), p50_ns / 1e3);
    }

    /// Tells of something else that was found.
    pub(crate) fn found(&mut self, who: &str, what: &str) {
        self.done += 1;
        println!("{} {who:24} {what}", self.head());
    }

    /// Tells why there is nothing.
    pub(crate) fn failed(&mut self, who: &str, what: &str, sentence: &str) {
        self.done += 1;
        println!("{} {who:24} {what}: FAILED: {}", self.head(), sentence.replace('\n', "\n      "));
    }

    /// `  12/412   2:05 left`
    fn head(&self) -> String {
        let left = time_left(self.started.elapsed(), self.done, self.planned);
        let left = left.min(self.deadline.saturating_duration_since(Instant::now())).as_secs();
        format!("{:4}/{} {:3}:{:02} left", self.done, self.planned, left / 60, left % 60)
    }
}

/// The time for the rest, if it goes on as before.
fn time_left(elapsed: Duration, done: usize, planned: usize) -> Duration {
    let rest = planned.saturating_sub(done);
    elapsed.mul_f64(rest as f64 / done.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_is_left_goes_by_what_was_needed() {
        assert_eq!(time_left(Duration::from_secs(10), 5, 20), Duration::from_secs(30));
        assert_eq!(time_left(Duration::from_secs(10), 25, 20), Duration::ZERO);
        assert!(Progress::new(1, Duration::ZERO).is_over());
    }
}
