//! How a side of a shared-memory link that sleeps is woken: by its sleeping word, or by a message from a peer that does not
//! know of that, or can't.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod raw;

use conformance::{Fabric, watchdog};
use libxio::wire::{FrameHead, FrameKind};
use libxio::{Context, ContextOptions, Event, ServerOptions, StatisticsSnapshot};
use raw::{DOORBELL, End, LONG, frame, hear, limits, message, tell};
use rustix::thread::futex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const CLIENT_ASLEEP: usize = 512;
const SERVER_ASLEEP: usize = 640;
/// In a sleeping word: until there is something to read.
const FOR_DATA: u64 = 1;
/// Or-ed to it: on the word.
const ON_WORD: u64 = 4;

/// A server that never polls, in a thread of its own, and a guest that it has welcomed.
fn server() -> (End, libxio::ContextHandle, JoinHandle<StatisticsSnapshot>) {
    let path = Fabric::shm().listen.resource().to_owned();
    let options = ContextOptions { polling_timeout: Duration::ZERO, ..ContextOptions::default() };
    let mut server = Context::new(options).unwrap();
    server.listen(&format!("shm://{path}").parse().unwrap(), ServerOptions::default()).unwrap();
    let stop = server.handle();
    let thread = std::thread::spawn(move || {
        server
            .run(|context, event| {
                if let Event::ConnectionRequest(request) = event {
                    context.accept(request, Default::default()).unwrap();
                }
            })
            .unwrap();
        server.statistics().snapshot()
    });
    let mut guest = End::client(&path);
    guest.greet();
    (guest, stop, thread)
}

/// Waits until the server sleeps, and says what its word is then.
fn asleep(guest: &End) -> u64 {
    let start = Instant::now();
    // Its word is set a moment before it waits there, if this kernel can do that at all.
    loop {
        let word = guest.rings.word(SERVER_ASLEEP).load(Ordering::SeqCst);
        if word & ON_WORD != 0 || (word != 0 && start.elapsed() > Duration::from_secs(1)) {
            return word;
        }
        assert!(start.elapsed() < LONG, "it does not sleep");
        std::thread::yield_now();
    }
}

/// Whether the kernel's rings can wait on words: Linux 6.7.
fn knows_futexes() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers =
        release.split(|byte: char| !byte.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(7))
}

fn waited_half(word: &AtomicU64) -> &AtomicU32 {
    let half = word.as_ptr().cast::<u32>();
    // SAFETY: both halves lie in the word, which is as long there.
    unsafe { AtomicU32::from_ptr(if cfg!(target_endian = "big") { half.add(1) } else { half }) }
}

fn wake(word: &AtomicU64) {
    futex::wake(waited_half(word), futex::Flags::empty(), 1).unwrap();
}

#[test]
fn a_side_is_woken_by_its_word_or_by_a_message() {
    watchdog();
    let (mut guest, stop, thread) = server();
    let ping = frame(FrameHead::new(FrameKind::Ping), &[], &[]);
    let mut on_word = 0;
    for round in 0..50 {
        let word = asleep(&guest);
        on_word += usize::from(word & ON_WORD != 0);
        // A ring without anything behind it is looked after, and forgotten.
        let rings = if round % 5 == 4 { 3 } else { 1 };
        for ring in 0..rings {
            if ring + 1 == rings {
                guest.put(&ping);
            }
            let word = guest.rings.word(SERVER_ASLEEP);
            if word.swap(0, Ordering::SeqCst) & ON_WORD != 0 && round % 2 == 0 {
                wake(word);
            } else {
                tell(&guest.socket, &message(DOORBELL, 0, 0, (0, 0)), &[]);
            }
        }
        let (answer, _) = guest.read_frame(&limits()).expect("the server goes on");
        assert_eq!(answer.kind, FrameKind::Pong);
    }
    println!("{on_word} of 50 sleeps on the word");
    assert!(on_word > 0 || !knows_futexes(), "it never waits on its word");
    stop.stop();
    assert!(thread.join().unwrap().sleeps >= 50);
}

#[test]
fn a_side_wakes_its_peer_as_the_peer_waits() {
    watchdog();
    let (mut guest, stop, thread) = server();
    // What the welcome brought with it.
    while let Some((said, _)) = hear(&guest.socket) {
        if said[0] == raw::LIMITS {
            break;
        }
    }
    let ping = frame(FrameHead::new(FrameKind::Ping), &[], &[]);
    for round in 0..20 {
        let value = if round % 2 == 0 { FOR_DATA | ON_WORD } else { FOR_DATA };
        guest.rings.word(CLIENT_ASLEEP).store(value, Ordering::SeqCst);
        guest.write(&ping);
        if value & ON_WORD != 0 {
            let word = waited_half(guest.rings.word(CLIENT_ASLEEP));
            // Rung before it waits: then the word is another, and the kernel says so.
            while word.load(Ordering::SeqCst) != 0 {
                let _ = futex::wait(word, futex::Flags::empty(), value as u32, None);
            }
        } else {
            let (said, _) = hear(&guest.socket).expect("the server goes on");
            assert_eq!(said[0], DOORBELL, "round {round}");
        }
        let (answer, _) = guest.read_frame(&limits()).expect("the server goes on");
        assert_eq!(answer.kind, FrameKind::Pong);
    }
    stop.stop();
    thread.join().unwrap();
}

/// A peer whose words say what they like, and which wakes without end, keeps nobody from being served.
#[test]
fn words_that_say_anything_hold_up_nobody() {
    watchdog();
    let (mut guest, stop, thread) = server();
    let ping = frame(FrameHead::new(FrameKind::Ping), &[], &[]);
    for round in 0..2000_u64 {
        let word = guest.rings.word(SERVER_ASLEEP);
        word.store([0, u64::MAX, ON_WORD, 3, 7, round << 32][round as usize % 6], Ordering::SeqCst);
        guest.rings.word(CLIENT_ASLEEP).store(round.wrapping_mul(0x9e37_79b9_7f4a_7c15), Ordering::SeqCst);
        wake(word);
        if round % 100 == 99 {
            guest.write(&ping);
            let (answer, _) = guest.read_frame(&limits()).expect("the server goes on");
            assert_eq!(answer.kind, FrameKind::Pong);
        }
    }
    stop.stop();
    thread.join().unwrap();
}
