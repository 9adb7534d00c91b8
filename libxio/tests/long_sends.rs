//! What is longer than one send takes goes on at once, also where the sender sleeps rather than polls.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use conformance::watchdog;
use libxio::{
    AcceptOptions, ConnectionOptions, Context, ContextOptions, Event, Landing, OutgoingRequest,
    OutgoingResponse, ServerOptions, Session, zeros,
};
use std::sync::mpsc;
use std::time::Duration;

const LENGTH: u32 = 1 << 20;
/// More than several sends take.
const REQUESTS: u64 = 12;
/// A round that waited for the clock would take half a second at least: more than the watchdog allows.
const ROUNDS: u64 = 240;

#[test]
fn long_answers_do_not_wait_for_the_clock() {
    watchdog();
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let options = ContextOptions { polling_timeout: Duration::ZERO, ..Default::default() };
        let mut server = Context::new(options).unwrap();
        let listening =
            server.listen(&"tcp://127.0.0.1:0/".parse().unwrap(), ServerOptions::default()).unwrap();
        sender.send((server.local_uri(listening).unwrap(), server.handle())).unwrap();
        server
            .run(|context, event| match event {
                Event::ConnectionRequest(request) => {
                    context.accept(request, AcceptOptions::new()).unwrap();
                }
                Event::Request(request) => {
                    let response = OutgoingResponse { data: zeros(LENGTH as usize), ..Default::default() };
                    context.respond(request, response).unwrap();
                }
                _ => {}
            })
            .unwrap();
    });
    let (uri, handle) = receiver.recv().unwrap();
    let mut client = Context::new(ContextOptions::default()).unwrap();
    let connection = client.connect(&Session::new(uri), ConnectionOptions::default()).unwrap();
    let mut answers = 0;
    while answers < REQUESTS * ROUNDS {
        client.wait(None).unwrap();
        while let Some(event) = client.next_event() {
            match event {
                Event::Connected { .. } => {}
                Event::Response { outcome, .. } => {
                    assert_eq!(outcome.unwrap().data.len(), LENGTH as usize);
                    answers += 1;
                }
                other => panic!("{other:?}"),
            }
            if answers % REQUESTS == 0 && answers < REQUESTS * ROUNDS {
                for token in 0..REQUESTS {
                    let landing = Landing::Pool(LENGTH);
                    let request = OutgoingRequest { landing, ..OutgoingRequest::new(b"more", token) };
                    client.request(connection, request).unwrap();
                }
            }
        }
    }
    handle.stop();
    thread.join().unwrap();
}
