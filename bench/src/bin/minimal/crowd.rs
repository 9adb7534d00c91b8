//! Many connections, with one request in flight on each: both sides ask epoll which of them have something, and never sleep.

use crate::Shape;
use crate::memory::Side;
use bench::{Result, Times, allow_descriptors, failed};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Ready connections taken at a time.
const EVENTS: usize = 256;

/// The ends of one side.
struct Ends {
    sockets: Vec<TcpStream>,
    /// Bytes of the present message that each has received.
    received: Vec<usize>,
    epoll: OwnedFd,
    ready: Vec<Event>,
    scratch: Vec<u8>,
}

impl Ends {
    /// For messages of at most so many bytes.
    fn new(sockets: Vec<TcpStream>, message: usize) -> Result<Ends> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(failed("making an epoll"))?;
        for (index, socket) in sockets.iter().enumerate() {
            epoll::add(&epoll, socket, EventData::new_u64(index as u64), EventFlags::IN)
                .map_err(failed("watching a connection"))?;
        }
        let (received, ready) = (vec![0; sockets.len()], Vec::with_capacity(EVENTS));
        Ok(Ends { sockets, received, epoll, ready, scratch: vec![0; message] })
    }

    /// Looks which have something; calls `done` for each that has a whole message of `length` bytes.
    fn look(&mut self, length: usize, mut done: impl FnMut(usize, &TcpStream) -> Result<()>) -> Result<()> {
        self.ready.clear();
        epoll::wait(&self.epoll, spare_capacity(&mut self.ready), Some(&Timespec::default()))
            .map_err(failed("waiting for connections"))?;
        for event in &self.ready {
            // The index that it was added with.
            let index = event.data.u64() as usize;
            let mut socket = &self.sockets[index];
            let missing = length - self.received[index];
            match socket.read(&mut self.scratch[..missing]) {
                Ok(0) => return Err("a connection has ended".to_owned()),
                Ok(count) => self.received[index] += count,
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => {}
                Err(cause) => return Err(format!("receiving: {cause}")),
            }
            if self.received[index] == length {
                self.received[index] = 0;
                done(index, socket)?;
            }
        }
        Ok(())
    }
}

/// Sends a head and data, of which a socket's buffer takes one at any time.
fn send(mut socket: &TcpStream, head: &[u8], data: &[u8]) -> Result<()> {
    let sent = socket.write_vectored(&[IoSlice::new(head), IoSlice::new(data)]).map_err(failed("sending"))?;
    if sent == head.len() + data.len() { Ok(()) } else { Err("a socket's buffer is too small".to_owned()) }
}

/// Runs both sides, each on its core; returns the times, and how long it took.
pub(crate) fn run(
    count: usize,
    shape: Shape,
    time: Duration,
    pin: impl Fn(Side) -> Result<()> + Sync,
) -> Result<(Times, Duration)> {
    allow_descriptors(2 * count as u64 + 64)?;
    let pairs: std::io::Result<Vec<_>> = (0..count).map(|_| crate::pair(false)).collect();
    let (near, far) = pairs.map_err(failed("connecting over loopback"))?.into_iter().unzip();
    let mut client = Ends::new(near, shape.response())?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let served = scope.spawn(|| {
            pin(Side::Server)?;
            serve(Ends::new(far, shape.request())?, shape, &stop)
        });
        let measured =
            pin(Side::Client).and_then(|()| ask(&mut client, shape, time, || served.is_finished()));
        stop.store(true, Ordering::Relaxed);
        served.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        measured
    })
}

fn serve(mut ends: Ends, shape: Shape, stop: &AtomicBool) -> Result<()> {
    let head = vec![0; shape.response_head];
    let data = vec![0; shape.response() - shape.response_head];
    while !stop.load(Ordering::Relaxed) {
        ends.look(shape.request(), |_, socket| send(socket, &head, &data))?;
    }
    Ok(())
}

fn ask(
    ends: &mut Ends,
    shape: Shape,
    time: Duration,
    server_gone: impl Fn() -> bool,
) -> Result<(Times, Duration)> {
    let head = vec![0; shape.request_head];
    let data = vec![0; shape.request() - shape.request_head];
    let mut times = Times::default();
    let start = Instant::now();
    let mut since = vec![start; ends.sockets.len()];
    for socket in &ends.sockets {
        send(socket, &head, &data)?;
    }
    let mut now = start;
    while now < start + time {
        now = Instant::now();
        ends.look(shape.response(), |index, socket| {
            let done = Instant::now();
            times.record(done - since[index]);
            since[index] = done;
            send(socket, &head, &data)
        })?;
        if server_gone() {
            return Err("the server's thread ended early".to_owned());
        }
    }
    Ok((times, start.elapsed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_get_answers() {
        let shape = Shape { depth: 1, data: 4096, request_head: 96, response_head: 80, writes: false };
        // A busy machine may have no turn for one of the two in so short a time.
        let mut times_ms = [50, 500, 5000].into_iter();
        assert!(times_ms.any(|time_ms| {
            let (times, _) = run(20, shape, Duration::from_millis(time_ms), |_| Ok(())).unwrap();
            times.count() > 20
        }));
    }
}
