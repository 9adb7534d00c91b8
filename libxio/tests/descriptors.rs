//! A server that has no descriptor left for the memory that a client hands over: it says so, to itself and to the client, and
//! serves the others. In a file of its own, since the limit is the process's.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod raw;

use conformance::{Fabric, watchdog};
use libxio::wire::FrameKind;
use libxio::{AcceptOptions, Context, ContextOptions, Error, Event, OutgoingResponse, ServerOptions};
use raw::{End, LONG, Shared, attach, connect, cut_off, hear, limits, message, request, tell};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::mpsc::channel;

const REFUSAL: u8 = 5;

/// The client is told that there is no room, and is cut off.
fn refused(socket: &std::os::fd::OwnedFd) {
    while let Some((said, _)) = hear(socket) {
        if said[0] == REFUSAL {
            assert_eq!(said[4..8], (libc::ENOBUFS as u32).to_le_bytes());
            return cut_off(socket);
        }
    }
    panic!("cut off without a word");
}

#[test]
fn memory_that_finds_no_descriptor_is_no_fault_of_the_client() {
    watchdog();
    let path = Fabric::shm().listen.resource().to_owned();
    let mut server = Context::new(ContextOptions::default()).unwrap();
    server.listen(&format!("shm://{path}").parse().unwrap(), ServerOptions::default()).unwrap();
    let (tells, ended) = channel();
    let (handle, statistics) = (server.handle(), server.statistics());
    let thread = std::thread::spawn(move || {
        server
            .run(|server, event| match event {
                Event::ConnectionRequest(request) => {
                    server.accept(request, AcceptOptions::new()).unwrap();
                }
                Event::Request(request) => {
                    server.respond(request, OutgoingResponse::default()).unwrap();
                }
                Event::Closed { reason, .. } => tells.send(reason).unwrap(),
                _ => {}
            })
            .unwrap();
    });
    let guest = || {
        let mut guest = End::client(&path);
        guest.greet();
        guest
    };
    let answered = |guest: &mut End, sequence| {
        guest.write(&request(0, sequence, (4096, 0), &[(0, 4096, 0)], &[]));
        let (head, _) = guest.read_frame(&limits()).expect("an answer");
        assert_eq!(head.kind, FrameKind::Response);
    };
    let (memory, rings) = (Shared::new(65_536), Shared::new(raw::RINGS));
    let (mut calm, idle, mut asking) = (guest(), guest(), guest());
    calm.hand_over(0, &memory);
    answered(&mut calm, 1);
    // One that has not attached yet, but was accepted: it has had its turn when a later one has.
    let early = connect(&path);
    drop(guest());
    assert!(matches!(ended.recv_timeout(LONG).unwrap(), Error::ConnectionLost { .. }));

    let before = getrlimit(Resource::Nofile);
    let free = rustix::io::dup(&memory.memfd).unwrap().as_raw_fd() as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(free + 1), ..before }).unwrap();
    let mut taken = Vec::new();
    let mut take_all = || taken.extend(std::iter::from_fn(|| rustix::io::dup(&memory.memfd).ok()));
    take_all();
    idle.hand_over(0, &memory);
    tell(&idle.socket, &message(raw::DOORBELL, 0, 0, (0, 0)), &[]);
    refused(&idle.socket);
    let reason = ended.recv_timeout(LONG).unwrap();
    assert!(matches!(reason, Error::MemoryNotTaken { errno: libc::EMFILE, .. }), "{reason}");
    assert!(reason.to_string().contains("ulimit -n"), "{reason}");
    take_all();
    let failed = statistics.snapshot().handshakes_failed;
    tell(&early, &attach(), &[rings.memfd.as_fd()]);
    refused(&early);
    assert_eq!(statistics.snapshot().handshakes_failed, failed + 1);
    take_all();
    asking.hand_over(0, &memory);
    asking.write(&request(0, 1, (4096, 0), &[(0, 4096, 0)], &[]));
    refused(&asking.socket);
    let reason = ended.recv_timeout(LONG).unwrap();
    assert!(matches!(reason, Error::MemoryNotTaken { errno: libc::EMFILE, .. }), "{reason}");
    answered(&mut calm, 2);
    assert_eq!(statistics.snapshot().protocol_violations, 0);

    setrlimit(Resource::Nofile, before).unwrap();
    let mut late = guest();
    late.hand_over(0, &memory);
    answered(&mut late, 1);
    handle.stop();
    thread.join().unwrap();
}
