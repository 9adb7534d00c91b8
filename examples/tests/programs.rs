//! Runs the examples as a reader of the README would.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use raio_server::{Config, ExportConfig, parse_listen};
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
    let started = Instant::now();
    let (code, out, err) = loop {
        let ended = run(hello().args(["client", &uri, "world"]));
        // The kernel lets go of what a killed process's ring watched a moment after the process is gone.
        if !ended.2.contains("reset") || started.elapsed() > TIME_LIMIT {
            break ended;
        }
    };
    assert_eq!((code, &out[..]), (Some(1), ""));
    // The kernel lets a killed server's port go a moment after its process, with the ring that watched it: until then it
    // takes connections, and resets them.
    let why = ["Connection refused", "Connection reset"].iter().any(|why| err.contains(why));
    assert!(why && err.contains("127.0.0.1"), "{err}");
}

/// Each prints what its first lines promise, whatever else is going on.
#[test]
fn examples_print_what_they_promise() {
    let programs = [
        (env!("CARGO_BIN_EXE_hello_world_mt"), include_str!("../src/bin/hello_world_mt.rs")),
        (env!("CARGO_BIN_EXE_one_way"), include_str!("../src/bin/one_way.rs")),
        (env!("CARGO_BIN_EXE_bidirectional"), include_str!("../src/bin/bidirectional.rs")),
        (env!("CARGO_BIN_EXE_one_sided"), include_str!("../src/bin/one_sided.rs")),
        (env!("CARGO_BIN_EXE_external_loop_epoll"), include_str!("../src/bin/external_loop_epoll.rs")),
        (env!("CARGO_BIN_EXE_external_loop_tokio"), include_str!("../src/bin/external_loop_tokio.rs")),
    ];
    for (program, source) in programs {
        let promised: Vec<&str> = source
            .lines()
            .skip_while(|line| !line.starts_with("//! $"))
            .skip(1)
            .take_while(|line| *line != "//! ```")
            .map(|line| line.trim_start_matches("//! "))
            .collect();
        let (code, out, err) = run(&mut Command::new(program));
        assert_eq!((code, &err[..]), (Some(0), ""), "{program}");
        let mut printed: Vec<&str> = out.lines().collect();
        // Which worker greets which client is chance, two of one and one of the other are not.
        if program.ends_with("hello_world_mt") {
            let on = |worker| printed.iter().filter(|line| line.ends_with(worker)).count();
            let mut spread = [on("worker 0"), on("worker 1")];
            spread.sort_unstable();
            assert_eq!((printed.len(), spread), (3, [1, 2]));
            printed.clone_from(&promised);
        }
        assert_eq!(printed, promised, "{program}");
    }
}

#[test]
fn a_file_is_transferred() {
    let program = || Command::new(env!("CARGO_BIN_EXE_file_transfer"));
    let folder = tempfile::tempdir().unwrap();
    let (source, received) = (folder.path().join("source"), folder.path().join("received"));
    std::fs::create_dir(&received).unwrap();
    let content: Vec<u8> = (0..5_000_000_u32).map(|at| (at / 3) as u8).collect();
    std::fs::write(&source, &content).unwrap();
    let (_server, uri) = Running::serve(program().args(["server", "tcp://127.0.0.1:0"]).arg(&received));
    let uri = format!("{}/../copy", uri.trim_end_matches('/'));
    let (code, out, err) = run(program().args(["client", &uri]).arg(&source));
    assert_eq!((code, &out[..], &err[..]), (Some(0), "sent 5000000 bytes\n", ""));
    assert!(std::fs::read(received.join("copy")).unwrap() == content, "the file changed on the way");
}

#[test]
fn raio_reader_reads_a_file_whole() {
    let folder = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..3_000_077_u32).map(|at| (at / 3) as u8).collect();
    std::fs::write(folder.path().join("odd"), content).unwrap();
    let server = raio_server::start(Config {
        listen: vec![parse_listen("tcp://127.0.0.1:0").unwrap()],
        exports: vec![ExportConfig::parse(&format!("data={}", folder.path().display())).unwrap()],
        threads: 1,
        ..Config::default()
    })
    .unwrap();
    let address = format!("{}:{}", server.uris()[0].host(), server.uris()[0].port());
    let read = |path: &str, more: &[&str]| {
        let uri = format!("raio://{address}{path}");
        run(Command::new(env!("CARGO_BIN_EXE_raio_reader")).arg(uri).args(more))
    };
    let mut sums = Vec::new();
    for depth in ["1", "32"] {
        let (code, out, err) = read("/data/odd", &["65536", depth]);
        assert_eq!((code, &err[..]), (Some(0), ""));
        assert!(out.starts_with("3000077 bytes, sum "), "{out}");
        sums.push(out.split(", ").nth(1).map(str::to_owned));
    }
    assert_eq!(sums[0], sums[1]);
    let (code, out, err) = read("/data/missing", &[]);
    assert_eq!((code, &out[..]), (Some(1), ""));
    assert!(err.contains("/data/missing") && err.contains("No such file"), "{err}");
    assert_eq!(read("/data/odd", &["0"]).0, Some(2));
    server.stop();
}
