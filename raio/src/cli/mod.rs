//! Arguments, and who carries them out. Each command is a module with its arguments and a `run`.

mod bench;
mod cat;
mod compare;
mod copy;
mod failure;
mod info;
mod list;
mod names;
mod ping;
mod place;
mod rdma;
mod say;
mod size;
mod stat;

use clap::{Args, Parser, Subcommand};
use failure::Failure;
use raio::{ClientOptions, Transport};
use std::process::ExitCode;
use std::time::Duration;

const AFTER_HELP: &str = "\
Uris look like raio://HOST:PORT/EXPORT/PATH; the default port is 5555. tcp:// names the transport, and so does
shm:///EXPORT/PATH?socket=/run/raio.sock for a server on this host.
Sizes may end in k, M, G or T (powers of 1024).

Exit codes: 0 done; 1 an operation failed; 2 wrong usage; 3 can't connect, or the connection was lost.
RAIO_LOG=debug in the environment shows on stderr what the library does.";

/// Read, write and look at files on a raio-server.
#[derive(Debug, Parser)]
#[command(name = "raio", version, about, after_help = AFTER_HELP, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Seconds until a server that can't be reached, or says nothing, is given up
    #[arg(long, global = true, default_value = "10", value_name = "SECONDS", value_parser = size::seconds)]
    timeout: Duration,
    /// Longest time in microseconds that a wait polls before it sleeps; 0 never polls
    #[arg(long, global = true, default_value_t = 100, value_name = "US")]
    polling_us: u64,
    /// Checksums over all that travels, if the server has them too
    #[arg(long, global = true)]
    crc: bool,
    /// What raio:// stands for: auto moves to shared memory with a server on this host, shm insists on it
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "NAME")]
    transport: TransportName,
    /// Memory that is registered with RDMA devices beside receive buffers; what lies beyond it is copied [default: half of
    /// what may be locked (ulimit -l)]
    #[arg(long, global = true, value_name = "SIZE", value_parser = size::bytes)]
    rdma_memory: Option<u64>,
    /// Print results as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum TransportName {
    /// The best that both sides have
    Auto,
    /// TCP
    Tcp,
    /// Shared memory with a server on this host
    Shm,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copy a file to, from or between servers
    Cp(copy::Arguments),
    /// Show what is known about a file
    Stat(stat::Arguments),
    /// List a directory, or the exports of a server
    Ls(list::Arguments),
    /// Print a file
    Cat(cat::Arguments),
    /// Remove files
    Rm(names::RemoveArguments),
    /// Give a file another name
    Mv(names::MoveArguments),
    /// Show what a server is and exports
    Info(info::Arguments),
    /// Measure the round trip to a server
    Ping(ping::Arguments),
    /// Measure reads and writes of a file
    Bench(bench::Arguments),
}

impl Common {
    /// How to connect.
    pub(crate) fn client_options(&self) -> ClientOptions {
        ClientOptions {
            polling_timeout: Duration::from_micros(self.polling_us),
            keepalive: self.timeout,
            connect_timeout: self.timeout,
            crc: self.crc,
            rdma_bytes_max: self.rdma_memory,
            transport: match self.transport {
                TransportName::Auto => Transport::Auto,
                TransportName::Tcp => Transport::Tcp,
                TransportName::Shm => Transport::Shm,
            },
            ..ClientOptions::default()
        }
    }

    /// Whether results are printed as JSON.
    pub(crate) fn json(&self) -> bool {
        self.json
    }
}

/// Parses, runs, and says what went wrong.
pub(crate) fn main() -> ExitCode {
    let Cli { common, command } = Cli::parse();
    start_log();
    let done = match &command {
        Command::Cp(arguments) => copy::run(arguments, &common),
        Command::Stat(arguments) => stat::run(arguments, &common),
        Command::Ls(arguments) => list::run(arguments, &common),
        Command::Cat(arguments) => cat::run(arguments, &common),
        Command::Rm(arguments) => names::remove(arguments, &common),
        Command::Mv(arguments) => names::rename(arguments, &common),
        Command::Info(arguments) => info::run(arguments, &common),
        Command::Ping(arguments) => ping::run(arguments, &common),
        Command::Bench(arguments) => bench::run(arguments, &common),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(&common.client_options()),
    }
}

fn start_log() {
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("RAIO_LOG") {
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
}

/// For clap: the result type of value parsers.
pub(crate) type Parsed<T> = Result<T, String>;

/// What commands return.
pub(crate) type Done = Result<(), Failure>;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_well_defined() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_tells_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("Exit codes"), "{help}");
    }
}
