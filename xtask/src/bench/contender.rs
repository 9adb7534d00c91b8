//! Who is measured: our programs, their peers, and the limit. Each starts its own server on one core, measures from the
//! other, and ends the server.

use super::measured::Measured;
use super::place::{CLIENT_CORE, Place, SERVER_CORE, free_port, pinned};
use super::transport::Transport;
use super::work::{Polling, Store, Work};
use crate::server::Server;
use crate::{Result, child};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Size of null devices, and how much of them is used: as large as the file, so that offsets are alike.
const NULL_SIZE: &str = "256M";
/// Microseconds for a side that polls all the time: no wait is so long, and fio's engine takes no more.
const ALWAYS_US: &str = "1000000";

/// Somebody who can do the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Contender {
    /// nbdkit's null, memory or file plugin, under fio's nbd engine.
    Nbdkit,
    /// qemu-nbd, under fio's nbd engine.
    QemuNbd,
    /// fio's io_uring engine on the file itself.
    Local,
    /// The bytes alone, over a socket or through shared memory.
    Minimal(&'static Transport),
    /// raio-server and `raio bench`.
    Raio(&'static Transport),
    /// raio-server and fio with our engine.
    Engine(&'static Transport),
}

impl Contender {
    /// Its name in results.
    pub(crate) fn name(self) -> String {
        match self {
            Contender::Nbdkit => "nbdkit + fio nbd".to_owned(),
            Contender::QemuNbd => "qemu-nbd + fio nbd".to_owned(),
            Contender::Local => "local fio io_uring".to_owned(),
            Contender::Minimal(transport) => format!("minimal ({})", transport.name),
            Contender::Raio(transport) => format!("raio {}", transport.name),
            Contender::Engine(transport) => format!("fio libraio {}", transport.name),
        }
    }

    /// Whether it is fio with our engine.
    pub(crate) fn is_engine(self) -> bool {
        matches!(self, Contender::Engine(_))
    }

    /// Whether it has what the work needs.
    pub(crate) fn can_do(self, work: &Work) -> bool {
        match self {
            Contender::Nbdkit => !work.direct,
            Contender::QemuNbd | Contender::Local => work.store == Store::File,
            Contender::Minimal(_) => {
                work.jobs == 1 && !work.direct && work.direction != super::work::Direction::Mix
            }
            Contender::Raio(_) => true,
            Contender::Engine(_) => true,
        }
    }

    /// The commands, for the record.
    pub(crate) fn commands(self, work: &Work, place: &Place) -> Vec<String> {
        let plan = self.plan(work, place, 10_809);
        let uri = match self {
            // The port that the server says, in place of the one that it chooses.
            Contender::Raio(transport) | Contender::Engine(transport) => {
                transport.listen(place).replace(":0", ":10809")
            }
            _ => String::new(),
        };
        let client = (plan.client)(&uri);
        plan.server.iter().chain([&client]).map(show).collect()
    }

    /// Measures once.
    ///
    /// # Errors
    /// A program is not there, failed, or said something else than expected.
    pub(crate) fn measure(self, work: &Work, place: &Place) -> Result<Measured> {
        let port = free_port()?;
        let Plan { server, tells, client, parse } = self.plan(work, place, port);
        let server = match server {
            Some(mut command) if tells => Some(Server::start_that_tells(&mut command)?),
            Some(mut command) => Some(Server::start_at(&mut command, port)?),
            None => None,
        };
        let uri = server.as_ref().map_or("", |server| server.uri.as_str());
        if let (Contender::Raio(transport) | Contender::Engine(transport), Store::Memory(mib)) =
            (self, work.store)
        {
            fill(place, &transport.with_path(uri, path(work)), mib)?;
        }
        let before = server.as_ref().map_or((0.0, 0.0), Server::usage);
        let switches_before = child::switches_so_far();
        let text = place.client(&mut client(uri))?;
        // The server has not been waited for yet.
        let switches = child::switches_so_far() - switches_before;
        let after = server.as_ref().map_or((0.0, 0.0), Server::usage);
        if let Some(server) = server {
            server.end();
        }
        let mut measured = parse(&text)?;
        let operations = (measured.rate * place.seconds).max(1.0);
        measured.server_cpu_ns = (after.0 - before.0) / operations;
        measured.server_switches = (after.1 - before.1) / operations;
        // fio tells them itself, without those of its start.
        if measured.client_switches == 0.0 {
            measured.client_switches = switches as f64 / operations;
        }
        Ok(measured)
    }

    fn plan<'a>(self, work: &'a Work, place: &'a Place, port: u16) -> Plan<'a> {
        match self {
            Contender::Nbdkit => Plan {
                server: Some(nbdkit(work, place, port)),
                tells: false,
                client: Box::new(move |_| nbd_fio(work, place, port)),
                parse: Measured::from_fio,
            },
            Contender::QemuNbd => Plan {
                server: Some(qemu_nbd(work, place, port)),
                tells: false,
                client: Box::new(move |_| nbd_fio(work, place, port)),
                parse: Measured::from_fio,
            },
            Contender::Local => Plan {
                server: None,
                tells: false,
                client: Box::new(move |_| local_fio(work, place)),
                parse: Measured::from_fio,
            },
            Contender::Minimal(transport) => Plan {
                server: None,
                tells: false,
                client: Box::new(move |_| minimal(work, place, transport)),
                parse: Measured::from_program,
            },
            Contender::Raio(transport) => Plan {
                server: Some(raio_server(work, place, transport)),
                tells: true,
                client: Box::new(move |uri| raio_bench(work, place, &transport.with_path(uri, path(work)))),
                parse: Measured::from_raio,
            },
            Contender::Engine(transport) => Plan {
                server: Some(raio_server(work, place, transport)),
                tells: true,
                client: Box::new(move |uri| engine_fio(work, place, transport, uri)),
                parse: Measured::from_fio,
            },
        }
    }
}

/// Writes to all of a memory export, and waits for the thread that puts huge pages there, which shares the server's core and
/// takes 6 ms for 2 MiB where the machine's memory is in small pieces. What was never written is no memory: reads would find
/// the same few zeros in the processor's caches.
fn fill(place: &Place, uri: &str, mib: u32) -> Result<()> {
    const SECONDS: f64 = 0.6;
    const SETTLES_PER_MIB: Duration = Duration::from_millis(6);
    let mut command = place.ours("raio", CLIENT_CORE);
    command.args(["bench", uri, "--json", "--rw", "write", "--bs", "1M", "--depth", "1"]);
    let written = Measured::from_raio(&place.client(command.args(["--time", &SECONDS.to_string()]))?)?;
    if written.rate * SECONDS < f64::from(mib) {
        return Err(format!("{SECONDS} s were not enough to write {mib} MiB of memory"));
    }
    std::thread::sleep(SETTLES_PER_MIB * mib);
    Ok(())
}

/// How a contender measures.
struct Plan<'a> {
    server: Option<Command>,
    /// Whether the server says where it listens.
    tells: bool,
    /// Given the server's uri.
    client: Box<dyn Fn(&str) -> Command + 'a>,
    parse: fn(&str) -> Result<Measured>,
}

/// A command line, with the environment that it is given.
fn show(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let variables = variables.map(|(name, value)| format!("{}={}", name.display(), value.display()));
    variables.chain([child::line(command)]).collect::<Vec<_>>().join(" ")
}

/// The path of the store on a raio-server.
fn path(work: &Work) -> &'static str {
    match work.store {
        Store::Null => "/null",
        Store::Memory(_) => "/memory",
        Store::File => "/data",
    }
}

fn raio_server(work: &Work, place: &Place, transport: &Transport) -> Command {
    let mut command = place.ours("raio-server", SERVER_CORE);
    let export = match work.store {
        Store::Null => format!("null=null:{NULL_SIZE}"),
        Store::Memory(mib) => format!("memory=memory:{mib}M"),
        Store::File => format!("data={}", place.file().display()),
    };
    command.args(["--export", &export, "--listen", &transport.listen(place), "--threads", "1"]);
    match work.polling {
        Polling::Always => command.args(["--polling-us", ALWAYS_US]),
        Polling::Never => command.args(["--polling-us", "0"]),
        Polling::Default => &mut command,
    };
    command
}

fn raio_bench(work: &Work, place: &Place, uri: &str) -> Command {
    let mut command = place.ours("raio", CLIENT_CORE);
    command.args(["bench", uri, "--json", "--rw", work.rw(), "--bs", &work.block_bytes.to_string()]);
    command.args(["--depth", &work.depth.to_string(), "--jobs", &work.jobs.to_string()]);
    command.args(["--time", &place.seconds.to_string()]);
    if work.direct {
        command.arg("--direct");
    }
    match work.polling {
        Polling::Always => command.args(["--polling-us", ALWAYS_US]),
        Polling::Never => command.args(["--polling-us", "0"]),
        Polling::Default => &mut command,
    };
    command
}

fn minimal(work: &Work, place: &Place, transport: &Transport) -> Command {
    let mut command = place.minimal();
    command.args(["--over", transport.name]);
    if work.polling == Polling::Never {
        command.arg("--sleep");
    }
    command.args(["--rw", if work.rw() == "randwrite" { "write" } else { "read" }]);
    command.args(["--bs", &work.block_bytes.to_string(), "--depth", &work.depth.to_string()]);
    match work.store {
        Store::Null => &mut command,
        Store::Memory(mib) => command.args(["--memory", &format!("{mib}M")]),
        Store::File => command.arg("--file").arg(place.file()),
    };
    command
}

fn nbdkit(work: &Work, place: &Place, port: u16) -> Command {
    let mut command = pinned(Path::new("nbdkit"), SERVER_CORE);
    command.args([
        "--foreground",
        "--exit-with-parent",
        "--ipaddr",
        "127.0.0.1",
        "--port",
        &port.to_string(),
    ]);
    match work.store {
        Store::Null => command.args(["null", &format!("size={NULL_SIZE}")]),
        Store::Memory(mib) => command.args(["memory", &format!("size={mib}M")]),
        Store::File => command.arg("file").arg(place.file()),
    };
    command
}

fn qemu_nbd(work: &Work, place: &Place, port: u16) -> Command {
    let mut command = pinned(Path::new("qemu-nbd"), SERVER_CORE);
    command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--format", "raw", "--persistent"]);
    command.args(["--shared", "0", "--cache", if work.direct { "none" } else { "writeback" }]);
    command.args(["--aio", "io_uring"]).arg(place.file());
    command
}

/// fio with what is common to all its runs.
fn fio(work: &Work, place: &Place, engine: &str) -> Command {
    let mut command = pinned(Path::new("fio"), CLIENT_CORE);
    command.args(["--name=bench", "--output-format=json", "--eta=never", "--group_reporting"]);
    command.arg(format!("--ioengine={engine}")).arg(format!("--rw={}", work.rw()));
    command.arg(format!("--bs={}", work.block_bytes)).arg(format!("--iodepth={}", work.depth));
    command.arg(format!("--numjobs={}", work.jobs)).arg(format!("--direct={}", u8::from(work.direct)));
    command.args(["--time_based", &format!("--runtime={}ms", (place.seconds * 1e3).round())]);
    // Without a map of blocks that were done: random places, as the others do it.
    let size = match work.store {
        Store::Memory(mib) => format!("--size={mib}M"),
        Store::Null | Store::File => format!("--size={NULL_SIZE}"),
    };
    command.args(["--norandommap", "--randrepeat=1", &size]);
    command
}

fn nbd_fio(work: &Work, place: &Place, port: u16) -> Command {
    let mut command = fio(work, place, "nbd");
    command.arg(format!("--uri=nbd://127.0.0.1:{port}/"));
    command
}

fn local_fio(work: &Work, place: &Place) -> Command {
    let mut command = fio(work, place, "io_uring");
    // fio empties the page cache of its file unless told not to.
    command.arg(format!("--filename={}", place.file().display())).arg("--invalidate=0");
    command
}

fn engine_fio(work: &Work, place: &Place, transport: &Transport, uri: &str) -> Command {
    let mut command = fio(work, place, "libraio");
    command.arg(format!("--transport={}", transport.name)).args(transport.fio_options(uri, path(work)));
    if let Some(folder) = &place.engine {
        command.env("LD_LIBRARY_PATH", folder);
    }
    let microseconds = match work.polling {
        Polling::Always => Some(ALWAYS_US),
        Polling::Never => Some("0"),
        Polling::Default => None,
    };
    if let Some(microseconds) = microseconds {
        command.arg(format!("--polling_us={microseconds}"));
    }
    command
}

/// What a run of these contenders needs besides our own programs.
pub(crate) const PACKAGES: &[&str] =
    &["nbdkit", "fio", "qemu-utils", "ucx-utils", "iperf3", "sockperf", "util-linux"];

/// Programs whose version is told, with the argument that makes them tell it.
pub(crate) const PROGRAMS: &[(&str, &str)] = &[
    ("nbdkit", "--version"),
    ("fio", "--version"),
    ("qemu-nbd", "--version"),
    ("ucx_info", "-v"),
    ("iperf3", "--version"),
    ("sockperf", "--version"),
];

/// Where a path is shown to people: relative to the workspace.
pub(crate) fn relative(path: &Path) -> PathBuf {
    path.strip_prefix(crate::root()).map_or_else(|_| path.to_owned(), Path::to_owned)
}
