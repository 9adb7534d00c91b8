//! What is counted, and how one case is run: server and client under callgrind, in lockstep.

use super::callgrind::{self, Profile};
use crate::bench::work_folder;
use crate::server::Server;
use crate::{Result, child, target};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A run under callgrind takes some seconds.
const RUN_TIME: Duration = Duration::from_secs(120);

/// How many times longer the pause between two batches is in the first run of a case, the second, and so on.
const PAUSE_FACTORS: [u64; 3] = [1, 3, 8];

/// One kind of batches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    transport: &'static str,
    store: &'static str,
    write: bool,
    block_bytes: u64,
    /// Requests of a batch.
    depth: u64,
}

const fn case(
    transport: &'static str,
    store: &'static str,
    write: bool,
    block_bytes: u64,
    depth: u64,
) -> Case {
    Case { transport, store, write, block_bytes, depth }
}

const READ: bool = false;
const WRITE: bool = true;

/// All cases.
pub(crate) const CASES: &[Case] = &[
    case("tcp", "null", READ, 4096, 1),
    case("tcp", "null", READ, 4096, 32),
    case("tcp", "null", WRITE, 4096, 1),
    case("tcp", "null", WRITE, 4096, 32),
    case("tcp", "memory", READ, 4096, 32),
    case("tcp", "memory", WRITE, 4096, 32),
    case("tcp", "file", READ, 4096, 32),
    case("tcp", "file", WRITE, 4096, 32),
    case("tcp", "file", READ, 65_536, 1),
    case("tcp", "null", WRITE, 65_536, 1),
    case("shm", "null", READ, 4096, 32),
    case("shm", "memory", READ, 4096, 1),
    case("shm", "memory", READ, 4096, 32),
    case("shm", "memory", WRITE, 4096, 1),
    case("shm", "memory", WRITE, 4096, 32),
    case("shm", "file", READ, 4096, 32),
    case("shm", "file", WRITE, 4096, 32),
    case("shm", "file", READ, 65_536, 1),
];

/// Of both programs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sides<T> {
    pub(crate) client: T,
    pub(crate) server: T,
}

/// Counts per operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Counts {
    pub(crate) instructions: f64,
    pub(crate) system_calls: f64,
    pub(crate) clock_reads: f64,
    pub(crate) allocations: f64,
    /// Calls of memcpy and its like.
    pub(crate) copies: f64,
    /// Instructions within memcpy and its like.
    pub(crate) copying: f64,
}

/// Two runs, a short and a long one: what both have in common, starting above all, cancels out.
#[derive(Debug)]
pub(crate) struct Difference {
    short: Profile,
    long: Profile,
    operations: f64,
}

/// Folders and programs.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) release: PathBuf,
    pub(crate) folder: PathBuf,
}

impl Case {
    /// `tcp, write 4 KiB x32, file`
    pub(crate) fn name(&self) -> String {
        let direction = if self.write { "write" } else { "read" };
        let kib = self.block_bytes >> 10;
        format!("{}, {direction} {kib} KiB x{}, {}", self.transport, self.depth, self.store)
    }

    /// Whether a batch is one request.
    pub(crate) fn is_single(&self) -> bool {
        self.depth == 1
    }

    /// Batches of the short and the long run.
    fn batches(&self) -> (u64, u64) {
        if self.is_single() { (40, 440) } else { (40, 160) }
    }

    /// Microseconds after which all answers of a batch are there, under callgrind, on a busy machine. An answer that comes
    /// later costs a few instructions and calls more, and the next batch is not touched by it. So a case that is run `again`
    /// is given more time.
    fn pause_us(&self, again: usize) -> u64 {
        let first = if self.is_single() { 2000 } else { 5000 };
        first * PAUSE_FACTORS[again.min(PAUSE_FACTORS.len() - 1)]
    }

    /// Runs it twice, for the first time (`again` is 0) or once more.
    ///
    /// # Errors
    /// A program failed, with the case's name.
    pub(crate) fn run(&self, place: &Place, again: usize) -> Result<Sides<Difference>> {
        let failed = |cause| format!("{}: {cause}", self.name());
        let (batches_short, batches_long) = self.batches();
        let short = self.profile(batches_short, place, again).map_err(failed)?;
        let long = self.profile(batches_long, place, again).map_err(failed)?;
        let operations = ((batches_long - batches_short) * self.depth) as f64;
        Ok(Sides {
            client: Difference { short: short.client, long: long.client, operations },
            server: Difference { short: short.server, long: long.server, operations },
        })
    }

    fn profile(&self, batches: u64, place: &Place, again: usize) -> Result<Sides<Profile>> {
        let outputs =
            Sides { client: place.folder.join("client.out"), server: place.folder.join("server.out") };
        for path in [&outputs.client, &outputs.server] {
            // What an earlier run left must not be taken for this one's.
            if let Err(cause) = std::fs::remove_file(path)
                && cause.kind() != std::io::ErrorKind::NotFound
            {
                return Err(format!("can't remove {}: {cause}", path.display()));
            }
        }
        let server = Server::start_that_tells(&mut self.server(place, &outputs.server))?;
        let mut client = self.client(batches, &server.uri, place, &outputs.client);
        client.args(["--pause-us", &self.pause_us(again).to_string()]);
        let client = child::output(&mut client, RUN_TIME);
        // Its end writes the profile.
        server.end();
        client?;
        Ok(Sides { client: read(&outputs.client)?, server: read(&outputs.server)? })
    }

    fn server(&self, place: &Place, output: &Path) -> Command {
        let mut server = place.under_callgrind("raio-server", output);
        let export = match self.store {
            "file" => format!("it={}", place.data().display()),
            store => format!("it={store}:64M"),
        };
        let listen = match self.transport {
            "shm" => format!("shm:///?socket={}", place.socket().display()),
            transport => format!("{transport}://127.0.0.1:0"),
        };
        server.args(["--export", &export, "--listen", &listen, "--threads", "1", "--polling-us", "0"]);
        server
    }

    fn client(&self, batches: u64, uri: &str, place: &Place, output: &Path) -> Command {
        let uri = match self.transport {
            "shm" => format!("shm:///it?socket={}", place.socket().display()),
            _ => format!("{}/it", uri.trim_end_matches('/')),
        };
        let mut client = place.under_callgrind("lockstep", output);
        client.arg(uri).args(["--bs", &self.block_bytes.to_string(), "--depth", &self.depth.to_string()]);
        client.args(["--batches", &batches.to_string()]);
        if self.write {
            client.arg("--write");
        }
        client
    }
}

impl Difference {
    /// Counts per operation.
    pub(crate) fn counts(&self) -> Counts {
        let each = |get: fn(&Profile) -> u64| {
            get(&self.long).saturating_sub(get(&self.short)) as f64 / self.operations
        };
        Counts {
            instructions: each(|profile| profile.instructions),
            system_calls: each(|profile| profile.system_calls),
            clock_reads: each(|profile| profile.clock_reads),
            allocations: each(|profile| profile.allocations),
            copies: each(|profile| profile.copies),
            copying: each(|profile| profile.copying),
        }
    }

    /// Instructions per operation of each function, the most expensive first.
    pub(crate) fn functions(&self) -> Vec<(String, f64)> {
        self.each(|profile| profile.by_function.iter().map(|(name, cost)| (name.clone(), *cost)))
    }

    /// Calls of memcpy and its like per operation by each function, the most first.
    pub(crate) fn copies(&self) -> Vec<(String, f64)> {
        self.each(|profile| profile.copies_by_caller.iter().map(|(name, count)| (name.clone(), *count)))
    }

    /// Instructions per operation of each file, its name as `name` puts it, the most expensive first.
    pub(crate) fn files(&self, name: fn(&str) -> String) -> Vec<(String, f64)> {
        self.each(|profile| profile.by_file.iter().map(move |(path, cost)| (name(path), *cost)))
    }

    fn each<'a, I>(&'a self, costs: impl Fn(&'a Profile) -> I) -> Vec<(String, f64)>
    where
        I: Iterator<Item = (String, u64)>,
    {
        let mut sums = std::collections::HashMap::<String, f64>::new();
        for (name, cost) in costs(&self.long) {
            *sums.entry(name).or_default() += cost as f64 / self.operations;
        }
        for (name, cost) in costs(&self.short) {
            *sums.entry(name).or_default() -= cost as f64 / self.operations;
        }
        let mut sorted: Vec<_> = sums.into_iter().collect();
        sorted.sort_by(|(name, cost), (other_name, other)| other.total_cmp(cost).then(name.cmp(other_name)));
        sorted
    }
}

impl Place {
    /// Makes the folder and the file.
    pub(crate) fn prepare() -> Result<Place> {
        let place = Place { release: target().join("release"), folder: work_folder("counts")? };
        let data = place.data();
        std::fs::write(&data, vec![7_u8; 8 << 20])
            .map_err(|cause| format!("can't write {}: {cause}", data.display()))?;
        Ok(place)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data.img")
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("shm.sock")
    }

    fn under_callgrind(&self, program: &str, output: &Path) -> Command {
        let mut tool = Command::new("valgrind");
        tool.args(["--tool=callgrind", "--quiet", "--collect-systime=yes"]);
        tool.arg(format!("--callgrind-out-file={}", output.display())).arg(self.release.join(program));
        tool
    }
}

fn read(path: &Path) -> Result<Profile> {
    let text =
        std::fs::read_to_string(path).map_err(|cause| format!("can't read {}: {cause}", path.display()))?;
    callgrind::parse(&text).ok_or_else(|| format!("callgrind wrote no profile to {}", path.display()))
}
