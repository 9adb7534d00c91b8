//! The `raio-server` command as an operator or a script uses it, mistakes included.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use raio::{Client, OpenOptions};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::minute;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raio-server"));
    command.args(arguments).env_remove("RAIO_LOG");
    command
}

/// A running server.
struct Daemon {
    child: Child,
    out: BufReader<ChildStdout>,
    address: String,
}

impl Daemon {
    /// With a worker, and a free port unless the arguments say where to listen.
    fn start(arguments: &[&str]) -> Daemon {
        let mut command = command(arguments);
        if !arguments.iter().any(|argument| matches!(*argument, "-p" | "--listen" | "--config")) {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        Daemon::run(command)
    }

    fn run(mut command: Command) -> Daemon {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let Some(address) = line.trim().strip_prefix("listening ") else {
            let mut message = String::new();
            child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
            panic!("{line:?} {message}");
        };
        Daemon { address: address.to_owned(), child, out }
    }

    fn client(&self) -> Client {
        Client::connect(&format!("{}/", self.address)).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end: exit code, and what it had to say.
    fn end(mut self) -> (Option<i32>, String) {
        let mut message = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut message).unwrap();
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "nothing but the addresses is printed");
        (self.child.wait().unwrap().code(), message)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn fails(code: i32, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = command(arguments).output().unwrap();
    let message = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(code), "{arguments:?}: {message}");
    assert_eq!(stdout, b"", "{arguments:?}");
    message
}

#[test]
fn it_serves_until_it_is_told_to_stop() {
    let _watchdog = minute();
    for signal in [Signal::TERM, Signal::INT] {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("x"), b"content").unwrap();
        let named = format!("data={}", directory.path().display());
        let own = directory.path().join("x").display().to_string();
        let arguments = ["--export", &named, "--export", &own, "--export", "m=memory:1M", "-n", "2"];
        let daemon = Daemon::start(&arguments);
        let client = daemon.client();
        assert_eq!(client.stat("/data/x").unwrap().size, 7);
        assert_eq!(client.stat(&own).unwrap().size, 7);
        let info = client.info().unwrap();
        assert_eq!((info.workers, info.exports.len()), (2, 3));
        daemon.signal(signal);
        let (code, message) = daemon.end();
        assert_eq!(code, Some(0), "{message}");
        assert!(message.contains("export /data = directory") && message.contains("stopped"), "{message}");
        assert!(message.contains("connected") && message.contains("peer"), "{message}");
        assert_eq!(client.info().unwrap_err().errno(), libc::ECONNRESET);
    }
}

#[test]
fn the_options_of_r_aio_serve_dev_null_and_end_with_the_first_client() {
    let _watchdog = minute();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let daemon = Daemon::start(&[
        "-a",
        "127.0.0.1",
        "-p",
        &port,
        "-t",
        "tcp",
        "-c",
        "0x1",
        "-n",
        "1",
        "-f",
        "1",
        "-e",
        "0",
    ]);
    assert_eq!(daemon.address, format!("tcp://127.0.0.1:{port}"));
    let client = daemon.client();
    let mut options = OpenOptions::new();
    let file = options.read(true).open_on(&client, "/dev/null").unwrap();
    assert_eq!(file.attributes().size, 1 << 32);
    assert_eq!(client.stat("/etc/passwd").unwrap_err().errno(), libc::ENOENT);
    drop((file, client));
    let (code, message) = daemon.end();
    assert_eq!(code, Some(0), "{message}");
    assert!(message.contains("only /dev/null is served"), "{message}");
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_file_configures_it_and_a_hangup_reads_the_exports_again() {
    let _watchdog = minute();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("x"), b"content").unwrap();
    let file = directory.path().join("config.toml");
    let write = |exports: &str| {
        let text = format!("listen = [\"127.0.0.1:0\"]\nthreads = 1\n{exports}");
        std::fs::write(&file, text).unwrap();
    };
    let path = directory.path().display();
    write(&format!("[exports.one]\npath = \"{path}\"\nread_only = true\n"));
    let daemon = Daemon::start(&[
        "--config",
        file.to_str().unwrap(),
        "--export",
        "null=null:1M",
        "--log-format",
        "json",
    ]);
    let client = daemon.client();
    assert_eq!(client.stat("/one/x").unwrap().size, 7);
    assert_eq!(client.unlink("/one/x").unwrap_err().errno(), libc::EROFS);
    // A mistake: everything stays.
    write("[exports.one]\npath = 5\n");
    daemon.signal(Signal::HUP);
    write(&format!("[exports.two]\npath = \"{path}\"\n"));
    daemon.signal(Signal::HUP);
    wait_until("the new export is there", || client.stat("/two/x").is_ok());
    assert_eq!(client.stat("/one/x").unwrap_err().errno(), libc::ENOENT);
    assert_eq!(client.stat("/null").unwrap().size, 1 << 20, "the command line's exports stay");
    daemon.signal(Signal::TERM);
    let (code, message) = daemon.end();
    assert_eq!(code, Some(0), "{message}");
    assert!(message.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{message}");
}

#[test]
fn a_restarted_server_has_its_address_back() {
    let _watchdog = minute();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    for signal in [Signal::TERM, Signal::KILL, Signal::TERM, Signal::KILL, Signal::TERM] {
        let daemon = Daemon::start(&["--listen", &address, "-n", "1"]);
        let client = daemon.client();
        client.ping().unwrap();
        daemon.signal(signal);
        daemon.end();
    }
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    let _watchdog = minute();
    let message = fails(2, &["--frobnicate"]);
    assert!(message.contains("--frobnicate") && message.contains("--help"), "{message}");
    let message = fails(2, &["data=/tmp"]);
    assert!(message.contains("data=/tmp"), "{message}");
    let message = fails(2, &["--export", "data"]);
    assert!(message.contains("bad export \"data\"") && message.contains("NAME=PATH"), "{message}");
    let message = fails(2, &["--listen", "udp://x:1"]);
    assert!(message.contains("tcp://HOST:PORT"), "{message}");
    let message = fails(2, &["--max-io", "5M"]);
    assert!(
        message.contains("greatest I/O in bytes is 5242880, it must be from 512 to 4194304"),
        "{message}"
    );
    let message = fails(1, &["--export", "data=/no/such/place"]);
    assert!(message.contains("export /data: /no/such/place: No such file or directory"), "{message}");
    let message = fails(1, &["--export", "/usr", "--export", "/usr/bin"]);
    assert!(message.contains("exports /usr and /usr/bin overlap"), "{message}");
    let message = fails(1, &["--listen", "0.0.0.0:0"]);
    assert!(message.contains("--insecure"), "{message}");
    // Where there is a device it would serve.
    if std::fs::read_dir("/sys/class/infiniband").map_or(0, Iterator::count) == 0 {
        let message = fails(1, &["-t", "rdma"]);
        assert!(message.contains("no RDMA device") || message.contains("without rdma"), "{message}");
    }
    let message = fails(1, &["--config", "/no/such/file"]);
    assert!(message.contains("/no/such/file: No such file"), "{message}");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    std::fs::write(&file, "listen = [\"127.0.0.1:0\"]\ncpus = [99999]\n").unwrap();
    let message = fails(1, &["--config", file.to_str().unwrap()]);
    assert!(message.contains("processor") && !message.contains("panicked"), "{message}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let message = fails(1, &["--listen", &taken.local_addr().unwrap().to_string()]);
    assert!(message.contains("can't listen on tcp://127.0.0.1") && message.contains("in use"), "{message}");
}

#[test]
fn help_teaches_and_the_example_configuration_works() {
    let _watchdog = minute();
    let help = String::from_utf8(command(&["--help"]).output().unwrap().stdout).unwrap();
    for word in ["Examples:", "data=/srv/data", "memory:1G", "--insecure", "SIGHUP", "Exit codes"] {
        assert!(help.contains(word), "{word} is missing in {help}");
    }
    let example = command(&["--print-config"]).output().unwrap().stdout;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let text = String::from_utf8(example).unwrap();
    let text = text
        .replace("127.0.0.1:5555", "127.0.0.1:0")
        .replace("/srv/data", directory.path().to_str().unwrap());
    std::fs::write(&file, text).unwrap();
    let daemon = Daemon::start(&["--config", file.to_str().unwrap()]);
    assert!(daemon.client().stat("/data/config.toml").is_ok());
}

#[test]
fn the_service_manager_is_told() {
    let _watchdog = minute();
    let directory = tempfile::tempdir().unwrap();
    let path: &Path = &directory.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(path).unwrap();
    let mut command = command(&["--listen", "127.0.0.1:0", "-n", "1", "--log", "error"]);
    let mut child = command.env("NOTIFY_SOCKET", path).stdout(Stdio::null()).spawn().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut buffer = [0; 256];
    let mut expect = |word: &str| {
        let count = socket.recv(&mut buffer).unwrap();
        let said = String::from_utf8_lossy(&buffer[..count]).into_owned();
        assert!(said.contains(word), "{said}");
    };
    expect("READY=1");
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    expect("RELOADING=1");
    expect("READY=1");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    expect("STOPPING=1");
    assert!(child.wait().unwrap().success());
}

/// As a service manager starts it: the socket is descriptor 3, and the environment says so.
fn activated(socket: std::net::TcpListener, arguments: &[&str]) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\" 3<&0 </dev/null", "sh"])
        .arg(env!("CARGO_BIN_EXE_raio-server"))
        .args(arguments)
        .env_remove("RAIO_LOG")
        .stdin(std::os::fd::OwnedFd::from(socket));
    shell
}

#[test]
fn sockets_of_the_service_manager_are_served() {
    let _watchdog = minute();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", socket.local_addr().unwrap());
    let daemon = Daemon::run(activated(socket, &["-n", "1", "--log", "error"]));
    assert_eq!(daemon.address, address);
    assert!(daemon.client().stat("/dev/null").is_ok());
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end(), (Some(0), String::new()));

    // What is reached from elsewhere needs leave, whoever made the socket.
    let socket = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let output = activated(socket, &["-n", "1"]).output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && message.contains("--insecure"), "{message}");
}
