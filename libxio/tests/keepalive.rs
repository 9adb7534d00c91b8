//! Silence, judged: a hung server is noticed, a client that thinks is spared, and nobody is given up while data moves or
//! while it is this side that does not listen. On virtual time, but for one real server that stops.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use conformance::{Fabric, Pair, watchdog};
use libxio::transport::Faults;
use libxio::{
    AcceptOptions, Connection, ConnectionOptions, Context, ContextOptions, Error, Event, Landing, LoopKind,
    OutgoingRequest, OutgoingResponse, PoolOptions, ServerOptions, Session,
};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(9);
fn sim() -> Fabric {
    Fabric::sim(7, Faults::NONE)
}

fn pair(loop_kind: LoopKind) -> Pair {
    let limited = |options: &mut ContextOptions| options.keepalive = LIMIT;
    Pair::with(
        sim(),
        |client| {
            limited(client);
            client.loop_kind = loop_kind;
        },
        limited,
        Default::default(),
    )
}

/// Lets time pass; `client` and `server` say who runs.
fn pass(pair: &mut Pair, time: Duration, client: bool, server: bool) {
    let network = pair.network.clone().unwrap();
    let end = network.elapsed() + time;
    while network.elapsed() < end {
        if client {
            pair.client.wait(Some(Duration::ZERO)).unwrap();
            while let Some(event) = pair.client.next_event() {
                pair.client_events.push(event);
            }
        }
        if server {
            pair.server.wait(Some(Duration::ZERO)).unwrap();
            while let Some(event) = pair.server.next_event() {
                pair.server_events.push(event);
            }
        }
        network.advance(Duration::from_millis(10));
    }
}

#[test]
fn a_hung_server_is_noticed_within_the_limit_and_not_before() {
    for loop_kind in [LoopKind::Own, LoopKind::Caller] {
        let mut pair = pair(loop_kind);
        let (connection, _) = pair.connect();
        pair.client.request(connection, OutgoingRequest::new(b"x", 1)).unwrap();
        pass(&mut pair, LIMIT - Duration::from_millis(100), true, false);
        assert!(pair.client_events.is_empty(), "{:?}", pair.client_events);
        // One look at the deadlines and one to be sure, each at most a tenth of the limit away.
        pass(&mut pair, LIMIT / 5 + Duration::from_millis(200), true, false);
        let Event::Response { token: 1, outcome: Err(Error::TimedOut { silent_ms, .. }), .. } =
            pair.client_event()
        else {
            panic!()
        };
        assert!(silent_ms >= 9000, "{silent_ms}");
        assert!(matches!(pair.client_event(), Event::Closed { reason: Error::TimedOut { .. }, .. }));
    }
}

#[test]
fn idle_peers_keep_each_other_for_ever() {
    let mut pair = pair(LoopKind::Own);
    let (connection, _) = pair.connect();
    pass(&mut pair, Duration::from_secs(3600), true, true);
    assert!(pair.client_events.is_empty() && pair.server_events.is_empty());
    pair.echo(connection, OutgoingRequest::new(b"still there?", 1));
}

#[test]
fn a_client_that_thinks_for_an_hour_is_spared_and_spares_its_server() {
    let mut pair = pair(LoopKind::Caller);
    let (connection, _) = pair.connect();
    for _ in 0..3 {
        pass(&mut pair, Duration::from_secs(3600), false, true);
        assert!(pair.server_events.is_empty());
        pair.echo(connection, OutgoingRequest::new(b"I have thought", 1));
    }
}

#[test]
fn a_client_with_a_loop_of_its_own_that_hangs_is_given_up() {
    let mut pair = pair(LoopKind::Own);
    let (_, there) = pair.connect();
    pair.server.request(there, OutgoingRequest::new(b"x", 1)).unwrap();
    pass(&mut pair, LIMIT * 2, false, true);
    assert!(matches!(pair.server_event(), Event::Response { outcome: Err(Error::TimedOut { .. }), .. }));
    assert!(matches!(pair.server_event(), Event::Closed { .. }));
}

#[test]
fn a_peer_that_takes_long_to_read_what_is_queued_is_not_silent() {
    // 96 KiB are on their way at a time, each up to a second: 4 MiB take longer than the limit, and no answer to a
    // ping can come before they are through.
    let faults = Faults { delay_us_max: 1_000_000, ..Faults::NONE };
    let limited = |options: &mut ContextOptions| options.keepalive = Duration::from_secs(3);
    let mut pair = Pair::with(Fabric::sim(3, Faults::NONE), limited, limited, Default::default());
    let (connection, _) = pair.connect();
    let network = pair.network.clone().unwrap();
    network.set_faults(faults);
    let started = network.elapsed();
    let data = vec![1; 4 << 20].into();
    pair.client.request(connection, OutgoingRequest { data, ..OutgoingRequest::new(b"w", 1) }).unwrap();
    while pair.server_events.is_empty() {
        pass(&mut pair, Duration::from_millis(50), true, true);
        assert!(pair.client_events.is_empty(), "{:?}", pair.client_events);
    }
    assert!(network.elapsed() - started > Duration::from_secs(6), "too fast to show anything");
    assert!(matches!(pair.server_event(), Event::Request(_)));
}

#[test]
fn a_peer_is_not_given_up_while_this_side_has_no_memory_for_what_it_sent() {
    let mut pair = Pair::with(
        sim(),
        |client| client.keepalive = LIMIT,
        |server| {
            server.keepalive = LIMIT;
            server.pool = PoolOptions { bytes_max: 1 << 20, huge_pages: false };
            server.limits.data_bytes_max = 1 << 20;
        },
        Default::default(),
    );
    let (connection, _) = pair.connect();
    let write =
        |token| OutgoingRequest { data: vec![1; 1 << 20].into(), ..OutgoingRequest::new(b"w", token) };
    for token in 0..2 {
        pair.client.request(connection, write(token)).unwrap();
    }
    let first = pair.request();
    // The second one finds no memory, and the client's pings wait behind it. The client is given no sign either: it
    // has an application that is as patient as this.
    pass(&mut pair, LIMIT * 4, false, true);
    assert!(pair.server_events.is_empty(), "{:?}", pair.server_events);
    pair.server.respond(first, OutgoingResponse::default()).unwrap();
    let second = pair.request();
    pair.server.respond(second, OutgoingResponse::default()).unwrap();
    pair.until("both answers", |pair| pair.client_events.len() == 2);
}

#[test]
fn a_connect_that_nobody_answers_ends_in_time() {
    let mut pair = pair(LoopKind::Caller);
    pair.client.connect(&Session::new(pair.uri.clone()), ConnectionOptions::default()).unwrap();
    pass(&mut pair, Duration::from_secs(12), true, false);
    let Event::Closed { reason: Error::TimedOut { silent_ms: 10_000, .. }, .. } = pair.client_event() else {
        panic!()
    };
}

/// A client over TCP in this thread, and a server that serves until it is told to hang.
fn over_tcp(limit: Duration, loop_kind: LoopKind) -> (Context, Connection, mpsc::Sender<()>) {
    let (say, said) = mpsc::channel();
    let (hang, hangs) = mpsc::channel::<()>();
    thread::spawn(move || {
        let mut server = Context::new(ContextOptions::default()).unwrap();
        let listening =
            server.listen(&"tcp://127.0.0.1:0/".parse().unwrap(), ServerOptions::default()).unwrap();
        say.send(server.local_uri(listening).unwrap()).unwrap();
        while hangs.try_recv().is_err() {
            server.wait(Some(Duration::from_millis(5))).unwrap();
            while let Some(event) = server.next_event() {
                match event {
                    Event::ConnectionRequest(request) => {
                        server.accept(request, AcceptOptions::new()).unwrap();
                    }
                    Event::Request(request) => {
                        server.respond(request, OutgoingResponse::default()).unwrap();
                    }
                    _ => {}
                }
            }
        }
        // Hung, with its sockets open, until the test is over.
        let _ = hangs.recv();
    });
    let mut client =
        Context::new(ContextOptions { keepalive: limit, loop_kind, ..Default::default() }).unwrap();
    let uri = said.recv().unwrap();
    let connection = client.connect(&Session::new(uri), ConnectionOptions::default()).unwrap();
    client.wait(Some(Duration::from_secs(30))).unwrap();
    assert!(matches!(client.next_event(), Some(Event::Connected { .. })));
    (client, connection, hang)
}

#[test]
fn over_tcp_a_server_that_hangs_fails_its_requests_with_a_timeout() {
    watchdog();
    for loop_kind in [LoopKind::Own, LoopKind::Caller] {
        let limit = Duration::from_millis(600);
        let (mut client, connection, hang) = over_tcp(limit, loop_kind);
        hang.send(()).unwrap();
        // The server may still be in its last turn.
        thread::sleep(Duration::from_millis(50));
        let asked = Instant::now();
        for token in 0..3 {
            let request = OutgoingRequest {
                data: vec![0; 1 << 20].into(),
                landing: Landing::Pool(4096),
                ..OutgoingRequest::new(b"x", token)
            };
            client.request(connection, request).unwrap();
        }
        let mut failed = 0;
        loop {
            client.wait(None).unwrap();
            match client.next_event() {
                Some(Event::Response { outcome: Err(Error::TimedOut { .. }), .. }) => failed += 1,
                Some(Event::Closed { reason: Error::TimedOut { .. }, .. }) => break,
                Some(other) => panic!("{other:?}"),
                None => {}
            }
        }
        assert_eq!(failed, 3);
        assert!(asked.elapsed() >= limit - Duration::from_millis(100));
    }
}
