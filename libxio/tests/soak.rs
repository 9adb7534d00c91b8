//! Random connects, patterns and teardowns for a minute (`XIO_SOAK_SECONDS=600` for ten): memory and descriptors stay flat.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use conformance::{Fabric, Pair};
use libxio::{
    AcceptOptions, Access, Connection, Event, Incoming, Landing, OneWay, OutgoingOneWay, OutgoingRequest,
    OutgoingResponse, Pool, Receipt, Region, RemoteRegion, Request, SendOptions, Session, Sgl,
};
use std::time::{Duration, Instant};

const SECONDS: u64 = 60;
/// Connections at a time.
const CONNECTIONS_MAX: usize = 24;
/// A round ends with everything closed, and is counted.
const ROUND: Duration = Duration::from_secs(2);
/// The first rounds warm pools, tables and the allocator up.
const WARM_ROUNDS: usize = 8;
/// What may come on top afterwards: the allocator's own coming and going.
const GROWTH_BYTES_MAX: usize = 16 << 20;
/// What both pools may have taken from the system: most data is in flight in the busiest moment of all rounds, which
/// may be a late one.
const POOL_BYTES_MAX: usize = 256 << 20;
/// A socket that the peer has given up closes a moment after its connection.
const SETTLE: Duration = Duration::from_secs(10);

/// SplitMix64 (G. Steele, D. Lea, C. Flood, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

/// What the server's application holds.
#[derive(Default)]
struct Held {
    requests: Vec<Request>,
    messages: Vec<OneWay>,
    incoming: Vec<Incoming>,
}

struct Soak {
    pair: Pair,
    random: Random,
    session: Session,
    connections: Vec<Connection>,
    held: Held,
    region: Region,
    remote: Option<(Connection, RemoteRegion)>,
    messages: u64,
}

impl Soak {
    fn new() -> Soak {
        let announcing = |options: &mut libxio::ContextOptions| {
            options.limits.immediate_bytes_max = 100_000;
            options.limits.data_bytes_max = 256 << 10;
            options.limits.window_bytes = 1 << 20;
        };
        let pair =
            Pair::with(Fabric::built_in("tcp://127.0.0.1:0/"), announcing, announcing, Default::default());
        let session = Session::new(pair.uri.clone());
        Soak {
            pair,
            random: Random(7),
            session,
            connections: Vec::new(),
            held: Held::default(),
            region: Region::allocate(65_536, false).unwrap(),
            remote: None,
            messages: 0,
        }
    }

    fn data(&mut self) -> Sgl {
        let lengths = [0, 64, 4096, 50_000, 100_001, 200_000];
        let length = lengths[self.random.below(lengths.len())];
        if length == 0 { Sgl::new() } else { self.pair.client.pool().take_list(length).unwrap() }
    }

    fn act(&mut self) {
        if self.connections.len() < CONNECTIONS_MAX && self.random.below(40) == 0 {
            // Of a session that lasts, or of one of its own.
            let session = if self.random.below(2) == 0 {
                self.session.clone()
            } else {
                Session::new(self.pair.uri.clone())
            };
            self.connections.push(self.pair.client.connect(&session, Default::default()).unwrap());
        }
        if self.connections.is_empty() {
            return;
        }
        let connection = self.connections[self.random.below(self.connections.len())];
        let data = self.data();
        let options = SendOptions {
            receipt: self.random.below(4) == 0,
            notify: (self.random.below(4) == 0).then_some(1),
            more: false,
            timeout: None,
        };
        // Before it is connected, and when limits are reached, calls fail; what they took is dropped.
        self.messages += 1;
        match self.random.below(60) {
            0..20 => {
                let timeout = (self.random.below(3) == 0).then(|| Duration::from_millis(1));
                let landing = Landing::Pool(data.len() as u32);
                let request = OutgoingRequest { data, landing, ..OutgoingRequest::new(b"question", 1) };
                let options = SendOptions { timeout, ..options };
                if let Ok(id) = self.pair.client.request_with(connection, request, options)
                    && self.random.below(4) == 0
                {
                    let _ = self.pair.client.cancel(connection, id);
                }
            }
            20..40 => {
                let message = OutgoingOneWay { header: b"news", data, token: 1, options };
                let _ = self.pair.client.send(connection, message);
            }
            40..50 => {
                if let Some((owner, remote)) = self.remote
                    && self.connections.contains(&owner)
                {
                    let landing = Landing::Pool(4096);
                    let none = SendOptions::default();
                    let _ = self.pair.client.remote_read(owner, &remote, 100, landing, 1, none);
                }
            }
            50 => {
                let _ = self.pair.client.close(connection);
            }
            51 => {
                let _ = self.pair.client.abort(connection);
            }
            _ => {}
        }
    }

    fn serve(&mut self) {
        let Held { requests, messages, incoming } = &mut self.held;
        // Not at once, but in the end.
        if !requests.is_empty() && self.random.below(2) == 0 {
            let mut request = requests.swap_remove(self.random.below(requests.len()));
            let mut data = request.take_data();
            data.truncate(request.room() as usize);
            let _ = self.pair.server.respond(request, OutgoingResponse { header: b"answer", data });
        }
        if !messages.is_empty() && self.random.below(2) == 0 {
            let message = messages.swap_remove(self.random.below(messages.len()));
            let _ = self.pair.server.release(message, Receipt::Accepted);
        }
        if !incoming.is_empty() && self.random.below(2) == 0 {
            let one = incoming.swap_remove(self.random.below(incoming.len()));
            if self.random.below(4) > 0 {
                let memory = self.pair.server.pool().take_list(one.data_length() as usize).unwrap();
                let _ = self.pair.server.assign(one, memory);
            }
        }
    }

    fn step(&mut self) {
        self.pair.step();
        for event in std::mem::take(&mut self.pair.client_events) {
            match event {
                Event::Closed { connection, .. } => self.connections.retain(|one| *one != connection),
                // The server tells each client of its memory.
                Event::OneWay(message) => {
                    let described = RemoteRegion::from_bytes(message.header()).unwrap();
                    self.remote = Some((message.connection(), described));
                }
                _ => {}
            }
        }
        for event in std::mem::take(&mut self.pair.server_events) {
            match event {
                Event::ConnectionRequest(request) => {
                    let Ok(connection) = self.pair.server.accept(request, AcceptOptions::new()) else {
                        continue;
                    };
                    let exposed =
                        self.pair.server.expose(connection, &self.region, 0, 65_536, Access::READ).unwrap();
                    let header = exposed.to_bytes();
                    let message = OutgoingOneWay { header: &header, ..OutgoingOneWay::default() };
                    self.pair.server.send(connection, message).unwrap();
                }
                Event::Request(request) => self.held.requests.push(request),
                Event::OneWay(message) => self.held.messages.push(message),
                Event::Incoming(incoming) => self.held.incoming.push(incoming),
                _ => {}
            }
        }
    }

    /// Closes everything; afterwards nothing is held by anybody.
    fn end_round(&mut self) {
        for connection in self.connections.clone() {
            let _ = self.pair.client.close(connection);
        }
        let started = Instant::now();
        let open = |pair: &Pair| {
            pair.client.statistics().snapshot().connections + pair.server.statistics().snapshot().connections
        };
        while open(&self.pair) > 0 {
            self.step();
            self.held = Held::default();
            assert!(started.elapsed() < Duration::from_secs(30), "connections do not end");
        }
        self.held = Held::default();
        self.connections.clear();
        self.pair.assert_nothing_left();
    }

    fn pools(&self) -> [&Pool; 2] {
        [self.pair.client.pool(), self.pair.server.pool()]
    }

    /// What is open apart from the memory of the pools, in order.
    fn descriptors(&self) -> Vec<String> {
        let mut kept: usize = self.pools().iter().map(|pool| pool.regions_kept()).sum();
        let files = std::fs::read_dir("/proc/self/fd").unwrap();
        let mut names: Vec<_> = files
            .map(|file| std::fs::read_link(file.unwrap().path()).unwrap_or_default().display().to_string())
            .filter(|name| {
                let of_pool = kept > 0 && name.starts_with("/memfd:libxio");
                kept -= usize::from(of_pool);
                !of_pool
            })
            .collect();
        assert_eq!(kept, 0, "a pool counts regions that have no descriptor");
        names.sort();
        names
    }

    /// Goes on until as many descriptors are open as before, or too much time has passed.
    fn settle(&mut self, before: &[String]) -> Vec<String> {
        let started = Instant::now();
        loop {
            let now = self.descriptors();
            if now.len() == before.len() || started.elapsed() > SETTLE {
                return now;
            }
            self.step();
        }
    }
}

fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[test]
fn memory_and_descriptors_stay_flat() {
    let seconds = std::env::var("XIO_SOAK_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(SECONDS));
    let started = Instant::now();
    let mut soak = Soak::new();
    let mut warm = None;
    let mut rounds = 0;
    while started.elapsed() < time {
        let begun = Instant::now();
        while begun.elapsed() < ROUND {
            for _ in 0..50 {
                soak.act();
                soak.serve();
                soak.step();
            }
        }
        soak.end_round();
        rounds += 1;
        let (before, resident) = match &warm {
            Some(warm) => warm,
            None if rounds < WARM_ROUNDS => continue,
            None => warm.insert((soak.descriptors(), resident_bytes())),
        };
        let now = soak.settle(before);
        assert_eq!(now.len(), before.len(), "descriptors after round {rounds}: {now:?}, before: {before:?}");
        let grown = resident_bytes().saturating_sub(*resident);
        assert!(grown <= GROWTH_BYTES_MAX, "{grown} bytes more than when warm, after round {rounds}");
        let kept: usize = soak.pools().iter().map(|pool| pool.bytes_kept()).sum();
        assert!(kept <= POOL_BYTES_MAX, "the pools have {kept} bytes after round {rounds}");
    }
    let opened = soak.pair.server.statistics().snapshot().connections_opened;
    println!("{rounds} rounds, {opened} connections, {} messages", soak.messages);
    assert!(rounds > WARM_ROUNDS, "too short to tell");
    assert!(opened > 100 && soak.messages > 10_000, "too little happens");
}
