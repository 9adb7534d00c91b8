//! What is special about shared memory: data stays where it is, memory is taken back from a peer that does not answer,
//! and who may come in.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod raw;

use conformance::{Fabric, Pair, watchdog};
use libxio::wire::{FrameHead, FrameKind, FrameLimits};
use libxio::{
    Access, Buffer, Context, ContextOptions, Error, Event, Landing, OutgoingOneWay, OutgoingRequest,
    OutgoingResponse, Region, RemoteRegion, SendOptions, ServerOptions, Session, Sgl,
};
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

fn pair() -> Pair {
    Pair::new(Fabric::shm())
}

fn socket_path() -> String {
    Fabric::shm().listen.resource().to_owned()
}

fn region_buffer(region: &Region, offset: usize, length: usize) -> Buffer {
    region.slice(offset, length).unwrap()
}

fn read(landing: Landing) -> OutgoingRequest<'static> {
    OutgoingRequest { landing, ..OutgoingRequest::new(b"read", 1) }
}

#[test]
fn a_response_is_made_in_the_memory_of_its_requester() {
    let mut pair = pair();
    let (connection, _) = pair.connect();
    let region = Region::allocate(1 << 20, false).unwrap();
    let landing = region_buffer(&region, 8192, 65_536);
    pair.client.request(connection, read(Landing::Place(landing.into()))).unwrap();
    let request = pair.request();
    let mut buffer = pair.server.response_buffer(&request, 50_000).unwrap();
    assert!(buffer.try_as_slice().is_none(), "it is the client's");
    buffer.copy_from(0, &[7; 50_000]);
    // It is there before anything was sent.
    assert!(region_buffer(&region, 8192, 50_000).to_vec() == [7; 50_000]);
    pair.server.respond(request, OutgoingResponse { header: b"", data: buffer.into() }).unwrap();
    let Event::Response { outcome: Ok(reply), .. } = pair.client_event() else { panic!() };
    assert_eq!(reply.data.len(), 50_000);
    assert_eq!(reply.data.pieces()[0].as_ptr(), region_buffer(&region, 8192, 1).as_ptr());
    let counts = pair.server.statistics().snapshot();
    assert_eq!((counts.bytes_in_place, counts.bytes_copied), (50_000, 0));
    assert!(counts.bytes_sent < 4096);
}

#[test]
fn other_data_is_copied_once_into_the_memory_of_its_requester() {
    let mut pair = pair();
    let (connection, _) = pair.connect();
    pair.client.request(connection, read(Landing::Pool(300_000))).unwrap();
    let request = pair.request();
    let mut data = Sgl::new();
    data.push(Buffer::from_vec(vec![1; 100_000])).unwrap();
    data.push(Buffer::from_vec(vec![2; 50_000])).unwrap();
    pair.server.respond(request, OutgoingResponse { header: b"", data }).unwrap();
    let Event::Response { outcome: Ok(reply), .. } = pair.client_event() else { panic!() };
    assert!(reply.data.to_vec() == [vec![1; 100_000], vec![2; 50_000]].concat());
    let counts = pair.server.statistics().snapshot();
    assert_eq!((counts.bytes_in_place, counts.bytes_copied), (150_000, 150_000));
}

#[test]
fn request_data_is_read_where_it_is() {
    let mut pair = pair();
    let (connection, _) = pair.connect();
    let mut buffer = pair.client.pool().take(1 << 20).unwrap();
    let address = buffer.as_ptr();
    buffer.copy_from(1000, b"here");
    let request = OutgoingRequest { data: buffer.into(), ..OutgoingRequest::new(b"write", 1) };
    pair.client.request(connection, request).unwrap();
    let mut request = pair.request();
    let data = request.take_data();
    assert!(data.pieces()[0].try_as_slice().is_none(), "it is the client's");
    let mut bytes = [0; 4];
    data.gather(1000, &mut bytes);
    assert_eq!(&bytes, b"here");
    // The buffer is not handed out again before the answer.
    assert_ne!(pair.client.pool().take(1 << 20).unwrap().as_ptr(), address);
    pair.server.respond(request, OutgoingResponse::default()).unwrap();
    assert!(matches!(pair.client_event(), Event::Response { outcome: Ok(_), .. }));
    assert_eq!(pair.client.pool().bytes_in_use(), 0);
    assert!(pair.client.statistics().snapshot().bytes_sent < 4096);
}

#[test]
fn foreign_and_unaligned_memory_travels_through_the_ring() {
    let mut pair = pair();
    let (connection, _) = pair.connect();
    let mut memory = vec![0_u8; 3 << 20];
    let region = Region::allocate(4 << 20, false).unwrap();
    let bytes: Vec<u8> = (0..3 << 20).map(|at: usize| ((at * 31) >> 7) as u8).collect();
    // SAFETY: `memory` outlives the pair's requests and is not used meanwhile.
    let foreign = unsafe { Buffer::foreign(NonNull::from(&mut memory[0]), memory.len()) };
    for landing in [foreign, region_buffer(&region, 100, 3 << 20)] {
        let request = OutgoingRequest {
            data: bytes.clone().into(),
            landing: Landing::Place(landing.into()),
            ..OutgoingRequest::new(b"", 1)
        };
        let reply = pair.echo(connection, request);
        assert!(reply.data.to_vec() == bytes);
    }
    assert!(memory == bytes);
    assert_eq!(pair.server.statistics().snapshot().bytes_in_place, 0);
}

#[test]
fn checksums_cover_data_in_place() {
    let crc = |options: &mut ContextOptions| options.crc = true;
    let mut pair = Pair::with(Fabric::shm(), crc, crc, ServerOptions::default());
    let (connection, _) = pair.connect();
    let region = Region::allocate(1 << 20, false).unwrap();
    let mut data = region_buffer(&region, 0, 8192);
    data.copy_from(0, &[5; 8192]);
    let landing = Landing::Place(region_buffer(&region, 8192, 8192).into());
    let request = OutgoingRequest { data: data.into(), landing, ..OutgoingRequest::new(b"x", 1) };
    let reply = pair.echo(connection, request);
    assert!(reply.data.to_vec() == [5; 8192]);
    assert_eq!(pair.server.statistics().snapshot().bytes_in_place, 8192);
}

/// What the client reads and writes of the server's exposed memory goes from one memory to the other in one copy, which the
/// owner makes once it has looked at key, bounds and permission.
#[test]
fn one_sided_operations_copy_once() {
    const LENGTH: usize = 73 * 4096;
    for crc in [false, true] {
        let set = |options: &mut ContextOptions| options.crc = crc;
        let mut pair = Pair::with(Fabric::shm(), set, set, ServerOptions::default());
        let (connection, there) = pair.connect();
        let exposed = Region::allocate(1 << 20, false).unwrap();
        let remote = pair.server.expose(there, &exposed, 1000, LENGTH, Access::READ_WRITE).unwrap();
        let own = Region::allocate(1 << 20, false).unwrap();
        let before = |pair: &Pair| {
            let [server, client] = [&pair.server, &pair.client].map(|side| side.statistics().snapshot());
            (server.bytes_copied, client.bytes_copied, server.bytes_sent + client.bytes_sent)
        };
        let bytes: Vec<u8> = (0..LENGTH).map(|at| (at * 7 / 8) as u8).collect();
        let mut data = region_buffer(&own, 0, LENGTH);
        data.copy_from(0, &bytes);

        let counts = before(&pair);
        pair.client.remote_write(connection, &remote, 0, data.into(), 1, SendOptions::default()).unwrap();
        let Event::Response { outcome: Ok(_), .. } = pair.client_event() else { panic!() };
        assert!(region_buffer(&exposed, 1000, LENGTH).to_vec() == bytes);
        let after = before(&pair);
        assert_eq!((after.0 - counts.0, after.1 - counts.1), (LENGTH as u64, 0));
        assert!(after.2 - counts.2 < 1024, "data has travelled");

        for landing in [
            Landing::Place(region_buffer(&own, 4096, LENGTH - 8192).into()),
            Landing::Pool(LENGTH as u32 - 8192),
        ] {
            let counts = before(&pair);
            pair.client.remote_read(connection, &remote, 8192, landing, 2, SendOptions::default()).unwrap();
            let Event::Response { outcome: Ok(reply), .. } = pair.client_event() else { panic!() };
            assert!(reply.data.to_vec() == bytes[8192..]);
            let after = before(&pair);
            assert_eq!((after.0 - counts.0, after.1 - counts.1), (LENGTH as u64 - 8192, 0));
            assert!(after.2 - counts.2 < 1024, "data has travelled");
        }
    }
}

/// The owner looks at key, bounds and permission of what is copied in place, too.
/// However much a peer asks for at once, other connections have their turn after a bounded part of it.
#[test]
fn one_sided_operations_are_copied_a_part_in_each_turn() {
    const LENGTH: u32 = 1 << 20;
    const READS: u64 = 16;
    let mut pair = pair();
    let (here, there) = pair.connect();
    let exposed = Region::allocate(LENGTH as usize, false).unwrap();
    let remote = pair.server.expose(there, &exposed, 0, LENGTH as usize, Access::READ).unwrap();
    // The pool's memory is handed over by the first ones.
    for _ in 0..2 {
        for token in 0..READS {
            let (landing, options) = (Landing::Pool(LENGTH), SendOptions::default());
            pair.client.remote_read(here, &remote, 0, landing, token, options).unwrap();
        }
        pair.client.flush().unwrap();
        let mut copied = pair.server.statistics().snapshot().bytes_copied;
        let begun = copied;
        pair.until("the answers", |pair| {
            let now = pair.server.statistics().snapshot().bytes_copied;
            // What one receive may copy, and one operation more; `until` gives each side one turn.
            assert!(now - copied <= 3 << 20, "{} bytes in one turn", now - copied);
            copied = now;
            pair.client_events.len() == READS as usize
        });
        pair.client_events.clear();
        assert_eq!(pair.server.statistics().snapshot().bytes_copied - begun, READS * u64::from(LENGTH));
    }
}

#[test]
fn one_sided_operations_in_place_are_checked_by_the_owner() {
    let mut pair = pair();
    let (connection, there) = pair.connect();
    let exposed = Region::allocate(65_536, false).unwrap();
    let remote = pair.server.expose(there, &exposed, 0, 32_768, Access::READ).unwrap();
    let own = Region::allocate(65_536, false).unwrap();
    let change = |at: usize, bits: u8| {
        let mut bytes = remote.to_bytes();
        bytes[at] ^= bits;
        RemoteRegion::from_bytes(&bytes).unwrap()
    };
    let (writable, longer, other) = (change(4, 2), change(10, 1), change(20, 1));
    let none = SendOptions::default;
    let write = |pair: &mut Pair, remote: &RemoteRegion, offset: u64| {
        let mut data = region_buffer(&own, 0, 8192);
        data.copy_from(0, &[9; 8192]);
        pair.client.remote_write(connection, remote, offset, data.into(), 1, none()).unwrap();
        let Event::Response { outcome, .. } = pair.client_event() else { panic!() };
        outcome.map(drop)
    };
    let read = |pair: &mut Pair, remote: &RemoteRegion, offset: u64| {
        let landing = Landing::Place(region_buffer(&own, 0, 8192).into());
        pair.client.remote_read(connection, remote, offset, landing, 1, none()).unwrap();
        let Event::Response { outcome, .. } = pair.client_event() else { panic!() };
        outcome.map(drop)
    };
    assert!(matches!(write(&mut pair, &writable, 0), Err(Error::NotPermitted)));
    assert!(matches!(read(&mut pair, &longer, 30_000), Err(Error::OutOfBounds)));
    assert!(matches!(read(&mut pair, &other, 0), Err(Error::NotExposed)));
    assert!(read(&mut pair, &remote, 0).is_ok());
    pair.server.revoke(there, &remote).unwrap();
    assert!(matches!(read(&mut pair, &remote, 0), Err(Error::NotExposed)));
    assert!(region_buffer(&exposed, 0, 65_536).to_vec() == [0; 65_536]);
    assert!(own.is_shareable(), "the client's memory is its own again");
}

/// The server stands still while it has a buffer over the client's memory; the client gives up, uses its memory for
/// something else, and then the server goes on.
#[test]
fn a_server_that_slept_through_it_cannot_touch_reused_memory() {
    let mut pair = pair();
    let (connection, _) = pair.connect();
    let region = Region::allocate(1 << 20, false).unwrap();
    let landing = region_buffer(&region, 4096, 8192);
    let mut data = region_buffer(&region, 65_536, 4096);
    data.copy_from(0, &[1; 4096]);
    let request = OutgoingRequest {
        data: data.into(),
        landing: Landing::Place(landing.into()),
        ..OutgoingRequest::new(b"", 1)
    };
    pair.client.request(connection, request).unwrap();
    let mut request = pair.request();
    let late_read = request.take_data();
    let mut late_write = pair.server.response_buffer(&request, 8192).unwrap();
    // The neighbours of what was lent stay as they are.
    region_buffer(&region, 0, 10).copy_from(0, b"neighbour!");
    pair.client.abort(connection).unwrap();
    let mut reused = region_buffer(&region, 4096, 8192);
    reused.copy_from(0, &[2; 8192]);
    region_buffer(&region, 65_536, 4096).copy_from(0, &[3; 4096]);
    late_write.copy_from(0, &[9; 8192]);
    assert!(reused.to_vec() == [2; 8192], "the server has written into memory that is not its own any more");
    assert!(late_read.to_vec() == [1; 4096], "what it reads is what it was given");
    assert_eq!(region_buffer(&region, 0, 10).to_vec(), b"neighbour!");
    drop((request, late_read, late_write));
    // The memory is shared again, with pages that the old link does not reach.
    let (connection, _) = {
        pair.until("the end at the server", |pair| {
            pair.server_events.drain(..).any(|event| matches!(event, Event::Closed { .. }))
        });
        pair.client_events.clear();
        pair.connect()
    };
    let before = pair.server.statistics().snapshot();
    let mut data = region_buffer(&region, 65_536, 4096);
    data.copy_from(0, &[4; 4096]);
    let landing = Landing::Place(reused.into());
    let request = OutgoingRequest { data: data.into(), landing, ..OutgoingRequest::new(b"", 1) };
    assert!(pair.echo(connection, request).data.to_vec() == [4; 4096]);
    let after = pair.server.statistics().snapshot();
    assert_eq!(after.bytes_in_place - before.bytes_in_place, 4096);
    assert!(after.bytes_received - before.bytes_received < 1024, "the data has travelled");
    // And so is what lies beside it, as before.
    let landing = Landing::Place(region_buffer(&region, 0, 4096).into());
    pair.client.request(connection, read(landing)).unwrap();
    let request = pair.request();
    let mut buffer = pair.server.response_buffer(&request, 4096).unwrap();
    buffer.copy_from(0, &[6; 4096]);
    assert!(region_buffer(&region, 0, 4096).to_vec() == [6; 4096], "it is the client's memory");
    pair.server.respond(request, OutgoingResponse { header: b"", data: buffer.into() }).unwrap();
    assert!(matches!(pair.client_event(), Event::Response { outcome: Ok(_), .. }));
}

/// A server that has let go of everything: nothing has to be taken from it, and the region stays shared.
#[test]
fn a_server_that_is_gone_leaves_regions_as_they_are() {
    let mut pair = pair();
    let (connection, _) = pair.connect();
    let region = Region::allocate(1 << 20, false).unwrap();
    let landing = Landing::Place(region_buffer(&region, 0, 8192).into());
    pair.client.request(connection, read(landing)).unwrap();
    drop(pair.request());
    pair.server_events.clear();
    let Pair { mut client, server, .. } = pair;
    drop(server);
    let start = Instant::now();
    let reason = loop {
        client.wait(Some(Duration::from_millis(10))).unwrap();
        match client.next_event() {
            Some(Event::Closed { reason, .. }) => break reason,
            _ => assert!(start.elapsed() < Duration::from_secs(20)),
        }
    };
    assert_eq!(reason.errno(), libc::ECONNRESET, "{reason}");
    assert!(region.is_shareable());
}

#[test]
fn sleeping_sides_wake_each_other() {
    let path = socket_path();
    let mut server = Context::new(ContextOptions::default()).unwrap();
    server.listen(&format!("shm://{path}").parse().unwrap(), ServerOptions::default()).unwrap();
    let stop = server.handle();
    let thread = std::thread::spawn(move || {
        server
            .run(|context, event| match event {
                Event::ConnectionRequest(request) => {
                    context.accept(request, Default::default()).unwrap();
                }
                Event::Request(mut request) => {
                    let data = request.take_data();
                    context.respond(request, OutgoingResponse { header: b"", data }).unwrap();
                }
                _ => {}
            })
            .unwrap();
        server.statistics().snapshot()
    });
    let mut client = Context::new(ContextOptions::default()).unwrap();
    let session = Session::new(format!("shm:///?socket={path}").parse().unwrap());
    let connection = client.connect(&session, Default::default()).unwrap();
    let mut answers = 0;
    let start = Instant::now();
    while answers < 100 {
        assert!(start.elapsed() < Duration::from_secs(30), "somebody was not woken: {answers} answers");
        client.wait(Some(Duration::from_secs(20))).unwrap();
        while let Some(event) = client.next_event() {
            match event {
                Event::Connected { .. } => {}
                Event::Response { outcome, .. } => {
                    outcome.unwrap();
                    answers += 1;
                }
                other => panic!("{other:?}"),
            }
            if answers % 2 == 0 {
                // Long enough for both to sleep.
                std::thread::sleep(Duration::from_millis(2));
            }
            // More than a ring holds, without and with a place to land.
            let landing = if answers % 3 == 0 { Landing::Pool(1 << 20) } else { Landing::None };
            let length = if answers % 3 == 0 { 1 << 20 } else { 0 };
            let data = Sgl::from(vec![answers as u8; length]);
            client
                .request(connection, OutgoingRequest { data, landing, ..OutgoingRequest::new(b"", 1) })
                .unwrap();
        }
    }
    stop.stop();
    assert!(thread.join().unwrap().sleeps > 10);
}

/// Who sleeps and is driven by somebody else's loop sends something in between: it is rung all the same for what comes then.
#[test]
fn sending_does_not_take_back_that_a_side_sleeps() {
    const SERVER_ASLEEP: usize = 640;
    watchdog();
    let path = socket_path();
    let mut server = Context::new(ContextOptions::default()).unwrap();
    server.listen(&format!("shm://{path}").parse().unwrap(), ServerOptions::default()).unwrap();
    let mut guest = raw::End::client(&path);
    guest.write(&raw::frame(FrameHead::new(FrameKind::Hello), &[], &raw::hello().encode()));
    let connection = loop {
        server.wait(Some(Duration::from_millis(5))).unwrap();
        if let Some(Event::ConnectionRequest(request)) = server.next_event() {
            break server.accept(request, Default::default()).unwrap();
        }
    };
    server.poll_fd().unwrap();
    let start = Instant::now();
    while guest.rings.word(SERVER_ASLEEP).load(Ordering::SeqCst) == 0 {
        assert!(start.elapsed() < raw::LONG);
        server.wait(Some(Duration::ZERO)).unwrap();
    }
    let message = OutgoingOneWay { header: b"in between", ..Default::default() };
    server.send(connection, message).unwrap();
    server.flush().unwrap();
    assert_ne!(guest.rings.word(SERVER_ASLEEP).load(Ordering::SeqCst), 0, "nobody will ring");
    let (welcome, _) = guest.read_frame(&FrameLimits::handshake()).unwrap();
    assert_eq!(welcome.kind, FrameKind::Welcome);
    let (message, _) = guest.read_frame(&raw::limits()).unwrap();
    assert_eq!(message.kind, FrameKind::OneWay);
}

#[test]
fn a_socket_is_needed_and_said_so() {
    let mut client = Context::new(ContextOptions::default()).unwrap();
    let mut connect =
        |uri: &str| client.connect(&Session::new(uri.parse().unwrap()), Default::default()).unwrap_err();
    assert!(matches!(connect("shm:///x"), Error::BadUri { .. }));
    assert_eq!(connect("shm:///x?socket=/nowhere/at/all").errno(), libc::ENOENT);
    let long = format!("shm:///x?socket=/{}", "a".repeat(200));
    assert_eq!(connect(&long).errno(), libc::ENAMETOOLONG);
}

#[test]
fn an_abandoned_socket_is_replaced_and_a_live_one_is_not() {
    let path = socket_path();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut server = Context::new(ContextOptions::default()).unwrap();
    let uri = format!("shm://{path}").parse().unwrap();
    // A stream socket, dead as it is, is no obstacle either.
    server.listen(&uri, ServerOptions::default()).unwrap();
    let mut second = Context::new(ContextOptions::default()).unwrap();
    assert_eq!(second.listen(&uri, ServerOptions::default()).unwrap_err().errno(), libc::EADDRINUSE);
    drop(server);
    assert!(!std::path::Path::new(&path).exists(), "the socket goes with its server");
    std::fs::write(&path, b"a file of somebody").unwrap();
    assert_eq!(second.listen(&uri, ServerOptions::default()).unwrap_err().errno(), libc::EADDRINUSE);
    std::fs::remove_file(&path).unwrap();
}
