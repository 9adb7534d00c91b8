//! Histograms of times: written by one thread, read by any, a fixed few KiB each.
//!
//! Buckets are logarithmic with eight steps in each power of two (as in HdrHistogram), so that a value read is at most
//! an eighth above the true one.

use super::statistics::Counter;
use std::time::Duration;

/// Steps in each power of two.
const STEPS: usize = 8;
/// Powers of two from 8 ns on: the last bucket takes what is above 2^40 ns, 18 minutes.
const POWERS: usize = 38;
const BUCKETS: usize = STEPS * POWERS;

/// A histogram that its context writes and any thread reads.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    sum_ns: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: std::array::from_fn(|_| Counter::default()), sum_ns: Counter::default() }
    }
}

#[inline]
fn bucket(nanoseconds: u64) -> usize {
    if nanoseconds < STEPS as u64 {
        return nanoseconds as usize; // below 8
    }
    let power = nanoseconds.ilog2() as usize; // from 3 on
    let step = (nanoseconds >> (power - 3)) as usize & (STEPS - 1);
    ((power - 2) * STEPS + step).min(BUCKETS - 1)
}

/// The greatest value of a bucket.
fn upper_end(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let (power, step) = (bucket / STEPS + 2, bucket % STEPS);
    ((STEPS + step + 1) as u64) << (power - 3)
}

impl Histogram {
    #[inline]
    pub(crate) fn record(&self, nanoseconds: u64) {
        self.buckets[bucket(nanoseconds)].add(1);
        self.sum_ns.add(nanoseconds);
    }

    /// The values now. Each bucket is exact; they need not be from one instant.
    #[must_use]
    pub fn snapshot(&self) -> HistogramSnapshot {
        let buckets: Vec<u64> = self.buckets.iter().map(Counter::get).collect();
        HistogramSnapshot { count: buckets.iter().sum(), sum_ns: self.sum_ns.get(), buckets }
    }
}

/// The values of a [`Histogram`] at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistogramSnapshot {
    buckets: Vec<u64>,
    count: u64,
    sum_ns: u64,
}

impl HistogramSnapshot {
    /// How many times were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean; zero without any.
    #[must_use]
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.sum_ns.checked_div(self.count).unwrap_or(0))
    }

    /// The time that this part of them (0.5 is the median, 1.0 all) does not exceed, at most an eighth too high; zero
    /// without any.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Duration {
        let wanted = (self.count as f64 * part.clamp(0.0, 1.0)).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(upper_end(bucket));
            }
        }
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_at_most_an_eighth_too_high() {
        for nanoseconds in (0..2000).chain([1 << 20, (1 << 33) + 12345, (1 << 40) - 1]) {
            let end = upper_end(bucket(nanoseconds));
            assert!(end >= nanoseconds && end - nanoseconds <= nanoseconds / 8 + 1, "{nanoseconds}: {end}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_and_mean() {
        let histogram = Histogram::default();
        assert_eq!((histogram.snapshot().quantile(0.5), histogram.snapshot().mean()), Default::default());
        for microseconds in 1..=100 {
            histogram.record(microseconds * 1000);
        }
        let seen = histogram.snapshot();
        assert_eq!((seen.count(), seen.mean()), (100, Duration::from_nanos(50_500)));
        let within = |part, low, high| {
            let found = seen.quantile(part);
            assert!((Duration::from_micros(low)..=Duration::from_micros(high)).contains(&found), "{found:?}");
        };
        within(0.0, 1, 2);
        within(0.5, 50, 57);
        within(0.99, 99, 112);
        within(1.0, 100, 113);
    }
}
