//! A distribution of times.

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::time::Duration;

/// Most that is told apart, in nanoseconds: ten minutes.
const NANOSECONDS_MAX: u64 = 600_000_000_000;
/// What is told of a distribution; the names are those of `raio bench --json`.
const PERCENTILES: [(&str, f64); 5] =
    [("p50_ns", 50.0), ("p90_ns", 90.0), ("p99_ns", 99.0), ("p99.9_ns", 99.9), ("p99.99_ns", 99.99)];

/// Times with three significant digits.
#[derive(Debug)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        let bounds = Histogram::new_with_max(NANOSECONDS_MAX, 3);
        Times(bounds.expect("the bounds are constants that the crate allows"))
    }
}

impl Times {
    /// Counts one.
    pub fn record(&mut self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(NANOSECONDS_MAX);
        self.0.saturating_record(nanoseconds.clamp(1, NANOSECONDS_MAX));
    }

    /// Adds another distribution.
    pub fn add(&mut self, other: &Times) {
        self.0 += &other.0;
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// As JSON, in nanoseconds.
    #[must_use]
    pub fn describe(&self) -> Value {
        let mut value = json!({
            "count": self.0.len(), "min_ns": self.0.min(), "mean_ns": self.0.mean(), "max_ns": self.0.max(),
        });
        for (name, percentile) in PERCENTILES {
            value[name] = self.0.value_at_percentile(percentile).into();
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_has_percentiles() {
        let mut times = Times::default();
        (1..=1000).for_each(|microseconds| times.record(Duration::from_micros(microseconds)));
        let value = times.describe();
        assert_eq!((times.count(), &value["count"]), (1000, &json!(1000)));
        assert!((495_000..505_000).contains(&value["p50_ns"].as_u64().unwrap()));
    }
}
