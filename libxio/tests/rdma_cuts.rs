//! What happens when an RDMA connection is cut in mid-I/O: by the carrier, in silence, by the peer's death. Every request
//! ends once, with an answer or an error; memory comes back; after the cut is healed a new connection works.
//!
//! Needs the virtual machine of `cargo xtask rdma`, whose cables it pulls; run with one test at a time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rdma_support;

use conformance::{Pair, pattern};
use libxio::{Buffer, Connection, Error, Event, Landing, OutgoingRequest, OutgoingResponse};
use std::process::Command;
use std::time::{Duration, Instant};

/// Requests at a time: reads and writes, small and large.
const DEPTH: u64 = 8;
/// The device gives up after 3.8 s (seven times 0.54 s), keepalive after 10; emulation takes its time.
const CUT_TIME: Duration = Duration::from_secs(40);

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(done.success(), "ip {arguments}");
}

/// Heals the cut, however the test ends.
struct Cut(&'static str);

impl Cut {
    fn now(link: &'static str) -> Cut {
        ip(&format!("link set {link} down"));
        Cut(link)
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        ip(&format!("link set {} up", self.0));
    }
}

fn send(pair: &mut Pair, connection: Connection, token: u64) {
    let lengths = [64, 4096, 70_000, 300_000];
    let length = lengths[(token % 4) as usize];
    let request = if token.is_multiple_of(2) {
        let landing = if token.is_multiple_of(3) {
            pair.client.pool().take_list(length).unwrap()
        } else {
            Buffer::from_vec(vec![0; length]).into()
        };
        OutgoingRequest { landing: Landing::Place(landing), ..OutgoingRequest::new(b"read", token) }
    } else {
        OutgoingRequest { data: pattern(length, token as u8).into(), ..OutgoingRequest::new(b"write", token) }
    };
    pair.client.request(connection, request).unwrap();
}

/// Answers what the server has been asked; false when its connection has ended.
fn serve(pair: &mut Pair) -> bool {
    let mut open = true;
    for event in std::mem::take(&mut pair.server_events) {
        match event {
            Event::Request(request) => {
                let data = pair.server.pool().take_list(request.room() as usize).unwrap();
                // The connection may have ended meanwhile.
                let _ = pair.server.respond(request, OutgoingResponse { header: b"", data });
            }
            Event::Closed { .. } => open = false,
            other => panic!("{other:?}"),
        }
    }
    open
}

/// Keeps the connection busy, cuts it in the middle, and sees both sides end.
fn cut(link: &'static str) {
    let mut pair = Pair::with(
        rdma_support::fabric(),
        |client| client.keepalive = Duration::from_secs(20),
        |server| server.keepalive = Duration::from_secs(20),
        Default::default(),
    );
    let (connection, _) = pair.connect();
    let (mut sent, mut ended, mut failed) = (0, 0, 0);
    let mut cut = None;
    let mut client_error = None;
    let mut server_open = true;
    let start = Instant::now();
    while client_error.is_none() || server_open {
        assert!(start.elapsed() < CUT_TIME, "{sent} sent, {ended} ended, server open: {server_open}");
        if client_error.is_none() {
            while sent - ended < DEPTH {
                send(&mut pair, connection, sent);
                sent += 1;
            }
        }
        pair.step();
        server_open &= serve(&mut pair);
        for event in std::mem::take(&mut pair.client_events) {
            match event {
                Event::Response { outcome, .. } => {
                    ended += 1;
                    failed += u64::from(outcome.is_err());
                }
                Event::Closed { reason, .. } => client_error = Some(reason),
                other => panic!("{other:?}"),
            }
        }
        if ended >= 20 && cut.is_none() {
            cut = Some(Cut::now(link));
        }
    }
    println!("{link}: {:?} after {:?}", client_error, start.elapsed());
    assert_eq!(ended, sent, "every request ends once");
    assert!(failed > 0, "it was cut in mid-I/O");
    let reason = client_error.unwrap();
    assert!(
        matches!(reason, Error::ConnectionLost { .. } | Error::TimedOut { .. } | Error::Closed(_)),
        "{reason:?}"
    );
    pair.assert_nothing_left();
    drop(cut);
    // Healed: addresses are found again, and everything works.
    let start = Instant::now();
    loop {
        pair.client.connect(&libxio::Session::new(pair.uri.clone()), Default::default()).unwrap();
        pair.until("an end of the attempt", |pair| {
            !pair.client_events.is_empty() || !pair.server_events.is_empty()
        });
        if let Some(Event::ConnectionRequest(request)) = pair.server_events.pop() {
            pair.server.accept(request, libxio::AcceptOptions::new()).unwrap();
            let Event::Connected { connection, .. } = pair.client_event() else { panic!() };
            let request = OutgoingRequest { landing: Landing::Pool(300_000), ..OutgoingRequest::new(b"", 1) };
            let request = OutgoingRequest { data: pattern(300_000, 1).into(), ..request };
            assert_eq!(pair.echo(connection, request).data.to_vec(), pattern(300_000, 1));
            break pair.finish(connection);
        }
        pair.client_events.clear();
        assert!(start.elapsed() < CUT_TIME, "no new connection");
    }
}

#[test]
fn the_servers_carrier_is_lost() {
    cut("cable0");
}

#[test]
fn the_clients_carrier_is_lost() {
    cut("cable1");
}

#[test]
fn the_network_falls_silent() {
    cut("switch");
}
