//! What a stranger at the port may do: send nonsense, lie about lengths, say nothing, read nothing. It gets a reason or
//! is cut off; nobody else notices, and memory stays bounded.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use conformance::watchdog;
use libxio::wire::{
    FRAME_HEAD_BYTES, FrameFlags, FrameHead, FrameKind, FrameLimits, Goodbye, HELLO_BODY_BYTES_MAX, Hello,
    Limits, LoopKind, Refusal, SessionId, VERSION, VERSION_MIN,
};
use libxio::{
    AcceptOptions, Context, ContextOptions, Event, OutgoingResponse, RejectReason, ServerOptions,
    StatisticsSnapshot,
};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(30);

/// A server in its own thread: it accepts everyone and answers every request with its own header.
struct Server {
    address: SocketAddr,
    handle: libxio::ContextHandle,
    pool: libxio::Pool,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(options: ServerOptions) -> Server {
        Server::start_with(ContextOptions::default(), options)
    }

    fn start_with(context: ContextOptions, options: ServerOptions) -> Server {
        watchdog();
        let (say, said) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut server = Context::new(context).unwrap();
            let listening = server.listen(&"tcp://127.0.0.1:0/".parse().unwrap(), options).unwrap();
            let address = server.local_uri(listening).unwrap().socket_addresses().unwrap()[0];
            say.send((address, server.handle(), server.pool().clone())).unwrap();
            server
                .run(|server, event| match event {
                    Event::ConnectionRequest(request) => {
                        server.accept(request, AcceptOptions::new()).unwrap();
                    }
                    Event::Request(request) => {
                        let header = request.header().to_vec();
                        let response = OutgoingResponse { header: &header, ..Default::default() };
                        server.respond(request, response).unwrap();
                    }
                    _ => {}
                })
                .unwrap();
        });
        let (address, handle, pool) = said.recv().unwrap();
        Server { address, handle, pool, thread: Some(thread) }
    }

    fn counters(&self) -> StatisticsSnapshot {
        self.handle.statistics().snapshot()
    }

    fn until(&self, what: &str, condition: impl Fn(&StatisticsSnapshot) -> bool) {
        let start = Instant::now();
        while !condition(&self.counters()) {
            assert!(start.elapsed() < LONG, "waited in vain for {what}: {:?}", self.counters());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A stranger.
    fn stranger(&self) -> TcpStream {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        // Small, so that it is soon full.
        socket.set_recv_buffer_size(16 << 10).unwrap();
        socket.connect(&self.address.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_write_timeout(Some(LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// A stranger that was accepted.
    fn guest(&self) -> TcpStream {
        let mut stream = self.stranger();
        stream.write_all(&frame(FrameHead::new(FrameKind::Hello), &hello().encode(), &[])).unwrap();
        let (head, _) = receive(&mut stream, &FrameLimits::handshake());
        assert_eq!(head.kind, FrameKind::Welcome);
        stream
    }

    /// Somebody well-behaved is still served.
    fn serves(&self) {
        let mut guest = self.guest();
        guest.write_all(&request(0, 1)).unwrap();
        let (head, header) = receive(&mut guest, &limits());
        assert_eq!((head.kind, head.slot, head.sequence), (FrameKind::Response, 0, 1));
        assert_eq!(header, b"question");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.stop();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking(), "the server has panicked");
    }
}

fn hello() -> Hello {
    Hello {
        version_min: VERSION_MIN,
        version_max: VERSION,
        features: 0,
        loop_kind: LoopKind::Caller,
        session: SessionId::default(),
        session_key: [0; 16],
        connection: 0,
        limits: Limits {
            slots: 16,
            peer_slots: 16,
            header_bytes_max: 4096,
            data_bytes_max: 1 << 20,
            window_bytes: 1 << 20,
            replay_bytes_max: 256,
            keepalive_ms: 0,
            immediate_bytes_max: 1 << 20,
            one_way_max: 16,
        },
        resource: "/x".into(),
        private_data: Vec::new(),
    }
}

fn limits() -> FrameLimits {
    FrameLimits {
        extension_bytes_max: 0,
        header_bytes_max: 4096,
        data_bytes_max: 1 << 20,
        immediate_bytes_max: 1 << 20,
        slots: 16,
        own_slots: 16,
        crc: false,
    }
}

fn frame(mut head: FrameHead, header: &[u8], data: &[u8]) -> Vec<u8> {
    head.header_length = header.len() as u32;
    head.data_length = data.len() as u32;
    let mut bytes = head.encode(header, false).to_vec();
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(data);
    bytes
}

fn request(slot: u16, sequence: u32) -> Vec<u8> {
    let head =
        FrameHead { slot, sequence, flags: FrameFlags::IDEMPOTENT, ..FrameHead::new(FrameKind::Request) };
    frame(head, b"question", &[])
}

fn receive(stream: &mut TcpStream, limits: &FrameLimits) -> (FrameHead, Vec<u8>) {
    let mut bytes = [0; FRAME_HEAD_BYTES];
    stream.read_exact(&mut bytes).unwrap();
    let head = FrameHead::decode(&bytes, limits).unwrap();
    let mut header = vec![0; head.header_length as usize];
    stream.read_exact(&mut header).unwrap();
    (head, header)
}

/// The stranger is told this rule's number, and is cut off.
fn dismissed(mut stream: TcpStream, limits: &FrameLimits, code: u32) {
    let (head, body) = receive(&mut stream, limits);
    assert_eq!(head.kind, FrameKind::Goodbye);
    let goodbye = Goodbye::decode(&body).unwrap();
    assert_eq!(goodbye.code, code, "{}", goodbye.text);
    cut_off(stream);
}

fn cut_off(mut stream: TcpStream) {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(cause) => assert_eq!(cause.kind(), ErrorKind::ConnectionReset, "not cut off: {cause}"),
    }
}

#[test]
fn random_bytes_and_other_protocols_are_sent_away() {
    let server = Server::start(ServerOptions::default());
    for nonsense in [
        &b"GET / HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\nUser-Agent: curl\r\n\r\n"[..],
        &[0xFF; 300],
        &[0; 300],
    ] {
        let mut stranger = server.stranger();
        stranger.write_all(nonsense).unwrap();
        cut_off(stranger);
    }
    let mut state = 1_u64;
    for _ in 0..50 {
        let bytes: Vec<u8> = (0..500)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        let mut stranger = server.stranger();
        stranger.write_all(&bytes).unwrap();
        cut_off(stranger);
    }
    server.until("failed handshakes", |counters| counters.handshakes_failed == 53);
    assert_eq!(server.counters().connections_opened, 0);
    server.serves();
}

#[test]
fn a_future_version_learns_what_is_spoken_here() {
    let server = Server::start(ServerOptions::default());
    let mut stranger = server.stranger();
    let mut body = hello().encode();
    // Versions stand at 8 and 10, see docs/PROTOCOL.md.
    body[8..12].copy_from_slice(&[7, 0, 9, 0]);
    stranger.write_all(&frame(FrameHead::new(FrameKind::Hello), &body, &[])).unwrap();
    let (head, body) = receive(&mut stranger, &FrameLimits::handshake());
    assert_eq!(head.kind, FrameKind::Refusal);
    let refusal = Refusal::decode(&body).unwrap();
    assert_eq!(refusal.reason, RejectReason::Version { min: VERSION_MIN, max: VERSION });
    cut_off(stranger);
}

#[test]
fn hellos_that_are_cut_short_or_wrong_are_dismissed() {
    let server = Server::start(ServerOptions::default());
    let whole = frame(FrameHead::new(FrameKind::Hello), &hello().encode(), &[]);
    for length in [1, FRAME_HEAD_BYTES - 1, FRAME_HEAD_BYTES, whole.len() - 1] {
        let mut stranger = server.stranger();
        stranger.write_all(&whole[..length]).unwrap();
        stranger.shutdown(std::net::Shutdown::Write).unwrap();
        cut_off(stranger);
    }
    // A body that is longer than any hello.
    let mut stranger = server.stranger();
    let long =
        FrameHead { header_length: HELLO_BODY_BYTES_MAX as u32 + 1, ..FrameHead::new(FrameKind::Hello) };
    stranger.write_all(&long.encode(&vec![0; HELLO_BODY_BYTES_MAX + 1], false)).unwrap();
    dismissed(stranger, &FrameLimits::handshake(), 9);
    // A frame that may come only later.
    let mut stranger = server.stranger();
    stranger
        .write_all(&frame(FrameHead::new(FrameKind::Goodbye), &Goodbye::orderly().encode(), &[]))
        .unwrap();
    cut_off(stranger);
    // A changed byte.
    let mut changed = whole;
    let last = changed.len() - 1;
    changed[last] ^= 1;
    let mut stranger = server.stranger();
    stranger.write_all(&changed).unwrap();
    dismissed(stranger, &FrameLimits::handshake(), 14);
    server.until("failed handshakes", |counters| counters.handshakes_failed == 7);
    server.serves();
}

#[test]
fn a_guest_that_breaks_a_rule_is_told_which() {
    let server = Server::start(ServerOptions::default());
    let head = || FrameHead { slot: 1, sequence: 1, ..FrameHead::new(FrameKind::Request) };
    let mut response = FrameHead::new(FrameKind::Response);
    (response.slot, response.sequence) = (0, 1);
    let cases: [(&str, Vec<u8>, u32); 8] = [
        ("a frame that lies about its header", lying(FrameHead { header_length: u32::MAX, ..head() }), 9),
        ("a frame that lies about its data", lying(FrameHead { data_length: u32::MAX, ..head() }), 10),
        ("a slot that was not granted", request(16, 1), 7),
        ("a sequence that was skipped", request(0, 2), 66),
        ("a response to nothing", frame(response, b"", &[]), 69),
        ("a second hello", frame(FrameHead::new(FrameKind::Hello), &hello().encode(), &[]), 2),
        (
            "a grant beyond reason",
            frame(FrameHead { bytes_granted: u64::MAX, ..FrameHead::new(FrameKind::Credit) }, b"", &[]),
            65,
        ),
        ("an unknown kind", vec![99; FRAME_HEAD_BYTES], 1),
    ];
    for (what, bytes, code) in cases {
        println!("{what}");
        let mut guest = server.guest();
        guest.write_all(&bytes).unwrap();
        dismissed(guest, &limits(), code);
    }
    server.until("the end of all", |counters| counters.connections == 0);
    assert_eq!(server.counters().protocol_violations, 8);
    server.serves();
}

fn lying(head: FrameHead) -> Vec<u8> {
    let (honest, lie) = (FrameHead { header_length: 0, data_length: 0, ..head }, head);
    let mut bytes = honest.encode(b"", false);
    bytes[8..12].copy_from_slice(&lie.header_length.to_le_bytes());
    bytes[12..16].copy_from_slice(&lie.data_length.to_le_bytes());
    bytes.to_vec()
}

#[test]
fn a_thousand_links_that_say_nothing_keep_nobody_out() {
    let options = ServerOptions { handshakes_max: 100, ..ServerOptions::default() };
    let server = Server::start(options);
    let silent: Vec<_> = (0..400).map(|_| server.stranger()).collect();
    server.until("the oldest cut off", |counters| counters.handshakes_failed >= 300);
    server.serves();
    drop(silent);
    server.until("the others gone", |counters| counters.handshakes_failed >= 400);
}

#[test]
fn a_link_that_says_nothing_is_closed_in_time() {
    let options = ServerOptions { handshake_timeout: Duration::from_millis(200), ..ServerOptions::default() };
    let server = Server::start(options);
    cut_off(server.stranger());
    server.until("a failed handshake", |counters| counters.handshakes_failed == 1);
    server.serves();
}

/// Longest quiet time after which the server is taken to read no more.
const QUIET: Duration = Duration::from_millis(500);

#[test]
fn a_guest_that_pings_and_never_reads_is_cut_off() {
    let server = Server::start(ServerOptions::default());
    let mut guest = server.guest();
    let pings = frame(FrameHead::new(FrameKind::Ping), b"", &[]).repeat(1000);
    // Rule 81: more answers wait than an honest peer asks for. The kernel holds a few megabytes of them first.
    for _ in 0..20_000 {
        if guest.write_all(&pings).is_err() {
            break;
        }
    }
    server.until("its end", |counters| counters.connections == 0);
    assert_eq!(server.counters().protocol_violations, 1);
    server.serves();
}

#[test]
fn a_guest_that_asks_and_never_reads_is_bounded_in_memory_and_not_killed() {
    let server = Server::start(ServerOptions::default());
    let mut guest = server.guest();
    let before = server.counters().frames_sent;
    let mut sequence = 0;
    // Each request follows the answer to the one before, which it can't know.
    loop {
        sequence += 1;
        let head = FrameHead { slot: 0, sequence, ..FrameHead::new(FrameKind::Request) };
        guest.write_all(&frame(head, &[b'q'; 200], &[])).unwrap();
        let asked = Instant::now();
        while server.counters().frames_sent < before + u64::from(sequence) && asked.elapsed() < QUIET {
            std::hint::spin_loop();
        }
        if asked.elapsed() >= QUIET {
            break;
        }
        assert!(sequence < 1_000_000, "the server reads for ever");
    }
    takes_what_waits(&server, guest, 1 << 20);
}

/// The server holds no more than this many bytes for the guest, and when the guest reads at last, all goes on.
fn takes_what_waits(server: &Server, mut guest: TcpStream, bytes_max: usize) {
    let waiting = unsent(server);
    assert!(waiting < bytes_max, "{waiting} bytes wait to be sent to somebody who takes nothing");
    assert!(waiting > 0, "it has to wait for something");
    assert_eq!(server.counters().connections, 1, "it was killed");
    guest.set_nonblocking(false).unwrap();
    guest.set_read_timeout(Some(QUIET)).unwrap();
    let mut sink = vec![0; 1 << 20];
    while let Ok(1..) = guest.read(&mut sink) {}
    assert_eq!(unsent(server), 0);
    drop(guest);
    server.until("its end", |counters| counters.connections == 0);
    server.serves();
}

/// Bytes that the server has queued for its only connection.
fn unsent(server: &Server) -> usize {
    let (say, said) = mpsc::channel();
    let count = move |context: &mut Context| {
        let connection = context.connections()[0];
        say.send(context.unsent_bytes(connection).unwrap()).unwrap();
    };
    server.handle.post(count).unwrap();
    said.recv_timeout(LONG).unwrap()
}

#[test]
fn a_guest_that_vanishes_frees_all_that_it_held() {
    let server = Server::start(ServerOptions::default());
    for round in 0..20 {
        let mut guest = server.guest();
        // Half a request with data.
        let head = FrameHead { slot: 0, sequence: 1, ..FrameHead::new(FrameKind::Request) };
        let bytes = frame(head, b"h", &vec![7; 100_000]);
        guest.write_all(&bytes[..bytes.len() / (1 + round % 3)]).unwrap();
        if round % 2 == 0 {
            // A reset instead of an end.
            socket2::SockRef::from(&guest).set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
    server.until("the end of all", |counters| counters.connections == 0);
    let counters = server.counters();
    assert_eq!((counters.requests_running, counters.requests_outstanding), (0, 0));
    assert_eq!(counters.connections_opened, counters.connections_closed);
    let (say, said) = mpsc::channel();
    server.handle.post(move |context| say.send(context.pool().bytes_in_use()).unwrap()).unwrap();
    assert_eq!(said.recv_timeout(LONG).unwrap(), 0);
    server.serves();
}

#[test]
fn data_that_does_not_arrive_gives_its_memory_back() {
    for rarely in [false, true] {
        let context = ContextOptions { lease: Duration::from_millis(1), ..Default::default() };
        let server = Server::start_with(context, ServerOptions::default());
        let mut guest = server.guest();
        let head = FrameHead {
            sequence: 1,
            header_length: 8,
            data_length: 64 << 10,
            ..FrameHead::new(FrameKind::Request)
        };
        guest.write_all(&head.encode(b"question", false)).unwrap();
        guest.write_all(b"question and a part of the data").unwrap();
        server.until("memory in use", |_| server.pool.bytes_in_use() >= 64 << 10);
        // Its loop is its caller's, so no keepalive ends this; nor would one, with a byte now and then.
        while rarely && guest.write_all(&[7]).is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
        cut_off(guest);
        server.until("a closed connection", |counters| counters.connections == 0);
        assert_eq!(server.pool.bytes_in_use(), 0);
        server.serves();
    }
}
