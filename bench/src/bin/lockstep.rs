//! `lockstep`: a fixed number of reads or writes in batches, each batch complete before the next begins, for programs
//! that count instructions, system calls and allocations. Nothing is timed.
//!
//! The batch goes out in one send. With `--pause-us` the client looks at the answers only when all of them must be there,
//! so that what it does per batch is always the same; the server does the same per batch anyway, as long as it sleeps
//! between two (`--polling-us 0`).

#![forbid(unsafe_code)]

use bench::{Result, failed, parse_bytes};
use clap::Parser;
use raio::{ClientOptions, OpenOptions, Queue};
use std::time::Duration;

/// A fixed number of reads or writes in batches, to be counted.
#[derive(Debug, Parser)]
#[command(name = "lockstep", max_term_width = 110)]
struct Arguments {
    /// The file
    uri: String,
    /// Write instead of reading
    #[arg(long)]
    write: bool,
    /// Length of one request
    #[arg(long, default_value = "4k", value_parser = parse_bytes)]
    bs: usize,
    /// Requests of a batch
    #[arg(long, default_value_t = 8)]
    depth: u32,
    /// Batches
    #[arg(long)]
    batches: u64,
    /// Microseconds between sending a batch and looking for its answers
    #[arg(long, default_value_t = 0)]
    pause_us: u64,
}

fn main() -> std::process::ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(sentence) => {
            eprintln!("lockstep: {sentence}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let Arguments { uri, write, bs, depth, batches, pause_us } = arguments;
    let failed = || failed(uri.as_str());
    let length = u32::try_from(*bs).map_err(|_| format!("--bs {bs}: too large for one request"))?;
    let client = ClientOptions { polling_timeout: Duration::ZERO, ..ClientOptions::default() };
    let mut options = OpenOptions::new();
    options.read(!write).write(*write).client(client);
    let mut queue = Queue::open(uri, &options, *depth as usize).map_err(failed())?;
    let blocks = queue.attributes().size / u64::from(length);
    if blocks == 0 || *depth == 0 {
        return Err(format!("{uri}: there is not one block of {bs} bytes, or the depth is 0"));
    }
    for batch in 0..*batches {
        for number in 0..u64::from(*depth) {
            let offset = (batch * u64::from(*depth) + number) % blocks * u64::from(length);
            if *write {
                let buffer = queue.buffer(*bs).map_err(failed())?;
                queue.submit_write(offset, buffer, number).map_err(failed())?;
            } else {
                queue.submit_read(offset, length, number).map_err(failed())?;
            }
        }
        queue.flush().map_err(failed())?;
        let mut ready = 0;
        if *pause_us > 0 {
            std::thread::sleep(Duration::from_micros(*pause_us));
            // A look that does not sleep takes the answers. Whether a wait would look before it sleeps depends on how long
            // its polls have waited lately, which is another on a busy machine.
            ready = queue.wait(*depth as usize, Some(Duration::ZERO)).map_err(failed())?;
        }
        if ready < *depth as usize {
            queue.wait(*depth as usize, None).map_err(failed())?;
        }
        while let Some(completion) = queue.next() {
            let bytes = completion.result.map_err(failed())?.bytes();
            if bytes != *bs {
                return Err(format!("{uri}: {bytes} bytes were moved instead of {bs}"));
            }
        }
    }
    queue.close().map_err(failed())
}
