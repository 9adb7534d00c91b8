//! What is counted, and how one case is run.

use super::callgrind::{self, Profile};
use crate::bench::{Server, work_folder};
use crate::{Result, child};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Batches of the short and the long run; what both have in common, starting above all, cancels out.
const BATCHES_SHORT: u64 = 40;
const BATCHES_LONG: u64 = 160;
/// A run under callgrind takes some seconds.
const RUN_TIME: Duration = Duration::from_secs(120);
/// Time after which all answers of a batch are there.
const PAUSE_US: &str = "3000";

/// Which program is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

/// One kind of batches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Case {
    pub(crate) side: Side,
    pub(crate) write: bool,
    pub(crate) block_bytes: u64,
    /// Requests of a batch: few enough that a batch fits into fresh socket buffers, or the number of sends would vary.
    pub(crate) depth: u64,
    /// The file on disk instead of the null device.
    pub(crate) file: bool,
}

const fn case(side: Side, write: bool, block_bytes: u64, depth: u64, file: bool) -> Case {
    Case { side, write, block_bytes, depth, file }
}

/// All cases.
pub(crate) const CASES: &[Case] = &[
    case(Side::Client, false, 4096, 1, false),
    case(Side::Client, false, 4096, 8, false),
    case(Side::Client, true, 4096, 8, false),
    case(Side::Client, false, 32_768, 1, false),
    case(Side::Client, true, 32_768, 1, false),
    case(Side::Server, false, 4096, 1, false),
    case(Side::Server, false, 4096, 8, false),
    case(Side::Server, true, 4096, 8, false),
    case(Side::Server, false, 32_768, 1, false),
    case(Side::Server, true, 32_768, 1, false),
    case(Side::Server, false, 4096, 8, true),
    case(Side::Server, true, 4096, 8, true),
];

/// Counts per operation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Counts {
    pub(crate) instructions: f64,
    pub(crate) system_calls: f64,
    pub(crate) allocations: f64,
    /// Instructions within memcpy and its like.
    pub(crate) copying: f64,
}

/// Folders and programs.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) release: PathBuf,
    pub(crate) folder: PathBuf,
}

impl Case {
    /// `server, write 4096 x8, file`
    pub(crate) fn name(&self) -> String {
        let side = if self.side == Side::Client { "client" } else { "server" };
        let direction = if self.write { "write" } else { "read" };
        let store = if self.file { "file" } else { "null" };
        format!("tcp {side}, {direction} {} x{}, {store}", self.block_bytes, self.depth)
    }

    /// Runs it four times: short and long, under callgrind and under strace.
    pub(crate) fn count(&self, place: &Place) -> Result<Counts> {
        let failed = |cause| format!("{}: {cause}", self.name());
        let short = self.profile(BATCHES_SHORT, place).map_err(failed)?;
        let long = self.profile(BATCHES_LONG, place).map_err(failed)?;
        let calls_short = self.system_calls(BATCHES_SHORT, place).map_err(failed)?;
        let calls_long = self.system_calls(BATCHES_LONG, place).map_err(failed)?;
        let operations = ((BATCHES_LONG - BATCHES_SHORT) * self.depth) as f64;
        let each = |short: u64, long: u64| long.saturating_sub(short) as f64 / operations;
        Ok(Counts {
            instructions: each(short.instructions, long.instructions),
            system_calls: each(calls_short, calls_long),
            allocations: each(short.allocations, long.allocations),
            copying: each(short.copying, long.copying),
        })
    }

    fn profile(&self, batches: u64, place: &Place) -> Result<Profile> {
        let path = place.folder.join("callgrind.out");
        let mut tool = Command::new("valgrind");
        tool.args(["--tool=callgrind", "--quiet"]);
        tool.arg(format!("--callgrind-out-file={}", path.display()));
        let text = self.run_under(tool, &path, batches, place)?;
        callgrind::parse(&text).ok_or_else(|| "callgrind wrote no profile".to_owned())
    }

    fn system_calls(&self, batches: u64, place: &Place) -> Result<u64> {
        let path = place.folder.join("strace.out");
        let mut tool = Command::new("strace");
        tool.args(["-f", "-c", "-o"]).arg(&path);
        let text = self.run_under(tool, &path, batches, place)?;
        total_calls(&text).ok_or_else(|| "strace wrote no table".to_owned())
    }

    /// Runs server and client, the one that is counted under a tool, and returns what the tool wrote.
    fn run_under(&self, tool: Command, output: &Path, batches: u64, place: &Place) -> Result<String> {
        // What an earlier run left must not be taken for this one's.
        if let Err(cause) = std::fs::remove_file(output)
            && cause.kind() != std::io::ErrorKind::NotFound
        {
            return Err(format!("can't remove {}: {cause}", output.display()));
        }
        let ours = |name: &str| Command::new(place.release.join(name));
        let (mut server, mut client) = (ours("raio-server"), ours("lockstep"));
        match self.side {
            Side::Client => client = under(tool, &client),
            Side::Server => server = under(tool, &server),
        }
        self.server_arguments(&mut server, place);
        let server = Server::start_that_tells(&mut server)?;
        let path = if self.file { "/data" } else { "/null" };
        client.arg(format!("{}{path}", server.uri.trim_end_matches('/')));
        client.args(["--bs", &self.block_bytes.to_string(), "--depth", &self.depth.to_string()]);
        client.args(["--batches", &batches.to_string()]);
        if self.write {
            client.arg("--write");
        }
        if self.side == Side::Client {
            client.args(["--pause-us", PAUSE_US]);
        }
        child::output(&mut client, RUN_TIME)?;
        server.end();
        std::fs::read_to_string(output).map_err(|cause| format!("can't read {}: {cause}", output.display()))
    }

    fn server_arguments(&self, server: &mut Command, place: &Place) {
        let data = place.folder.join("data.img");
        server.args(["--export", "null=null:64M", "--export", &format!("data={}", data.display())]);
        server.args(["--listen", "tcp://127.0.0.1:0", "--threads", "1", "--polling-us", "0"]);
    }
}

/// A program, to be run by another one.
fn under(mut tool: Command, program: &Command) -> Command {
    tool.arg(program.get_program());
    tool
}

/// The number of calls in the line `total` of `strace -c`: the column before `total`, or before the errors.
fn total_calls(text: &str) -> Option<u64> {
    let line = text.lines().rev().find(|line| line.trim_end().ends_with(" total"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

/// Makes the folder and the file.
pub(crate) fn prepare() -> Result<Place> {
    let folder = work_folder("counts")?;
    let data = folder.join("data.img");
    std::fs::write(&data, vec![7_u8; 8 << 20])
        .map_err(|cause| format!("can't write {}: {cause}", data.display()))?;
    Ok(Place { release: crate::fio::target().join("release"), folder })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_strace_is_read() {
        let text = "% time     seconds  usecs/call     calls    errors syscall\n\
                    ------ ----------- ----------- --------- --------- ----------------\n \
                    50.00    0.000100          10        10           read\n\
                    ------ ----------- ----------- --------- --------- ----------------\n\
                    100.00    0.000200          10        20         1 total\n";
        assert_eq!(total_calls(text), Some(20));
        let text = text.replace("        20         1 total", "        20           total");
        assert_eq!(total_calls(&text), Some(20));
        assert_eq!(total_calls(""), None);
    }
}
