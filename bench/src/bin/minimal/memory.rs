//! The same work through memory that both sides share: a ring of one producer and one consumer each way, and data that the
//! server reads into, or writes out of, the memory of the client.

use crate::server::Store;
use crate::{Random, Shape};
use bench::{Result, Times, failed};
use rtrb::{Consumer, Producer, RingBuffer};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// A request, and back again the response, of 96 bytes: what a head is, with the place of the data.
#[derive(Debug)]
struct Message {
    offset: u64,
    data: Vec<u8>,
    _head: [u64; 8],
}

/// Who sleeps until something is in its ring.
#[derive(Debug, Default)]
struct Sleeper {
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Sleeper {
    /// After a push.
    fn wake(&self) {
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed)
            && self.asleep.swap(false, Ordering::Relaxed)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Until it was woken, unless something came meanwhile. Bounded, so that a stop is noticed.
    fn sleep(&self, ring: &Consumer<Message>) {
        self.thread.get_or_init(std::thread::current);
        self.asleep.store(true, Ordering::Relaxed);
        std::sync::atomic::fence(Ordering::SeqCst);
        if ring.is_empty() {
            std::thread::park_timeout(SLEEP_MAX);
        }
        self.asleep.store(false, Ordering::Relaxed);
    }
}

/// Longest sleep.
const SLEEP_MAX: Duration = Duration::from_millis(100);
/// Turns that found nothing between two looks at the clock.
const TURNS_PER_LOOK: u32 = 64;

/// One end: where it puts messages, where it finds them, and how it waits.
#[derive(Debug)]
struct End<'a> {
    outgoing: Producer<Message>,
    incoming: Consumer<Message>,
    own: &'a Sleeper,
    other: &'a Sleeper,
    sleeps: bool,
}

impl End<'_> {
    /// The rings have room for the depth, and no more is in flight.
    fn push(&mut self, message: Message) -> Result<()> {
        self.outgoing.push(message).map_err(failed("the ring"))?;
        if self.sleeps {
            self.other.wake();
        }
        Ok(())
    }

    /// Nothing was there.
    fn rest(&self) {
        if self.sleeps {
            self.own.sleep(&self.incoming);
        } else {
            std::hint::spin_loop();
        }
    }
}

/// Runs both sides, each on its core; returns the times, and how long it took.
pub(crate) fn run(
    shape: Shape,
    store: Store,
    sleeps: bool,
    time: Duration,
    pin: impl Fn(Side) -> Result<()> + Sync,
) -> Result<(Times, Duration)> {
    let places = shape.depth as usize;
    let (upward, requests) = RingBuffer::new(places);
    let (downward, responses) = RingBuffer::new(places);
    let (client, server) = (Sleeper::default(), Sleeper::default());
    let (stop, blocks) = (AtomicBool::new(false), store.blocks());
    std::thread::scope(|scope| {
        let served = scope.spawn(|| {
            pin(Side::Server)?;
            let end = End { outgoing: downward, incoming: requests, own: &server, other: &client, sleeps };
            serve(end, store, shape, &stop)
        });
        let end = End { outgoing: upward, incoming: responses, own: &client, other: &server, sleeps };
        let measured =
            pin(Side::Client).and_then(|()| ask(end, blocks, shape, time, || served.is_finished()));
        stop.store(true, Ordering::Relaxed);
        served.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        measured
    })
}

/// Which side a thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Client,
}

fn serve(mut end: End<'_>, mut store: Store, shape: Shape, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        match end.incoming.pop() {
            Ok(mut message) => {
                if shape.writes {
                    store.write(&message.data, message.offset).map_err(failed("writing"))?;
                } else {
                    store.read(&mut message.data, message.offset).map_err(failed("reading"))?;
                }
                end.push(message)?;
            }
            Err(_) => end.rest(),
        }
    }
    Ok(())
}

fn ask(
    mut end: End<'_>,
    blocks: u64,
    shape: Shape,
    time: Duration,
    server_gone: impl Fn() -> bool,
) -> Result<(Times, Duration)> {
    let mut times = Times::default();
    let mut random = Random::new(blocks);
    let mut idle: Vec<Vec<u8>> = (0..shape.depth).map(|_| vec![0; shape.data]).collect();
    let start = Instant::now();
    let mut since = vec![start; shape.depth as usize];
    let (mut made, mut done, mut empty) = (0_u64, 0_u64, 0_u32);
    let mut now = start;
    while now < start + time {
        while let Some(data) = idle.pop() {
            since[(made % shape.depth) as usize] = now;
            end.push(Message { offset: random.block() * shape.data as u64, data, _head: [0; 8] })?;
            made += 1;
        }
        match end.incoming.pop() {
            Ok(first) => {
                now = Instant::now();
                let mut next = Some(first);
                while let Some(message) = next {
                    times.record(now - since[(done % shape.depth) as usize]);
                    done += 1;
                    idle.push(message.data);
                    next = end.incoming.pop().ok();
                }
            }
            Err(_) => {
                end.rest();
                empty = empty.wrapping_add(1);
                if end.sleeps || empty.is_multiple_of(TURNS_PER_LOOK) {
                    now = Instant::now();
                    if now >= start + time && server_gone() {
                        return Err("the server's thread ended early".to_owned());
                    }
                }
            }
        }
    }
    Ok((times, start.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_waiting_get_answers() {
        let shape = Shape { depth: 4, data: 4096, request_head: 96, response_head: 80, writes: false };
        for sleeps in [false, true] {
            // A busy machine may have no turn for one of the two in so short a time.
            let mut times = [50, 500, 5000].map(Duration::from_millis).into_iter();
            assert!(times.any(|time| {
                let store = if sleeps { Store::memory(1 << 20, &shape).unwrap() } else { Store::Null };
                let (times, elapsed) = run(shape, store, sleeps, time, |_| Ok(())).unwrap();
                assert!(elapsed >= time);
                times.count() > 10
            }));
        }
    }
}
