//! Message latency, rate and bandwidth of libxio.
//!
//! `xio` runs a table of loads against a server in a second thread; `xio serve` and `xio client URI` are the two halves
//! for two processes or machines. Every result is a line of JSON with times and counts; a table for people goes to the
//! standard error output.

use bench::messages::{self, Client, Found, Load, Pattern};
use clap::{Parser, Subcommand, ValueEnum};
use libxio::Uri;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

/// Measures messages: latency, rate and bandwidth.
#[derive(Debug, Parser)]
#[command(name = "xio", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Which way the data goes.
    #[arg(long, global = true, value_enum, value_delimiter = ',', default_value = "echo")]
    pattern: Vec<Way>,
    /// Bytes of data in a message; a list runs each.
    #[arg(long, global = true, value_delimiter = ',', default_value = "64,4096,65536,1048576")]
    size: Vec<u32>,
    /// Requests outstanding; a list runs each.
    #[arg(long, global = true, value_delimiter = ',', default_value = "1,32")]
    depth: Vec<u64>,
    /// Seconds for each load.
    #[arg(long, global = true, default_value_t = 1.0)]
    time: f64,
    /// Most requests of each load; ends it early.
    #[arg(long, global = true, default_value_t = u64::MAX)]
    messages: u64,
    /// Microseconds that both ends poll before they sleep; 0 never polls.
    #[arg(long, global = true, default_value_t = 1000)]
    polling_timeout_us: u64,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until killed; says where on the standard output.
    Serve {
        /// Where to listen.
        #[arg(default_value = "tcp://127.0.0.1:0/")]
        uri: Uri,
    },
    /// Run the loads against a server elsewhere.
    Client {
        /// Where it is.
        uri: Uri,
    },
    /// Run the loads against a server in a second thread (the default).
    Both {
        /// Where that one listens.
        #[arg(default_value = "tcp://127.0.0.1:0/")]
        uri: Uri,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Way {
    Echo,
    Read,
    Write,
    Fill,
    #[value(name = "one-way")]
    Unanswered,
}

impl From<Way> for Pattern {
    fn from(way: Way) -> Pattern {
        match way {
            Way::Echo => Pattern::Echo,
            Way::Read => Pattern::Read,
            Way::Write => Pattern::Write,
            Way::Fill => Pattern::Fill,
            Way::Unanswered => Pattern::OneWay,
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xio: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> libxio::Result<()> {
    let options = || messages::options(Duration::from_micros(arguments.polling_timeout_us));
    match &arguments.command {
        Some(Command::Serve { uri }) => messages::serve(uri, options(), |uri, _| println!("listening {uri}")),
        Some(Command::Client { uri }) => {
            let mut client = Client::connect(uri.clone(), options())?;
            loads(arguments).try_for_each(|load| client.run(load, None).map(|found| say(&found)))
        }
        Some(Command::Both { uri }) => both(arguments, uri),
        None => both(arguments, &"tcp://127.0.0.1:0/".parse()?),
    }
}

fn both(arguments: &Arguments, uri: &Uri) -> libxio::Result<()> {
    let options = || messages::options(Duration::from_micros(arguments.polling_timeout_us));
    std::thread::scope(|scope| {
        let (say_ready, ready) = mpsc::channel();
        let server = scope.spawn(|| {
            messages::serve(uri, options(), move |uri, context| {
                let _ = say_ready.send((uri, context.handle()));
            })
        });
        let Ok((uri, handle)) = ready.recv() else {
            return server.join().unwrap_or(Err(libxio::Error::Unsupported("the server has panicked")));
        };
        let counters = handle.statistics();
        let ran = Client::connect(uri, options()).and_then(|mut client| {
            loads(arguments).try_for_each(|load| client.run(load, Some(&counters)).map(|found| say(&found)))
        });
        handle.stop();
        ran
    })
}

fn loads(arguments: &Arguments) -> impl Iterator<Item = Load> + '_ {
    // A load of no time at all would measure nothing.
    let time = Duration::try_from_secs_f64(arguments.time.max(0.001)).unwrap_or(Duration::MAX);
    let messages_max = arguments.messages;
    arguments.pattern.iter().flat_map(move |way| {
        arguments.size.iter().flat_map(move |size| {
            arguments.depth.iter().map(move |depth| Load {
                pattern: (*way).into(),
                size: *size,
                depth: (*depth).max(1),
                time,
                messages_max,
            })
        })
    })
}

fn say(found: &Found) {
    let Load { pattern, size, depth, .. } = found.load;
    eprintln!(
        "{:>5} {size:>8} B depth {depth:>3}: {:>9.0}/s {:>8.1} MB/s  p50 {:>8.1} us  p99 {:>8.1} us",
        pattern.name(),
        found.rate(),
        found.rate() * f64::from(size) / 1e6,
        found.latency_ns.value_at_quantile(0.5) as f64 / 1e3,
        found.latency_ns.value_at_quantile(0.99) as f64 / 1e3,
    );
    println!("{}", found.to_json());
}
