//! Whole contexts on the simulated network, thousands of seeds with faults, with a random mix of all patterns both
//! ways. Each history is checked against a small model: everything ends exactly once, with its own content or an error;
//! nothing is executed or delivered twice, or out of order; nothing is left behind. Where bytes are not changed on the
//! way, no rule of the protocol is broken; where nothing goes wrong, no connection is lost. A failing seed is printed, and
//! `XIO_SEED=n` runs it alone; `XIO_SEEDS=n` sets how many are run.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acting;
mod model;
mod watching;

use conformance::{Fabric, Pair};
use libxio::transport::{Faults, SimNetwork};
use libxio::{
    Connection, ConnectionOptions, Context, Incoming, OneWay, Region, RemoteRegion, Request, Session,
};
use model::Model;
use std::time::Duration;

/// Seeds run by default; about a minute on one core in the test profile.
const SEEDS: u64 = 10_000;
/// Messages per seed.
const MESSAGES: u64 = 40;
/// Connections that one seed may use up before it goes on without faults.
const CONNECTIONS_MAX: usize = 12;
/// Data above this is announced.
const IMMEDIATE_BYTES: u32 = 8192;
/// Blocks of exposed memory, each written by one operation at a time.
const BLOCKS: u64 = 8;
const BLOCK_BYTES: usize = 64;

/// What may go wrong with a seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    /// Nothing but delays, stalls and partial sends and receives.
    Calm,
    /// Connections are lost, closed and aborted as well.
    Rough,
    /// And bytes are changed.
    Foul,
}

/// One side of the connection.
#[derive(Default)]
struct End {
    connection: Option<Connection>,
    open: bool,
    requests: Vec<Request>,
    messages: Vec<OneWay>,
    incoming: Vec<Incoming>,
    /// Memory exposed to the other side, which has its description.
    exposed: Option<(Region, RemoteRegion)>,
}

struct Run {
    pair: Pair,
    network: SimNetwork,
    weather: Weather,
    session: Session,
    connections: usize,
    /// The client, the server.
    ends: [End; 2],
    model: Model,
}

impl Run {
    fn new(seed: u64) -> Run {
        let weather = match seed % 8 {
            0 => Weather::Calm,
            1..4 => Weather::Rough,
            _ => Weather::Foul,
        };
        // Each seed draws its own mix of faults.
        let part =
            |shift: u32, most: u64| ((seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> shift) % (most + 1)) as u16;
        let faults = Faults {
            partial: part(3, 30_000),
            corrupt: if weather == Weather::Foul { part(13, 200) } else { 0 },
            lose: if weather == Weather::Calm { 0 } else { part(23, 200) },
            stall: part(33, 2000),
            stall_ms_max: 40,
            delay_us_max: u64::from(part(43, 2000)),
        };
        let small = |options: &mut libxio::ContextOptions| {
            // Without them changed bytes could not be told; with them it would not show that bytes stay as they are.
            options.crc = weather == Weather::Foul;
            options.limits.slots = 8;
            options.limits.peer_slots = 8;
            options.limits.one_way_max = 6;
            options.limits.data_bytes_max = 64 << 10;
            options.limits.window_bytes = 96 << 10;
            options.limits.immediate_bytes_max = IMMEDIATE_BYTES;
        };
        let fabric = Fabric::sim(seed, faults);
        let network = fabric.network.clone().expect("it is simulated");
        let pair = Pair::with(fabric, small, small, Default::default());
        let session = Session::new(pair.uri.clone());
        let (ends, model) = Default::default();
        Run { pair, network, weather, session, connections: 0, ends, model }
    }

    fn random(&self, bound: u64) -> u64 {
        self.network.random(bound)
    }

    fn context(&mut self, side: usize) -> &mut Context {
        if side == 0 { &mut self.pair.client } else { &mut self.pair.server }
    }

    fn turn(&mut self) {
        if self.ends[0].connection.is_none() {
            if self.connections >= CONNECTIONS_MAX {
                self.network.set_faults(Faults::NONE);
            }
            self.connections += 1;
            assert!(self.weather != Weather::Calm || self.connections == 1, "nothing went wrong");
            let connection = self.pair.client.connect(&self.session, ConnectionOptions::default()).unwrap();
            self.ends[0].connection = Some(connection);
        }
        for side in [0, 1] {
            self.act(side);
        }
        self.pair.step();
        for side in [0, 1] {
            let events = if side == 0 { &mut self.pair.client_events } else { &mut self.pair.server_events };
            for event in std::mem::take(events) {
                self.watch(side, event);
            }
        }
        self.network.advance(Duration::from_micros(200));
    }

    /// Closes what is open; afterwards everything has ended, and nothing is held anywhere.
    fn wind_down(&mut self) {
        if let Some(connection) = self.ends[0].connection {
            // It may be lost already, which the next event tells.
            let _ = self.pair.client.abort(connection);
        }
        for end in &mut self.ends {
            end.requests.clear();
            end.messages.clear();
            end.incoming.clear();
        }
        for _ in 0..200_000 {
            self.pair.step();
            for side in [0, 1] {
                let events =
                    if side == 0 { &mut self.pair.client_events } else { &mut self.pair.server_events };
                for event in std::mem::take(events) {
                    self.watch(side, event);
                }
                let end = &mut self.ends[side];
                (end.requests, end.messages, end.incoming) = Default::default();
            }
            self.network.advance(Duration::from_millis(1));
            if self.pair.server.statistics().snapshot().connections == 0 && self.ends[0].connection.is_none()
            {
                break;
            }
        }
        self.model.assert_all_ended();
        if self.weather != Weather::Foul {
            for context in [&self.pair.client, &self.pair.server] {
                assert_eq!(context.statistics().snapshot().protocol_violations, 0);
            }
        }
        self.pair.assert_nothing_left();
    }
}

fn run(seed: u64) -> model::Tally {
    let mut run = Run::new(seed);
    let mut turns = 0;
    while run.model.begun() < MESSAGES || !run.model.all_ended() {
        run.turn();
        turns += 1;
        assert!(turns < 300_000, "it hangs: {:?}", run.model);
    }
    run.wind_down();
    run.model.tally
}

#[test]
fn everything_ends_once_whatever_the_network_does() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("XIO_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("XIO_SEEDS").unwrap_or(SEEDS),
    };
    let count = seeds.end - seeds.start;
    let mut tally = model::Tally::default();
    for seed in seeds {
        match std::panic::catch_unwind(|| run(seed)) {
            Ok(one) => tally.add(&one),
            Err(panic) => {
                eprintln!("seed {seed} failed: run it alone with XIO_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{count} seeds of {MESSAGES} messages: {tally:?}");
    if count >= 100 {
        tally.assert_each_came_to_pass();
    }
}
