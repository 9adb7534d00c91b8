//! Servers that are not there, die, hang, or are something else: a client gets an error, in time, once for each request.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use raio::{Client, ClientOptions, Error, File, OpenOptions, Queue};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};
use support::{ServerProcess, minute};

/// Not a test: the body of a server process.
#[test]
fn serve() {
    support::serve_if_asked();
}

fn options() -> ClientOptions {
    let second = Duration::from_secs(1);
    ClientOptions { keepalive: second, connect_timeout: second, ..ClientOptions::default() }
}

fn open(server: &ServerProcess, path: &str, depth: usize) -> Queue {
    let mut opening = OpenOptions::new();
    opening.read(true).write(true).client(options());
    Queue::open(&server.uri(path), &opening, depth).unwrap()
}

/// Counts completions until every request has ended.
fn end_all(queue: &mut Queue) -> (usize, Vec<i32>) {
    let (mut done, mut errors) = (0, Vec::new());
    while queue.wait(1, None).unwrap() > 0 {
        while let Some(completion) = queue.next() {
            match completion.result {
                Ok(_) => done += 1,
                Err(error) => errors.push(error.errno()),
            }
        }
    }
    (done, errors)
}

#[test]
fn killed_in_mid_io_each_request_ends_once() {
    let _watchdog = minute();
    let server = ServerProcess::start();
    let mut queue = open(&server, "/null", 64);
    for token in 0..64 {
        queue.submit_read(token << 20, 1 << 20, token).unwrap();
    }
    queue.flush().unwrap();
    server.signal(Signal::KILL);
    let (done, errors) = end_all(&mut queue);
    assert_eq!(done + errors.len(), 64);
    assert!(errors.iter().all(|errno| *errno == libc::ECONNRESET), "{errors:?}");
    assert!(queue.lost().is_some());
    let refused = queue.submit_read(0, 1, 0).unwrap_err();
    assert!(matches!(refused, Error::Lost { .. }), "{refused}");
    assert!(queue.close().is_err());
}

#[test]
fn stopped_in_mid_io_the_keepalive_ends_each_request_once() {
    let _watchdog = minute();
    let server = ServerProcess::start();
    let mut queue = open(&server, "/null", 64);
    server.signal(Signal::STOP);
    for token in 0..64 {
        queue.submit_read(token << 20, 1 << 20, token).unwrap();
    }
    let start = Instant::now();
    let (done, errors) = end_all(&mut queue);
    assert!(start.elapsed() < Duration::from_secs(20), "it took {:?}", start.elapsed());
    assert_eq!(done + errors.len(), 64);
    assert!(!errors.is_empty() && errors.iter().all(|errno| *errno == libc::ETIMEDOUT), "{errors:?}");
    server.signal(Signal::CONT);
}

#[test]
fn a_poller_who_never_waits_notices_a_stopped_server_too() {
    let _watchdog = minute();
    let server = ServerProcess::start();
    let mut queue = open(&server, "/null", 4);
    queue.submit_read(0, 512, 0).unwrap();
    queue.wait(1, None).unwrap();
    assert!(queue.next().unwrap().result.is_ok());
    server.signal(Signal::STOP);
    queue.submit_read(0, 512, 1).unwrap();
    let start = Instant::now();
    while queue.wait(1, Some(Duration::ZERO)).unwrap() == 0 {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(queue.next().unwrap().result.unwrap_err().errno(), libc::ETIMEDOUT);
}

#[test]
fn a_client_that_thinks_longer_than_the_keepalive_loses_nothing() {
    let _watchdog = minute();
    let server = ServerProcess::start();
    let mut queue = open(&server, "/null", 4);
    queue.submit_read(0, 512, 0).unwrap();
    queue.flush().unwrap();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(queue.wait(1, None).unwrap(), 1);
    assert!(queue.next().unwrap().result.is_ok());
    std::thread::sleep(Duration::from_secs(3));
    queue.submit_read(0, 512, 1).unwrap();
    assert_eq!(queue.wait(1, None).unwrap(), 1);
    assert!(queue.next().unwrap().result.is_ok());
}

#[test]
fn a_blocking_read_ends_when_the_server_is_killed() {
    let _watchdog = minute();
    let server = ServerProcess::start();
    let mut opening = OpenOptions::new();
    let file = opening.read(true).client(options()).open(&server.uri("/null")).unwrap();
    let mut buffer = vec![0; 64 << 20];
    server.signal(Signal::STOP);
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        server.signal(Signal::KILL);
        server
    });
    // Pieces may have come before; then the next call meets the error.
    let result = file.read_at(&mut buffer, 0);
    let error = result.and_then(|_| file.read_at(&mut buffer, 0)).unwrap_err();
    assert!(matches!(error, Error::Lost { .. }), "{error}");
    assert_eq!(file.stat().unwrap_err().errno(), libc::ECONNRESET);
    drop(killer.join().unwrap());
}

#[test]
fn nobody_listens() {
    let _watchdog = minute();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = File::open(&format!("raio://127.0.0.1:{port}/data/x")).unwrap_err();
    assert_eq!(error.errno(), libc::ECONNREFUSED);
    assert!(error.is_connection());
    assert!(error.to_string().ends_with("Connection refused"), "{error}");
}

#[test]
fn a_listener_that_never_answers_is_given_up() {
    let _watchdog = minute();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("tcp://{}/", silent.local_addr().unwrap());
    let start = Instant::now();
    let error = Client::connect_with(&uri.parse().unwrap(), &options()).unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert_eq!(error.errno(), libc::ETIMEDOUT);
    assert!(start.elapsed() < Duration::from_secs(10), "it took {:?}", start.elapsed());
}

#[test]
fn something_else_listens() {
    let _watchdog = minute();
    let web = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("tcp://{}/", web.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut stream, _) = web.accept().unwrap();
        let _ = stream.read(&mut [0; 64]);
        let _ =
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    });
    let error = Client::connect_with(&uri.parse().unwrap(), &options()).unwrap_err();
    assert!(error.is_connection(), "{error}");
    server.join().unwrap();
}

#[test]
fn uris_that_can_not_work() {
    let _watchdog = minute();
    for uri in ["", "data", "tcp:/x", "tcp://h:port/", "carrier-pigeon://h/", "pigeon://h/"] {
        let error = Client::connect(uri).unwrap_err();
        assert!(matches!(error, Error::Uri { .. }), "{uri}: {error}");
    }
}
