//! Once warm, messages over TCP allocate nothing, at either end, and cost few system calls.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod counting;

use conformance::watchdog;
use counting::allocations;
use libxio::{
    AcceptOptions, Access, ConnectionOptions, Context, ContextOptions, Event, Landing, OutgoingOneWay,
    OutgoingRequest, OutgoingResponse, Receipt, Region, RemoteRegion, SendOptions, ServerOptions, Session,
    Sgl, StatisticsSnapshot,
};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Requests outstanding at a time.
const DEPTH: u64 = 32;
/// Requests before counting begins: each slot, buffer and list has then been used several times.
const WARM: u64 = DEPTH * 50;
const COUNTED: u64 = DEPTH * 200;
/// A context looks at its deadlines so often, asleep or not.
const SWEEP: Duration = Duration::from_millis(500);

/// What one side did while it was counted.
#[derive(Debug)]
struct Cost {
    allocations: u64,
    counters: StatisticsSnapshot,
    time: Duration,
}

/// Counts from the message with the first number to that with the last.
#[derive(Default)]
struct Meter {
    messages: u64,
    start: Option<(u64, StatisticsSnapshot, Instant)>,
    end: Option<(u64, StatisticsSnapshot, Instant)>,
}

impl Meter {
    fn message(&mut self, context: &Context) {
        self.messages += 1;
        let now = || Some((allocations(), context.statistics().snapshot(), Instant::now()));
        if self.messages == WARM {
            self.start = now();
        } else if self.messages == WARM + COUNTED {
            self.end = now();
        }
    }

    fn cost(&self) -> Cost {
        let ((before, from, begun), (after, to, ended)) = (self.start.unwrap(), self.end.unwrap());
        Cost {
            allocations: after - before,
            counters: StatisticsSnapshot {
                link_sends: to.link_sends - from.link_sends,
                link_receives: to.link_receives - from.link_receives,
                ring_enters: to.ring_enters - from.ring_enters,
                sleeps: to.sleeps - from.sleeps,
                ..to
            },
            time: ended - begun,
        }
    }
}

/// Sends `length` bytes with every request and gets them back, `DEPTH` at a time; what the client and the server paid.
fn exchange(length: u32, crc: bool) -> (Cost, Cost) {
    let options = move || ContextOptions {
        polling_timeout: Duration::from_micros(50),
        crc,
        ..ContextOptions::default()
    };
    let (say, said) = mpsc::channel();
    let server = thread::spawn(move || {
        let mut server = Context::new(options()).unwrap();
        let listening =
            server.listen(&"tcp://127.0.0.1:0/".parse().unwrap(), ServerOptions::default()).unwrap();
        say.send(server.local_uri(listening).unwrap()).unwrap();
        let mut meter = Meter::default();
        // The first are held until all that can be in flight are here: on a busy machine no later moment is busier.
        let mut held = Vec::new();
        server
            .run(|server, event| match event {
                Event::ConnectionRequest(request) => {
                    server.accept(request, AcceptOptions::new()).unwrap();
                }
                Event::Request(request) => {
                    held.push(request);
                    if meter.messages == 0 && held.len() < DEPTH as usize {
                        return;
                    }
                    for mut request in held.drain(..) {
                        let data = request.take_data();
                        server.respond(request, OutgoingResponse { header: b"answer", data }).unwrap();
                        meter.message(server);
                    }
                }
                Event::Closed { .. } => server.stop(),
                other => panic!("{other:?}"),
            })
            .unwrap();
        meter.cost()
    });
    let mut client = Context::new(options()).unwrap();
    let session = Session::new(said.recv().unwrap());
    let connection = client.connect(&session, ConnectionOptions::default()).unwrap();
    client.wait(None).unwrap();
    assert!(matches!(client.next_event(), Some(Event::Connected { .. })));
    let send = |client: &mut Context, data: Sgl, landing: Sgl, token: u64| {
        let landing = Landing::Place(landing);
        client
            .request(
                connection,
                OutgoingRequest { data, landing, ..OutgoingRequest::new(b"question", token) },
            )
            .unwrap();
    };
    let take = |client: &Context| client.pool().take_list(length as usize).unwrap();
    for token in 0..DEPTH {
        let (data, landing) = (take(&client), take(&client));
        send(&mut client, data, landing, token);
    }
    let mut meter = Meter::default();
    let mut outstanding = DEPTH;
    while outstanding > 0 {
        client.wait(None).unwrap();
        while let Some(event) = client.next_event() {
            let Event::Response { token, outcome, .. } = event else { panic!("{event:?}") };
            meter.message(&client);
            let landed = outcome.unwrap().data;
            if meter.messages + outstanding > WARM + COUNTED {
                outstanding -= 1;
                continue;
            }
            let data = take(&client);
            send(&mut client, data, landed, token);
        }
    }
    client.close(connection).unwrap();
    client.wait(None).unwrap();
    (meter.cost(), server.join().unwrap())
}

#[test]
fn a_warm_exchange_allocates_nothing_and_enters_the_ring_only_to_sleep() {
    watchdog();
    for (length, crc) in [(0, false), (64, false), (64, true), (4096, false), (65_536, false)] {
        let (client, server) = exchange(length, crc);
        for (side, cost) in [("client", client), ("server", server)] {
            let Cost { allocations, counters, time } = cost;
            let calls = counters.link_sends + counters.link_receives;
            println!(
                "{length} bytes, crc {crc}, {side}: {allocations} allocations, {} sends and {} receives for {COUNTED} \
                 messages ({:.3} each), {} ring enters, {} sleeps",
                counters.link_sends,
                counters.link_receives,
                calls as f64 / COUNTED as f64,
                counters.ring_enters,
                counters.sleeps,
            );
            assert_eq!(allocations, 0, "{length} bytes, {side}");
            // How often it sleeps is the machine's business. A sleep that ends by the clock leaves its poll in the ring, and
            // what that brings later takes one more.
            let by_clock = 1 + (time.as_nanos() / SWEEP.as_nanos()) as u64;
            assert!(counters.ring_enters <= counters.sleeps + by_clock, "{length} bytes, {side}, {time:?}");
        }
    }
}

/// One-way messages with receipts and notices, requests with receipts and deadlines, and remote reads, `DEPTH` of each at
/// a time; what the client and the server paid.
fn exchange_in_all_patterns() -> (Cost, Cost) {
    const TELL: u64 = 1;
    const ASK: u64 = 2;
    const READ: u64 = 3;
    let (say, said) = mpsc::channel();
    let server = thread::spawn(move || {
        let mut server = Context::new(ContextOptions::default()).unwrap();
        let listening =
            server.listen(&"tcp://127.0.0.1:0/".parse().unwrap(), ServerOptions::default()).unwrap();
        say.send(server.local_uri(listening).unwrap()).unwrap();
        let memory = Region::allocate(4096, false).unwrap();
        let mut meter = Meter::default();
        server
            .run(|server, event| match event {
                Event::ConnectionRequest(request) => {
                    let connection = server.accept(request, AcceptOptions::new()).unwrap();
                    let exposed = server.expose(connection, &memory, 0, 4096, Access::READ).unwrap();
                    let header = exposed.to_bytes();
                    server
                        .send(connection, OutgoingOneWay { header: &header, ..Default::default() })
                        .unwrap();
                    // All that the client sends at first is there when this side looks again: there is no busier moment.
                    server.flush().unwrap();
                    thread::sleep(Duration::from_millis(200));
                }
                Event::OneWay(message) => {
                    // In the end the client leaves in the middle.
                    let _ = server.release(message, Receipt::Accepted);
                    meter.message(server);
                }
                Event::Request(mut request) => {
                    let _ = server.give_receipt(&mut request, Receipt::Accepted);
                    let _ = server.respond(request, OutgoingResponse::default());
                    meter.message(server);
                }
                Event::Closed { .. } => server.stop(),
                other => panic!("{other:?}"),
            })
            .unwrap();
        meter.cost()
    });
    let mut client = Context::new(ContextOptions::default()).unwrap();
    let session = Session::new(said.recv().unwrap());
    let connection = client.connect(&session, ConnectionOptions::default()).unwrap();
    let mut meter = Meter::default();
    let mut remote = None;
    let send = |client: &mut Context, token: u64, remote: &RemoteRegion, data: Sgl| {
        let options = SendOptions { receipt: true, ..SendOptions::default() };
        match token {
            TELL => {
                let options = SendOptions { notify: Some(TELL), ..options };
                let message = OutgoingOneWay { header: b"news", data, token, options };
                client.send(connection, message).unwrap();
            }
            ASK => {
                let options = SendOptions { timeout: Some(Duration::from_secs(60)), ..options };
                let request = OutgoingRequest { data, ..OutgoingRequest::new(b"question", token) };
                client.request_with(connection, request, options).unwrap();
            }
            _ => {
                let landing = Landing::Place(data);
                let none = SendOptions::default();
                client.remote_read(connection, remote, 0, landing, token, none).unwrap();
            }
        }
    };
    // The memory of messages that were sent comes back, or is taken anew from the pool.
    while meter.messages < 3 * (WARM + COUNTED) {
        client.wait(None).unwrap();
        while let Some(event) = client.next_event() {
            let ended = match event {
                Event::OneWay(message) => {
                    let region = RemoteRegion::from_bytes(message.header()).unwrap();
                    remote = Some(region);
                    drop(message);
                    for token in [TELL, ASK, READ].repeat(DEPTH as usize) {
                        let data = client.pool().take_list(512).unwrap();
                        send(&mut client, token, &region, data);
                    }
                    continue;
                }
                Event::Receipt { token: TELL, .. } => TELL,
                Event::Response { token, outcome, .. } => {
                    drop(outcome.unwrap());
                    token
                }
                Event::Connected { .. } | Event::Receipt { .. } | Event::Sent { .. } => continue,
                other => panic!("{other:?}"),
            };
            meter.message(&client);
            let data = client.pool().take_list(512).unwrap();
            send(&mut client, ended, &remote.unwrap(), data);
        }
    }
    client.close(connection).unwrap();
    while !matches!(client.next_event(), Some(Event::Closed { .. })) {
        client.wait(None).unwrap();
    }
    (meter.cost(), server.join().unwrap())
}

#[test]
fn warm_patterns_allocate_nothing() {
    watchdog();
    let (client, server) = exchange_in_all_patterns();
    assert_eq!((client.allocations, server.allocations), (0, 0));
}
