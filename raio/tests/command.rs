//! The `raio` command, as a person or a script uses it, mistakes included.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use serde_json::Value;
use std::process::{Command, Output};
use support::{Server, ServerProcess, minute};

/// Not a test: the body of a server process.
#[test]
fn serve() {
    support::serve_if_asked();
}

fn raio(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_raio")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Standard output of a command that must go well.
#[track_caller]
fn good(arguments: &[&str]) -> String {
    let output = raio(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "", "{arguments:?}: nothing to say on standard error");
    text(&output.stdout)
}

#[track_caller]
fn good_json(arguments: &[&str]) -> Value {
    serde_json::from_str(&good(arguments)).unwrap()
}

/// Standard error of a command that must fail with this exit code.
#[track_caller]
fn bad(code: i32, arguments: &[&str]) -> String {
    let output = raio(arguments);
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {message}");
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
    message
}

#[test]
fn a_file_goes_there_and_back() {
    let _watchdog = minute();
    let server = Server::start();
    let here = tempfile::tempdir().unwrap();
    let source = here.path().join("source");
    for length in [0, 1, (1 << 20) - 1, 5_000_000] {
        let bytes = support::noise(length);
        std::fs::write(&source, &bytes).unwrap();
        let there = server.uri("/data/copy");
        let said = good(&["cp", source.to_str().unwrap(), &there, "--verify", "--force"]);
        assert!(said.contains("verified"), "{said}");
        assert!(std::fs::read(server.path("copy")).unwrap() == bytes);
        let back = here.path().join("back");
        let result = good_json(&["cp", &there, back.to_str().unwrap(), "--verify", "--force", "--json"]);
        assert_eq!((&result["bytes"], &result["verified"]), (&length.into(), &true.into()));
        assert!(std::fs::read(back).unwrap() == bytes);
        let other = server.uri("/data/other");
        good(&["cp", &there, &other, "--verify", "--force", "--block-size", "64k", "--depth", "4"]);
        assert!(std::fs::read(server.path("other")).unwrap() == bytes);
    }
}

#[test]
fn a_copy_keeps_its_name_and_mode_in_a_directory_and_replaces_nothing_unasked() {
    let _watchdog = minute();
    let server = Server::start();
    let here = tempfile::tempdir().unwrap();
    let source = here.path().join("some name");
    std::fs::write(&source, b"content").unwrap();
    let source = source.to_str().unwrap();
    std::fs::create_dir(server.path("sub")).unwrap();
    good(&["cp", source, &server.uri("/data/sub")]);
    assert_eq!(std::fs::read(server.path("sub/some name")).unwrap(), b"content");
    let message = bad(1, &["cp", source, &server.uri("/data/sub/some name")]);
    assert!(message.contains("exists") && message.contains("--force"), "{message}");
    let message = bad(1, &["cp", &server.uri("/data/sub"), "/tmp/x"]);
    assert!(message.contains("directory"), "{message}");
    let message = bad(2, &["cp", source, "/tmp/x"]);
    assert!(message.contains("both on this machine"), "{message}");
    let message = bad(1, &["cp", "/no/such/file", &server.uri("/data/x")]);
    assert!(message.contains("raio: open: /no/such/file: No such file"), "{message}");
}

#[test]
fn look_at_files() {
    let _watchdog = minute();
    let server = Server::start();
    server.file("b", 12_345);
    server.file("a", 1);
    std::fs::create_dir(server.path("sub")).unwrap();
    assert_eq!(good(&["ls", &server.uri("/data")]), "a\nb\nsub/\n");
    let long = good(&["ls", "-l", &server.uri("/data")]);
    assert!(long.lines().any(|line| line.starts_with("-rw") && line.contains("12345")), "{long}");
    let listed = good_json(&["ls", "--json", &server.uri("/data")]);
    assert_eq!((&listed[1]["name"], &listed[1]["size"]), (&"b".into(), &12_345.into()));
    assert_eq!(good(&["ls", &server.uri("/data/b")]), "b\n");
    let exports = good(&["ls", &server.uri("/")]);
    assert!(exports.contains("data/") && exports.contains("memory"), "{exports}");

    let stat = good(&["stat", &server.uri("/data/b")]);
    assert!(stat.contains("12345 bytes"), "{stat}");
    let stat = good_json(&["stat", "--json", &server.uri("/data/b")]);
    assert_eq!((&stat["size"], &stat["kind"]), (&12_345.into(), &"file".into()));
    let info = good_json(&["info", "--json", &server.uri("/")]);
    assert_eq!(info["name"], "raio-server");
    assert!(good(&["info", &server.uri("/")]).contains("/data"));
    let ping = good_json(&["ping", "--json", "-c", "3", "-i", "0", &server.uri("/")]);
    assert_eq!(ping["round_trip"]["count"], 3);
    assert!(good(&["ping", "-c", "2", "-i", "0", &server.uri("/")]).contains("p99"));
}

#[test]
fn print_rename_and_remove() {
    let _watchdog = minute();
    let server = Server::start();
    let bytes = server.file("some", 3_000_000);
    let output = raio(&["cat", &server.uri("/data/some")]);
    assert!(output.status.success() && output.stdout == bytes);
    let output = raio(&["cat", &server.uri("/data/some"), "--offset", "2M", "--length", "100k"]);
    assert!(output.stdout == bytes[2 << 20..][..100 << 10]);
    good(&["mv", &server.uri("/data/some"), "/data/else"]);
    good(&["mv", &server.uri("/data/else"), &server.uri("/data/third")]);
    server.file("fourth", 1);
    let message = bad(1, &["mv", "-n", &server.uri("/data/fourth"), "/data/third"]);
    assert!(message.contains("File exists"), "{message}");
    good(&["rm", &server.uri("/data/third"), &server.uri("/data/fourth")]);
    assert_eq!(good(&["ls", &server.uri("/data")]), "");
    let message = bad(2, &["mv", &server.uri("/data/x"), "tcp://127.0.0.1:1/data/y"]);
    assert!(message.contains("another server"), "{message}");
}

#[test]
fn measure() {
    let _watchdog = minute();
    let server = Server::start();
    let uri = server.uri("/data/bench");
    for mode in ["randread", "randwrite", "randrw", "read", "write"] {
        let arguments = [
            "bench", &uri, "--rw", mode, "--time", "0.2", "--create", "--size", "1M", "--jobs", "2", "--json",
        ];
        let result = good_json(&arguments);
        for kind in ["read", "write"] {
            let expected = mode.ends_with(kind) || mode == "randrw";
            assert_eq!(
                result[kind]["iops"].as_f64().is_some_and(|rate| rate > 0.0),
                expected,
                "{mode}: {result}"
            );
        }
    }
    assert!(good(&["bench", &uri, "--time", "0.1", "--depth", "1"]).contains("IOPS"));
    server.file("small", 100);
    let message = bad(2, &["bench", &server.uri("/data/small"), "--time", "0.1"]);
    assert!(message.contains("less than one block"), "{message}");
    let message = bad(2, &["bench", &uri, "--bs", "64M"]);
    assert!(message.contains("at most"), "{message}");
}

#[test]
fn mistakes_say_what_where_why_and_what_to_do() {
    let _watchdog = minute();
    let server = Server::start();
    let message = bad(1, &["stat", &server.uri("/data/none")]);
    assert_eq!(message, "raio: stat: /data/none: No such file or directory\n");
    let message = bad(1, &["cat", &server.uri("/dat/none")]);
    assert!(message.contains("no such export; the server has") && message.contains("/data"), "{message}");
    let here = tempfile::NamedTempFile::new().unwrap();
    let message = bad(1, &["cp", here.path().to_str().unwrap(), &server.uri("/ro/x")]);
    assert!(
        message.contains("Read-only file system") && message.contains("export is read-only"),
        "{message}"
    );
    let message = bad(1, &["cat", &server.uri("/data")]);
    assert!(message.contains("raio ls"), "{message}");
    let message = bad(2, &["stat", "/data/x"]);
    assert!(message.contains("not a uri"), "{message}");
    let message = bad(2, &["stat", "tcp://h:99999/x"]);
    assert!(message.contains("port"), "{message}");
    bad(2, &["stat", "pigeon://h/x"]);
    bad(2, &["frobnicate"]);
    bad(2, &["bench", "tcp://h/x", "--bs", "0"]);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let message = bad(3, &["ls", &format!("raio://127.0.0.1:{port}/data")]);
    assert!(message.contains("Connection refused") && message.contains("raio-server --export"), "{message}");
    assert_eq!(
        message.lines().next().unwrap(),
        format!("raio: connect: raio://127.0.0.1:{port}/data: Connection refused")
    );
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("raio://{}/data", silent.local_addr().unwrap());
    let message = bad(3, &["ls", &uri, "--timeout", "0.5"]);
    assert!(message.contains("no answer for"), "{message}");
}

#[test]
fn a_server_lost_in_the_middle_is_exit_code_3_and_the_partial_target_is_named() {
    let _watchdog = minute();
    let server = ServerProcess::start();
    let here = tempfile::tempdir().unwrap();
    let target = here.path().join("target");
    let child = Command::new(env!("CARGO_BIN_EXE_raio"))
        .args(["cp", &server.uri("/null"), target.to_str().unwrap(), "--timeout", "1"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    while std::fs::metadata(&target).map_or(0, |metadata| metadata.len()) < 1 << 20 {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    server.signal(rustix::process::Signal::STOP);
    let output = child.wait_with_output().unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{message}");
    assert!(message.contains("target is incomplete") && message.contains("no answer for"), "{message}");
}
