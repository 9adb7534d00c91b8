//! `connections`: many connections from one thread to one raio-server. How many reads a second do they reach together,
//! and (with `--idle`) what does the server keep for each of them?
//!
//! One context holds all of them; each has `--depth` reads in flight. With `--idle` it prints `ready` when all are open and
//! holds them until standard input ends.

#![forbid(unsafe_code)]

mod crowd;

use bench::{Result, Times, allow_descriptors, failed, parse_bytes, process_cpu_time};
use clap::Parser;
use crowd::Crowd;
use serde_json::json;
use std::io::Read;
use std::time::{Duration, Instant};

/// Many connections from one thread to one server.
#[derive(Debug, Parser)]
#[command(name = "connections", max_term_width = 110)]
struct Arguments {
    /// The file that all of them read
    uri: libxio::Uri,
    /// How many connections
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    count: u32,
    /// Reads in flight on each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    depth: u16,
    /// Length of one read
    #[arg(long, default_value = "4k", value_parser = parse_bytes)]
    bs: usize,
    /// Seconds
    #[arg(long, default_value_t = 2.0)]
    time: f64,
    /// Longest time in microseconds that a wait polls before it sleeps
    #[arg(long, default_value_t = 50)]
    polling_us: u64,
    /// Open them, do nothing, and wait until standard input ends
    #[arg(long)]
    idle: bool,
}

fn main() -> std::process::ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("connections: {sentence}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    allow_descriptors(u64::from(arguments.count) + 64)?;
    let time = Duration::try_from_secs_f64(arguments.time).map_err(failed("--time"))?;
    let length = u32::try_from(arguments.bs).map_err(failed("--bs"))?;
    let polling = Duration::from_micros(arguments.polling_us);
    let mut crowd = Crowd::open(&arguments.uri, arguments.count, arguments.depth, length, polling)?;
    if arguments.idle {
        println!("ready");
        return crowd.hold(|| {
            let mut rest = Vec::new();
            // However it ends, it has ended.
            let _ = std::io::stdin().read_to_end(&mut rest);
        });
    }
    let cpu_before = process_cpu_time();
    let mut times = Times::default();
    let started = Instant::now();
    crowd.read_for(time, &mut times)?;
    let seconds = started.elapsed().as_secs_f64().max(1e-9);
    let cpu = process_cpu_time() - cpu_before;
    let rate = times.count() as f64 / seconds;
    let value = json!({
        "program": "connections", "connections": arguments.count, "depth": arguments.depth, "bs": length,
        "seconds": seconds, "iops": rate, "bytes_per_second": rate * f64::from(length),
        "cpu_ns_per_io": cpu.as_nanos() as f64 / times.count().max(1) as f64,
        "latency": times.describe(),
    });
    println!("{value:#}");
    Ok(())
}
