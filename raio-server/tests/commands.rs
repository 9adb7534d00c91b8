//! Commands that break the file protocol, or ask for what can't be: each is answered, and the connection stays.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use libxio::Error;
use raio::proto::{Answer, Attributes, Handle, OpenFlags, Request, Target};
use support::{Raw, Server, bytes_of, every_command, minute};

fn read_write() -> OpenFlags {
    OpenFlags::READ.with(OpenFlags::WRITE)
}

#[test]
fn broken_commands_are_answered_with_what_is_wrong() {
    let _watchdog = minute();
    let server = Server::start();
    server.file("x", 100);
    let mut raw = Raw::connect(&server);
    let handle = raw.open("/data/x", read_write());
    let read = bytes_of(&Request::Read { handle, offset: 0, length: 10 });
    let change = |at: usize, with: &[u8]| {
        let mut bytes = read.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        bytes
    };
    assert_eq!(raw.errno(&change(0, &99_u16.to_le_bytes()), b"", 10), libc::EOPNOTSUPP, "unknown command");
    assert_eq!(raw.errno(&change(0, &0_u16.to_le_bytes()), b"", 10), libc::EOPNOTSUPP, "no command");
    assert_eq!(raw.errno(&change(2, &1_u16.to_le_bytes()), b"", 10), libc::EINVAL, "a flag of others");
    assert_eq!(raw.errno(&change(2, &0x8000_u16.to_le_bytes()), b"", 10), libc::EINVAL, "unknown flag");
    assert_eq!(raw.errno(&change(8, &[0; 8]), b"", 10), libc::EBADF, "no handle");
    assert_eq!(raw.errno(&change(8, &[0xff; 8]), b"", 10), libc::EBADF, "a handle made up");
    assert_eq!(raw.errno(&change(16, &(-1_i64).to_le_bytes()), b"", 10), libc::EINVAL, "negative offset");
    let last = i64::MAX as u64 - 5;
    assert_eq!(raw.errno(&change(16, &last.to_le_bytes()), b"", 10), libc::EINVAL, "the end overflows");
    assert_eq!(raw.errno(&change(24, &u64::MAX.to_le_bytes()), b"", 10), libc::EMSGSIZE, "length");
    let above = (4_u64 << 20) + 1;
    assert_eq!(raw.errno(&change(24, &above.to_le_bytes()), b"", 10), libc::EMSGSIZE, "above the limit");
    assert_eq!(raw.errno(&change(24, &11_u64.to_le_bytes()), b"", 10), libc::EMSGSIZE, "no room for it");
    assert_eq!(raw.errno(&change(47, &[1]), b"", 10), libc::EINVAL, "reserved bytes");
    assert_eq!(raw.errno(&read[..20], b"", 10), libc::EPROTO, "cut");
    assert_eq!(raw.errno(b"", b"", 10), libc::EPROTO, "empty");
    assert_eq!(raw.errno(&[&read[..], b"x"].concat(), b"", 10), libc::EPROTO, "longer than it says");
    assert_eq!(raw.errno(&read, b"data", 10), libc::EPROTO, "data with a read");
    let write = bytes_of(&Request::Write { handle, offset: 0, length: 4, durable: false });
    assert_eq!(raw.errno(&write, b"dat", 0), libc::EPROTO, "less data than it says");
    let mut open = bytes_of(&Request::Open { path: b"/data/x", flags: OpenFlags::READ, mode: 0 });
    open[32..36].copy_from_slice(&0x8000_0001_u32.to_le_bytes());
    assert_eq!(raw.errno(&open, b"", 0), libc::EINVAL, "unknown open flag");
    open[32..36].copy_from_slice(&33_u32.to_le_bytes());
    assert_eq!(raw.errno(&open, b"", 0), libc::EOPNOTSUPP, "append");
    // After all that the connection is as good as new.
    assert_eq!(raw.command(&Request::Read { handle, offset: 90, length: 50 }, 50), Answer::Moved(10));
    assert_eq!(server.counters().connections, 1);
}

#[test]
fn reads_at_the_edges() {
    let _watchdog = minute();
    let server = Server::start();
    server.file("x", 100);
    let mut raw = Raw::connect(&server);
    for path in ["/data/x", "/null"] {
        let handle = raw.open(path, read_write());
        let Answer::Found(Attributes { size, .. }) = raw.command(&Request::Stat(Target::Handle(handle)), 0)
        else {
            panic!("{path}")
        };
        for (offset, length, expected) in [
            (size - 1, 10, 1),
            (size, 10, 0),
            (size + 1, 10, 0),
            (i64::MAX as u64 - 10, 10, 0),
            (i64::MAX as u64, 0, 0),
            (0, 0, 0),
            (size - 10, 10, 10),
        ] {
            let answer = raw.command(&Request::Read { handle, offset, length }, 10);
            assert_eq!(answer, Answer::Moved(expected), "{path}: {length} at {offset}");
        }
    }
    let handle = raw.open("/data/x", read_write());
    let empty = bytes_of(&Request::Write { handle, offset: 7, length: 0, durable: true });
    assert_eq!(raw.errno(&empty, b"", 0), 0, "an empty write is one");
    let far = bytes_of(&Request::Write { handle, offset: i64::MAX as u64 - 4, length: 4, durable: false });
    assert_eq!(raw.errno(&far, b"data", 0), libc::EFBIG, "no file system is so large");
    assert_eq!(std::fs::metadata(server.path("x")).unwrap().len(), 100);
}

#[test]
fn a_second_open_is_another_file_and_use_after_close_an_error() {
    let _watchdog = minute();
    let server = Server::start();
    server.file("x", 100);
    let mut raw = Raw::connect(&server);
    let (one, two) = (raw.open("/data/x", OpenFlags::READ), raw.open("/data/x", read_write()));
    assert_ne!(one, two);
    assert_eq!(server.counters().open_files, 2);
    assert_eq!(raw.command(&Request::Close { handle: one }, 0), Answer::DONE);
    assert_eq!(raw.command(&Request::Close { handle: one }, 0), Answer::Failed(libc::EBADF));
    for request in every_command(one) {
        if matches!(request, Request::Open { .. } | Request::List { .. } | Request::Unlink { .. })
            || matches!(request, Request::Rename { .. } | Request::Info)
        {
            continue;
        }
        assert_eq!(raw.command(&request, 10), Answer::Failed(libc::EBADF), "{request:?}");
    }
    // The place is used again, the handle is not.
    let three = raw.open("/data/x", OpenFlags::READ);
    assert!(three != one && three != two);
    assert_eq!(
        raw.command(&Request::Read { handle: one, offset: 0, length: 1 }, 1),
        Answer::Failed(libc::EBADF)
    );
    assert_eq!(raw.command(&Request::Read { handle: two, offset: 0, length: 1 }, 1), Answer::Moved(1));
    // Handles belong to their connection.
    let mut other = Raw::connect(&server);
    assert_eq!(
        other.command(&Request::Read { handle: two, offset: 0, length: 1 }, 1),
        Answer::Failed(libc::EBADF)
    );
    drop((raw, other));
    server.wait_until_clean();
}

#[test]
fn a_close_in_the_middle_of_reads_lets_them_end() {
    let _watchdog = minute();
    let server = Server::start();
    server.file("x", 1 << 20);
    let mut raw = Raw::connect(&server);
    let handle = raw.open("/data/x", OpenFlags::READ.with(OpenFlags::DIRECT));
    let read = bytes_of(&Request::Read { handle, offset: 0, length: 1 << 20 });
    for token in 0..16 {
        raw.send((&read, b"", 1 << 20), token).unwrap();
    }
    raw.send((&bytes_of(&Request::Close { handle }), b"", 0), 16).unwrap();
    for _ in 0..17 {
        let (token, header, data) = raw.answer().unwrap();
        assert_eq!(header[..4], [0; 4], "request {token}");
        assert_eq!(data.len(), if token < 16 { 1 << 20 } else { 0 });
    }
    server.wait_for("closed", |now| now.open_files == 0);
}

#[test]
fn the_limit_on_open_files_is_per_connection() {
    let _watchdog = minute();
    let server = Server::with(|config| config.open_files_max = 3);
    server.file("x", 1);
    let mut raw = Raw::connect(&server);
    let handles: Vec<Handle> = (0..3).map(|_| raw.open("/data/x", OpenFlags::READ)).collect();
    let open = Request::Open { path: b"/data/x", flags: OpenFlags::READ, mode: 0 };
    assert_eq!(raw.command(&open, 0), Answer::Failed(libc::EMFILE));
    // An open that fails takes no place, and a closed file gives its own back.
    raw.command(&Request::Close { handle: handles[0] }, 0);
    let none = Request::Open { path: b"/data/none", flags: OpenFlags::READ, mode: 0 };
    assert_eq!(raw.command(&none, 0), Answer::Failed(libc::ENOENT));
    assert!(matches!(raw.command(&open, 0), Answer::Opened(..)));
    Raw::connect(&server).open("/data/x", OpenFlags::READ);
}

#[test]
fn depth_is_what_the_server_grants() {
    let _watchdog = minute();
    let server = Server::with(|config| config.requests_max = 4);
    let mut raw = Raw::connect(&server);
    let handle = raw.open("/null", OpenFlags::READ);
    let read = bytes_of(&Request::Read { handle, offset: 0, length: 10 });
    for token in 0..4 {
        raw.send((&read, b"", 10), token).unwrap();
    }
    assert!(matches!(raw.send((&read, b"", 10), 4), Err(Error::SlotsExhausted(4))));
    for _ in 0..4 {
        raw.answer().unwrap();
    }
    raw.send((&read, b"", 10), 4).unwrap();
    raw.answer().unwrap();
}

#[test]
fn strangers_are_told_why_they_are_refused() {
    let _watchdog = minute();
    let server = Server::start();
    let greeting = raio::proto::Greeting::client();
    let future = raio::proto::Greeting { version_min: 7, version_max: 9, ..greeting };
    for (resource, bytes, expected) in [
        ("/", b"".to_vec(), "does not speak the raio file protocol"),
        ("/", b"HTTP/1.1 400 Bad Request, and some more".to_vec(), "does not speak"),
        ("/", future.encode().to_vec(), "versions 7 to 9"),
        ("/data", greeting.encode().to_vec(), "connect to the resource /"),
    ] {
        let error = Raw::connect_with(&server, resource, bytes).map(|_| ()).unwrap_err();
        let Error::Rejected { private_data, .. } = error else { panic!("{error}") };
        let said = String::from_utf8(private_data).unwrap();
        assert!(said.contains(expected), "{said}");
    }
    server.serves();
}
