//! What a server maps of its clients' memory is bounded, for each and for all; whoever gets no more sends through the ring.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod raw;
mod serving;

use conformance::{Fabric, Pair};
use libxio::transport::SharedMemoryOptions;
use libxio::wire::{FrameHead, FrameKind, FrameLimits};
use libxio::{
    AcceptOptions, Buffer, Connection, Context, ContextOptions, Event, Landing, OutgoingRequest, Region,
    ServerOptions, Session,
};
use raw::{DOORBELL, End, LIMITS, Shared, WITHDRAW, frame, hello, message, request, tell};
use serving::Server;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

fn region_buffer(region: &Region, offset: usize, length: usize) -> Buffer {
    region.slice(offset, length).unwrap()
}

fn read(landing: Landing) -> OutgoingRequest<'static> {
    OutgoingRequest { landing, ..OutgoingRequest::new(b"read", 1) }
}

fn bounded(shared_memory: SharedMemoryOptions) -> Pair {
    let limit = |options: &mut ContextOptions| options.shared_memory = shared_memory;
    Pair::with(Fabric::shm(), |_| (), limit, ServerOptions::default())
}

/// Whether the answer to a request was put into this region by the server.
fn is_in_place(pair: &mut Pair, connection: Connection, region: &Region) -> bool {
    let before = pair.server.statistics().snapshot().bytes_in_place;
    let landing = Landing::Place(region_buffer(region, 4096, 8192).into());
    let request = OutgoingRequest { data: vec![7; 8192].into(), landing, ..OutgoingRequest::new(b"", 1) };
    assert!(pair.echo(connection, request).data.to_vec() == [7; 8192]);
    pair.server.statistics().snapshot().bytes_in_place > before
}

fn in_place(pair: &mut Pair, connection: Connection, regions: &[Region]) -> usize {
    regions.iter().filter(|region| is_in_place(pair, connection, region)).count()
}

fn until_in_place(pair: &mut Pair, connection: Connection, regions: &[Region]) {
    let start = Instant::now();
    loop {
        let count = in_place(pair, connection, regions);
        if count == regions.len() {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{count} of {} regions in place", regions.len());
    }
}

/// A server maps so much of a client's memory and no more; what lies beyond it goes through the ring.
#[test]
fn what_a_server_maps_of_a_client_is_bounded() {
    for (regions_max, region_bytes_max, in_place) in
        [(1024, 3 << 20, 3), (2, 16 << 30, 2), (0, 16 << 30, 0), (1024, 0, 0), (1024, (1 << 20) - 1, 0)]
    {
        let limit = |options: &mut ContextOptions| {
            options.shared_memory =
                SharedMemoryOptions { regions_max, region_bytes_max, ..SharedMemoryOptions::default() };
        };
        let mut pair = Pair::with(Fabric::shm(), |_| (), limit, ServerOptions::default());
        let (connection, _) = pair.connect();
        let regions: Vec<_> = (0..5).map(|_| Region::allocate(1 << 20, false).unwrap()).collect();
        for _ in 0..3 {
            let before = pair.server.statistics().snapshot().bytes_in_place;
            for (at, region) in regions.iter().enumerate() {
                let landing = Landing::Place(region_buffer(region, 4096, 8192).into());
                let data = vec![at as u8; 8192].into();
                let request = OutgoingRequest { data, landing, ..OutgoingRequest::new(b"", 1) };
                assert!(pair.echo(connection, request).data.to_vec() == [at as u8; 8192]);
            }
            let after = pair.server.statistics().snapshot().bytes_in_place;
            assert_eq!(after - before, in_place * 8192, "{regions_max} {region_bytes_max}");
        }
        // What is gone makes room, once the server has said that it has unmapped it.
        drop(regions);
        let region = Region::allocate(1 << 20, false).unwrap();
        is_in_place(&mut pair, connection, &region);
        assert_eq!(is_in_place(&mut pair, connection, &region), in_place > 0);
    }
}

/// A server's application may keep what it was lent for as long as it likes, also when the request has its answer and the
/// client has let go of the memory: the client, which can't know, is not at fault, and sends through the ring meanwhile.
#[test]
fn a_client_is_not_ended_for_what_the_server_keeps() {
    let mut pair =
        bounded(SharedMemoryOptions { region_bytes_max: 4 * MIB, ..SharedMemoryOptions::default() });
    let (connection, _) = pair.connect();
    let mut kept = Vec::new();
    // Three times what may be mapped.
    for round in 1..=6_u8 {
        let region = Region::allocate(2 << 20, false).unwrap();
        let mut data = region_buffer(&region, 0, 8192);
        data.copy_from(0, &[round; 8192]);
        let request = OutgoingRequest { data: data.into(), ..OutgoingRequest::new(b"keep", 1) };
        pair.client.request(connection, request).unwrap();
        let mut request = pair.request();
        kept.push(request.take_data());
        pair.server.respond(request, Default::default()).unwrap();
        match pair.client_event() {
            Event::Response { outcome, .. } => drop(outcome.unwrap()),
            other => panic!("round {round}: {other:?}"),
        }
    }
    for (round, data) in (1..).zip(&kept) {
        assert!(data.to_vec() == [round; 8192]);
    }
    let region = [Region::allocate(2 << 20, false).unwrap()];
    assert_eq!(in_place(&mut pair, connection, &region), 0, "what is kept counts");
    drop(kept);
    until_in_place(&mut pair, connection, &region);
}

/// What a client was given room for and has freed is there for others, though its link goes on.
#[test]
fn what_a_client_has_freed_is_left_to_others() {
    let mut pair =
        bounded(SharedMemoryOptions { total_bytes_max: 600 * MIB, ..SharedMemoryOptions::default() });
    let (first, _) = pair.connect();
    let (second, _) = pair.connect();
    let [mine, others] =
        [(); 2].map(|()| Vec::from([(); 2].map(|()| Region::allocate(90 << 20, false).unwrap())));
    until_in_place(&mut pair, first, &mine);
    for _ in 0..100 {
        assert!(in_place(&mut pair, second, &others) < 2);
    }
    drop(mine);
    // It has nothing to do for a while.
    for _ in 0..50 {
        pair.settle();
    }
    until_in_place(&mut pair, second, &others);
}

#[test]
fn regions_come_and_go() {
    let mut pair = Pair::new(Fabric::shm());
    let (connection, _) = pair.connect();
    for round in 0..3000_usize {
        let region = Region::allocate(8192, false).unwrap();
        let landing = Landing::Place(region_buffer(&region, 0, 8192).into());
        let request =
            OutgoingRequest { data: vec![round as u8; 5000].into(), landing, ..read(Landing::None) };
        assert!(pair.echo(connection, request).data.to_vec() == vec![round as u8; 5000]);
    }
    assert_eq!(pair.server.statistics().snapshot().bytes_in_place, 3000 * 5000);
}

/// More than most clients need is asked for, and given.
#[test]
fn a_client_with_much_memory_asks_for_more() {
    for (count, length) in [(100, 1 << 20), (2, 100 << 20)] {
        let mut pair = Pair::new(Fabric::shm());
        let (connection, _) = pair.connect();
        let regions: Vec<_> = (0..count).map(|_| Region::allocate(length, false).unwrap()).collect();
        until_in_place(&mut pair, connection, &regions);
    }
}

/// All clients of a server together get no more than its total, and none so much that as much is not left to the others.
/// Who gets nothing sends through the ring, and gets its share once others have gone.
#[test]
fn what_a_server_maps_of_all_clients_is_bounded() {
    for (total_regions_max, total_bytes_max) in [(1000, 108 * MIB), (10, 1 << 40)] {
        let mut pair = bounded(SharedMemoryOptions {
            total_regions_max,
            total_bytes_max,
            ..SharedMemoryOptions::default()
        });
        let (first, _) = pair.connect();
        let (second, _) = pair.connect();
        let regions: Vec<_> = (0..3).map(|_| Region::allocate(12 << 20, false).unwrap()).collect();
        until_in_place(&mut pair, first, &regions);
        for _ in 0..1000 {
            assert!(in_place(&mut pair, second, &regions) < 3, "{total_regions_max} {total_bytes_max}");
        }
        pair.client.abort(first).unwrap();
        pair.until("the end of the first", |pair| {
            !pair.client_events.is_empty() && !pair.server_events.is_empty()
        });
        pair.client_events.clear();
        pair.server_events.clear();
        until_in_place(&mut pair, second, &regions);
    }
}

#[test]
fn a_client_whose_rings_find_no_room_is_told() {
    let mut pair = bounded(SharedMemoryOptions { total_bytes_max: MIB, ..SharedMemoryOptions::default() });
    let (connection, _) = pair.connect();
    let small = [Region::allocate(65_536, false).unwrap()];
    until_in_place(&mut pair, connection, &small);
    let large = [Region::allocate(1 << 20, false).unwrap()];
    assert_eq!(in_place(&mut pair, connection, &large), 0);
    // There is room for one pair of rings.
    let uri = pair.uri.clone();
    let refused = pair.client.connect(&Session::new(uri), Default::default()).unwrap();
    let mut reason = None;
    pair.until("the refusal", |pair| {
        pair.client_events.retain(|event| match event {
            Event::Closed { connection, reason: why } if *connection == refused => {
                reason = Some(why.errno());
                false
            }
            _ => true,
        });
        reason.is_some()
    });
    assert_eq!(reason, Some(libc::ENOBUFS));
    until_in_place(&mut pair, connection, &small);
}

/// What a peer withdraws while an operation uses it stays mapped, and counts.
#[test]
fn memory_that_is_withdrawn_in_mid_operation_still_counts() {
    let path = Fabric::shm().listen.resource().to_owned();
    let shared_memory = SharedMemoryOptions { region_bytes_max: 4 * MIB, ..SharedMemoryOptions::default() };
    let mut server = Context::new(ContextOptions { shared_memory, ..ContextOptions::default() }).unwrap();
    server.listen(&format!("shm://{path}").parse().unwrap(), ServerOptions::default()).unwrap();
    for held in [false, true] {
        let mut guest = End::client(&path);
        guest.write(&frame(FrameHead::new(FrameKind::Hello), &[], &hello().encode()));
        loop {
            server.wait(Some(Duration::from_millis(5))).unwrap();
            if let Some(Event::ConnectionRequest(request)) = server.next_event() {
                server.accept(request, AcceptOptions::new()).unwrap();
                server.flush().unwrap();
                break;
            }
        }
        let (welcome, _) = guest.read_frame(&FrameLimits::handshake()).unwrap();
        assert_eq!(welcome.kind, FrameKind::Welcome);
        let mut kept = Vec::new();
        let mut closed = false;
        let mut turn = |server: &mut Context| {
            server.wait(Some(Duration::from_millis(5))).unwrap();
            match server.next_event() {
                Some(Event::Request(request)) if held => kept.push(request),
                Some(Event::Request(request)) => {
                    server.respond(request, Default::default()).unwrap();
                }
                Some(Event::Closed { reason, .. }) => {
                    println!("{held}: {reason}");
                    closed = true;
                }
                _ => {}
            }
            closed
        };
        let start = Instant::now();
        // Four times what may be mapped, one region after the other.
        for number in 0..8 {
            let region = Shared::new(2 << 20);
            guest.hand_over(number, &region);
            guest.write(&request(number as u16, 1, (4096, 0), &[(number, 4096, 0)], &[]));
            for _ in 0..4 {
                turn(&mut server);
            }
            tell(&guest.socket, &message(WITHDRAW, number, 0, (0, 0)), &[]);
            tell(&guest.socket, &message(DOORBELL, 0, 0, (0, 0)), &[]);
            if (0..4).any(|_| turn(&mut server)) {
                break;
            }
        }
        assert_eq!(turn(&mut server), held);
        drop(guest);
        while !turn(&mut server) {
            assert!(start.elapsed() < raw::LONG);
        }
    }
}

/// A peer that asks for more than there is, again and again, gets what one client may have.
#[test]
fn asking_without_end_gives_no_more_than_one_may_have() {
    let server = Server::start();
    let (guest, _region) = server.guest();
    let most = SharedMemoryOptions::default();
    for round in 0..1000_u32 {
        tell(&guest.socket, &message(LIMITS, u32::MAX - round, u64::MAX, (0, 0)), &[]);
        let (answer, _) = raw::hear(&guest.socket).expect("the limits");
        if answer[0] == LIMITS {
            let regions = u32::from_le_bytes(answer[4..8].try_into().unwrap());
            let bytes = u64::from_le_bytes(answer[8..16].try_into().unwrap());
            assert!(regions <= most.regions_max && bytes <= most.region_bytes_max.min(most.total_bytes_max));
        }
    }
    server.serves();
}

/// A side that sleeps takes what waits behind a bell, without another one.
#[test]
fn what_waits_behind_a_bell_is_taken() {
    let server = Server::start();
    let (guest, _region) = server.guest();
    for _ in 0..3 {
        tell(&guest.socket, &message(DOORBELL, 0, 0, (0, 0)), &[]);
    }
    tell(&guest.socket, &message(WITHDRAW, 0, 0, (0, 0)), &[]);
    loop {
        let (answer, _) = raw::hear(&guest.socket).expect("the server goes on");
        if answer[0] == raw::UNMAPPED {
            assert_eq!(answer[4..8], 1_u32.to_le_bytes());
            break;
        }
    }
}
