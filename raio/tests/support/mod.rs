//! What the integration tests share: servers in this process or in one of its own that can be killed, and a watchdog.
#![allow(dead_code, clippy::unwrap_used, reason = "each test program uses a part of it")]

use raio_server::{Config, ExportConfig, Running};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;

/// A server in this process, with the exports `data` (a directory), `ro` (the same, read-only), `memory` and `null`.
pub struct Server {
    running: Option<Running>,
    pub directory: TempDir,
    address: String,
    sockets: TempDir,
}

/// The name of a server's socket in its folder of sockets.
const SOCKET: &str = "raio.sock";

/// A server of a directory, at a port and at a socket in a folder of its own.
pub fn config(directory: &Path, sockets: &Path) -> Config {
    let socket = sockets.join(SOCKET);
    let path = directory.display();
    let exports = [
        format!("data={path}"),
        format!("ro={path}:ro"),
        "memory=memory:8M".to_owned(),
        "null=null:1G".to_owned(),
    ];
    Config {
        listen: ["tcp://127.0.0.1:0", &format!("shm://{}", socket.display())]
            .map(|text| raio_server::parse_listen(text).unwrap())
            .to_vec(),
        exports: exports.iter().map(|text| ExportConfig::parse(text).unwrap()).collect(),
        threads: 1,
        ..Config::default()
    }
}

impl Server {
    pub fn start() -> Server {
        let directory = tempfile::tempdir().unwrap();
        let sockets = tempfile::tempdir().unwrap();
        let running = raio_server::start(config(directory.path(), sockets.path())).unwrap();
        let uri = &running.uris()[0];
        let address = format!("{}:{}", uri.host(), uri.port());
        Server { running: Some(running), directory, address, sockets }
    }

    /// The socket for shared memory.
    pub fn socket(&self) -> PathBuf {
        self.sockets.path().join(SOCKET)
    }

    /// `tcp://127.0.0.1:PORT` and the path.
    pub fn uri(&self, path: &str) -> String {
        format!("tcp://{}{path}", self.address)
    }

    /// A file of the `data` export, on disk.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a file of the `data` export with bytes that differ everywhere.
    pub fn file(&self, name: &str, length: usize) -> Vec<u8> {
        let bytes = noise(length);
        std::fs::write(self.path(name), &bytes).unwrap();
        bytes
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
        }
    }
}

/// Bytes that differ everywhere.
pub fn noise(length: usize) -> Vec<u8> {
    let mut word = 0x1234_5678_9abc_def1_u64;
    let next = |_| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        (word >> 32) as u8
    };
    (0..length).map(next).collect()
}

/// Set for the process that is to be a server: the directory that it exports.
const SERVE: &str = "RAIO_TEST_SERVE";
/// And the folder of its socket.
const SERVE_SOCKETS: &str = "RAIO_TEST_SERVE_SOCKETS";

/// A server in a process of its own. A test program that uses it has a test that is called `serve` and calls
/// [`serve_if_asked`].
pub struct ServerProcess {
    child: Child,
    pub directory: TempDir,
    address: String,
    sockets: TempDir,
}

impl ServerProcess {
    pub fn start() -> ServerProcess {
        let (directory, sockets) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["serve", "--exact", "--nocapture", "--test-threads=1"])
            .env(SERVE, directory.path())
            .env(SERVE_SOCKETS, sockets.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.map(Result::unwrap).find(|line| line.contains("listening tcp://")).expect("a line");
        let address = line.split("tcp://").nth(1).unwrap().trim_end_matches('/').to_owned();
        ServerProcess { child, directory, address, sockets }
    }

    /// The socket for shared memory.
    pub fn socket(&self) -> PathBuf {
        self.sockets.path().join(SOCKET)
    }

    pub fn uri(&self, path: &str) -> String {
        format!("tcp://{}{path}", self.address)
    }

    /// Sends a signal; a stop has taken hold of every thread when this returns.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, signal).unwrap();
        if signal == rustix::process::Signal::STOP {
            rustix::process::waitpid(Some(process), rustix::process::WaitOptions::UNTRACED).unwrap();
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the process that is to be a server: serves until standard input ends, that is, as long as the test lives.
pub fn serve_if_asked() {
    let Some(directory) = std::env::var_os(SERVE) else { return };
    let sockets = std::env::var_os(SERVE_SOCKETS).unwrap();
    let running = raio_server::start(config(Path::new(&directory), Path::new(&sockets))).unwrap();
    println!("listening {}", running.uris()[0]);
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    running.stop();
}

/// Ends the whole process, with a word, if the test takes longer.
pub struct Watchdog(#[allow(dead_code, reason = "held for its drop")] mpsc::Sender<()>);

pub fn watchdog(limit: Duration) -> Watchdog {
    let (sender, receiver) = mpsc::channel();
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    std::thread::spawn(move || {
        if receiver.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs: it did not end within {limit:?}");
            std::process::abort();
        }
    });
    Watchdog(sender)
}

/// The usual limit: the longest test takes a few seconds.
pub fn minute() -> Watchdog {
    watchdog(Duration::from_secs(60))
}
