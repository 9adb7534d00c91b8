//! `sim`: a deterministic network in memory, on virtual time, with seeded faults. The same seed gives the same run, byte
//! for byte, as long as the contexts on it are driven from one thread in the same order.
//!
//! It carries bytes, not frames, so that [`Stream`] is tested with everything above it: partial sends and receives,
//! delays (reorder between connections), stalls, corrupted bytes, and connections that break in mid-frame.

mod stranger;

pub use stranger::{Stranger, StrangerListener};

use super::{ByteSocket, Clock, Link, Listener, Stream, Transport, VirtualClock};
use crate::mem::IoVec;
use crate::{Error, Result, Uri};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes that a simulated connection holds in flight, each way.
const PIPE_BYTES_MAX: usize = 96 << 10;

/// How often what goes wrong: chances are per send or receive, in 1 of 65,536.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Faults {
    /// A send or receive moves only part of what it could.
    pub partial: u16,
    /// A byte of a send is changed. Use it with checksums on.
    pub corrupt: u16,
    /// The connection breaks, with what is in flight.
    pub lose: u16,
    /// The direction stands still for up to `stall_ms_max`.
    pub stall: u16,
    /// Longest stall in milliseconds.
    pub stall_ms_max: u64,
    /// Longest time on the way, in microseconds; each send draws its own.
    pub delay_us_max: u64,
}

impl Faults {
    /// A perfect network: nothing breaks, nothing takes time.
    pub const NONE: Faults =
        Faults { partial: 0, corrupt: 0, lose: 0, stall: 0, stall_ms_max: 0, delay_us_max: 0 };
}

/// A simulated network. Clones are the same network.
#[derive(Debug, Clone)]
pub struct SimNetwork {
    inner: Arc<Mutex<Inner>>,
    clock: VirtualClock,
}

#[derive(Debug)]
struct Inner {
    random: u64,
    faults: Faults,
    /// Connections that wait to be accepted, by address.
    listeners: HashMap<String, VecDeque<SimSocket>>,
    pipes: Vec<Pipe>,
    free: Vec<usize>,
    next_port: u16,
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Pipe {
    /// (arrival, bytes), in order.
    segments: VecDeque<(Duration, VecDeque<u8>)>,
    bytes: usize,
    stalled_until: Duration,
    /// The sender has ended it: the receiver gets the rest, then the end.
    ended: bool,
    /// Both sides get ECONNRESET at once.
    broken: bool,
    /// Ends that are still held by a socket.
    holders: u8,
}

impl SimNetwork {
    /// A network whose every choice follows from the seed.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> SimNetwork {
        let inner = Inner {
            random: seed,
            faults,
            listeners: HashMap::new(),
            pipes: Vec::new(),
            free: Vec::new(),
            next_port: 1024,
        };
        SimNetwork { inner: Arc::new(Mutex::new(inner)), clock: VirtualClock::new() }
    }

    /// The network's time, for the contexts on it.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock::Virtual(self.clock.clone())
    }

    /// Time since the network was made.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Lets time pass.
    pub fn advance(&self, time: Duration) {
        self.clock.advance(time);
    }

    /// Changes what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// Breaks every connection, now.
    pub fn break_all(&self) {
        for pipe in &mut self.lock().pipes {
            pipe.broken = true;
        }
    }

    /// A random number below `bound` (at least 1) from the network's seed, for the test's own choices.
    pub fn random(&self, bound: u64) -> u64 {
        self.lock().random_below(bound)
    }

    /// Connects to a listener; its address is for people.
    fn open(&self, uri: &Uri) -> Result<(SimSocket, String)> {
        let address = format!("{}:{}", uri.host(), uri.port());
        let mut inner = self.lock();
        if !inner.listeners.contains_key(&address) {
            return Err(Error::ConnectFailed {
                address: format!("sim://{address}"),
                errno: libc::ECONNREFUSED,
            });
        }
        let (there, back) = (inner.new_pipe(), inner.new_pipe());
        let socket = |outgoing, incoming| SimSocket { network: self.clone(), outgoing, incoming };
        let far = socket(back, there);
        if let Some(waiting) = inner.listeners.get_mut(&address) {
            waiting.push_back(far);
        }
        Ok((socket(there, back), format!("sim://{address}")))
    }

    /// Listens; a port of 0 takes a free one.
    fn bind(&self, uri: &Uri) -> Result<SimListener> {
        let mut inner = self.lock();
        let mut uri = uri.clone();
        if uri.port() == 0 {
            inner.next_port += 1;
            uri = Uri::new("sim", uri.host(), Some(inner.next_port), uri.resource());
        }
        let address = format!("{}:{}", uri.host(), uri.port());
        if inner.listeners.contains_key(&address) {
            let cause = io::Error::from_raw_os_error(libc::EADDRINUSE);
            return Err(Error::system(format!("listening at {uri}"), &cause));
        }
        inner.listeners.insert(address.clone(), VecDeque::new());
        Ok(SimListener { network: self.clone(), address, uri })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// SplitMix64 (G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn random_below(&mut self, bound: u64) -> u64 {
        self.random() % bound.max(1)
    }

    fn happens(&mut self, chance: u16) -> bool {
        chance > 0 && self.random_below(1 << 16) < u64::from(chance)
    }

    fn new_pipe(&mut self) -> usize {
        let pipe = Pipe { holders: 2, ..Pipe::default() };
        match self.free.pop() {
            Some(number) => {
                self.pipes[number] = pipe;
                number
            }
            None => {
                self.pipes.push(pipe);
                self.pipes.len() - 1
            }
        }
    }

    fn release(&mut self, number: usize) {
        let pipe = &mut self.pipes[number];
        pipe.holders -= 1;
        pipe.ended = true;
        if pipe.holders == 0 {
            self.free.push(number);
        }
    }
}

impl Transport for SimNetwork {
    fn scheme(&self) -> &'static str {
        "sim"
    }

    fn connect(&self, uri: &Uri) -> Result<Box<dyn Link>> {
        let (socket, address) = self.open(uri)?;
        Ok(Box::new(Stream::new(socket, address)))
    }

    fn listen(&self, uri: &Uri) -> Result<Box<dyn Listener>> {
        Ok(Box::new(self.bind(uri)?))
    }
}

#[derive(Debug)]
struct SimListener {
    network: SimNetwork,
    address: String,
    uri: Uri,
}

impl SimListener {
    fn take_waiting(&self) -> Option<SimSocket> {
        self.network.lock().listeners.get_mut(&self.address).and_then(VecDeque::pop_front)
    }
}

impl Listener for SimListener {
    fn local_uri(&self) -> &Uri {
        &self.uri
    }

    fn accept(&mut self) -> Result<Option<Box<dyn Link>>> {
        Ok(self.take_waiting().map(|socket| {
            let peer = format!("sim://client-{}", socket.incoming);
            Box::new(Stream::new(socket, peer)) as Box<dyn Link>
        }))
    }

    fn readiness(&self) -> Option<RawFd> {
        None
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        // The sockets drop after the lock is released: they take it themselves.
        let waiting = self.network.lock().listeners.remove(&self.address);
        drop(waiting);
    }
}

#[derive(Debug)]
struct SimSocket {
    network: SimNetwork,
    outgoing: usize,
    incoming: usize,
}

impl ByteSocket for SimSocket {
    fn send(&mut self, pieces: &[IoVec<'_>]) -> io::Result<usize> {
        let now = self.network.elapsed();
        let mut inner = self.network.lock();
        let faults = inner.faults;
        if inner.happens(faults.lose) {
            inner.pipes[self.outgoing].broken = true;
            inner.pipes[self.incoming].broken = true;
        }
        if inner.pipes[self.outgoing].broken {
            return Err(io::Error::from_raw_os_error(libc::ECONNRESET));
        }
        if inner.pipes[self.outgoing].ended {
            return Err(io::Error::from_raw_os_error(libc::EPIPE));
        }
        let offered: usize = pieces.iter().map(IoVec::len).sum();
        let mut take = offered.min(PIPE_BYTES_MAX - inner.pipes[self.outgoing].bytes);
        if take == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if inner.happens(faults.partial) {
            take = 1 + inner.random_below(take as u64) as usize;
        }
        let mut bytes = VecDeque::with_capacity(take);
        for piece in pieces {
            let part = piece.len().min(take - bytes.len());
            bytes.extend(&piece.copy_out(part));
        }
        if inner.happens(faults.corrupt) {
            let place = inner.random_below(take as u64) as usize;
            bytes[place] ^= 1 << inner.random_below(8);
        }
        let delay = Duration::from_micros(inner.random_below(faults.delay_us_max + 1));
        if inner.happens(faults.stall) {
            let stall = Duration::from_millis(inner.random_below(faults.stall_ms_max + 1));
            inner.pipes[self.outgoing].stalled_until = now + stall;
        }
        let pipe = &mut inner.pipes[self.outgoing];
        let after_last = pipe.segments.back().map_or(Duration::ZERO, |(arrival, _)| *arrival);
        pipe.bytes += take;
        pipe.segments.push_back(((now + delay).max(after_last), bytes));
        Ok(take)
    }

    fn receive(&mut self, pieces: &mut [IoVec<'_>]) -> io::Result<usize> {
        let now = self.network.elapsed();
        let mut inner = self.network.lock();
        let faults = inner.faults;
        let mut room: usize = pieces.iter().map(IoVec::len).sum();
        if inner.happens(faults.partial) {
            room = 1 + inner.random_below(room as u64) as usize;
        }
        let pipe = &mut inner.pipes[self.incoming];
        if pipe.broken {
            return Err(io::Error::from_raw_os_error(libc::ECONNRESET));
        }
        if pipe.stalled_until > now {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut bytes = Vec::new();
        while let Some((arrival, segment)) = pipe.segments.front_mut() {
            if *arrival > now || bytes.len() == room {
                break;
            }
            let part = segment.len().min(room - bytes.len());
            bytes.extend(segment.drain(..part));
            if segment.is_empty() {
                pipe.segments.pop_front();
            }
        }
        if bytes.is_empty() {
            let at_end = pipe.ended && pipe.segments.is_empty();
            return if at_end { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        pipe.bytes -= bytes.len();
        let mut rest = bytes.as_slice();
        for piece in pieces.iter_mut() {
            let (now, later) = rest.split_at(rest.len().min(piece.len()));
            piece.copy_in(now);
            rest = later;
        }
        Ok(bytes.len())
    }

    fn readiness(&self) -> Option<RawFd> {
        None
    }

    fn shutdown(&mut self) {
        let mut inner = self.network.lock();
        inner.pipes[self.outgoing].ended = true;
        inner.pipes[self.incoming].ended = true;
    }
}

impl Drop for SimSocket {
    fn drop(&mut self) {
        let mut inner = self.network.lock();
        inner.release(self.outgoing);
        inner.release(self.incoming);
    }
}
