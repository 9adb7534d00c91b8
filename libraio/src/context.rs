//! The I/O context of a session: requests on their way, completions that wait to be reaped, buffers held for events.
//!
//! A request's token at the engine is its place here. Once warm, nothing is allocated per request.

use crate::abi::{Event, Iocb};
use crate::errno::Errno;
use crate::eventfds::EventFds;
use crate::held::Held;
use crate::memory::MemoryTable;
use crate::notifier::Notifier;
use crate::request::Request;
use crate::token::NOTHING_HELD;
use libxio::Buffer;
use raio::engine::{Completion, Engine, Outcome, QUEUED_MAX, Slab};
use raio::proto::Handle;
use raio::{Error, Result};
use std::collections::VecDeque;
use std::ffi::c_int;
use std::ptr::with_exposed_provenance_mut;
use std::time::{Duration, Instant};

/// Greatest depth: what the engine queues, each with its memory.
pub(crate) const DEPTH_MAX: usize = QUEUED_MAX;

/// The session's open file, as requests need it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenFile {
    pub handle: Handle,
    /// Longest read or write of one message, in bytes; a longer request goes in parts.
    pub part_max: u32,
}

/// Everything of one `raio_context_t`.
#[derive(Debug)]
pub(crate) struct IoContext {
    pub token: u64,
    /// Most requests whose event was not returned.
    depth: usize,
    requests: Slab<Request>,
    /// Completed, oldest first.
    ready: VecDeque<Done>,
    held: Held,
    eventfds: EventFds,
    pub notifier: Option<Notifier>,
}

/// A completed request.
#[derive(Debug)]
struct Done {
    iocb: usize,
    data: usize,
    /// Bytes, or a negative errno.
    result: i64,
    /// What the library provided.
    buffer: Option<Buffer>,
}

impl IoContext {
    pub(crate) fn new(token: u64, depth: usize) -> IoContext {
        IoContext {
            token,
            depth,
            requests: Slab::new(),
            ready: VecDeque::new(),
            held: Held::new(),
            eventfds: EventFds::default(),
            notifier: None,
        }
    }

    /// Requests whose event was not returned.
    fn pending(&self) -> usize {
        self.requests.len() + self.ready.len()
    }

    /// Requests that have not completed.
    pub(crate) fn running(&self) -> usize {
        self.requests.len()
    }

    /// Requests that have not completed and name an eventfd.
    pub(crate) fn watched(&self) -> usize {
        self.eventfds.waiting()
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes up to `count` iocbs, and sends what the server takes now.
    ///
    /// # Safety
    /// `ios` points to `count` pointers to iocbs, whose memory stays as libraio.h asks.
    pub(crate) unsafe fn submit(
        &mut self,
        engine: &mut Engine,
        file: OpenFile,
        table: &MemoryTable,
        ios: *const *mut Iocb,
        count: usize,
    ) -> std::result::Result<usize, Errno> {
        if engine.lost().is_some() {
            return Err(Errno::LOST);
        }
        let mut taken = 0;
        let mut refused = None;
        while taken < count {
            if self.pending() >= self.depth {
                refused = Some(Errno::AGAIN);
                break;
            }
            // SAFETY: `taken < count`, and the caller promises as many pointers.
            let iocb = unsafe { ios.add(taken).read_unaligned() };
            // SAFETY: the caller promises iocbs.
            if let Err(errno) = unsafe { self.submit_one(engine, file, table, iocb) } {
                refused = Some(errno);
                break;
            }
            taken += 1;
        }
        // A ring that fails ends every request, which getevents tells.
        let _ = engine.flush();
        match refused {
            Some(errno) if taken == 0 => Err(errno),
            _ => Ok(taken),
        }
    }

    /// # Safety
    /// As `submit`.
    unsafe fn submit_one(
        &mut self,
        engine: &mut Engine,
        file: OpenFile,
        table: &MemoryTable,
        iocb: *mut Iocb,
    ) -> std::result::Result<(), Errno> {
        // SAFETY: the caller's promise is passed on.
        let (mut request, eventfd) = unsafe { Request::new(iocb, table, file.part_max) }?;
        let operation = request.next_part(file.handle, file.part_max)?;
        request.eventfd = eventfd.map(|number| self.eventfds.begin(number)).transpose()?;
        let place = self.requests.insert(request);
        if let Err(error) = engine.submit(operation, place as u64) {
            self.forget(place);
            return Err(if engine.lost().is_some() { Errno::LOST } else { error.into() });
        }
        Ok(())
    }

    /// A request that was never begun, or is taken back.
    fn forget(&mut self, place: usize) {
        if let Some(Request { eventfd: Some(entry), .. }) = self.requests.remove(place) {
            self.eventfds.end(entry, false);
        }
    }

    /// Takes up what the engine has completed, and sends the parts that follow.
    pub(crate) fn collect(&mut self, engine: &mut Engine, file: Option<OpenFile>) {
        while let Some(Completion { token, result }) = engine.next() {
            let Ok(place) = usize::try_from(token) else { continue };
            self.part_completed(engine, file, place, result);
        }
        if engine.lost().is_some() && !self.requests.is_empty() && engine.outstanding() == 0 {
            // The engine ends all that it took; this is for a fault there, so that nobody waits for ever.
            let left: Vec<Request> = self.requests.drain().collect();
            left.into_iter().for_each(|request| self.finish(request, Err(Errno::LOST)));
        }
    }

    fn part_completed(
        &mut self,
        engine: &mut Engine,
        file: Option<OpenFile>,
        place: usize,
        result: Result<Outcome>,
    ) {
        let Some(request) = self.requests.get_mut(place) else { return };
        let outcome = match result {
            Ok(Outcome::Read { bytes, data }) => {
                if request.part_ended(bytes.into()) {
                    return self.continue_request(engine, file, place);
                }
                request.provided(data)
            }
            Ok(Outcome::Written { bytes }) => {
                if request.part_ended(bytes.into()) {
                    return self.continue_request(engine, file, place);
                }
                Ok(None)
            }
            Ok(_) => Ok(None),
            // What was moved before is told; the next request meets the error.
            Err(Error::Operation { .. }) if request.moved() > 0 => request.provided(libxio::Sgl::new()),
            Err(error) => Err(Errno(error.errno())),
        };
        if let Some(request) = self.requests.remove(place) {
            self.finish(request, outcome);
        }
    }

    fn continue_request(&mut self, engine: &mut Engine, file: Option<OpenFile>, place: usize) {
        let Some(request) = self.requests.get_mut(place) else { return };
        let next = file
            .ok_or(Errno::HANDLE)
            .and_then(|file| request.next_part(file.handle, file.part_max))
            .and_then(|operation| engine.submit(operation, place as u64).map_err(Errno::from));
        if let Err(errno) = next
            && let Some(request) = self.requests.remove(place)
        {
            self.finish(request, Err(errno));
        }
    }

    /// A request has completed: it can be reaped.
    fn finish(&mut self, request: Request, outcome: std::result::Result<Option<Buffer>, Errno>) {
        let (result, buffer) = match outcome {
            // At most 2 GiB.
            Ok(buffer) => (request.moved() as i64, buffer.filter(|buffer| !buffer.is_empty())),
            Err(errno) => (errno.negative(), None),
        };
        let Request { iocb, data, eventfd, .. } = request;
        self.ready.push_back(Done { iocb, data, result, buffer });
        if let Some(entry) = eventfd {
            self.eventfds.end(entry, true);
        }
    }

    /// Runs the loop until `min` requests are ready (or all that are pending), or the time is over; gives up to `count`
    /// events.
    ///
    /// # Safety
    /// `events` has room for `count` events, and the iocbs of pending requests are still there.
    pub(crate) unsafe fn get_events(
        &mut self,
        engine: &mut Engine,
        file: Option<OpenFile>,
        min: usize,
        count: usize,
        events: *mut Event,
        timeout: Option<Duration>,
    ) -> std::result::Result<usize, Errno> {
        self.collect(engine, file);
        if self.pending() == 0 {
            return if engine.lost().is_some() { Err(Errno::LOST) } else { Ok(0) };
        }
        self.wait(engine, file, min.min(self.pending()), timeout);
        let given = self.ready.len().min(count);
        for index in 0..given {
            if let Some(done) = self.ready.pop_front() {
                let event = self.event(done);
                // SAFETY: `index < count`, and the caller promises the room.
                unsafe { events.add(index).write_unaligned(event) };
            }
        }
        Ok(given)
    }

    fn wait(&mut self, engine: &mut Engine, file: Option<OpenFile>, min: usize, timeout: Option<Duration>) {
        let once = min == 0 || timeout == Some(Duration::ZERO);
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        while self.ready.len() < min.max(1) {
            let left = match deadline {
                _ if once => Some(Duration::ZERO),
                Some(deadline) => Some(deadline.saturating_duration_since(Instant::now())),
                None => None,
            };
            // A ring that fails ends every request; `collect` finds them.
            let _ = engine.poll_for(1, left);
            self.collect(engine, file);
            if once || left.is_some_and(|left| left.is_zero()) {
                break;
            }
        }
    }

    fn event(&mut self, done: Done) -> Event {
        let Done { iocb, data, mut result, buffer } = done;
        let obj: *mut Iocb = with_exposed_provenance_mut(iocb);
        let mut handle = NOTHING_HELD;
        if let Some(buffer) = buffer {
            let address = buffer.as_ptr();
            match self.held.hold(buffer) {
                Ok(held) => {
                    handle = held;
                    // SAFETY: the caller promised with the iocb that it stays until its event is returned, which is
                    // now; the address of a field makes no reference to it.
                    unsafe { (&raw mut (*obj).c.buf).write_unaligned(address.cast()) };
                }
                Err(errno) => result = errno.negative(),
            }
        }
        // Two's complement, as the field is read back by callers.
        let res = result.cast_unsigned();
        Event { data: with_exposed_provenance_mut(data), obj, handle, res, res2: 0 }
    }

    /// Gives back what is held for an event.
    pub(crate) fn release(&mut self, handle: u64) -> std::result::Result<(), Errno> {
        self.held.release(handle)
    }

    /// Takes a request back that has not been sent; gives its event.
    pub(crate) fn cancel(
        &mut self,
        engine: &mut Engine,
        iocb: *mut Iocb,
    ) -> std::result::Result<Event, Errno> {
        let wanted = iocb.addr();
        let Some(place) = self.requests.find(|request| request.iocb == wanted) else {
            let completed = self.ready.iter().any(|done| done.iocb == wanted);
            return Err(if completed { Errno::AGAIN } else { Errno::INVALID });
        };
        let begun = self.requests.get_mut(place).is_none_or(|request| request.moved() > 0);
        if begun || !engine.cancel_queued(place as u64) {
            return Err(Errno::AGAIN);
        }
        let data = self.requests.get_mut(place).map_or(0, |request| request.data);
        self.forget(place);
        let result = Errno(libc::ECANCELED).negative();
        Ok(self.event(Done { iocb: wanted, data, result, buffer: None }))
    }

    /// Ends every request: takes back what was not sent, waits up to `patience` for the rest, and cuts the connection
    /// if that does not help. Afterwards nobody touches memory of a request. No event is made.
    pub(crate) fn end(&mut self, engine: &mut Engine, patience: Duration) {
        let places: Vec<usize> = self.requests.numbers().collect();
        for place in places {
            if engine.cancel_queued(place as u64) {
                self.forget(place);
            }
        }
        let deadline = Instant::now() + patience;
        while !self.requests.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || engine.lost().is_some() {
                engine.sever();
                break;
            }
            let _ = engine.poll_for(1, Some(left));
            // Without a file no further parts are sent.
            self.collect(engine, None);
        }
    }
}

/// As a C `int` has it.
pub(crate) fn count(number: usize) -> c_int {
    c_int::try_from(number).unwrap_or(c_int::MAX)
}
