//! A server that uses the memory of one peer for another: what becomes of it hurts nobody but its owner.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod raw;

use conformance::{Fabric, watchdog};
use libxio::{
    AcceptOptions, ConnectionOptions, Context, ContextHandle, ContextOptions, Event, Landing,
    OutgoingRequest, OutgoingResponse, ServerOptions, Session, Sgl, Uri,
};
use raw::{End, HUGE, LONG, memory_without_pages, request, vanished};
use std::os::fd::AsFd;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

/// A server that keeps the data of a guest, and uses it for somebody else: to answer it, or for that one's answer to land in.
/// The guest alone is cut off.
#[test]
fn memory_without_pages_hurts_no_other_link() {
    let Some(memfd) = memory_without_pages() else { return };
    let length = 512_u32 << 10;
    for (fabric, crc) in [
        (Fabric::built_in("tcp://127.0.0.1:0/"), false),
        (Fabric::built_in("tcp://127.0.0.1:0/"), true),
        (Fabric::shm(), false),
    ] {
        for header in [&b"give"[..], b"take"] {
            println!("{} {crc} {}", fabric.listen, String::from_utf8_lossy(header));
            let relay = Relay::start(&fabric);
            let mut guest = End::client(&relay.path);
            guest.greet();
            guest.hand_over_as(0, HUGE, memfd.as_fd());
            guest.write(&request(0, 1, (length, 0), &[(0, length, 0)], &[]));
            relay.is_given.recv_timeout(LONG).unwrap();
            let options = ContextOptions { crc, ..fabric.context_options() };
            let mut client = Context::new(options).unwrap();
            let connection =
                client.connect(&Session::new(relay.uri.clone()), ConnectionOptions::default()).unwrap();
            let ask = |client: &mut Context, token| {
                let landing = Landing::Pool(length);
                let question = OutgoingRequest { landing, ..OutgoingRequest::new(header, token) };
                client.request(connection, question).unwrap();
            };
            let mut rounds = 0;
            while rounds < 2 {
                client.wait(Some(LONG)).unwrap();
                match client.next_event() {
                    Some(Event::Connected { .. }) => ask(&mut client, 0),
                    Some(Event::Request(request)) => {
                        let data = vec![b'x'; request.room() as usize].into();
                        client.respond(request, OutgoingResponse { header: b"", data }).unwrap();
                    }
                    Some(Event::Response { outcome, .. }) => {
                        // What is gone is as a hole.
                        assert!(outcome.unwrap().data.to_vec().iter().all(|byte| *byte == 0));
                        rounds += 1;
                        // Nothing is on its way when the client ends: the server would lose it.
                        if rounds < 2 {
                            ask(&mut client, rounds);
                        }
                    }
                    other => panic!("the other link is hurt: {other:?}"),
                }
            }
            guest.write(&request(1, 1, (0, 0), &[], &[]));
            vanished(guest);
        }
    }
}

/// A server that keeps what the first request brings, of a guest at `path`, for the others.
struct Relay {
    path: String,
    uri: Uri,
    is_given: Receiver<()>,
    handle: ContextHandle,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    fn start(fabric: &Fabric) -> Relay {
        watchdog();
        let path = Fabric::shm().listen.resource().to_owned();
        let mut context = Context::new(fabric.context_options()).unwrap();
        context.listen(&format!("shm://{path}").parse().unwrap(), ServerOptions::default()).unwrap();
        let listening = context.listen(&fabric.listen, ServerOptions::default()).unwrap();
        let (uri, handle) = (context.local_uri(listening).unwrap(), context.handle());
        let (gives, is_given) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut kept = Sgl::new();
            let mut waiting = None;
            context
                .run(|context, event| match event {
                    Event::ConnectionRequest(request) => {
                        context.accept(request, AcceptOptions::new()).unwrap();
                    }
                    Event::Request(mut request) if request.header() == b"question" => {
                        kept = request.take_data();
                        gives.send(()).unwrap();
                    }
                    Event::Request(request) if request.header() == b"give" => {
                        let data = std::mem::take(&mut kept);
                        context.respond(request, OutgoingResponse { header: b"", data }).unwrap();
                    }
                    Event::Request(request) => {
                        let connection = request.connection();
                        let landing = Landing::Place(std::mem::take(&mut kept));
                        waiting = Some(request);
                        context
                            .request(connection, OutgoingRequest { landing, ..OutgoingRequest::new(b"", 0) })
                            .unwrap();
                    }
                    Event::Response { outcome, .. } => {
                        outcome.unwrap();
                        context.respond(waiting.take().unwrap(), OutgoingResponse::default()).unwrap();
                    }
                    _ => {}
                })
                .unwrap();
        });
        Relay { path, uri, is_given, handle, thread: Some(thread) }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.handle.stop();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking(), "the server has panicked");
    }
}
