//! What a broken or hostile peer can do with shared memory: hand over wrong memory, lie about places, scribble on
//! everything, punch holes, take the pages away, die. Nobody else notices, and nothing outside what the peer itself has
//! shared is touched.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod raw;
mod serving;

use conformance::{Fabric, watchdog};
use libxio::wire::{FrameHead, FrameKind, Goodbye, Welcome};
use libxio::{
    AcceptOptions, ConnectionOptions, Context, ContextOptions, Event, Landing, OutgoingRequest, Region,
    ServerOptions, Session,
};
use raw::{
    End, HUGE, LONG, RINGS, Shared, attach, connect, cut_off, frame, limits, memfd, memory_without_pages,
    message, one_sided, request, seals, tell, vanished,
};
use rustix::fs::{FallocateFlags, MemfdFlags, OFlags, SealFlags};
use serving::Server;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The guest is told this rule's number, and is cut off.
fn dismissed(mut guest: End, code: u32) {
    while let Some((head, body)) = guest.read_frame(&limits()) {
        if head.kind == FrameKind::Goodbye {
            let goodbye = Goodbye::decode(&body).unwrap();
            assert_eq!(goodbye.code, code, "{}", goodbye.text);
            return cut_off(&guest.socket);
        }
    }
    panic!("cut off without a word");
}

#[test]
fn wrong_rings_are_refused() {
    let server = Server::start();
    let plain = MemfdFlags::empty();
    let file: OwnedFd = tempfile::tempfile().unwrap().into();
    rustix::fs::ftruncate(&file, RINGS as u64).unwrap();
    let good = || memfd(RINGS, seals(), plain);
    let rings = |length: usize, up: u32, down: u32| message(raw::ATTACH, 0, length as u64, (up, down));
    let ring = raw::RING as u32;
    for (what, bytes, descriptor) in [
        ("not sealed", attach(), memfd(RINGS, SealFlags::empty(), plain)),
        ("may shrink", attach(), memfd(RINGS, SealFlags::GROW, plain)),
        ("may grow", attach(), memfd(RINGS, SealFlags::SHRINK, plain)),
        ("can't be written", attach(), memfd(RINGS, seals() | SealFlags::WRITE, plain)),
        ("too short", attach(), memfd(RINGS - 4096, seals(), plain)),
        ("too long", attach(), memfd(RINGS + 4096, seals(), plain)),
        ("a file", attach(), file),
        ("a socket", attach(), raw::socket()),
        ("another length", rings(RINGS - 4096, ring, ring), good()),
        ("rings of no power of two", rings(RINGS, ring + 4096, ring - 4096), good()),
        (
            "rings too large",
            rings(4096 + (64 << 20), 32 << 20, 32 << 20),
            memfd(4096 + (64 << 20), seals(), plain),
        ),
        ("no rings", rings(4096, 0, 0), memfd(4096, seals(), plain)),
        ("a region first", message(raw::REGION, 0, RINGS as u64, (0, 0)), good()),
    ] {
        let socket = connect(&server.path);
        tell(&socket, &bytes, &[descriptor.as_fd()]);
        println!("{what}");
        cut_off(&socket);
    }
    for (what, bytes, descriptors) in [
        ("no memory", &attach()[..], 0),
        ("too much memory", &attach()[..], 2),
        ("too short", &attach()[..31], 1),
        ("too long", &[0; 33][..], 1),
        ("a kind that is not known", &message(77, 0, 0, (0, 0))[..], 0),
        ("a refusal", &message(5, 13, 0, (0, 0))[..], 0),
        ("limits for the server", &message(raw::LIMITS, 1, 4096, (0, 0))[..], 0),
        ("a descriptor with a doorbell", &message(raw::DOORBELL, 0, 0, (0, 0))[..], 1),
    ] {
        let socket = connect(&server.path);
        let memfd = good();
        tell(&socket, bytes, &vec![memfd.as_fd(); descriptors]);
        println!("{what}");
        cut_off(&socket);
    }
    server.serves();
}

fn opened(path: &str, flags: OFlags) -> OwnedFd {
    rustix::fs::open(path, flags, rustix::fs::Mode::empty()).unwrap()
}

/// The same file, opened in another way.
fn again(memfd: &OwnedFd, flags: OFlags) -> OwnedFd {
    opened(&format!("/proc/self/fd/{}", memfd.as_raw_fd()), flags)
}

#[test]
fn wrong_regions_end_the_link() {
    let server = Server::start();
    let plain = MemfdFlags::empty();
    for (what, number, length, memory) in [
        ("not sealed", 1, 8192, memfd(8192, SealFlags::empty(), plain)),
        ("too short", 1, 8192, memfd(4096, seals(), plain)),
        ("an odd length", 1, 5000, memfd(5000, seals(), plain)),
        ("nothing", 1, 0, memfd(0, seals(), plain)),
        ("a number that was given", 0, 8192, memfd(8192, seals(), plain)),
        ("too much", 1, 1 << 40, memfd(1 << 40, seals(), plain)),
        ("not to be written", 1, 8192, again(&memfd(8192, seals(), plain), OFlags::RDONLY)),
        ("written no more", 1, 8192, memfd(8192, seals() | SealFlags::FUTURE_WRITE, plain)),
        ("a place in the file system", 1, 8192, again(&memfd(8192, seals(), plain), OFlags::PATH)),
        ("a folder", 1, 8192, opened("/proc/self", OFlags::RDONLY)),
        ("a device of zeros", 1, 8192, opened("/dev/zero", OFlags::RDWR)),
        ("a socket", 1, 8192, raw::socket()),
        ("a pipe", 1, 8192, std::io::pipe().unwrap().0.into()),
    ] {
        println!("{what}");
        let (guest, _region) = server.guest();
        guest.hand_over_as(number, length, memory.as_fd());
        tell(&guest.socket, &message(raw::DOORBELL, 0, 0, (0, 0)), &[]);
        cut_off(&guest.socket);
    }
    let (guest, _region) = server.guest();
    tell(&guest.socket, &message(raw::WITHDRAW, 7, 0, (0, 0)), &[]);
    cut_off(&guest.socket);
    let (guest, _region) = server.guest();
    tell(&guest.socket, &attach(), &[memfd(RINGS, seals(), plain).as_fd()]);
    cut_off(&guest.socket);
    server.serves();
}

#[test]
fn places_outside_what_was_shared_are_refused() {
    let server = Server::start();
    const BAD: u32 = 25;
    const READ: FrameKind = FrameKind::RemoteRead;
    const WRITE: FrameKind = FrameKind::RemoteWrite;
    for (what, bytes) in [
        ("another's region", request(0, 1, (0, 4096), &[], &[(1, 4096, 0)])),
        ("beyond the end", request(0, 1, (0, 4096), &[], &[(0, 4096, 61_441)])),
        ("a wrapping offset", request(0, 1, (0, 4096), &[], &[(0, 4096, u64::MAX - 100)])),
        ("a longer landing than room", request(0, 1, (0, 4096), &[], &[(0, 8192, 0)])),
        ("a shorter landing than room", request(0, 1, (0, 8192), &[], &[(0, 4096, 0)])),
        ("data outside", request(0, 1, (4096, 0), &[(0, 4096, 65_536)], &[])),
        ("data of another length", request(0, 1, (4096, 0), &[(0, 4095, 0)], &[])),
        ("data of no length", request(0, 1, (0, 0), &[(0, 0, 0)], &[])),
        ("nothing at all", request(0, 1, (0, 0), &[], &[])),
        ("a one-sided read into another's region", one_sided(READ, (0, 4096), &[], &[(1, 4096, 0)])),
        ("a one-sided read beyond the end", one_sided(READ, (0, 4096), &[], &[(0, 4096, 61_441)])),
        ("a one-sided read of another length", one_sided(READ, (0, 8192), &[], &[(0, 4096, 0)])),
        ("a one-sided read with data", one_sided(READ, (0, 4096), &[(0, 4096, 0)], &[(0, 4096, 0)])),
        ("a one-sided write from another's region", one_sided(WRITE, (4096, 0), &[(1, 4096, 0)], &[])),
        ("a one-sided write of another length", one_sided(WRITE, (4096, 0), &[(0, 8192, 0)], &[])),
        ("a one-sided write with a landing", one_sided(WRITE, (4096, 0), &[], &[(0, 4096, 0)])),
        ("u32::MAX twice", request(0, 1, (4096, 0), &[(0, u32::MAX, 0), (0, u32::MAX, 0)], &[])),
    ] {
        println!("{what}");
        let (mut guest, _region) = server.guest();
        guest.write(&bytes);
        dismissed(guest, BAD);
    }
    let placed = {
        let head = FrameHead { slot: 0, sequence: 1, ..FrameHead::new(FrameKind::Response) };
        frame(head, &[0, 0, 1, 0, 0, 0, 0, 0], b"")
    };
    let (mut guest, _region) = server.guest();
    guest.write(&placed);
    dismissed(guest, BAD);
    // What is not exposed is not touched, and that is no fault.
    for bytes in
        [one_sided(READ, (0, 4096), &[], &[(0, 4096, 0)]), one_sided(WRITE, (4096, 0), &[(0, 4096, 0)], &[])]
    {
        let (mut guest, region) = server.guest();
        guest.write(&bytes);
        let (head, _) = guest.read_frame(&limits()).expect("an answer");
        assert_eq!((head.kind, head.room), (FrameKind::Response, 5));
        assert!(region.read(0, 4096).iter().all(|byte| *byte == 0));
    }
    server.serves();
}

#[test]
fn positions_that_cannot_be_end_the_link() {
    let server = Server::start();
    for place in [0, 384] {
        // Just before the position itself it is one that may be: full or nearly so.
        for value in [1 << 17, u64::MAX - (1 << 20), u64::MAX / 2] {
            println!("{place} {value:#x}");
            let (mut guest, _region) = server.guest();
            if place == 384 {
                // How far the answers were read: looked at when one is to be written.
                guest.rings.word(place).store(value, Ordering::SeqCst);
                guest.write(&request(0, 1, (0, 4096), &[], &[(0, 4096, 0)]));
            } else {
                guest.rings.word(place).store(value, Ordering::SeqCst);
                tell(&guest.socket, &message(raw::DOORBELL, 0, 0, (0, 0)), &[]);
            }
            cut_off(&guest.socket);
        }
    }
    server.serves();
}

#[test]
fn holes_are_survived() {
    let server = Server::start();
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let (mut guest, region) = server.guest();
    for sequence in 1..200 {
        // What is mapped can't be cut short, nor can the seals be taken off.
        for memory in [&region, &guest.rings] {
            assert!(rustix::fs::ftruncate(&memory.memfd, 0).is_err());
        }
        rustix::fs::fallocate(&region.memfd, punch, 0, 65_536).unwrap();
        guest.write(&request(0, sequence, (4096, 4096), &[(0, 4096, 0)], &[(0, 4096, 8192)]));
        rustix::fs::fallocate(&region.memfd, punch, 0, 65_536).unwrap();
        guest.read_frame(&limits()).expect("an answer");
    }
    // The rings themselves: everything in them is zero again, and what was said is lost.
    rustix::fs::fallocate(&guest.rings.memfd, punch, 0, RINGS as u64).unwrap();
    guest.rings.word(0).store(u64::MAX, Ordering::SeqCst);
    tell(&guest.socket, &message(raw::DOORBELL, 0, 0, (0, 0)), &[]);
    cut_off(&guest.socket);
    server.serves();
}

#[test]
fn memory_without_pages_is_survived() {
    let Some(memfd) = memory_without_pages() else { return };
    let server = Server::start();
    for bytes in [
        request(0, 1, (0, 4096), &[], &[(1, 4096, 4096)]),
        request(0, 1, (4096, 4096), &[(1, 4096, 4096)], &[(0, 4096, 0)]),
        // Both: what is read has vanished, and what is written.
        request(0, 1, (4096, 4096), &[(1, 4096, 0)], &[(1, 4096, 8192)]),
        // The answer is the guest's own memory, and goes through the ring: short, and longer than what is laid out there.
        request(0, 1, (4096, 4096), &[(1, 4096, 0)], &[]),
        request(0, 1, (8192, 8192), &[(1, 8192, 0)], &[]),
    ] {
        let (mut guest, _region) = server.guest();
        guest.hand_over_as(1, HUGE, memfd.as_fd());
        guest.write(&bytes);
        vanished(guest);
    }
    server.serves();
}

#[test]
fn a_peer_that_never_drains_its_ring_holds_up_nobody() {
    let server = Server::start();
    let (mut guest, _region) = server.guest();
    for sequence in 1..40 {
        for slot in 0..16 {
            // Asked without a landing: the answers go into the ring until it is full.
            let head = FrameHead { slot, sequence, room: 65_536, ..FrameHead::new(FrameKind::Request) };
            guest.write(&frame(head, &[], b"question"));
        }
        if guest.is_closed() {
            break;
        }
        server.serves();
    }
}

/// A peer whose messages pile up, and doorbells without end.
#[test]
fn a_flood_of_messages_holds_up_nobody() {
    let server = Server::start();
    let (guest, _region) = server.guest();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                if !tell(&guest.socket, &message(raw::DOORBELL, 0, 0, (0, 0)), &[]) {
                    break;
                }
            }
        });
        for _ in 0..50 {
            server.serves();
        }
        stop.store(true, Ordering::Relaxed);
        rustix::net::shutdown(&guest.socket, rustix::net::Shutdown::Both).unwrap();
    });
    server.serves();
}

#[test]
fn another_user_is_refused_unless_allowed() {
    if !rustix::process::geteuid().is_root() {
        println!("needs root, to be somebody else");
        return;
    }
    watchdog();
    let path = Fabric::shm().listen.resource().to_owned();
    for (listen, errno) in
        [(format!("shm://{path}?allow=54321"), None), (format!("shm://{path}"), Some(libc::EACCES))]
    {
        let mut server = Context::new(ContextOptions::default()).unwrap();
        server.listen(&listen.parse().unwrap(), ServerOptions::default()).unwrap();
        // The file's mode keeps others out too; here it is the look at who they are.
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::chmod(path.as_str(), mode).unwrap();
        let there = path.clone();
        let client = std::thread::spawn(move || {
            // SAFETY: the raw call changes this thread's user only.
            let outcome = unsafe { libc::syscall(libc::SYS_setresuid, -1, 54_321, -1) };
            assert_eq!(outcome, 0);
            let mut client = Context::new(ContextOptions::default()).unwrap();
            let uri = format!("shm:///?socket={there}").parse().unwrap();
            if let Err(error) = client.connect(&Session::new(uri), ConnectionOptions::default()) {
                return Some(error.errno());
            }
            loop {
                client.wait(Some(LONG)).unwrap();
                match client.next_event() {
                    Some(Event::Connected { .. }) => return None,
                    Some(Event::Closed { reason, .. }) => return Some(reason.errno()),
                    _ => {}
                }
            }
        });
        while !client.is_finished() {
            server.wait(Some(Duration::from_millis(5))).unwrap();
            if let Some(Event::ConnectionRequest(request)) = server.next_event() {
                server.accept(request, AcceptOptions::new()).unwrap();
            }
        }
        assert_eq!(client.join().unwrap(), errno);
    }
}

/// A peer that lets go of its memory in the middle of an operation: what the server has mapped stays, until it is done.
#[test]
fn a_peer_that_unmaps_in_mid_operation_is_served() {
    let server = Server::start();
    for _ in 0..50 {
        let (mut guest, region) = server.guest();
        for slot in 0..16 {
            guest.write(&request(slot, 1, (4096, 4096), &[(0, 4096, 0)], &[(0, 4096, 8192)]));
        }
        drop(region);
        for _ in 0..16 {
            guest.read_frame(&limits()).expect("an answer");
        }
    }
    server.serves();
}

/// Random bytes in every page that is shared, at any time, while requests are made. The seed is printed.
#[test]
fn scribbling_on_everything_hurts_nobody_else() {
    let server = Server::start();
    let time = std::env::var("LIBXIO_SCRIBBLE_SECONDS").ok().and_then(|text| text.parse().ok());
    let end = Instant::now() + Duration::from_secs(time.unwrap_or(4));
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut state = seed;
    let mut links = 0;
    while Instant::now() < end {
        let (guest, region) = server.guest();
        links += 1;
        let stop = AtomicBool::new(false);
        let seed = random(&mut state);
        std::thread::scope(|scope| {
            let (rings, region, stop) = (&guest.rings, &region, &stop);
            let scribbler = scope.spawn(move || {
                let mut state = seed;
                while !stop.load(Ordering::Relaxed) {
                    scribble(rings, region, &mut state);
                }
            });
            let mut at = 0;
            for sequence in 1..200_u32 {
                for slot in 0..4 {
                    let landing = (0, 4096, u64::from(slot) * 4096);
                    let bytes = request(slot, sequence, (4096, 4096), &[(0, 4096, 32_768)], &[landing]);
                    guest.write_blindly(&mut at, &bytes);
                }
                if guest.is_closed() {
                    break;
                }
            }
            stop.store(true, Ordering::Relaxed);
            scribbler.join().unwrap();
        });
        rustix::net::shutdown(&guest.socket, rustix::net::Shutdown::Both).unwrap();
    }
    println!("{links} links scribbled on");
    server.serves();
    server.until("all guests are gone", |now| now.connections <= 1);
}

fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// One random change: now and then of a word, mostly of bytes in the rings and the region.
fn scribble(rings: &Shared, region: &Shared, state: &mut u64) {
    let value = random(state);
    let small = random(state) % 64;
    match random(state) % 8 {
        0 => {
            let words = [0, 8, 128, 256, 264, 384, 512, 640];
            rings.word(words[small as usize % words.len()]).store(value, Ordering::Relaxed);
        }
        1 => {
            rings.word([0, 128, 256, 384][small as usize % 4]).fetch_add(small, Ordering::Relaxed);
        }
        2 => rings.word([512, 640][small as usize % 2]).store(small % 4, Ordering::Relaxed),
        3..=5 => {
            let place = 4096 + (value as usize % (rings.length - 4096 - 8));
            rings.write(place, &random(state).to_le_bytes()[..1 + small as usize % 8]);
        }
        _ => region.write(value as usize % (region.length - 8), &random(state).to_le_bytes()),
    }
    for _ in 0..small * 8 {
        std::hint::spin_loop();
    }
}

/// A server that answers with whatever breaks a rule: the client ends with an error, and its memory is its own again.
#[test]
fn a_hostile_server_is_survived() {
    watchdog();
    let path = Fabric::shm().listen.resource().to_owned();
    let listener = raw::socket();
    rustix::net::bind(&listener, &rustix::net::SocketAddrUnix::new(path.as_str()).unwrap()).unwrap();
    rustix::net::listen(&listener, 8).unwrap();
    let rounds = 70;
    let seed = 0x9e37_79b9_7f4a_7c15_u64;
    let server = std::thread::spawn(move || {
        let mut state = seed;
        for round in 0..rounds {
            let mut end = End::server(rustix::net::accept(&listener).unwrap());
            // Half of them are lent nothing.
            if round % 14 < 7 {
                tell(&end.socket, &message(raw::LIMITS, 1024, 16 << 30, (0, 0)), &[]);
            }
            let (hello, _) = end.read_frame(&libxio::wire::FrameLimits::handshake()).unwrap();
            assert_eq!(hello.kind, FrameKind::Hello);
            let welcome = Welcome {
                version: 1,
                features: libxio::wire::FEATURE_PLACEMENT,
                loop_kind: libxio::LoopKind::Own,
                incarnation: 1,
                session: libxio::wire::SessionId([1; 16]),
                session_key: [2; 16],
                connection: 1,
                limits: raw::own_limits(),
                private_data: Vec::new(),
            };
            end.write(&frame(FrameHead::new(FrameKind::Welcome), &[], &welcome.encode()));
            // The first request, so that there is something to be wrong about.
            let _ = end.read_frame(&limits());
            match round % 7 {
                0 => end.rings.word(256).store(random(&mut state), Ordering::SeqCst),
                1 => end.rings.word(128).store(random(&mut state), Ordering::SeqCst),
                2 => {
                    // Placed, and longer than the landing.
                    let head = FrameHead {
                        slot: 0,
                        sequence: 1,
                        data_length: 1 << 20,
                        ..FrameHead::new(FrameKind::Response)
                    };
                    end.write(&frame(head, &[0, 0, 1, 0, 0, 0, 0, 0], b""));
                    // It is told, though the client has lent it memory.
                    let mut said = std::iter::from_fn(|| end.read_frame(&limits()));
                    let (_, body) =
                        said.find(|(head, _)| head.kind == FrameKind::Goodbye).expect("a goodbye");
                    assert!(Goodbye::decode(&body).unwrap().code > 0);
                }
                3 => {
                    let region_of_server = memfd(4096, seals(), MemfdFlags::empty());
                    end.hand_over_as(0, 4096, region_of_server.as_fd());
                }
                4 => {
                    let head = FrameHead { slot: 0, sequence: 1, ..FrameHead::new(FrameKind::Request) };
                    end.write(&frame(head, &[1, 0, 0, 0, 0, 0, 0, 0], b""));
                }
                5 => {
                    // More than there was.
                    tell(&end.socket, &message(raw::UNMAPPED, 1, 4096, (0, 0)), &[]);
                }
                _ => {
                    let mut bytes = vec![0; 300];
                    bytes.iter_mut().for_each(|byte| *byte = random(&mut state) as u8);
                    end.write(&bytes);
                }
            }
            tell(&end.socket, &message(raw::DOORBELL, 0, 0, (0, 0)), &[]);
            cut_off(&end.socket);
        }
    });
    let mut client =
        Context::new(ContextOptions { keepalive: Duration::from_secs(2), ..ContextOptions::default() })
            .unwrap();
    let region = Region::allocate(1 << 20, false).unwrap();
    for _ in 0..rounds {
        let uri = format!("shm:///?socket={path}").parse().unwrap();
        let connection = client.connect(&Session::new(uri), ConnectionOptions::default()).unwrap();
        let mut asked = false;
        loop {
            client.wait(Some(LONG)).unwrap();
            match client.next_event() {
                Some(Event::Connected { .. }) => {
                    let landing = Landing::Place(region.slice(0, 8192).unwrap().into());
                    client
                        .request(connection, OutgoingRequest { landing, ..OutgoingRequest::new(b"x", 1) })
                        .unwrap();
                    asked = true;
                }
                Some(Event::Response { outcome, .. }) => assert!(outcome.is_err(), "{outcome:?}"),
                Some(Event::Closed { .. }) => break,
                _ => {}
            }
        }
        assert!(asked);
    }
    server.join().unwrap();
    assert_eq!(client.statistics().snapshot().requests_outstanding, 0);
    std::fs::remove_file(&path).unwrap();
}
