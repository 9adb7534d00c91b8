//! The command line, and the configuration that it makes together with a file.

use super::file;
use clap::Parser;
use raio_server::{Config, ExportConfig, Result, inherited_sockets, parse_listen, parse_size};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const AFTER_HELP: &str = "\
Examples:
  raio-server --export data=/srv/data                 a directory, reached as raio://HOST:5555/data/FILE
  raio-server --export data=/srv/data:ro              the same, read-only
  raio-server --export /srv/data                      under its own path: raio://HOST:5555/srv/data/FILE
  raio-server --export disk=/dev/sdb1                 a block device
  raio-server --export scratch=memory:1G --export null=null:1G
                                                      memory of the server, and zeros: for measuring
  raio-server --config /etc/raio-server.toml          exports and settings from a file (see --print-config)
  raio-server -a 127.0.0.1 -p 5555 -t tcp -n 4        as R-AIO's server is called: only /dev/null is served

  raio-server --export /srv/data --listen tcp://127.0.0.1:5555 --listen shm:///run/raio.sock
                                                      clients on this machine share memory with the server

Without --listen the server is reached from this machine only, at tcp://127.0.0.1:5555. Who can reach it can use its
exports, as the user that it runs as: listening on other addresses needs --insecure. When it accepts connections it
prints a line for each address: listening tcp://127.0.0.1:5555

A service manager may pass listening TCP sockets (systemd's socket activation): they are served beside those of --listen,
and instead of the default.

SIGTERM and SIGINT: no new requests, those in progress are answered, clients get a goodbye. SIGHUP: the exports are read
again from --config; open files stay open.
Exit codes: 0 stopped in good order; 1 it could not start; 2 wrong usage.";

/// Serve files, directories and devices to raio clients.
#[derive(Debug, Parser)]
#[command(name = "raio-server", version, about, after_help = AFTER_HELP, max_term_width = 110)]
pub(super) struct Arguments {
    /// What clients can open: NAME=PATH, /PATH, NAME=null[:SIZE] or NAME=memory:SIZE; add :ro for read-only; repeatable
    #[arg(long, value_name = "EXPORT")]
    export: Vec<String>,
    /// Address to listen on: tcp://HOST:PORT or rdma://HOST:PORT, port 0 takes a free one; or shm:///PATH, a socket by which clients on
    /// this machine share memory with the server; repeatable [default: tcp://127.0.0.1:5555]
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Exports and settings from this file; options of the command line add to it, or win
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print a configuration file with every setting explained, and exit
    #[arg(long)]
    pub(super) print_config: bool,
    /// Listen beyond this machine, though everybody who reaches the server may use its exports
    #[arg(long)]
    insecure: bool,
    /// Worker threads [default: one for each CPU]
    #[arg(short = 'n', long, value_name = "N")]
    threads: Option<usize>,
    /// CPUs that the workers are bound to, as a hexadecimal mask
    #[arg(short, long, value_name = "MASK", value_parser = cpu_mask)]
    cpumask: Option<Cpus>,
    /// Longest time in microseconds that a worker polls before it sleeps; 0 never polls [default: 100]
    #[arg(long, value_name = "US")]
    polling_us: Option<u64>,
    /// Connections at a time for each address [default: 16384]
    #[arg(long, value_name = "N")]
    max_connections: Option<usize>,
    /// Files that one connection may have open [default: 1024]
    #[arg(long, value_name = "N")]
    max_open_files: Option<usize>,
    /// Greatest length of one read or write [default: 4M]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_io: Option<u64>,
    /// Memory for data, of each worker [default: 1G]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,
    /// Memory that is mapped of each client by shared memory; what lies beyond it is copied [default: 16G]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    shared_memory: Option<u64>,
    /// The same of all clients together [default: half of what the server may use]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    shared_memory_total: Option<u64>,
    /// Memory of clients by shared memory that each worker pins for O_DIRECT; 0 pins none [default: 256M]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pinned_memory: Option<u64>,
    /// Copy reads of files in the page cache out of mappings of them, which saves a system call for each read; off: always read by
    /// system calls [default: on]
    #[arg(long, value_name = "on|off", value_parser = switch)]
    mapped_reads: Option<bool>,
    /// Memory that is registered with RDMA devices beside receive buffers; what lies beyond it is copied [default: half of
    /// what may be locked (ulimit -l)]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    rdma_memory: Option<u64>,
    /// Seconds of silence after which a client is given up [default: 10]
    #[arg(long, value_name = "SECONDS")]
    keepalive: Option<u64>,
    /// Seconds for the data of a write to arrive whole, less when memory is scarce, before the client is given up [default: 600]
    #[arg(long, value_name = "SECONDS")]
    lease: Option<u64>,
    /// Seconds that requests in progress are given when the server stops [default: 10]
    #[arg(long, value_name = "SECONDS")]
    drain: Option<u64>,
    /// What to log: error, warn, info, debug, trace, or a filter like info,libxio=debug; RAIO_LOG does the same
    #[arg(long, value_name = "LEVEL")]
    pub(super) log: Option<String>,
    /// How to log
    #[arg(long, value_enum, default_value = "text")]
    pub(super) log_format: LogFormat,
    /// Address to listen on, as R-AIO's server takes it
    #[arg(short, long, value_name = "ADDRESS", help_heading = "Options of R-AIO's server")]
    addr: Option<String>,
    /// Port to listen on; no others are taken
    #[arg(short, long, value_name = "PORT", help_heading = "Options of R-AIO's server")]
    port: Option<u16>,
    /// Transport: tcp or rdma
    #[arg(short, long, value_name = "NAME", help_heading = "Options of R-AIO's server")]
    transport: Option<Transport>,
    /// 1: end when the first client has left
    #[arg(short, long, value_name = "0|1", value_parser = flag, help_heading = "Options of R-AIO's server")]
    finite: Option<bool>,
    /// 1: never sleep, at the expense of CPU time
    #[arg(short, long, value_name = "0|1", value_parser = flag, help_heading = "Options of R-AIO's server")]
    extra_perf: Option<bool>,
}

/// How the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// Lines for people
    Text,
    /// An object for each event
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Transport {
    Tcp,
    Rdma,
}

/// CPUs of a mask, lowest first.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cpus(Vec<usize>);

/// What the command line and the file ask for.
#[derive(Debug)]
pub(super) struct Plan {
    pub config: Config,
    /// End when the first client has left.
    pub finite: bool,
}

/// Polling that does not end while the server has clients: longer than any pause that matters.
const NEVER_SLEEP: Duration = Duration::from_secs(1);

impl Arguments {
    /// The configuration, with the file read.
    ///
    /// # Errors
    /// What is wrong with the file or the options.
    pub(super) fn plan(&self) -> Result<Plan> {
        let mut config = match &self.config {
            Some(path) => file::read(path)?,
            None => Config::default(),
        };
        for export in &self.export {
            config.exports.push(ExportConfig::parse(export)?);
        }
        self.plan_addresses(&mut config)?;
        if config.exports.is_empty() {
            // As R-AIO programs expect: /dev/null is always there.
            tracing::info!("nothing is exported: only /dev/null is served");
        }
        config.insecure |= self.insecure;
        set(&mut config.threads, self.threads);
        set(&mut config.cpus, self.cpumask.clone().map(|Cpus(cpus)| cpus));
        set(&mut config.polling_timeout, self.polling_us.map(Duration::from_micros));
        set(&mut config.connections_max, self.max_connections);
        set(&mut config.open_files_max, self.max_open_files);
        // Checked by `Config::check`; what does not fit is above its limit.
        set(&mut config.io_bytes_max, self.max_io.map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX)));
        set(
            &mut config.memory_bytes_max,
            self.memory.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
        );
        set(&mut config.shared_bytes_max, self.shared_memory);
        set(&mut config.shared_total_bytes_max, self.shared_memory_total);
        set(&mut config.pinned_bytes_max, self.pinned_memory);
        set(&mut config.mapped_reads, self.mapped_reads);
        set(&mut config.rdma_bytes_max, self.rdma_memory.map(Some));
        set(&mut config.keepalive, self.keepalive.map(Duration::from_secs));
        set(&mut config.lease, self.lease.map(Duration::from_secs));
        set(&mut config.drain_timeout, self.drain.map(Duration::from_secs));
        if self.extra_perf == Some(true) {
            config.polling_timeout = NEVER_SLEEP;
        }
        Ok(Plan { config, finite: self.finite == Some(true) })
    }

    fn plan_addresses(&self, config: &mut Config) -> Result<()> {
        for address in &self.listen {
            config.listen.push(parse_listen(address)?);
        }
        let scheme = match self.transport {
            Some(Transport::Rdma) => "rdma",
            Some(Transport::Tcp) | None => "tcp",
        };
        if self.addr.is_some() || self.port.is_some() {
            let host = self.addr.as_deref().unwrap_or("127.0.0.1");
            let host = if host.contains(':') && !host.starts_with('[') {
                format!("[{host}]")
            } else {
                host.to_owned()
            };
            let port = self.port.unwrap_or(libxio::DEFAULT_PORT);
            config.listen.push(parse_listen(&format!("{scheme}://{host}:{port}"))?);
        }
        config.sockets = inherited_sockets()?.into_iter().map(Arc::new).collect();
        if config.listen.is_empty() && config.sockets.is_empty() {
            config.listen.push(parse_listen(&format!("{scheme}://127.0.0.1:{}", libxio::DEFAULT_PORT))?);
        }
        Ok(())
    }
}

fn set<T>(setting: &mut T, option: Option<T>) {
    if let Some(value) = option {
        *setting = value;
    }
}

fn size(text: &str) -> std::result::Result<u64, String> {
    parse_size(text).ok_or_else(|| "expected a size like 4096, 64k or 1G".to_owned())
}

fn flag(text: &str) -> std::result::Result<bool, String> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err("expected 0 or 1".to_owned()),
    }
}

fn switch(text: &str) -> std::result::Result<bool, String> {
    match text {
        "off" => Ok(false),
        "on" => Ok(true),
        _ => Err("expected on or off".to_owned()),
    }
}

fn cpu_mask(text: &str) -> std::result::Result<Cpus, String> {
    let digits = text.trim_start_matches("0x");
    match u128::from_str_radix(digits, 16) {
        Ok(0) => Err("the mask names no CPU".to_owned()),
        Ok(mask) => Ok(Cpus((0..128).filter(|cpu| mask >> cpu & 1 == 1).collect())),
        Err(_) => Err("expected a hexadecimal mask like 0x3".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn plan(arguments: &[&str]) -> Result<Plan> {
        let all = std::iter::once(&"raio-server").chain(arguments);
        Arguments::try_parse_from(all).unwrap().plan()
    }

    #[test]
    fn the_arguments_are_well_defined() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn nothing_but_exports_listens_on_this_machine() {
        let Plan { config, finite } = plan(&["--export", "data=/tmp"]).unwrap();
        assert_eq!(config.listen[0].to_string(), "tcp://127.0.0.1:5555/");
        assert!(!finite && config.exports.len() == 1);
        config.check().unwrap();
    }

    #[test]
    fn mapped_reads_can_be_switched_off() {
        assert!(plan(&[]).unwrap().config.mapped_reads);
        assert!(plan(&["--mapped-reads", "on"]).unwrap().config.mapped_reads);
        assert!(!plan(&["--mapped-reads", "off"]).unwrap().config.mapped_reads);
        assert!(Arguments::try_parse_from(["raio-server", "--mapped-reads", "no"]).is_err());
    }

    #[test]
    fn the_options_of_r_aio() {
        let Plan { config, finite } = plan(&[
            "-a",
            "127.0.0.1",
            "-p",
            "1234",
            "-t",
            "tcp",
            "-c",
            "0x5",
            "-n",
            "3",
            "-f",
            "1",
            "-e",
            "1",
        ])
        .unwrap();
        assert_eq!(config.listen[0].to_string(), "tcp://127.0.0.1:1234/");
        assert_eq!((config.cpus, config.threads, finite), (vec![0, 2], 3, true));
        assert_eq!(config.polling_timeout, NEVER_SLEEP);
        assert!(config.exports.is_empty());
        assert_eq!(plan(&["-t", "rdma"]).unwrap().config.listen[0].to_string(), "rdma://127.0.0.1:5555/");
        for wrong in [["-f", "2"], ["-c", "0"], ["-c", "x"], ["-p", "99999"], ["-t", "pigeon"]] {
            assert!(Arguments::try_parse_from(["raio-server"].iter().chain(&wrong)).is_err(), "{wrong:?}");
        }
    }
}
