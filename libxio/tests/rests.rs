//! Messages that fill more than a packet: a short rest may wait while there are events, and for nothing else.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use conformance::watchdog;
use libxio::{
    AcceptOptions, Connection, ConnectionOptions, Context, ContextOptions, Event, Landing, OutgoingRequest,
    OutgoingResponse, Request, ServerOptions, Session, zeros,
};
use std::time::Duration;

const LENGTH: usize = 4096;
/// Their answers fill a packet, and two are left.
const REQUESTS: u64 = 17;

/// A client and a server in one thread, both of which poll for longer than any wait here.
fn connected() -> (Context, Context, Connection, Connection) {
    let options = || ContextOptions { polling_timeout: Duration::from_secs(60), ..Default::default() };
    let (mut client, mut server) = (Context::new(options()).unwrap(), Context::new(options()).unwrap());
    let listening = server.listen(&"tcp://127.0.0.1:0/".parse().unwrap(), ServerOptions::default()).unwrap();
    let session = Session::new(server.local_uri(listening).unwrap());
    let ours = client.connect(&session, ConnectionOptions::default()).unwrap();
    let mut theirs = None;
    loop {
        client.wait(Some(Duration::ZERO)).unwrap();
        server.wait(Some(Duration::ZERO)).unwrap();
        if let Some(Event::ConnectionRequest(request)) = server.next_event() {
            theirs = Some(server.accept(request, AcceptOptions::new()).unwrap());
        }
        if let Some(Event::Connected { .. }) = client.next_event() {
            return (client, server, ours, theirs.unwrap());
        }
    }
}

fn ask(client: &mut Context, connection: Connection, count: u64) {
    for token in 0..count {
        let landing = Landing::Pool(LENGTH as u32);
        client
            .request(connection, OutgoingRequest { landing, ..OutgoingRequest::new(b"read", token) })
            .unwrap();
    }
    client.flush().unwrap();
}

/// What a context has at once.
fn requests(server: &mut Context, count: usize) -> Vec<Request> {
    let mut requests = Vec::new();
    while requests.len() < count {
        server.wait(Some(Duration::from_millis(1))).unwrap();
        while let Some(event) = server.next_event() {
            let Event::Request(request) = event else { panic!("{event:?}") };
            requests.push(request);
        }
    }
    requests
}

/// Comes back at once, so that a rest may wait; nothing is there.
fn be_prompt(server: &mut Context) {
    for _ in 0..2 {
        assert_eq!(server.wait(Some(Duration::from_micros(1))).unwrap(), 0);
    }
}

fn answer(server: &mut Context, requests: Vec<Request>) {
    for request in requests {
        server.respond(request, OutgoingResponse { header: b"done", data: zeros(LENGTH) }).unwrap();
    }
}

fn take_answers(client: &mut Context, count: u64) {
    let mut taken = 0;
    while taken < count {
        client.wait(Some(Duration::from_millis(1))).unwrap();
        while let Some(event) = client.next_event() {
            let Event::Response { outcome, .. } = event else { panic!("{event:?}") };
            assert_eq!(outcome.unwrap().data.len(), LENGTH);
            taken += 1;
        }
    }
}

#[test]
fn a_rest_waits_while_there_are_events_and_the_next_wait_sends_it() {
    watchdog();
    let (mut client, mut server, ours, theirs) = connected();
    let mut rests = 0;
    // Where this thread was put aside between two waits, nothing is left behind.
    while rests < 10 {
        ask(&mut client, ours, REQUESTS);
        let asked = requests(&mut server, REQUESTS as usize);
        be_prompt(&mut server);
        answer(&mut server, asked);
        ask(&mut client, ours, 1);
        let more = requests(&mut server, 1);
        let rest = server.unsent_bytes(theirs).unwrap();
        assert!(rest == 0 || (rest > 2 * LENGTH && rest < 3 * LENGTH), "{rest} bytes");
        if rest > 0 {
            rests += 1;
            // Nothing comes any more.
            if rests % 2 == 0 {
                assert_eq!(server.wait(Some(Duration::from_millis(1))).unwrap(), 0);
            } else {
                server.flush().unwrap();
            }
            assert_eq!(server.unsent_bytes(theirs).unwrap(), 0);
        }
        answer(&mut server, more);
        server.flush().unwrap();
        take_answers(&mut client, REQUESTS + 1);
    }
}

#[test]
fn where_nothing_comes_all_is_sent_by_one_wait() {
    watchdog();
    let (mut client, mut server, ours, theirs) = connected();
    for _ in 0..200 {
        ask(&mut client, ours, REQUESTS);
        let asked = requests(&mut server, REQUESTS as usize);
        be_prompt(&mut server);
        answer(&mut server, asked);
        assert_eq!(server.wait(Some(Duration::from_micros(1))).unwrap(), 0);
        assert_eq!(server.unsent_bytes(theirs).unwrap(), 0);
        take_answers(&mut client, REQUESTS);
    }
}
