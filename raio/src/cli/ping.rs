//! `raio ping`.

use super::failure::{Failure, connect};
use super::{Common, Done, say, size};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::time::Duration;

/// Arguments of `raio ping`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The server
    uri: String,
    /// How many round trips
    #[arg(short, long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Seconds between two of them
    #[arg(short, long, default_value = "0.2", value_parser = interval)]
    interval: Duration,
}

fn interval(text: &str) -> super::Parsed<Duration> {
    if text == "0" { Ok(Duration::ZERO) } else { size::seconds(text) }
}

/// What is told of a distribution of times.
const PERCENTILES: [(&str, f64); 5] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99)];

/// Most that a histogram counts, in nanoseconds: ten minutes.
const LATENCY_NS_MAX: u64 = 600_000_000_000;

/// A histogram of nanoseconds with three significant digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_NS_MAX, 3).expect("the bounds are constants that the crate allows")
}

/// Counts a time.
pub(crate) fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).clamp(1, LATENCY_NS_MAX));
}

/// A distribution as JSON, in nanoseconds.
pub(crate) fn describe(times: &Histogram<u64>) -> Value {
    let mut value = json!({
        "count": times.len(), "min_ns": times.min(), "mean_ns": times.mean(), "max_ns": times.max(),
    });
    for (name, percentile) in PERCENTILES {
        value[format!("{name}_ns")] = times.value_at_percentile(percentile).into();
    }
    value
}

/// A distribution as a line.
pub(crate) fn show(times: &Histogram<u64>) -> String {
    let mut text = format!("min {}", size::show_nanoseconds(times.min()));
    for (name, percentile) in PERCENTILES {
        text.push_str(&format!(", {name} {}", size::show_nanoseconds(times.value_at_percentile(percentile))));
    }
    format!("{text}, max {}", size::show_nanoseconds(times.max()))
}

pub(crate) fn run(arguments: &Arguments, common: &Common) -> Done {
    let (uri, client) = connect(&arguments.uri, &common.client_options())?;
    let mut times = histogram();
    for number in 1..=arguments.count {
        if number > 1 {
            std::thread::sleep(arguments.interval);
        }
        let time = client.ping().map_err(Failure::at(&uri))?;
        record(&mut times, time);
        if !common.json() && arguments.count <= 20 {
            let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            say::line(format!("{}: {}", client.uri(), size::show_nanoseconds(nanoseconds)))?;
        }
    }
    if common.json() {
        say::json(&json!({ "uri": client.uri(), "round_trip": describe(&times) }))
    } else {
        say::line(format!("{} round trips: {}", times.len(), show(&times)))
    }
}
