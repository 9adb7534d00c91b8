//! Where measuring happens: folders, the file that is read, cores, and programs that run on one of them.

use crate::child::{self, Running};
use crate::{Result, fio};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The server's core, and the client's.
pub(crate) const SERVER_CORE: usize = 0;
pub(crate) const CLIENT_CORE: usize = 1;
/// Length of the file: larger than the processor's caches, small enough to stay in the page cache.
pub(crate) const FILE_BYTES: u64 = 256 << 20;
/// Time for a server to take connections, under callgrind on a busy machine too.
const START_TIME: Duration = Duration::from_secs(60);
/// What a run may take beyond the time that it was asked to measure.
const SLACK_TIME: Duration = Duration::from_secs(15);

/// Folders and programs.
#[derive(Debug)]
pub(crate) struct Place {
    /// target/bench: results, and the file.
    pub(crate) folder: PathBuf,
    /// target/release.
    pub(crate) release: PathBuf,
    /// Where fio finds our engine; `None` where it is not built.
    pub(crate) engine: Option<PathBuf>,
    /// Seconds of one run.
    pub(crate) seconds: f64,
}

impl Place {
    /// Makes the folder and the file. The folder is on a disk's file system even where /tmp is memory.
    pub(crate) fn prepare(seconds: f64) -> Result<Place> {
        let folder = work_folder("bench")?;
        let place = Place { folder, release: fio::target().join("release"), engine: None, seconds };
        place.make_file().map_err(|cause| format!("can't write {}: {cause}", place.file().display()))?;
        Ok(place)
    }

    /// The file that is read and written.
    pub(crate) fn file(&self) -> PathBuf {
        self.folder.join("data.img")
    }

    /// Writes the file if it is not there, and reads it, so that it is in the page cache.
    fn make_file(&self) -> std::io::Result<()> {
        let path = self.file();
        if std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() == FILE_BYTES) {
            std::io::copy(&mut std::fs::File::open(&path)?, &mut std::io::sink())?;
            return Ok(());
        }
        let mut file = std::fs::File::create(&path)?;
        let mut block = vec![0_u8; 1 << 20];
        let mut word = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..FILE_BYTES >> 20 {
            for bytes in block.chunks_exact_mut(8) {
                word ^= word << 13;
                word ^= word >> 7;
                word ^= word << 17;
                bytes.copy_from_slice(&word.to_le_bytes());
            }
            file.write_all(&block)?;
        }
        file.sync_all()
    }

    /// One of our programs, on a core.
    pub(crate) fn ours(&self, name: &str, core: usize) -> Command {
        pinned(&self.release.join(name), core)
    }

    /// Runs a client to its end and returns what it wrote to stdout.
    pub(crate) fn client(&self, command: &mut Command) -> Result<String> {
        child::output(command, Duration::from_secs_f64(self.seconds) + SLACK_TIME)
    }
}

/// A folder in target, made if it is not there.
pub(crate) fn work_folder(name: &str) -> Result<PathBuf> {
    let folder = fio::target().join(name);
    std::fs::create_dir_all(&folder).map_err(|cause| format!("can't make {}: {cause}", folder.display()))?;
    Ok(folder)
}

/// A program on a core.
pub(crate) fn pinned(program: &Path, core: usize) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &core.to_string()]).arg(program);
    command
}

/// A server that runs for one measurement.
#[derive(Debug)]
pub(crate) struct Server {
    running: Running,
    process: u32,
    /// What it says that it listens at, if it does.
    pub(crate) uri: String,
}

impl Server {
    /// Starts a server that says where it listens, in a line `listening URI`.
    pub(crate) fn start_that_tells(command: &mut Command) -> Result<Server> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut running = Running::start(command)?;
        let process = running.child().id();
        let out = running.child().stdout.take().ok_or("the server has no stdout")?;
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(std::io::Result::ok) {
                if let Some(uri) = line.strip_prefix("listening ") {
                    // The receiver may have given up: then nobody is interested.
                    let _ = sender.send(uri.to_owned());
                }
            }
        });
        match receiver.recv_timeout(START_TIME) {
            Ok(uri) => Ok(Server { running, process, uri }),
            Err(_) => Err(format!("`{}` did not say where it listens", child::line(command))),
        }
    }

    /// Starts a server at a port, and waits until it takes connections.
    pub(crate) fn start_at(command: &mut Command, port: u16) -> Result<Server> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = Running::start(command)?;
        let process = running.child().id();
        let deadline = Instant::now() + START_TIME;
        // Connecting would be a client to some of them.
        while !is_listening(port) {
            if Instant::now() > deadline || !matches!(running.child().try_wait(), Ok(None)) {
                return Err(format!("`{}` takes no connections", child::line(command)));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Server { running, process, uri: format!("tcp://127.0.0.1:{port}") })
    }

    /// Anonymous memory in bytes.
    pub(crate) fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process)).unwrap_or_default();
        field(&status, "RssAnon:") * 1024.0
    }

    /// Processor time in nanoseconds, and voluntary context switches, of all its threads so far.
    pub(crate) fn usage(&self) -> (f64, f64) {
        let mut usage = (0.0, 0.0);
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.process)) else { return usage };
        for task in tasks.flatten() {
            let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            usage.0 += first_number(&read("schedstat"));
            usage.1 += field(&read("status"), "voluntary_ctxt_switches:");
        }
        usage
    }

    /// Ends it.
    pub(crate) fn end(mut self) {
        self.running.end();
    }
}

fn first_number(text: &str) -> f64 {
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

fn field(text: &str, name: &str) -> f64 {
    text.lines().find_map(|line| line.strip_prefix(name)).map_or(0.0, first_number)
}

/// Whether somebody listens at a port of TCP: proc(5), "/proc/net/tcp".
fn is_listening(port: u16) -> bool {
    const LISTEN: &str = "0A";
    let (suffix, read) = (format!(":{port:04X}"), |name| std::fs::read_to_string(name).unwrap_or_default());
    let listens = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|local| local.ends_with(&suffix)) && words.nth(1) == Some(LISTEN)
    };
    [read("/proc/net/tcp"), read("/proc/net/tcp6")].iter().any(|table| table.lines().any(listens))
}

/// A port that is free now.
pub(crate) fn free_port() -> Result<u16> {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    address.map(|address| address.port()).map_err(|cause| format!("no free port: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_usage_is_read() {
        let status = "Name:\tx\nRssAnon:\t     120 kB\nvoluntary_ctxt_switches:\t17\n";
        assert_eq!(field(status, "RssAnon:"), 120.0);
        assert_eq!(field(status, "voluntary_ctxt_switches:"), 17.0);
        assert_eq!(first_number("12345 6 7\n"), 12_345.0);
    }

    #[test]
    fn listeners_are_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_listening(port));
        drop(listener);
        assert!(!is_listening(port));
    }

    #[test]
    fn a_server_that_ends_at_once_is_told() {
        let failed = Server::start_at(&mut Command::new("true"), free_port().unwrap());
        assert!(failed.is_err_and(|text| text.contains("takes no connections")));
    }
}
