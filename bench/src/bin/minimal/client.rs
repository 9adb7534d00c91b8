//! The side that asks.

use crate::ring::Ring;
use crate::{OFFSET_BYTES, Random, Shape};
use bench::{Result, Times, failed};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Keeps `depth` requests in flight.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    socket: &'a TcpStream,
    shape: Shape,
    requests: Ring,
    responses: Ring,
    /// When each request in flight was made ready; its place is its number modulo the depth.
    since: Vec<Instant>,
    made: u64,
    done: u64,
    random: Random,
}

impl<'a> Client<'a> {
    pub(crate) fn new(socket: &'a TcpStream, shape: Shape, blocks: u64) -> Client<'a> {
        Client {
            socket,
            shape,
            requests: Ring::new(shape.depth, shape.request()),
            responses: Ring::new(shape.depth, shape.response()),
            since: vec![Instant::now(); shape.depth as usize],
            made: 0,
            done: 0,
            random: Random::new(blocks),
        }
    }

    /// Measures for a time. `server_gone` says that no answer will come any more.
    pub(crate) fn run(mut self, time: Duration, server_gone: impl Fn() -> bool) -> Result<(Times, Duration)> {
        let mut times = Times::default();
        let start = Instant::now();
        let mut now = start;
        while now < start + time {
            self.ask(now);
            self.requests.send(self.socket, self.made).map_err(failed("sending requests"))?;
            if !self.responses.receive(self.socket).map_err(failed("receiving responses"))? {
                now = Instant::now();
                if now >= start + time && server_gone() {
                    return Err("the server's thread ended early".to_owned());
                }
                continue;
            }
            now = Instant::now();
            while self.done < self.responses.messages() {
                times.record(now - self.since[(self.done % self.shape.depth) as usize]);
                self.done += 1;
            }
        }
        Ok((times, start.elapsed()))
    }

    /// Makes requests ready, up to the depth.
    fn ask(&mut self, now: Instant) {
        while self.made < self.done + self.shape.depth {
            let offset = self.random.block() * self.shape.data as u64;
            self.requests.place(self.made)[..OFFSET_BYTES].copy_from_slice(&offset.to_le_bytes());
            self.since[(self.made % self.shape.depth) as usize] = now;
            self.made += 1;
        }
    }
}
