//! Many links on one context, busy and calm ones: each has its turn, and none is left asleep with something to receive.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use conformance::{Fabric, watchdog};
use libxio::{
    AcceptOptions, Connection, ConnectionOptions, Context, ContextHandle, ContextOptions, Event,
    OutgoingRequest, OutgoingResponse, ServerOptions, Session, Uri,
};
use std::collections::HashMap;
use std::thread::JoinHandle;
use std::time::Duration;

/// Links of one context: several times as many as have their turn at once.
const LINKS: usize = 100;
/// Of these, links that always have requests on the way.
const BUSY: usize = 40;
/// Requests of each calm link, one at a time.
const ROUNDS: u32 = 60;
/// Longer than anything here takes, on the busiest machine.
const LONG: Duration = Duration::from_secs(60);

/// A server that answers, in a thread of its own. With `posts` it always has a post waiting too.
struct Server {
    uri: Uri,
    handle: ContextHandle,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(fabric: &Fabric, polling: Duration, posts: bool) -> Server {
        let mut options = fabric.context_options();
        options.polling_timeout = polling;
        let mut context = Context::new(options).unwrap();
        let listening = context.listen(&fabric.listen, ServerOptions::default()).unwrap();
        let (uri, handle) = (context.local_uri(listening).unwrap(), context.handle());
        let poster = handle.clone();
        let thread = std::thread::spawn(move || {
            if posts {
                poster.post_message(0, Box::new(())).unwrap();
            }
            context
                .run(|context, event| match event {
                    Event::ConnectionRequest(request) => {
                        context.accept(request, AcceptOptions::new()).unwrap();
                    }
                    Event::Request(request) => {
                        context.respond(request, OutgoingResponse::default()).unwrap();
                    }
                    Event::Message { .. } => poster.post_message(0, Box::new(())).unwrap(),
                    _ => {}
                })
                .unwrap();
        });
        Server { uri, handle, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.stop();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking());
    }
}

fn connect(context: &mut Context, uri: &Uri, count: usize) -> Vec<Connection> {
    let mut connections = Vec::new();
    for _ in 0..count {
        context.connect(&Session::new(uri.clone()), ConnectionOptions::default()).unwrap();
    }
    while connections.len() < count {
        context.wait(Some(LONG)).unwrap();
        while let Some(event) = context.next_event() {
            match event {
                Event::Connected { connection, .. } => connections.push(connection),
                other => panic!("{other:?}"),
            }
        }
    }
    connections
}

/// Busy links that never rest, and calm ones of which each is asked again some time after its answer.
fn all_are_answered(fabric: &Fabric, polling: Duration) {
    watchdog();
    let server = Server::start(fabric, polling, false);
    let mut client =
        Context::new(ContextOptions { polling_timeout: polling, ..fabric.context_options() }).unwrap();
    let connections = connect(&mut client, &server.uri, LINKS);
    let ask = |client: &mut Context, connection| {
        client.request(connection, OutgoingRequest::new(b"there?", 1)).unwrap();
    };
    let mut left = HashMap::new();
    for (index, connection) in connections.iter().enumerate() {
        if index < BUSY {
            (0..4).for_each(|_| ask(&mut client, *connection));
        } else {
            left.insert(*connection, ROUNDS);
            ask(&mut client, *connection);
        }
    }
    let mut waiting = 0_usize;
    while !left.is_empty() {
        assert!(client.wait(Some(LONG)).unwrap() > 0, "{} links get no answer", left.len());
        while let Some(event) = client.next_event() {
            match event {
                Event::Response { connection, outcome, .. } => {
                    outcome.unwrap();
                    match left.get_mut(&connection) {
                        None => ask(&mut client, connection),
                        Some(1) => {
                            left.remove(&connection);
                        }
                        Some(rounds) => {
                            *rounds -= 1;
                            let rest = Duration::from_micros(u64::from(*rounds % 3) * 500);
                            client
                                .set_timer(
                                    rest,
                                    connections.iter().position(|one| *one == connection).unwrap() as u64,
                                )
                                .unwrap();
                            waiting += 1;
                        }
                    }
                }
                Event::Timer { token, .. } => {
                    waiting -= 1;
                    ask(&mut client, connections[token as usize]);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(waiting, 0);
}

#[test]
fn calm_links_among_busy_ones_are_answered() {
    all_are_answered(&Fabric::built_in("tcp://127.0.0.1:0/"), Duration::from_micros(100));
}

#[test]
fn they_are_where_nobody_polls() {
    all_are_answered(&Fabric::built_in("tcp://127.0.0.1:0/"), Duration::ZERO);
}

#[test]
fn they_are_over_shared_memory() {
    all_are_answered(&Fabric::shm(), Duration::from_micros(100));
}

/// What a link brings is taken though the context never comes to sleep and never polls: each wait ends by a post.
#[test]
fn a_context_that_is_never_idle_receives() {
    watchdog();
    let fabric = Fabric::built_in("tcp://127.0.0.1:0/");
    let server = Server::start(&fabric, Duration::ZERO, true);
    let mut client = Context::new(fabric.context_options()).unwrap();
    let connection = connect(&mut client, &server.uri, 1)[0];
    for _ in 0..200 {
        client.request(connection, OutgoingRequest::new(b"there?", 1)).unwrap();
        assert!(client.wait(Some(LONG)).unwrap() > 0);
        assert!(matches!(client.next_event(), Some(Event::Response { outcome: Ok(_), .. })));
        // So that the link is one that waits long.
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Waits that are too short for a sleep receive as well.
#[test]
fn short_waits_receive() {
    watchdog();
    let fabric = Fabric::built_in("tcp://127.0.0.1:0/");
    let server = Server::start(&fabric, Duration::ZERO, false);
    let mut client = Context::new(fabric.context_options()).unwrap();
    let connection = connect(&mut client, &server.uri, 1)[0];
    for round in 0..100_u64 {
        client.request(connection, OutgoingRequest::new(b"there?", 1)).unwrap();
        while client.wait(Some(Duration::from_nanos(round * 500))).unwrap() == 0 {}
        assert!(matches!(client.next_event(), Some(Event::Response { outcome: Ok(_), .. })));
    }
}
