//! `minimal`: the limit on the day. Moves the bytes of remote reads and writes between two threads, over a TCP socket on
//! loopback or through memory that they share, batched as deep as asked, and does nothing else: no protocol, no checks, no
//! queues, no copies of its own. Both sides spin, or sleep whenever there is nothing. What a server with a protocol reaches is
//! to be held against this.
//!
//!     minimal --over tcp --rw read --bs 4k --depth 32 --time 2 --server-core 0 --client-core 1
//!
//! Over TCP:
//!
//! A request is a head of fixed length (and the data of a write), a response a head (and the data of a read). As all have
//! the same length, each has its place in a ring that is as large as the depth: one receive takes all that has arrived,
//! one send all that is ready.

#![forbid(unsafe_code)]

mod client;
mod crowd;
mod memory;
mod ring;
mod server;

use bench::{Result, failed, parse_bytes, pin, process_cpu_time};
use clap::Parser;
use serde_json::json;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The same bytes as remote reads and writes, and nothing else: the limit on this machine, today.
#[derive(Debug, Parser)]
#[command(name = "minimal", max_term_width = 110)]
struct Arguments {
    /// What the two sides have between them
    #[arg(long, value_enum, default_value = "tcp")]
    over: Over,
    /// Both sides sleep whenever there is nothing to do, rather than spin
    #[arg(long)]
    sleep: bool,
    /// What is done
    #[arg(long, value_enum, default_value = "read")]
    rw: Mode,
    /// Data of one request
    #[arg(long, default_value = "4k", value_parser = parse_bytes)]
    bs: usize,
    /// Requests in flight
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=4096))]
    depth: u64,
    /// So many TCP connections with one request in flight on each, and zeros, instead of one connection
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    #[arg(conflicts_with_all = ["file", "memory", "depth", "over", "sleep"])]
    connections: Option<u32>,
    /// Seconds
    #[arg(long, default_value_t = 2.0)]
    time: f64,
    /// Reads and writes this file with pread and pwrite, at random places; without it there are zeros
    #[arg(long)]
    file: Option<PathBuf>,
    /// Reads and writes so much of the server's own memory, at random places
    #[arg(long, value_parser = parse_bytes, conflicts_with = "file")]
    memory: Option<usize>,
    /// Bytes of a request's head
    #[arg(long, default_value_t = 96)]
    request_head: usize,
    /// Bytes of a response's head
    #[arg(long, default_value_t = 80)]
    response_head: usize,
    /// Keep the server's thread on this core
    #[arg(long)]
    server_core: Option<usize>,
    /// Keep the client's thread on this core
    #[arg(long)]
    client_core: Option<usize>,
}

/// What the two sides have between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Over {
    /// A TCP connection over loopback
    Tcp,
    /// Shared memory
    Shm,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    Read,
    Write,
}

/// Lengths of what travels.
#[derive(Debug, Clone, Copy)]
struct Shape {
    depth: u64,
    data: usize,
    request_head: usize,
    response_head: usize,
    writes: bool,
}

impl Shape {
    fn request(&self) -> usize {
        self.request_head + if self.writes { self.data } else { 0 }
    }

    fn response(&self) -> usize {
        self.response_head + if self.writes { 0 } else { self.data }
    }
}

/// Bytes of a head that carry the offset.
const OFFSET_BYTES: usize = 8;

/// Blocks at random: Xorshift (G. Marsaglia, "Xorshift RNGs", 2003), then the high half of a product.
#[derive(Debug)]
struct Random {
    state: u64,
    blocks: u64,
}

impl Random {
    fn new(blocks: u64) -> Random {
        Random { state: 0x2545_f491_4f6c_dd1d, blocks }
    }

    fn block(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        ((u128::from(self.state) * u128::from(self.blocks)) >> 64) as u64
    }
}

fn main() -> std::process::ExitCode {
    match run(&Arguments::parse()) {
        Ok(value) => {
            println!("{value:#}");
            std::process::ExitCode::SUCCESS
        }
        Err(sentence) => {
            eprintln!("minimal: {sentence}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<serde_json::Value> {
    let shape = Shape {
        depth: arguments.depth,
        data: arguments.bs,
        request_head: arguments.request_head,
        response_head: arguments.response_head,
        writes: arguments.rw == Mode::Write,
    };
    if shape.request_head < OFFSET_BYTES || shape.response_head == 0 {
        return Err(format!("a request's head has at least {OFFSET_BYTES} bytes, a response's 1"));
    }
    let time = Duration::try_from_secs_f64(arguments.time).map_err(failed("--time"))?;
    let store = match arguments.memory {
        Some(length) => server::Store::memory(length, &shape)?,
        None => server::Store::open(arguments.file.as_deref(), &shape)?,
    };
    let cpu_before = process_cpu_time();
    let pinned = |side| match side {
        memory::Side::Server => pin(arguments.server_core),
        memory::Side::Client => pin(arguments.client_core),
    };
    let (times, elapsed) = match (arguments.connections, arguments.over) {
        (Some(count), _) => crowd::run(count as usize, Shape { depth: 1, ..shape }, time, pinned)?,
        (None, Over::Tcp) => over_tcp(arguments, shape, store, time)?,
        (None, Over::Shm) => memory::run(shape, store, arguments.sleep, time, pinned)?,
    };
    let cpu = process_cpu_time() - cpu_before;
    let seconds = elapsed.as_secs_f64().max(1e-9);
    let rate = times.count() as f64 / seconds;
    Ok(json!({
        "program": "minimal", "over": if arguments.over == Over::Shm { "shm" } else { "tcp" },
        "sleeps": arguments.sleep, "connections": arguments.connections.unwrap_or(1), "rw": if shape.writes { "write" } else { "read" }, "bs": shape.data, "depth": shape.depth,
        "file": arguments.file.is_some(), "seconds": seconds, "iops": rate,
        "bytes_per_second": rate * shape.data as f64,
        "cpu_ns_per_io": cpu.as_nanos() as f64 / times.count().max(1) as f64,
        "latency": times.describe(),
    }))
}

fn over_tcp(
    arguments: &Arguments,
    shape: Shape,
    store: server::Store,
    time: Duration,
) -> Result<(bench::Times, Duration)> {
    let (near, far) = pair(arguments.sleep).map_err(failed("connecting over loopback"))?;
    let (stop, blocks) = (AtomicBool::new(false), store.blocks());
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            pin(arguments.server_core)?;
            server::Server::new(far, shape, store).run(&stop)
        });
        // The socket outlives the server's loop, which would take its end for an error.
        let measured = pin(arguments.client_core)
            .and_then(|()| client::Client::new(&near, shape, blocks).run(time, || server.is_finished()));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        if arguments.sleep {
            near.shutdown(std::net::Shutdown::Both).map_err(failed("closing"))?;
        }
        server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        measured
    })
}

/// The two ends of a connection over loopback.
fn pair(blocking: bool) -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    for socket in [&near, &far] {
        socket.set_nodelay(true)?;
        socket.set_nonblocking(!blocking)?;
    }
    Ok((near, far))
}
