//! What may arrive at the port, and clients that misbehave or die: bounded, and without harm to the others.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use libxio::wire::{FrameHead, FrameKind, Hello, LoopKind, SessionId};
use raio::proto::{Greeting, OpenFlags, Request};
use raio::{OpenOptions, Queue};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::{Raw, Server, bytes_of, minute, noise};

/// The bytes that a good client begins with.
fn hello() -> Vec<u8> {
    let limits = libxio::ContextOptions::default().limits;
    let hello = Hello {
        version_min: libxio::wire::VERSION_MIN,
        version_max: libxio::wire::VERSION,
        features: 0,
        loop_kind: LoopKind::Caller,
        session: SessionId::default(),
        session_key: [0; 16],
        connection: 0,
        limits,
        resource: "/".to_owned(),
        private_data: Greeting::client().encode().to_vec(),
    };
    frame(FrameKind::Hello, &hello.encode())
}

fn frame(kind: FrameKind, body: &[u8]) -> Vec<u8> {
    let head = FrameHead { header_length: body.len() as u32, ..FrameHead::new(kind) };
    [&head.encode(body, true)[..], body].concat()
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(&server.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Reads until the server closes; a reset is an end too.
fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part) {
            Ok(0) => return bytes,
            Ok(count) => bytes.extend_from_slice(&part[..count]),
            Err(cause) if cause.kind() == std::io::ErrorKind::ConnectionReset => return bytes,
            Err(cause) if cause.kind() == std::io::ErrorKind::Interrupted => {}
            Err(cause) => panic!("the server does not close: {cause}"),
        }
    }
}

#[test]
fn bytes_that_are_no_hello_end_the_link() {
    let _watchdog = minute();
    let server = Server::start();
    let good = hello();
    let mut future = good.clone();
    // The body's first fields are the versions; the checksum is wrong then, which is as good a reason.
    future[48] = 0xff;
    let mut long = good.clone();
    long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    for (what, bytes) in [
        ("noise", noise(10_000)),
        ("zeros", vec![0; 10_000]),
        (
            "a web browser",
            b"GET / HTTP/1.1\r\nHost: example\r\n\r\n                                 ".to_vec(),
        ),
        ("another version", future),
        ("a length of 4 GiB", long),
        ("a request before the hello", frame(FrameKind::Ping, b"")),
    ] {
        let mut stream = connect(&server);
        // The server may close before it has all.
        let _ = stream.write_all(&bytes);
        read_to_end(&mut stream);
        server.serves();
        assert!(!what.is_empty());
    }
    server.wait_until_clean();
}

#[test]
fn a_frame_that_lies_after_a_good_hello_ends_the_connection() {
    let _watchdog = minute();
    let server = Server::start();
    let request = FrameHead { slot: 0, sequence: 1, ..FrameHead::new(FrameKind::Request) };
    for lie in [
        FrameHead { header_length: u32::MAX, ..request },
        FrameHead { data_length: u32::MAX, ..request },
        FrameHead { slot: u16::MAX, ..request },
        FrameHead { data_padding: u16::MAX, ..request },
        FrameHead { sequence: 77, ..request },
        FrameHead::new(FrameKind::Hello),
        FrameHead { slot: 3, sequence: 9, ..FrameHead::new(FrameKind::Response) },
    ] {
        let mut stream = connect(&server);
        stream.write_all(&hello()).unwrap();
        let mut welcome = [0; 48];
        stream.read_exact(&mut welcome).unwrap();
        let bytes =
            if lie.kind == FrameKind::Hello { frame(lie.kind, b"") } else { lie.encode(b"", false).to_vec() };
        stream.write_all(&bytes).unwrap();
        let _ = stream.write_all(&noise(100));
        read_to_end(&mut stream);
        server.serves();
    }
    server.wait_until_clean();
}

#[test]
fn a_write_that_stops_in_the_middle_gives_its_memory_back() {
    let _watchdog = minute();
    let server = Server::with(|config| config.lease = Duration::from_millis(1));
    let mut stream = connect(&server);
    stream.write_all(&hello()).unwrap();
    let mut welcome = [0; 48];
    stream.read_exact(&mut welcome).unwrap();
    let request = FrameHead { sequence: 1, data_length: 64 << 10, ..FrameHead::new(FrameKind::Request) };
    stream.write_all(&request.encode(b"", false)).unwrap();
    stream.write_all(&noise(100)).unwrap();
    // Nothing else would make the server close it.
    read_to_end(&mut stream);
    server.wait_until_clean();
    server.serves();
}

#[test]
fn a_cut_hello_and_links_that_say_nothing_are_closed_in_time() {
    let _watchdog = minute();
    let server = Server::with(|config| config.handshake_timeout = Duration::from_millis(500));
    let good = hello();
    let mut streams: Vec<TcpStream> = Vec::new();
    for length in [0, 1, 47, 48, 60, good.len() - 1] {
        let mut stream = connect(&server);
        stream.write_all(&good[..length]).unwrap();
        streams.push(stream);
    }
    for stream in &mut streams {
        read_to_end(stream);
    }
    server.serves();
}

#[test]
fn a_thousand_silent_links_leave_room_for_a_good_client() {
    let _watchdog = minute();
    let server = Server::with(|config| {
        config.handshakes_max = 64;
        config.handshake_timeout = Duration::from_secs(3);
    });
    let mut silent: Vec<TcpStream> = (0..1000).map(|_| connect(&server)).collect();
    // All but the youngest had to go to make room.
    for stream in &mut silent[..900] {
        read_to_end(stream);
    }
    server.serves();
    for stream in &mut silent[900..] {
        read_to_end(stream);
    }
    server.wait_until_clean();
}

#[test]
fn connections_above_the_limit_are_refused_as_busy() {
    let _watchdog = minute();
    let server = Server::with(|config| config.connections_max = 2);
    let _two = (Raw::connect(&server), Raw::connect(&server));
    let greeting = Greeting::client().encode().to_vec();
    let error = Raw::connect_with(&server, "/", greeting).map(|_| ()).unwrap_err();
    assert!(matches!(error, libxio::Error::Rejected { reason: libxio::RejectReason::Busy, .. }), "{error}");
}

#[test]
fn a_peer_that_reads_nothing_holds_a_bounded_amount_of_memory() {
    let _watchdog = minute();
    let server = Server::start();
    server.file("large", 8 << 20);
    let mut greedy = Raw::connect(&server);
    let handle = greedy.open("/data/large", OpenFlags::READ);
    let requests = 100;
    for token in 0..requests {
        let read = bytes_of(&Request::Read { handle, offset: (token % 8) << 20, length: 1 << 20 });
        greedy.send((&read, b"", 1 << 20), token).unwrap();
    }
    // Sends, and receives nothing.
    greedy.context.flush().unwrap();
    server.wait_for("it is left alone", |now| now.clients_paused > 0);
    let mut most = 0;
    for _ in 0..100 {
        server.serves();
        most = most.max(server.counters().memory_bytes);
    }
    // The limit for one client, the operation that went over it, and what serves others.
    assert!(most <= (8 << 20) + (4 << 20), "{most} bytes for one client");
    assert!(server.counters().requests_running > 80, "the rest waits");
    // It wakes up, and gets all of its answers.
    let mut answered = 0;
    while answered < requests {
        let (_, header, data) = greedy.answer().unwrap();
        assert!(header[..4] == [0; 4] && data.len() == 1 << 20);
        answered += 1;
    }
    drop(greedy);
    server.wait_until_clean();
}

#[test]
fn short_answers_do_not_keep_large_buffers() {
    let _watchdog = minute();
    let server = Server::start();
    server.file("small", 10);
    let mut greedy = Raw::connect(&server);
    let handle = greedy.open("/data/small", OpenFlags::READ);
    let read = bytes_of(&Request::Read { handle, offset: 0, length: 4 << 20 });
    for token in 0..1000 {
        greedy.send((&read, b"", 4 << 20), token).unwrap();
    }
    greedy.context.flush().unwrap();
    server.wait_for("all are read", |now| now.requests >= 1001);
    assert!(server.counters().memory_bytes <= 8 << 20, "{:?}", server.counters());
    for _ in 0..1000 {
        assert_eq!(greedy.answer().unwrap().2.len(), 10);
    }
}

/// Set for the process that is to be a client: the uri of the file.
const CLIENT: &str = "RAIO_TEST_CLIENT";

/// Not a test: the body of a client process that reads and writes until it is killed.
#[test]
fn client() {
    let Some(uri) = std::env::var_os(CLIENT) else { return };
    let mut options = OpenOptions::new();
    let mut queue = Queue::open(uri.to_str().unwrap(), options.read(true).write(true), 64).unwrap();
    for token in 0.. {
        while queue.room() == 0 {
            queue.wait(1, None).unwrap();
            while queue.next().is_some() {}
        }
        let offset = (token % 32) << 18;
        if token % 2 == 0 {
            queue.submit_read(offset, 1 << 18, token).unwrap();
        } else {
            queue.submit_write(offset, vec![token as u8; 1 << 18], token).unwrap();
        }
    }
}

#[test]
fn clients_killed_in_the_middle_leave_nothing_behind() {
    let _watchdog = minute();
    let server = Server::start();
    server.file("shared", 8 << 20);
    for round in 1..=3 {
        let mut children: Vec<_> = (0..2)
            .map(|_| {
                Command::new(std::env::current_exe().unwrap())
                    .args(["client", "--exact", "--test-threads=1"])
                    .env(CLIENT, server.uri("/data/shared"))
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap()
            })
            .collect();
        let before = server.counters();
        server.wait_for("they work", |now| {
            now.bytes_read > before.bytes_read + (8 << 20)
                && now.bytes_written > before.bytes_written + (8 << 20)
                && now.connections == 2
                && now.open_files == 2
        });
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        server.wait_until_clean();
        assert_eq!(server.counters().connections_total, 2 * round);
    }
    // Told by the server itself, too.
    let info = raio::Client::connect(&server.uri("/")).unwrap().info().unwrap();
    assert_eq!((info.connections, info.open_files), (1, 0));
}
