//! Files over shared memory: read into and written from the client's own memory.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use raio::engine::{ClientOptions, Engine, Operation, Outcome};
use raio::libxio::{Landing, Region};
use raio::proto::OpenFlags;
use raio::{File, OpenOptions, Transport};
use std::os::unix::fs::FileExt;
use support::{Server, minute, noise};

/// A server that listens at a socket in its directory as well.
fn start() -> (Server, String) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("raio.sock");
    let socket = socket.to_str().unwrap().to_owned();
    // The directory goes with the socket in it, which the listener removes.
    let _ = directory.keep();
    let listen = raio_server::parse_listen(&format!("shm://{socket}")).unwrap();
    (Server::with(|config| config.listen.push(listen)), socket)
}

fn uri(socket: &str, path: &str) -> String {
    format!("shm://{path}?socket={socket}")
}

#[test]
fn files_of_every_size_come_and_go() {
    let _watchdog = minute();
    let (server, socket) = start();
    for (number, length) in [0, 1, 511, 4096, 5000, 100_000, 3 << 20].into_iter().enumerate() {
        let name = format!("file-{number}");
        let bytes = server.file(&name, length);
        let file = File::open(&uri(&socket, &format!("/data/{name}"))).unwrap();
        let mut back = vec![0; length];
        file.read_exact_at(&mut back, 0).unwrap();
        assert!(back == bytes, "{length} bytes read are others");
        assert_eq!(file.read_at(&mut [0; 10], length as u64).unwrap(), 0);
        let copy = OpenOptions::new()
            .write(true)
            .create(true)
            .open(&uri(&socket, &format!("/data/copy-{number}")))
            .unwrap();
        copy.write_all_at(&bytes, 0).unwrap();
        copy.flush().unwrap();
        assert!(std::fs::read(server.path(&format!("copy-{number}"))).unwrap() == bytes);
    }
}

fn opened(engine: &mut Engine, flags: OpenFlags, path: &str) -> raio::proto::Handle {
    match engine.call(Operation::Open { path: path.into(), flags, mode: 0o600 }).unwrap() {
        Outcome::Opened { handle, .. } => handle,
        other => panic!("{other:?}"),
    }
}

/// No byte of the data goes through the link, with and without the page cache.
#[test]
fn registered_memory_is_filled_where_it_is() {
    let _watchdog = minute();
    let (server, socket) = start();
    let length = 1 << 20;
    let bytes = server.file("some", length);
    let uri = uri(&socket, "/").parse().unwrap();
    let mut engine = Engine::connect(&uri, &ClientOptions::default()).unwrap();
    let region = Region::allocate(4 << 20, false).unwrap();
    let read_write = OpenFlags::READ.with(OpenFlags::WRITE);
    for flags in [read_write, read_write.with(OpenFlags::DIRECT)] {
        let handle = opened(&mut engine, flags, "/data/some");
        let landing = Landing::Place(region.slice(8192, length).unwrap().into());
        let read = Operation::Read { handle, offset: 0, length: length as u32, landing };
        let Outcome::Read { bytes: count, data } = engine.call(read).unwrap() else { panic!() };
        assert_eq!(count as usize, length);
        assert_eq!(data.pieces()[0].as_ptr(), region.as_ptr().wrapping_add(8192));
        assert!(data.to_vec() == bytes);
        let fresh = noise(length);
        let mut source = region.slice(2 << 20, length).unwrap();
        source.copy_from(0, &fresh);
        let write = Operation::Write { handle, offset: 0, data: source.into(), durable: false };
        assert!(
            matches!(engine.call(write).unwrap(), Outcome::Written { bytes } if bytes as usize == length)
        );
        let mut written = vec![0; length];
        std::fs::File::open(server.path("some")).unwrap().read_exact_at(&mut written, 0).unwrap();
        assert!(written == fresh);
        std::fs::write(server.path("some"), &bytes).unwrap();
    }
    let counts = engine.statistics();
    assert!(counts.bytes_sent + counts.bytes_received < 16_384, "{counts:?}");
    engine.close();
    server.wait_until_clean();
}

/// Bytes that this process has pinned.
fn pinned() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPin:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Past the page cache, memory that is used again and again is pinned until its client has gone.
#[test]
fn memory_for_direct_io_is_pinned_while_it_is_used() {
    let _watchdog = minute();
    let (server, socket) = start();
    let length = 256 << 10;
    let bytes = server.file("some", 4 * length);
    let uri = uri(&socket, "/").parse().unwrap();
    for flags in [OpenFlags::READ, OpenFlags::READ.with(OpenFlags::DIRECT)] {
        let mut engine = Engine::connect(&uri, &ClientOptions::default()).unwrap();
        let region = Region::allocate(2 << 20, false).unwrap();
        let handle = opened(&mut engine, flags, "/data/some");
        for round in 0..64 {
            let (at, place) = (round % 4 * length, round % 8 * length);
            let landing = Landing::Place(region.slice(place, length).unwrap().into());
            let read = Operation::Read { handle, offset: at as u64, length: length as u32, landing };
            let Outcome::Read { data, .. } = engine.call(read).unwrap() else { panic!() };
            assert!(data.to_vec() == bytes[at..at + length], "{round}");
        }
        assert_eq!(pinned(), if flags.contains(OpenFlags::DIRECT) { 2 << 20 } else { 0 });
        engine.close();
        server.wait_until_clean();
    }
    let start = std::time::Instant::now();
    while pinned() > 0 {
        assert!(start.elapsed() < std::time::Duration::from_secs(30), "{} bytes are pinned", pinned());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn zeros_and_lists_are_put_into_the_memory_of_the_client() {
    let _watchdog = minute();
    let (server, socket) = start();
    server.file("a-name", 10);
    let file = File::open(&uri(&socket, "/null")).unwrap();
    let mut back = vec![7; 100_000];
    file.read_exact_at(&mut back, 5).unwrap();
    assert!(back.iter().all(|byte| *byte == 0));
    let client = raio::Client::connect(&uri(&socket, "/")).unwrap();
    let entries = client.list("/data").unwrap();
    assert!(entries.iter().any(|entry| entry.name == b"a-name"));
}

/// A client that dies in the middle of everything leaves nothing behind.
#[test]
fn a_client_that_goes_leaves_nothing_behind() {
    let _watchdog = minute();
    let (server, socket) = start();
    server.file("some", 8 << 20);
    for _ in 0..20 {
        let uri = uri(&socket, "/").parse().unwrap();
        let mut engine = Engine::connect(&uri, &ClientOptions::default()).unwrap();
        let handle = opened(&mut engine, OpenFlags::READ, "/data/some");
        for token in 0..32 {
            let landing = Landing::Pool(1 << 20);
            let offset = (token % 8) << 20;
            engine.submit(Operation::Read { handle, offset, length: 1 << 20, landing }, token).unwrap();
        }
        engine.poll(Some(std::time::Duration::ZERO)).unwrap();
        drop(engine);
    }
    server.wait_until_clean();
    server.serves();
}

fn chosen(server: &Server, transport: Transport) -> Result<(&'static str, String), raio::Error> {
    let uri = format!("raio://{}/", server.address).parse().unwrap();
    let options = ClientOptions { transport, ..ClientOptions::default() };
    let client = raio::Client::connect_with(&uri, &options)?;
    assert!(client.list("/data").unwrap().is_empty());
    Ok(client.transport())
}

#[test]
fn a_client_on_the_same_host_moves_to_shared_memory() {
    let _watchdog = minute();
    let (server, _socket) = start();
    let (name, why) = chosen(&server, Transport::Auto).unwrap();
    assert_eq!(name, "shm", "{why}");
    assert_eq!(chosen(&server, Transport::Shm).unwrap().0, "shm");
    assert_eq!(chosen(&server, Transport::Tcp).unwrap().0, "tcp");
    server.wait_until_clean();
}

#[test]
fn a_client_stays_with_tcp_where_there_is_nothing_better() {
    let _watchdog = minute();
    let server = Server::start();
    let (name, why) = chosen(&server, Transport::Auto).unwrap();
    assert_eq!((name, why.as_str()), ("tcp", "the server offers no shared memory"));
    let error = chosen(&server, Transport::Shm).unwrap_err();
    assert!(error.to_string().contains("offers no shared memory"), "{error}");
    server.wait_until_clean();
}

/// The socket that a server has named may be somebody else's by now: it does not know the session.
#[test]
fn a_socket_of_another_server_is_not_believed() {
    let _watchdog = minute();
    let (server, socket) = start();
    std::fs::remove_file(&socket).unwrap();
    let (name, why) = chosen(&server, Transport::Auto).unwrap();
    assert_eq!(name, "tcp", "{why}");
    let listen = raio_server::parse_listen(&format!("shm://{socket}")).unwrap();
    let other = Server::with(|config| config.listen.push(listen));
    let (name, why) = chosen(&server, Transport::Auto).unwrap();
    assert_eq!(name, "tcp", "{why}");
    assert!(chosen(&server, Transport::Shm).is_err());
    server.wait_until_clean();
    other.wait_until_clean();
}
