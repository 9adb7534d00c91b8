//! libraio from C: programs in `tests/c` use every function, right and wrong, against a real server, most of them under
//! memcheck too; header and library are looked at from outside.

#![allow(clippy::unwrap_used, reason = "a test")]

mod c_program;
#[path = "../../raio/tests/support/mod.rs"]
mod support;

use c_program::{Program, library, source};
use rustix::process::Signal;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use support::{Server, ServerProcess, Watchdog, watchdog};

/// Not a test: the body of a server process.
#[test]
fn serve() {
    support::serve_if_asked();
}

fn minutes() -> Watchdog {
    watchdog(Duration::from_secs(280))
}

/// As `noise` in check.h.
fn noise(length: u64) -> Vec<u8> {
    // Any eight bits of the product will do.
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Host and port of a uri.
fn host_and_port(uri: &str) -> (String, String) {
    let uri: libxio::Uri = uri.parse().unwrap();
    (uri.host().to_owned(), uri.port().to_string())
}

fn server() -> Server {
    let server = Server::start();
    std::fs::write(server.path("file"), noise(2 << 20)).unwrap();
    server
}

/// How a program reaches its server.
#[derive(Debug, Clone, Copy)]
enum By {
    Tcp,
    /// Host and port, and the best transport that is found there: shared memory.
    Auto,
    Socket,
    AutoSocket,
}

const EVERY_WAY: [By; 4] = [By::Tcp, By::Auto, By::Socket, By::AutoSocket];

impl By {
    /// A program's first arguments.
    fn arguments(self, uri: &str, socket: &Path) -> [String; 2] {
        let (host, port) = host_and_port(uri);
        let socket = socket.display().to_string();
        match self {
            By::Tcp => [host, port],
            By::Auto => [host, format!("auto:{port}")],
            By::Socket => [socket, "shm".to_owned()],
            By::AutoSocket => [socket, "auto".to_owned()],
        }
    }
}

/// Runs a program against a server of its own, by every transport.
fn run(name: &'static str, more: &[&str]) {
    let _watchdog = minutes();
    let program = Program::compile(name);
    for by in EVERY_WAY {
        let server = server();
        let [host, port] = by.arguments(&server.uri("/"), &server.socket());
        println!("{by:?}");
        program.run(&[&[host.as_str(), &port], more].concat());
    }
}

/// By one transport, under memcheck.
fn check(name: &'static str, by: By, more: &[&str]) {
    let _watchdog = minutes();
    let server = server();
    let [host, port] = by.arguments(&server.uri("/"), &server.socket());
    Program::compile(name).start_checked(&[&[host.as_str(), &port], more].concat(), &[]).end();
}

#[test]
fn the_layout_is_what_compiled_programs_expect() {
    let _watchdog = minutes();
    Program::compile("tests/c/layout.c").run::<&str>(&[]);
    Program::compile_with("tests/c/layout.c", &["gcc", "-std=c11", "-pedantic"]).run::<&str>(&[]);
}

#[test]
fn the_header_is_good_in_cplusplus() {
    let _watchdog = minutes();
    for language in ["-std=c++11", "-std=c++20"] {
        Program::compile_with("tests/c/layout.c", &["g++", language, "-x", "c++"]).run::<&str>(&[]);
    }
}

#[test]
fn only_functions_of_raio_are_exported_and_every_one_is_declared() {
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(library()).output().unwrap();
    assert!(output.status.success());
    let listed = String::from_utf8(output.stdout).unwrap();
    let mut exported: Vec<_> = listed.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    exported.sort_unstable();
    let header = std::fs::read_to_string(source("include/libraio.h")).unwrap();
    let declared = header.lines().filter_map(|line| line.strip_prefix("extern ")?.split('(').next());
    let mut declared: Vec<_> = declared
        .filter_map(|text| text.rsplit([' ', '*']).next())
        .filter(|name| name.starts_with("raio_"))
        .collect();
    declared.sort_unstable();
    assert_eq!(exported, declared);
    assert_eq!(declared.len(), 24);
}

#[test]
fn the_library_has_its_name_and_needs_little() {
    let output = Command::new("readelf").arg("-d").arg(library()).output().unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    let named = |tag: &str| -> Vec<&str> {
        let lines = listed.lines().filter(|line| line.contains(tag));
        lines.filter_map(|line| line.split(['[', ']']).nth(1)).collect()
    };
    assert_eq!(named("(SONAME)"), ["libraio.so.0"]);
    let needed = named("(NEEDED)");
    let known = ["libc.so.6", "libgcc_s.so.1", "libm.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"];
    assert!(needed.iter().all(|name| known.contains(name)), "{needed:?}");
    // Beside the library stand the name that programs ask for, and what pkg-config reads.
    let folder = library().parent().unwrap().to_owned();
    let link = std::fs::read_link(folder.join("libraio.so.0")).unwrap();
    assert_eq!(link.to_str(), Some("libraio.so"));
    let described = std::fs::read_to_string(folder.join("pkgconfig/libraio.pc")).unwrap();
    assert!(described.contains("-lraio") && !described.contains('@'), "{described}");
}

#[test]
fn every_function_refuses_what_is_wrong() {
    run("tests/c/arguments.c", &[]);
}

#[test]
fn every_function_refuses_what_is_wrong_under_memcheck() {
    check("tests/c/arguments.c", By::Tcp, &[]);
}

#[test]
fn flush_discard_vectors_names_and_long_requests() {
    run("tests/c/additions.c", &[]);
}

#[test]
fn flush_discard_vectors_names_and_long_requests_under_memcheck() {
    check("tests/c/additions.c", By::Tcp, &[]);
}

#[test]
fn a_thousand_reads_of_a_megabyte_at_once() {
    run("tests/c/depth.c", &[]);
}

#[test]
fn buffers_of_the_library_under_memcheck() {
    check("tests/c/depth.c", By::Tcp, &["small"]);
}

#[test]
fn what_an_fio_engine_does() {
    run("tests/c/job.c", &[]);
}

#[test]
fn what_an_fio_engine_does_under_memcheck() {
    check("tests/c/job.c", By::Tcp, &[]);
}

#[test]
fn shared_memory_under_memcheck() {
    check("tests/c/arguments.c", By::Socket, &[]);
    check("tests/c/job.c", By::Auto, &[]);
    check("tests/c/wakeups.c", By::Socket, &["few"]);
}

#[test]
fn a_child_has_nothing_of_its_parents_sessions() {
    run("tests/c/forks.c", &[]);
}

#[test]
fn waiting_on_eventfds_and_descriptors() {
    run("tests/c/wakeups.c", &[]);
}

#[test]
fn waiting_on_eventfds_and_descriptors_under_memcheck() {
    check("tests/c/wakeups.c", By::Tcp, &["few"]);
}

/// What each way of waiting must make of a server that got this signal with requests on their way.
fn lose(by: By, signal: Signal, word: &str) {
    let _watchdog = minutes();
    let program = Program::compile("tests/c/lost.c");
    for way in ["getevents", "eventfd", "poll"] {
        let server = ServerProcess::start();
        let [host, port] = by.arguments(&server.uri("/"), &server.socket());
        let mut run = program.start(&[host.as_str(), &port, word, way], &[("RAIO_KEEPALIVE_MS", "1000")]);
        run.meet("open");
        // By shared memory everything is answered at once, unless nobody is awake; TCP holds less than is asked for.
        if signal == Signal::STOP || matches!(by, By::Socket) {
            let signal = Signal::STOP;
            server.signal(signal);
        }
        run.go_on();
        run.meet("submitted");
        if signal == Signal::KILL {
            server.signal(signal);
        }
        run.go_on();
        run.end();
        server.signal(Signal::CONT);
    }
}

#[test]
fn a_killed_server_ends_each_request_once() {
    lose(By::Tcp, Signal::KILL, "reset");
}

#[test]
fn a_killed_server_ends_each_request_once_by_shared_memory() {
    lose(By::Socket, Signal::KILL, "reset");
}

#[test]
fn a_stopped_server_ends_each_request_within_the_keepalive_time() {
    lose(By::Tcp, Signal::STOP, "timedout");
}

#[test]
fn a_stopped_server_ends_each_request_within_the_keepalive_time_by_shared_memory() {
    lose(By::Socket, Signal::STOP, "timedout");
}

#[test]
fn thinking_costs_nothing_and_no_call_waits_for_ever() {
    think(By::Tcp);
}

#[test]
fn thinking_costs_nothing_by_shared_memory() {
    think(By::Socket);
}

fn think(by: By) {
    let _watchdog = minutes();
    let server = ServerProcess::start();
    std::fs::write(server.directory.path().join("file"), noise(4096)).unwrap();
    let [host, port] = by.arguments(&server.uri("/"), &server.socket());
    let second = [("RAIO_KEEPALIVE_MS", "1000"), ("RAIO_CONNECT_TIMEOUT_MS", "1000")];
    let mut run = Program::compile("tests/c/patience.c").start(&[&host, &port], &second);
    run.meet("stop");
    server.signal(Signal::STOP);
    run.go_on();
    run.meet("continue");
    server.signal(Signal::CONT);
    run.go_on();
    run.end();
}

#[test]
fn the_reader_reads_any_block_size_over_and_over() {
    let _watchdog = minutes();
    let server = server();
    std::fs::write(server.path("odd"), noise((3 << 20) + 77)).unwrap();
    let reader = Program::compile("../examples/c/raio_reader.c");
    let (host, port) = host_and_port(&server.uri("/"));
    let socket = server.socket().display().to_string();
    for (host, port, block) in [
        (&host, port.as_str(), "512"),
        (&host, &port, "4096"),
        (&host, &port, "100000"),
        (&host, &port, "1048576"),
        (&host, &port, "5000000"),
        (&socket, "shm", "4096"),
        (&socket, "shm", "1048576"),
        (&socket, "shm", "5000000"),
    ] {
        let output = reader.run(&[host.as_str(), port, "/data/odd", block, "1024", "4"]);
        let lines: Vec<_> = output.lines().map(|line| line.split(',').take(2).collect::<Vec<_>>()).collect();
        assert!(lines.len() == 4 && lines.iter().all(|line| *line == lines[0]), "{output}");
        assert_eq!(lines[0][0], format!("{} bytes", (3 << 20) + 77));
    }
}

#[test]
fn hello_world_in_c_writes_and_reads_back() {
    let _watchdog = minutes();
    let server = server();
    let (host, port) = host_and_port(&server.uri("/"));
    let hello = Program::compile("../examples/c/hello_world.c");
    let socket = server.socket().display().to_string();
    for (host, port) in [(host.as_str(), port.as_str()), (&socket, "shm")] {
        assert_eq!(hello.run(&[host, port, "/data/hello.txt"]), "hello, world\n");
        assert_eq!(std::fs::read(server.path("hello.txt")).unwrap(), b"hello, world\n");
        std::fs::remove_file(server.path("hello.txt")).unwrap();
    }
}

#[test]
fn the_log_speaks_only_when_asked() {
    let _watchdog = minutes();
    let server = server();
    let (host, port) = host_and_port(&server.uri("/"));
    let reader = Program::compile("../examples/c/raio_reader.c");
    let arguments = [host.as_str(), &port, "/data/file"];
    reader.run(&arguments);
    let words = reader.start(&arguments, &[("RAIO_LOG", "debug")]).end_with_words();
    assert!(words.contains("connected"), "{words}");
}
