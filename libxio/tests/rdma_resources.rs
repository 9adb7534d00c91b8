//! What RDMA links hold on a device, and where: the resources of a link are its worker's from the beginning; links with
//! receive buffers of their own work as those that share them do; nothing is left when they are gone.
//!
//! Needs RDMA devices, as the conformance suite in `rdma.rs`, and the `rdma` command; run with one test at a time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rdma_support;

use conformance::{Pair, pattern, watchdog};
use libxio::{
    AcceptOptions, Access, Buffer, ConnectionOptions, Context, ContextOptions, Event, Landing,
    OutgoingRequest, OutgoingResponse, PinnedContext, Region, RemoteRegion, SendOptions, ServerOptions,
    Session,
};
use rdma_support::{assert_held, held};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(30);

#[test]
fn a_links_resources_are_its_workers() {
    watchdog();
    let fabric = rdma_support::fabric();
    let mut threads = Vec::new();
    let mut workers = Vec::new();
    for _ in 0..2 {
        let (say, said) = mpsc::channel();
        threads.push(thread::spawn(move || {
            let mut worker = PinnedContext::new(ContextOptions::default()).unwrap();
            say.send(worker.handle()).unwrap();
            worker
                .run(|worker, event| match event {
                    Event::ConnectionRequest(request) => {
                        worker.accept(request, AcceptOptions::new()).unwrap();
                    }
                    Event::Request(mut request) => {
                        let data = request.take_data();
                        worker.respond(request, OutgoingResponse { header: b"", data }).unwrap();
                    }
                    _ => {}
                })
                .unwrap();
        }));
        workers.push(said.recv().unwrap());
    }
    let options = ServerOptions { workers: workers.clone(), ..ServerOptions::default() };
    let (say, said) = mpsc::channel();
    let listen = fabric.listen.clone();
    threads.push(thread::spawn(move || {
        let mut acceptor = PinnedContext::new(ContextOptions::default()).unwrap();
        let server = acceptor.listen(&listen, options).unwrap();
        say.send((acceptor.local_uri(server).unwrap(), acceptor.handle())).unwrap();
        acceptor.run(|_, event| panic!("{event:?} belongs to a worker")).unwrap();
    }));
    let (uri, acceptor) = said.recv().unwrap();
    // The library has a domain of its own where something listens.
    let before = held("rxe0", "pd");

    let mut client = Context::new(ContextOptions::default()).unwrap();
    let wait = |client: &mut Context| {
        let start = Instant::now();
        loop {
            assert!(start.elapsed() < LONG);
            client.wait(Some(Duration::from_millis(100))).unwrap();
            if let Some(event) = client.next_event() {
                return event;
            }
        }
    };
    let mut connections = Vec::new();
    for number in 1..=4 {
        connections.push(client.connect(&Session::new(uri.clone()), ConnectionOptions::default()).unwrap());
        let event = wait(&mut client);
        assert!(matches!(event, Event::Connected { .. }), "{number}: {event:?}");
        // One protection domain for each worker that has links, none for the acceptor.
        assert_held("rxe0", "pd", before + number.min(2));
    }
    for connection in connections {
        let data = pattern(100_000, 3);
        let request = OutgoingRequest { data: data.clone().into(), ..OutgoingRequest::new(b"", 1) };
        client.request(connection, OutgoingRequest { landing: Landing::Pool(100_000), ..request }).unwrap();
        let Event::Response { outcome: Ok(reply), .. } = wait(&mut client) else { panic!() };
        assert_eq!(reply.data.to_vec(), data);
    }
    drop(client);
    assert_held("rxe0", "pd", before);
    for context in workers.iter().chain([&acceptor]) {
        context.stop();
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

/// Many requests of all sizes at a time, and one-way credit by credit.
fn exercise(pair: &mut Pair) {
    let (connection, _) = pair.connect();
    let lengths = [0, 64, 4096, 70_000];
    let (mut sent, mut ended) = (0, 0);
    let start = Instant::now();
    while ended < 600 {
        assert!(start.elapsed() < LONG, "{sent} sent, {ended} ended");
        while sent < 600 && sent - ended < 64 {
            let length = lengths[(sent % 4) as usize];
            let landing = match length {
                0 => Landing::None,
                _ => Landing::Place(Buffer::from_vec(vec![0; length]).into()),
            };
            let data = pattern(length, sent as u8).into();
            let request = OutgoingRequest { data, landing, ..OutgoingRequest::new(b"", sent) };
            pair.client.request(connection, request).unwrap();
            sent += 1;
        }
        pair.step();
        for event in std::mem::take(&mut pair.server_events) {
            let Event::Request(mut request) = event else { panic!("{event:?}") };
            let data = request.take_data();
            pair.server.respond(request, OutgoingResponse { header: b"", data }).unwrap();
        }
        for event in std::mem::take(&mut pair.client_events) {
            let Event::Response { token, outcome: Ok(reply), .. } = event else { panic!("{event:?}") };
            assert_eq!(reply.data.to_vec(), pattern(lengths[(token % 4) as usize], token as u8));
            ended += 1;
        }
    }
    pair.finish(connection);
}

/// From now on this thread may lock no more memory than that, whatever its user may.
fn limit_locked_memory(bytes: u64) {
    let sets = capabilities(None).unwrap();
    let effective = sets.effective - CapabilitySet::IPC_LOCK;
    set_capabilities(None, CapabilitySets { effective, ..sets }).unwrap();
    let maximum = getrlimit(Resource::Memlock).maximum.map(|maximum| maximum.max(bytes));
    setrlimit(Resource::Memlock, Rlimit { current: Some(bytes), maximum }).unwrap();
}

/// However much is exposed: the next connections find memory for their receive buffers, and what the device was not told of
/// is reached all the same.
#[test]
fn exposed_memory_leaves_room_for_connections() {
    const LENGTH: usize = 1 << 20;
    const ALONE: &str = "XIO_LIMITED";
    watchdog();
    if std::env::var_os(ALONE).is_none() {
        // In a process of its own: the connection manager serves nobody whose rights have changed since it was opened.
        let mut command = Command::new(std::env::current_exe().unwrap());
        let only = ["--exact", "exposed_memory_leaves_room_for_connections", "--nocapture"];
        let output = command.args(only).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let what = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{said}\n{what}");
        return;
    }
    limit_locked_memory(32 << 20);
    for _ in 0..2 {
        let mut pair = Pair::new(rdma_support::fabric());
        let (connection, peer) = pair.connect();
        let mut regions = Vec::new();
        let read = |pair: &mut Pair, number: u8, remote: &RemoteRegion| {
            let landing = Landing::Pool(8192);
            pair.client.remote_read(connection, remote, 0, landing, 1, SendOptions::default()).unwrap();
            let Event::Response { outcome: Ok(reply), .. } = pair.client_event() else { panic!("{number}") };
            assert_eq!(reply.data.to_vec(), [number; 8192]);
        };
        for number in 0..48 {
            let region = Region::allocate(LENGTH, false).unwrap();
            region.slice(0, LENGTH).unwrap().copy_from(0, &[number; LENGTH]);
            let remote = pair.server.expose(peer, &region, 0, LENGTH, Access::READ).unwrap();
            if number == 0 {
                // The memory that reads land in is the client's, in the same process here: it comes first.
                read(&mut pair, number, &remote);
            }
            regions.push((region, remote));
        }
        for _ in 0..200 {
            pair.step();
        }
        for (number, (_, remote)) in (0..).zip(&regions) {
            read(&mut pair, number, remote);
        }
        let alone = pair.client.statistics().snapshot().operations_alone;
        assert!((8..16).contains(&alone), "{alone} of 48 within half of the limit");
        for _ in 0..4 {
            let (other, _) = pair.connect();
            pair.echo(other, OutgoingRequest::new(b"x", 1));
        }
        // Given back with the pair: the second round finds as much.
    }
}

#[test]
fn links_may_have_receive_buffers_of_their_own() {
    watchdog();
    let before = [held("rxe0", "pd"), held("rxe0", "qp"), held("rxe0", "cq"), held("rxe0", "mr")];
    for (client, server) in [(false, false), (true, false), (false, true)] {
        let mut pair = Pair::with(
            rdma_support::fabric(),
            |options| options.rdma.shared_receives = client,
            |options| options.rdma.shared_receives = server,
            ServerOptions::default(),
        );
        exercise(&mut pair);
    }
    for (kind, count) in ["pd", "qp", "cq", "mr"].into_iter().zip(before) {
        assert_held("rxe0", kind, count);
    }
}
