//! `raio bench`: how many reads and writes a second, and how long each takes.

use super::compare;
use super::failure::Failure;
use super::{Common, Done, Parsed, ping, place, say, size};
use hdrhistogram::Histogram;
use libxio::Uri;
use raio::{OpenOptions, Queue};
use serde_json::json;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Arguments of `raio bench`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    instead: Option<Instead>,
    /// The file; writing modes overwrite it
    #[arg(required = true)]
    uri: Option<String>,
    /// What to do
    #[arg(long, value_enum, default_value = "randread")]
    rw: Mode,
    /// Length of one request
    #[arg(long, default_value = "4k", value_parser = size::block)]
    bs: u32,
    /// Requests in flight, for each job
    #[arg(long, default_value = "32", value_parser = size::count)]
    depth: usize,
    /// For so many seconds
    #[arg(long, default_value = "5", value_parser = size::seconds)]
    time: Duration,
    /// Use so much of the file only [default: all of it]
    #[arg(long, value_parser = size::bytes)]
    size: Option<u64>,
    /// Bypass the server's page cache
    #[arg(long)]
    direct: bool,
    /// Threads, with a connection each
    #[arg(long, default_value = "1", value_parser = jobs)]
    jobs: usize,
    /// Create the file if it does not exist, of the length of --size (default 64M)
    #[arg(long)]
    create: bool,
    /// Start of the pseudo-random sequence of offsets
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What can be done instead of measuring.
#[derive(Debug, clap::Subcommand)]
enum Instead {
    /// Compare two results
    Compare(compare::Arguments),
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// Read from start to end, again and again
    Read,
    /// Write from start to end, again and again
    Write,
    /// Read anywhere
    Randread,
    /// Write anywhere
    Randwrite,
    /// Read or write anywhere, half and half
    Randrw,
}

impl Mode {
    fn writes(self) -> bool {
        matches!(self, Mode::Write | Mode::Randwrite | Mode::Randrw)
    }

    fn name(self) -> &'static str {
        match self {
            Mode::Read => "read",
            Mode::Write => "write",
            Mode::Randread => "randread",
            Mode::Randwrite => "randwrite",
            Mode::Randrw => "randrw",
        }
    }
}

fn jobs(text: &str) -> Parsed<usize> {
    size::count(text).ok().filter(|jobs| *jobs <= 256).ok_or("expected a number from 1 to 256".to_owned())
}

/// Size of a file that is created where none is named, in bytes.
const CREATE_BYTES: u64 = 64 << 20;

/// What one job, or all together, measured.
struct Measured {
    reads: Histogram<u64>,
    writes: Histogram<u64>,
    elapsed: Duration,
}

pub(crate) fn run(arguments: &Arguments, common: &Common) -> Done {
    if let Some(Instead::Compare(arguments)) = &arguments.instead {
        return compare::run(arguments, common);
    }
    // It is there, else clap would have complained.
    let uri = place::remote(arguments.uri.as_deref().unwrap_or_default())?;
    let blocks = prepare(arguments, common, &uri)?;
    let cpu_before = cpu_time();
    let barrier = Barrier::new(arguments.jobs);
    let measured: Vec<Result<Measured, Failure>> = std::thread::scope(|scope| {
        let job = |number| {
            let (uri, barrier) = (&uri, &barrier);
            scope.spawn(move || {
                // Every job reaches the barrier, else the others would wait for ever.
                let queue = open(arguments, common, uri, false);
                barrier.wait();
                Job::new(arguments, uri, queue?, blocks, number).run()
            })
        };
        let threads: Vec<_> = (0..arguments.jobs).map(job).collect();
        threads.into_iter().map(join).collect()
    });
    let mut total = Measured { reads: ping::histogram(), writes: ping::histogram(), elapsed: Duration::ZERO };
    for measured in measured {
        let Measured { reads, writes, elapsed } = measured?;
        // Equal bounds, so the sum fits.
        total.reads += reads;
        total.writes += writes;
        total.elapsed = total.elapsed.max(elapsed);
    }
    report(arguments, common, &uri, &total, cpu_time() - cpu_before)
}

/// Time that all threads of this process have spent on a core.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    // A clock of time spent is never negative.
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn join(thread: std::thread::ScopedJoinHandle<'_, Result<Measured, Failure>>) -> Result<Measured, Failure> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn open(arguments: &Arguments, common: &Common, uri: &Uri, create: bool) -> Result<Queue, Failure> {
    let mut options = OpenOptions::new();
    options.read(arguments.rw != Mode::Write && arguments.rw != Mode::Randwrite);
    options.write(create || arguments.rw.writes()).create(create).direct(arguments.direct);
    options.client(common.client_options());
    Queue::open(&uri.to_string(), &options, arguments.depth).map_err(Failure::at(uri))
}

/// Creates the file if asked to, and says how many blocks there are to work on.
fn prepare(arguments: &Arguments, common: &Common, uri: &Uri) -> Result<u64, Failure> {
    let failed = Failure::at(uri);
    let mut queue = open(arguments, common, uri, arguments.create)?;
    let mut length = queue.attributes().size;
    if arguments.create && length < arguments.size.unwrap_or(1) {
        length = arguments.size.unwrap_or(CREATE_BYTES);
        fill(&mut queue, length, arguments.depth).map_err(&failed)?;
    }
    if arguments.bs > queue.io_bytes_max() {
        let text = format!("--bs {}: the server takes at most {} bytes", arguments.bs, queue.io_bytes_max());
        return Err(Failure::usage(text, None));
    }
    let alignment = queue.attributes().offset_alignment;
    if arguments.direct && alignment > 0 && !arguments.bs.is_multiple_of(alignment) {
        let text = format!("--bs {}: with --direct it has to be a multiple of {alignment}", arguments.bs);
        return Err(Failure::usage(text, None));
    }
    let used = arguments.size.unwrap_or(length).min(length);
    let blocks = used / u64::from(arguments.bs);
    queue.close().map_err(&failed)?;
    if blocks == 0 {
        let text = format!("{uri}: {used} bytes are less than one block of {}", arguments.bs);
        let advice = "copy something there first, or let --create --size 64M make it".to_owned();
        return Err(Failure::usage(text, Some(advice)));
    }
    Ok(blocks)
}

/// Writes the file once, so that reads don't find holes.
fn fill(queue: &mut Queue, length: u64, depth: usize) -> raio::Result<()> {
    let block = queue.io_bytes_max().min(1 << 20);
    let (mut next, mut flying) = (0, 0);
    while next < length || flying > 0 {
        while next < length && flying < depth.min(16) {
            // The lesser of the two fits `u32`.
            let part = (length - next).min(u64::from(block)) as u32;
            let mut buffer = queue.buffer(part as usize)?;
            if let Some(bytes) = buffer.try_as_mut_slice() {
                pattern(bytes, next);
            }
            queue.submit_write(next, buffer, next)?;
            next += u64::from(part);
            flying += 1;
        }
        queue.wait(1, None)?;
        while let Some(completion) = queue.next() {
            completion.result?;
            flying -= 1;
        }
    }
    Ok(())
}

/// Bytes that differ from block to block and don't compress.
fn pattern(bytes: &mut [u8], seed: u64) {
    let mut random = Random(seed ^ 0x9e37_79b9_7f4a_7c15);
    for chunk in bytes.chunks_mut(8) {
        let word = random.next().to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

/// SplitMix64 (G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below the limit; the bias is below 2^-32 for all files up to 2^32 blocks.
    fn below(&mut self, limit: u64) -> u64 {
        // The high half of the product is below `limit`.
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }
}

/// One thread's work.
struct Job<'a> {
    arguments: &'a Arguments,
    uri: &'a Uri,
    queue: Queue,
    blocks: u64,
    random: Random,
    /// Next block of a sequential mode.
    next: u64,
    /// Per request in flight: when it was submitted, and whether it writes. The index is its token.
    flying: Vec<(Instant, bool)>,
    free: Vec<usize>,
    measured: Measured,
}

impl<'a> Job<'a> {
    fn new(arguments: &'a Arguments, uri: &'a Uri, queue: Queue, blocks: u64, number: usize) -> Job<'a> {
        let now = Instant::now();
        Job {
            arguments,
            uri,
            queue,
            blocks,
            random: Random(arguments.seed.wrapping_add(number as u64 * 0x1234_5678_9abc)),
            next: blocks / arguments.jobs as u64 * number as u64,
            flying: vec![(now, false); arguments.depth],
            free: (0..arguments.depth).collect(),
            measured: Measured {
                reads: ping::histogram(),
                writes: ping::histogram(),
                elapsed: Duration::ZERO,
            },
        }
    }

    fn run(mut self) -> Result<Measured, Failure> {
        let failed = Failure::at(self.uri);
        let start = Instant::now();
        let deadline = start + self.arguments.time;
        let mut now = start;
        while now < deadline || self.free.len() < self.arguments.depth {
            while now < deadline
                && let Some(index) = self.free.pop()
            {
                self.submit(index).map_err(&failed)?;
            }
            self.queue.wait(1, None).map_err(&failed)?;
            now = Instant::now();
            while let Some(completion) = self.queue.next() {
                // Tokens are indices below the depth.
                let index = completion.token as usize;
                let bytes = completion.result.map_err(&failed)?.bytes();
                if bytes != self.arguments.bs as usize {
                    return Err(Failure::Other {
                        what: "bench",
                        place: self.uri.to_string(),
                        why: format!("{bytes} bytes were moved instead of {}", self.arguments.bs),
                        advice: Some("did the file become shorter?".to_owned()),
                    });
                }
                let (since, writes) = self.flying[index];
                let times = if writes { &mut self.measured.writes } else { &mut self.measured.reads };
                ping::record(times, now - since);
                self.free.push(index);
            }
        }
        self.measured.elapsed = start.elapsed();
        self.queue.close().map_err(&failed)?;
        Ok(self.measured)
    }

    fn submit(&mut self, index: usize) -> raio::Result<()> {
        let block = match self.arguments.rw {
            Mode::Read | Mode::Write => {
                let block = self.next % self.blocks;
                self.next = block + 1;
                block
            }
            _ => self.random.below(self.blocks),
        };
        let writes = match self.arguments.rw {
            Mode::Randrw => self.random.next() & 1 == 1,
            mode => mode.writes(),
        };
        let offset = block * u64::from(self.arguments.bs);
        self.flying[index] = (Instant::now(), writes);
        if writes {
            let mut buffer = self.queue.buffer(self.arguments.bs as usize)?;
            if let Some(bytes) = buffer.try_as_mut_slice() {
                // Enough to differ from what was there, not so much that its making is measured.
                let stamp = self.random.next().to_le_bytes();
                let length = bytes.len().min(stamp.len());
                bytes[..length].copy_from_slice(&stamp[..length]);
            }
            self.queue.submit_write(offset, buffer, index as u64)
        } else {
            self.queue.submit_read(offset, self.arguments.bs, index as u64)
        }
    }
}

fn report(arguments: &Arguments, common: &Common, uri: &Uri, total: &Measured, cpu: Duration) -> Done {
    let seconds = total.elapsed.as_secs_f64().max(1e-9);
    let kinds: Vec<(&str, &Histogram<u64>)> = [("read", &total.reads), ("write", &total.writes)]
        .into_iter()
        .filter(|(_, times)| !times.is_empty())
        .collect();
    if common.json() {
        let mut value = json!({
            "uri": uri.to_string(), "rw": arguments.rw.name(), "bs": arguments.bs, "depth": arguments.depth,
            "jobs": arguments.jobs, "direct": arguments.direct, "seconds": seconds,
            "cpu_seconds": cpu.as_secs_f64(),
        });
        for (name, times) in kinds {
            value[name] = json!({
                "iops": times.len() as f64 / seconds,
                "bytes_per_second": times.len() as f64 * f64::from(arguments.bs) / seconds,
                "latency": ping::describe(times),
            });
        }
        return say::json(&value);
    }
    let Arguments { bs, depth, jobs, .. } = arguments;
    say::line(format!(
        "{} of {bs} bytes, depth {depth}, {jobs} job(s), {seconds:.1} s",
        arguments.rw.name()
    ))?;
    for (name, times) in kinds {
        let rate = times.len() as f64 / seconds;
        let megabytes = rate * f64::from(*bs) / 1e6;
        say::line(format!("{name:>6}: {rate:.0} IOPS, {megabytes:.1} MB/s, {} in all", times.len()))?;
        say::line(format!("        latency {}", ping::show(times)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_stay_below_the_limit_and_are_spread() {
        let mut random = Random(7);
        let mut seen = [0_u32; 10];
        for _ in 0..10_000 {
            seen[random.below(10) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
    }

    #[test]
    fn distributions_have_percentiles() {
        let mut times = ping::histogram();
        for microseconds in 1..=1000 {
            ping::record(&mut times, Duration::from_micros(microseconds));
        }
        let value = ping::describe(&times);
        assert_eq!(value["count"], 1000);
        let p50 = value["p50_ns"].as_u64().unwrap();
        assert!((495_000..505_000).contains(&p50), "{p50}");
    }
}
