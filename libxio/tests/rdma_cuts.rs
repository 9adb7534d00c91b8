//! What happens when an RDMA connection is cut in mid-I/O: by the carrier, in silence, with its address, with its device.
//! Every request ends once, with an answer or an error; memory comes back; nothing keeps a device that is taken away;
//! after the cut is healed a new connection works.
//!
//! Needs the virtual machine of `cargo xtask rdma`, whose cables it pulls; run with one test at a time, in the order of their
//! names: what soft-RoCE's connection manager still sends of a connection that ended without a carrier finds its interface
//! without an address otherwise, which it has been seen not to recover from.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod rdma_support;

use conformance::{Pair, pattern};
use libxio::{
    AcceptOptions, Buffer, Connection, ConnectionOptions, Context, ContextOptions, Error, Event, Landing,
    OutgoingRequest, OutgoingResponse, ServerOptions, Session,
};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Requests at a time: reads and writes, small and large.
const DEPTH: u64 = 8;
/// The device gives up after 3.8 s (seven times 0.54 s), keepalive after 10; emulation takes its time.
const CUT_TIME: Duration = Duration::from_secs(40);

/// Heals the cut, however the test ends.
struct Cut {
    /// Taking a device away waits until all have let go of it.
    running: Child,
    heal: &'static [&'static str],
}

fn start(command: &str) -> Child {
    let mut words = command.split(' ');
    Command::new(words.next().unwrap()).args(words).spawn().unwrap()
}

impl Cut {
    fn now(command: &str, heal: &'static [&'static str]) -> Cut {
        Cut { running: start(command), heal }
    }

    fn is_done(&mut self) -> bool {
        match self.running.try_wait().unwrap() {
            Some(status) => {
                assert!(status.success(), "{status}");
                true
            }
            None => false,
        }
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        let _ = self.running.kill();
        let _ = self.running.wait();
        for command in self.heal {
            let status = start(command).wait().unwrap();
            assert!(status.success() || std::thread::panicking(), "{command}");
        }
    }
}

fn send(pair: &mut Pair, connection: Connection, token: u64) {
    let lengths = [64, 4096, 70_000, 300_000];
    let length = lengths[(token % 4) as usize];
    let request = if token.is_multiple_of(2) {
        let landing = if token.is_multiple_of(3) {
            pair.client.pool().take_list(length).unwrap()
        } else {
            Buffer::from_vec(vec![0; length]).into()
        };
        OutgoingRequest { landing: Landing::Place(landing), ..OutgoingRequest::new(b"read", token) }
    } else {
        OutgoingRequest { data: pattern(length, token as u8).into(), ..OutgoingRequest::new(b"write", token) }
    };
    pair.client.request(connection, request).unwrap();
}

/// Answers what the server has been asked; false when its connection has ended.
fn serve(pair: &mut Pair) -> bool {
    let mut open = true;
    for event in std::mem::take(&mut pair.server_events) {
        match event {
            Event::Request(request) => {
                let data = pair.server.pool().take_list(request.room() as usize).unwrap();
                // The connection may have ended meanwhile.
                let _ = pair.server.respond(request, OutgoingResponse { header: b"", data });
            }
            Event::Closed { .. } => open = false,
            other => panic!("{other:?}"),
        }
    }
    open
}

/// Keeps the connection busy, cuts it in the middle, and sees both sides end.
fn cut(how: &str, heal: &'static [&'static str]) {
    let mut pair = Pair::with(
        rdma_support::fabric(),
        |client| client.keepalive = Duration::from_secs(20),
        |server| server.keepalive = Duration::from_secs(20),
        Default::default(),
    );
    let (connection, _) = pair.connect();
    let (mut sent, mut ended, mut failed) = (0, 0, 0);
    let mut cut = None;
    let mut client_error = None;
    let mut server_open = true;
    let start = Instant::now();
    while client_error.is_none() || server_open {
        assert!(start.elapsed() < CUT_TIME, "{sent} sent, {ended} ended, server open: {server_open}");
        if client_error.is_none() {
            while sent - ended < DEPTH {
                send(&mut pair, connection, sent);
                sent += 1;
            }
        }
        pair.step();
        server_open &= serve(&mut pair);
        for event in std::mem::take(&mut pair.client_events) {
            match event {
                Event::Response { outcome, .. } => {
                    ended += 1;
                    failed += u64::from(outcome.is_err());
                }
                Event::Closed { reason, .. } => client_error = Some(reason),
                other => panic!("{other:?}"),
            }
        }
        if ended >= 20 && cut.is_none() {
            cut = Some(Cut::now(how, heal));
        }
    }
    println!("{how}: {:?} after {:?}", client_error, start.elapsed());
    assert_eq!(ended, sent, "every request ends once");
    assert!(failed > 0, "it was cut in mid-I/O");
    let reason = client_error.unwrap();
    assert!(
        matches!(reason, Error::ConnectionLost { .. } | Error::TimedOut { .. } | Error::Closed(_)),
        "{reason:?}"
    );
    pair.assert_nothing_left();
    pair.until("the end of the cut: something keeps the device", |_| cut.as_mut().is_none_or(Cut::is_done));
    drop(cut);
    // Healed: addresses are found again, and everything works.
    let start = Instant::now();
    loop {
        // Without a device or an address this fails at once.
        let session = libxio::Session::new(pair.uri.clone());
        if pair.client.connect(&session, Default::default()).is_err() {
            assert!(start.elapsed() < CUT_TIME, "no new connection");
            pair.settle();
            continue;
        }
        pair.until("an end of the attempt", |pair| {
            !pair.client_events.is_empty() || !pair.server_events.is_empty()
        });
        if let Some(Event::ConnectionRequest(request)) = pair.server_events.pop() {
            pair.server.accept(request, libxio::AcceptOptions::new()).unwrap();
            let Event::Connected { connection, .. } = pair.client_event() else { panic!() };
            let request = OutgoingRequest { landing: Landing::Pool(300_000), ..OutgoingRequest::new(b"", 1) };
            let request = OutgoingRequest { data: pattern(300_000, 1).into(), ..request };
            assert_eq!(pair.echo(connection, request).data.to_vec(), pattern(300_000, 1));
            break pair.finish(connection);
        }
        pair.client_events.clear();
        assert!(start.elapsed() < CUT_TIME, "no new connection");
    }
}

/// What the kernel says of a device's port.
fn port_state(device: &str) -> String {
    std::fs::read_to_string(format!("/sys/class/infiniband/{device}/ports/1/state")).unwrap()
}

/// Keeps a connection busy for a while; every request has to be answered.
fn keep_busy(pair: &mut Pair, connection: Connection, sent: &mut u64, time: Duration) {
    let (start, mut ended) = (Instant::now(), 0);
    let first = *sent;
    while start.elapsed() < time || ended < *sent - first {
        assert!(start.elapsed() < CUT_TIME, "{} sent, {ended} ended", *sent - first);
        while start.elapsed() < time && *sent - first - ended < DEPTH {
            send(pair, connection, *sent);
            *sent += 1;
        }
        pair.step();
        assert!(serve(pair), "the server's connection has ended");
        for event in std::mem::take(&mut pair.client_events) {
            let Event::Response { outcome: Ok(_), .. } = event else { panic!("{event:?}") };
            ended += 1;
        }
    }
}

#[test]
fn what_is_cut_for_a_moment_goes_on() {
    // Emulation takes its time: as much as the device sends again.
    let patient = |options: &mut ContextOptions| {
        options.keepalive = Duration::from_secs(20);
        options.rdma.port_down_grace = Duration::from_millis(3500);
    };
    let mut pair = Pair::with(rdma_support::fabric(), patient, patient, Default::default());
    let (connection, _) = pair.connect();
    let mut sent = 0;
    for (cable, device) in [("cable0", "rxe0"), ("cable1", "rxe1")] {
        keep_busy(&mut pair, connection, &mut sent, Duration::from_millis(500));
        // In mid-I/O: what is on its way is sent again when the carrier is back.
        for token in 0..DEPTH {
            send(&mut pair, connection, sent + token);
        }
        sent += DEPTH;
        assert!(start(&format!("ip link set {cable} down")).wait().unwrap().success());
        let begun = Instant::now();
        let mut seen = false;
        while begun.elapsed() < Duration::from_millis(1500) && !seen {
            seen = !port_state(device).contains("ACTIVE");
            pair.step();
            serve(&mut pair);
        }
        assert!(start(&format!("ip link set {cable} up")).wait().unwrap().success());
        assert!(seen, "the port of {device} never went down");
        println!("{device}: down for {:?}", begun.elapsed());
        let mut ended = 0;
        pair.until("the answers", |pair| {
            assert!(serve(pair), "the server's connection has ended");
            for event in std::mem::take(&mut pair.client_events) {
                let Event::Response { outcome: Ok(_), .. } = event else { panic!("{event:?}") };
                ended += 1;
            }
            ended == DEPTH
        });
        // Longer than the grace: that the port is up again was heard.
        keep_busy(&mut pair, connection, &mut sent, Duration::from_secs(4));
    }
    pair.finish(connection);
}

/// Links of several contexts, which sleep on threads of their own: one of them takes the device's event, and all hear of it.
#[test]
fn while_idle_every_thread_hears_of_it() {
    let fabric = rdma_support::fabric();
    let patient = || ContextOptions { keepalive: Duration::from_secs(600), ..ContextOptions::default() };
    let mut server = Context::new(patient()).unwrap();
    let listening = server.listen(&fabric.listen, ServerOptions::default()).unwrap();
    let uri = server.local_uri(listening).unwrap();
    let stop = server.handle();
    let serving = thread::spawn(move || {
        let accept = |server: &mut Context, event| {
            if let Event::ConnectionRequest(request) = event {
                server.accept(request, AcceptOptions::new()).unwrap();
            }
        };
        server.run(accept).unwrap();
    });
    let (say, said) = mpsc::channel();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (uri, say, options) = (uri.clone(), say.clone(), patient());
            thread::spawn(move || {
                let mut client = Context::new(options).unwrap();
                client.connect(&Session::new(uri), ConnectionOptions::default()).unwrap();
                loop {
                    client.wait(Some(CUT_TIME)).unwrap();
                    match client.next_event() {
                        Some(Event::Connected { .. }) => say.send(()).unwrap(),
                        Some(Event::Closed { reason, .. }) => return Some(reason),
                        Some(other) => panic!("{other:?}"),
                        None => return None,
                    }
                }
            })
        })
        .collect();
    for _ in &clients {
        said.recv_timeout(CUT_TIME).unwrap();
    }
    // All are asleep.
    thread::sleep(Duration::from_secs(1));
    let mut cut = Cut::now("ip link set cable1 down", &["ip link set cable1 up"]);
    while !cut.is_done() {
        thread::sleep(Duration::from_millis(10));
    }
    for client in clients {
        let reason = client.join().unwrap();
        let Some(Error::ConnectionLost { errno, .. }) = reason else { panic!("{reason:?}") };
        assert_eq!(errno, libc::ENETDOWN);
    }
    drop(cut);
    stop.stop();
    serving.join().unwrap();
}

/// Nothing is on its way, and the loop sleeps: the end of the grace wakes it.
#[test]
fn while_idle_it_ends_after_the_grace() {
    let patient = |options: &mut ContextOptions| options.keepalive = Duration::from_secs(600);
    let mut pair = Pair::with(rdma_support::fabric(), patient, patient, Default::default());
    pair.connect();
    let mut cut = Cut::now("ip link set cable1 down", &["ip link set cable1 up"]);
    while !cut.is_done() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let begun = Instant::now();
    let event = loop {
        assert!(begun.elapsed() < CUT_TIME, "the connection is still there");
        pair.client.wait(Some(CUT_TIME)).unwrap();
        if let Some(event) = pair.client.next_event() {
            break event;
        }
    };
    println!("idle: ended after {:?}", begun.elapsed());
    let Event::Closed { reason: Error::ConnectionLost { errno, .. }, .. } = event else {
        panic!("{event:?}")
    };
    assert_eq!(errno, libc::ENETDOWN);
    assert!(begun.elapsed() >= Duration::from_secs(1), "it has a grace of 2 s");
}

#[test]
fn the_servers_carrier_is_lost() {
    cut("ip link set cable0 down", &["ip link set cable0 up"]);
}

#[test]
fn the_clients_carrier_is_lost() {
    cut("ip link set cable1 down", &["ip link set cable1 up"]);
}

#[test]
fn the_network_falls_silent() {
    cut("ip link set switch down", &["ip link set switch up"]);
}

#[test]
fn the_clients_address_is_taken_away() {
    let heal = &[
        "ip addr add 10.77.0.2/24 dev rdma1",
        "ip route replace 10.77.0.1 dev rdma1 src 10.77.0.2 table 100",
    ];
    cut("ip addr del 10.77.0.2/24 dev rdma1", heal);
}

#[test]
fn the_clients_device_is_removed() {
    cut("rdma link delete rxe1", &["rdma link add rxe1 type rxe netdev rdma1"]);
}

#[test]
fn the_servers_device_is_removed() {
    cut("rdma link delete rxe0", &["rdma link add rxe0 type rxe netdev rdma0"]);
}

/// Two legs under one interface, with a device of its own and this address; each leg has a MAC address of its own, which
/// the interface takes over with it.
const BOND: &str = "set -e
modprobe bonding max_bonds=0
ip link add bond0 type bond mode active-backup miimon 50 fail_over_mac active
for leg in 0 1; do
    ip link add leg$leg type veth peer name bondcable$leg
    ip link set bondcable$leg up master switch
    ip link set leg$leg master bond0
done
ip link set bond0 up
ip addr add 10.77.0.3/24 dev bond0
ip rule add pref 1 iif lo from 10.77.0.3 to 10.77.0.1 lookup 101
ip rule add pref 1 iif lo from 10.77.0.1 to 10.77.0.3 lookup 101
ip route add 10.77.0.1 dev bond0 src 10.77.0.3 table 101
ip route add 10.77.0.3 dev rdma0 src 10.77.0.1 table 101
rdma link add rxe2 type rxe netdev bond0";
const NO_BOND: &str = "rdma link delete rxe2
ip link del bond0
ip link del leg0
ip link del leg1
ip rule del pref 1 lookup 101
ip rule del pref 1 lookup 101";

/// A shell's script, and what takes it back.
struct Script(&'static str);

impl Script {
    fn run(script: &str) -> bool {
        Command::new("sh").args(["-c", script]).status().unwrap().success()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // Not waited for: the device goes when this process does, since librdmacm keeps it open.
        let _ = Command::new("sh").args(["-c", self.0]).spawn();
    }
}

/// The interface fails over to its other leg: the path that the connection was made for is no more.
#[test]
fn with_another_address_on_its_interface_it_ends() {
    let undo = Script(NO_BOND);
    assert!(Script::run(BOND));
    let fabric = conformance::Fabric::built_in("rdma://10.77.0.1:0/?source=10.77.0.3");
    let mut pair = Pair::new(fabric);
    let (connection, _) = pair.connect();
    let request = OutgoingRequest { data: pattern(70_000, 1).into(), ..OutgoingRequest::new(b"", 1) };
    let request = OutgoingRequest { landing: Landing::Pool(70_000), ..request };
    assert_eq!(pair.echo(connection, request).data.to_vec(), pattern(70_000, 1));
    let other =
        "case $(cat /sys/class/net/bond0/bonding/active_slave) in leg0) other=leg1;; *) other=leg0;; esac
        ip link set bond0 type bond active_slave $other";
    assert!(Script::run(other));
    let event = pair.client_event();
    let Event::Closed { reason: Error::ConnectionLost { errno, .. }, .. } = event else {
        panic!("{event:?}")
    };
    assert_eq!(errno, libc::ENETRESET);
    pair.until("the server's end", |pair| !pair.server_events.is_empty());
    pair.server_events.clear();
    let (connection, _) = pair.connect();
    let request = OutgoingRequest { data: pattern(70_000, 2).into(), ..OutgoingRequest::new(b"", 1) };
    let request = OutgoingRequest { landing: Landing::Pool(70_000), ..request };
    assert_eq!(pair.echo(connection, request).data.to_vec(), pattern(70_000, 2));
    pair.finish(connection);
    drop(pair);
    drop(undo);
}
