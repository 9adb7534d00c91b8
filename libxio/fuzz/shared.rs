//! A server on shared memory whose client does what the input says: it writes anything into any page that both have, at any
//! moment, between right requests and while they are worked at.

use super::raw::{DOORBELL, End, REGION, Shared, WITHDRAW, extension, frame, memfd, message, seals, tell};
use super::{LIMITS, apply, hello, turn_for};
use libxio::wire::{FEATURE_PLACEMENT, FrameFlags, FrameHead, FrameKind, FrameLimits, Hello};
use libxio::{Context, ContextOptions, PoolOptions, ServerOptions};
use rustix::fs::{FallocateFlags, MemfdFlags};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Bytes of the client's region.
const REGION_BYTES: usize = 16 << 10;
/// Words of the rings' first page.
const WORDS: [usize; 8] = [0, 128, 256, 384, 512, 640, 8, 264];
/// Turns until everything has ended; a few do.
const TURNS_MAX: usize = 2000;

/// What the client is told to do.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first)
    }

    fn number(&mut self) -> usize {
        self.byte() | self.byte() << 8 | self.byte() << 16
    }

    /// Few bytes, mostly.
    fn bytes(&mut self) -> Vec<u8> {
        let count = 1 + self.byte() % 48;
        (0..count).map(|_| self.byte() as u8).collect()
    }

    /// A number such as an attacker takes: small, near a bound, or anything.
    fn word(&mut self, near: u64) -> u64 {
        let small = self.byte() as u64;
        match self.byte() % 4 {
            0 => small,
            1 => near.wrapping_add(small).wrapping_sub(128),
            2 => u64::MAX - small,
            _ => small << (self.byte() % 64),
        }
    }
}

/// A whole server, its client one that scribbles as the input says.
pub fn shared(input: &[u8]) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let name = format!("xio-fuzz-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name).display().to_string();
    let mut context = Context::new(ContextOptions {
        limits: LIMITS,
        pool: PoolOptions { bytes_max: 1 << 20, huge_pages: false },
        polling_timeout: Duration::ZERO,
        ..ContextOptions::default()
    })
    .unwrap();
    context.listen(&format!("shm://{path}").parse().unwrap(), ServerOptions::default()).unwrap();
    let mut guest = End::client(&path);
    let greeting = Hello { features: FEATURE_PLACEMENT, ..hello() }.encode();
    guest.write(&frame(FrameHead::new(FrameKind::Hello), &[], &greeting));
    for _ in 0..TURNS_MAX {
        turns(&mut context, Duration::from_millis(1));
        if guest.rings.word(WORDS[2]).load(Ordering::Acquire) > 0 {
            break;
        }
    }
    let (welcome, _) = guest.read_frame(&FrameLimits::handshake()).expect("a welcome");
    assert_eq!(welcome.kind, FrameKind::Welcome);
    let region = Shared::new(REGION_BYTES);
    guest.hand_over(0, &region);
    scribble(&mut context, &mut guest, &region, &mut Script(input));
    drop(guest);
    for left in (0..TURNS_MAX).rev() {
        turns(&mut context, Duration::from_millis(1));
        if context.statistics().snapshot().connections == 0 {
            break;
        }
        assert!(left > 0, "a connection outlives its peer");
    }
    turns(&mut context, Duration::ZERO);
    let counters = context.statistics().snapshot();
    assert_eq!((counters.requests_running, counters.requests_outstanding), (0, 0));
    assert_eq!(context.pool().bytes_in_use(), 0, "memory is kept for a peer that is gone");
}

fn turns(context: &mut Context, wait: Duration) {
    for event in turn_for(context, wait) {
        apply(context, event);
    }
}

/// Does what the script says; with its first byte odd, somebody else writes bytes of it everywhere meanwhile.
fn scribble(context: &mut Context, guest: &mut End, region: &Shared, script: &mut Script<'_>) {
    let others = script.byte() % 2 == 1;
    let stop = AtomicBool::new(false);
    let bytes: Vec<u8> = script.0.to_vec();
    let rings = Shared::map(guest.rings.memfd.try_clone().unwrap(), guest.rings.length);
    std::thread::scope(|scope| {
        if others {
            let (rings, stop) = (&rings, &stop);
            scope.spawn(move || {
                let mut at = 0;
                while !stop.load(Ordering::Relaxed) {
                    let mut steps = Script(&bytes[at % bytes.len().max(1)..]);
                    let place = steps.number();
                    rings.write(place % (rings.length - 8), &steps.bytes()[..1]);
                    region.write(place % (REGION_BYTES - 8), &steps.bytes()[..1]);
                    at += 1;
                }
            });
        }
        let mut sequences = [0; LIMITS.slots as usize];
        let mut written = 0;
        while !script.0.is_empty() && !guest.is_closed() {
            step(guest, region, script, &mut sequences, &mut written);
            turns(context, Duration::ZERO);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

fn step(
    guest: &mut End,
    region: &Shared,
    script: &mut Script<'_>,
    sequences: &mut [u32; LIMITS.slots as usize],
    written: &mut u64,
) {
    let rings = &guest.rings;
    match script.byte() % 10 {
        0 => {
            let place = script.number() % rings.length;
            let bytes = script.bytes();
            rings.write(place, &bytes[..bytes.len().min(rings.length - place)]);
        }
        1 => {
            let word = rings.word(WORDS[script.byte() % WORDS.len()]);
            word.store(script.word(word.load(Ordering::Relaxed)), Ordering::SeqCst);
        }
        2 => {
            let place = script.number() % REGION_BYTES;
            let bytes = script.bytes();
            region.write(place, &bytes[..bytes.len().min(REGION_BYTES - place)]);
        }
        3..=5 => {
            let slot = script.byte() % sequences.len();
            sequences[slot] += 1;
            let kinds =
                [FrameKind::Request, FrameKind::Request, FrameKind::RemoteRead, FrameKind::RemoteWrite];
            let kind = kinds[script.byte() % kinds.len()];
            let mut piece = || {
                let (number, length) = (script.byte() as u32 / 200, script.word(4096) as u32 % 20_000);
                (number, length, script.word(REGION_BYTES as u64 - 4096))
            };
            let (data, landing) = (piece(), piece());
            let (with_data, with_landing) = (kind != FrameKind::RemoteRead, kind != FrameKind::RemoteWrite);
            let data: &[_] = if with_data { &[data] } else { &[] };
            let landing: &[_] = if with_landing { &[landing] } else { &[] };
            let head = FrameHead {
                slot: slot as u16,
                sequence: sequences[slot],
                flags: if kind == FrameKind::Request {
                    FrameFlags::IDEMPOTENT
                } else {
                    FrameFlags::default()
                },
                data_length: data.first().map_or(0, |piece| piece.1),
                room: landing.first().map_or(0, |piece| piece.1),
                ..FrameHead::new(kind)
            };
            let header: &[u8] = if kind == FrameKind::Request { b"\x03question" } else { &[0; 32] };
            guest.write_blindly(written, &frame(head, &extension(data, landing), header));
        }
        6 => {
            let bytes = script.bytes();
            guest.write_blindly(written, &bytes);
        }
        7 => {
            let kind = [REGION, WITHDRAW, DOORBELL][script.byte() % 3];
            let (number, length) = (script.byte() as u32 / 64, (script.byte() % 8) << 12);
            let memory = memfd(length, seals(), MemfdFlags::empty());
            let descriptors = if kind == REGION { vec![memory.as_fd()] } else { Vec::new() };
            tell(&guest.socket, &message(kind, number, length as u64, (0, 0)), &descriptors);
        }
        8 => {
            let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let (at, length) = (script.byte() as u64 % 40 * 4096, 1 + script.number() as u64 % 65_536);
            let memory = if script.byte().is_multiple_of(2) { &region.memfd } else { &rings.memfd };
            let _ = rustix::fs::fallocate(memory, punch, at, length);
        }
        _ => {
            let mut bytes = script.bytes();
            bytes.resize(32, 0);
            tell(&guest.socket, &bytes, &[]);
        }
    }
}
