//! Runs the examples as a reader of the README would.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// No example takes longer.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// A program that ends with the test.
struct Running(Child);

impl Running {
    /// Starts a server and reads the uri from the line `listening URI`.
    fn serve(command: &mut Command) -> (Running, String) {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let uri =
            line.trim_end().strip_prefix("listening ").expect("the server says where it listens").to_owned();
        (Running(child), uri)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program to its end; its exit code, stdout and stderr.
fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > TIME_LIMIT {
            let _ = child.kill();
            panic!("{command:?} did not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn hello_world_greets() {
    let hello = || Command::new(env!("CARGO_BIN_EXE_hello_world"));
    let (server, uri) = Running::serve(hello().args(["server", "tcp://127.0.0.1:0"]));
    let uri = format!("{}/greetings", uri.trim_end_matches('/'));
    let (code, out, err) = run(hello().args(["client", &uri, "world"]));
    assert_eq!((code, &out[..], &err[..]), (Some(0), "hello, world\n", ""));

    drop(server);
    let (code, out, err) = run(hello().args(["client", &uri, "world"]));
    assert_eq!((code, &out[..]), (Some(1), ""));
    assert!(err.contains("Connection refused") && err.contains("127.0.0.1"), "{err}");
}
