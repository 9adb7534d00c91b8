//! What the engine keeps for one job: its connections, its memory, and the I/O units on their way.

use crate::details;
use crate::error::Error;
use crate::fio::{self, Direction, Job, Unit};
use crate::links::Links;
use crate::memory;
use crate::opening::OpenFile;
use crate::options::Settings;
use crate::parts::{Ended, Parts};
use raio::engine::QUEUED_MAX;
use raio::libxio::{Landing, Region};
use raio::{Completion, Operation, Outcome};
use std::time::{Duration, Instant};

/// Longest sleep while several connections are waited for: each has to look at its server's silence now and then.
const SLEEP_MAX: Duration = Duration::from_millis(400);

/// Most units that are held back: each costs its neighbours the time that fio takes to make one, about 1 us.
const HELD_UNITS_MAX: usize = 8;

/// Most data of writes that are held back, in bytes: making more takes longer than sending it.
const HELD_BYTES_MAX: u64 = 64 << 10;

/// The engine's side of a job.
pub struct State {
    pub links: Links,
    /// Memory of all units, once fio has asked for it.
    pub memory: Option<Region>,
    /// Units that were queued and not committed yet.
    started: Vec<Unit>,
    /// Units that the last `getevents` returned, in fio's order.
    ended: Vec<Unit>,
    parts: Parts,
    held: Held,
}

/// What was committed and is held back until more comes, or fio asks for events.
#[derive(Debug, Default)]
struct Held {
    units: usize,
    /// Of writes.
    bytes: u64,
}

/// What became of a unit that fio queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queued {
    /// It will end in an event.
    Taken,
    /// There is no room: events have to be taken first.
    Full,
    /// It has ended; the unit says how.
    Ended,
}

impl State {
    /// Connects to the servers of all files of a job.
    ///
    /// # Errors
    /// Those of options and names, and of connecting.
    pub fn connect(job: Job) -> Result<State, Error> {
        let mut links = Links::new(Settings::of(job)?);
        for file in job.files() {
            links.reach(&links.place(file)?.server)?;
        }
        let list = || Vec::with_capacity(job.depth());
        Ok(State {
            links,
            memory: None,
            started: list(),
            ended: list(),
            parts: Parts::default(),
            held: Held::default(),
        })
    }

    /// Takes a unit; it goes out with the next [`State::commit`].
    pub fn queue(&mut self, unit: Unit) -> Queued {
        match self.start(unit) {
            Ok(queued) => queued,
            Err(raio::Error::QueueFull { .. }) => Queued::Full,
            Err(error) => {
                self.tell_losses();
                unit.failed(error.errno());
                details::keep(unit, error.to_string());
                Queued::Ended
            }
        }
    }

    fn start(&mut self, unit: Unit) -> Result<Queued, raio::Error> {
        // SAFETY: fio closes a file when no unit uses it any more.
        let Some(open) = unit.file().and_then(|file| unsafe { file.open() }) else {
            unit.failed(libc::EBADF);
            return Ok(Queued::Ended);
        };
        let handle = open.handle;
        let operation = match unit.direction() {
            Direction::Read | Direction::Write | Direction::Trim if unit.length() == 0 => {
                unit.moved(0);
                return Ok(Queued::Ended);
            }
            Direction::Read | Direction::Write if unit.length() > u64::from(open.io_bytes_max) => {
                return self.start_parts(unit, open);
            }
            // It is at most `io_bytes_max`.
            Direction::Read | Direction::Write => {
                transfer(unit, open, self.memory.as_ref(), 0, unit.length() as u32)?
            }
            Direction::Trim => Operation::Discard { handle, offset: unit.offset(), length: unit.length() },
            Direction::Sync { data_only } => Operation::Flush { handle, data_only },
            Direction::Other => {
                unit.failed(libc::EINVAL);
                return Ok(Queued::Ended);
            }
        };
        self.submit(open.link, operation, unit.token())?;
        self.started.push(unit);
        Ok(Queued::Taken)
    }

    /// As [`State::start`], for a unit that is longer than the server takes at a time.
    fn start_parts(&mut self, unit: Unit, open: &OpenFile) -> Result<Queued, raio::Error> {
        let part = u64::from(open.io_bytes_max);
        let count = unit.length().div_ceil(part);
        let outstanding = self.links.all().get(open.link).map_or(0, |link| link.engine.outstanding());
        if outstanding > 0 && outstanding as u64 + count > QUEUED_MAX as u64 {
            return Ok(Queued::Full);
        }
        let place = self.parts.begin(unit, open.io_bytes_max);
        // A unit of 2^31 parts would have more bytes than memory has.
        for number in 0..count as u32 {
            let start = u64::from(number) * part;
            let length = (unit.length() - start).min(part) as u32;
            let token = self.parts.started(place, number);
            let submitted = transfer(unit, open, self.memory.as_ref(), start, length)
                .and_then(|operation| self.submit(open.link, operation, token));
            if let Err(error) = submitted {
                if let Some(Ended { result: Err(error), .. }) = self.parts.refused(place, number, error) {
                    return Err(error);
                }
                break;
            }
        }
        self.started.push(unit);
        Ok(Queued::Taken)
    }

    fn submit(&mut self, link: usize, operation: Operation, token: u64) -> Result<(), raio::Error> {
        let Some(link) = self.links.all().get_mut(link) else {
            return Err(raio::Error::Operation { op: operation.op(), path: None, errno: libc::EBADF });
        };
        link.engine.submit(operation, token)?;
        link.unflushed = true;
        Ok(())
    }

    /// Sends what was queued, with one flush for each connection.
    ///
    /// fio commits every unit by itself unless it is told otherwise, so a flush may wait for the next ones as long as
    /// others are on their way: fio sleeps only after it has asked for all their events, and [`State::wait`] sends
    /// everything before it waits. What is too much to be held back goes out at once.
    ///
    /// # Errors
    /// Where this machine's ring fails; the units end with the same error.
    pub fn commit(&mut self, job: Job) -> Result<(), Error> {
        if self.started.is_empty() {
            return Ok(());
        }
        for unit in &self.started {
            self.held.units += 1;
            self.held.bytes += if unit.direction() == Direction::Write { unit.length() } else { 0 };
        }
        let outstanding: usize = self.links.all().iter().map(|link| link.engine.outstanding()).sum();
        let may_hold = outstanding > self.held.units
            && self.held.units < HELD_UNITS_MAX
            && self.held.bytes < HELD_BYTES_MAX
            && job.asks_for_events_before_it_waits();
        let result = if may_hold { Ok(()) } else { self.flush() };
        job.issued(&self.started);
        self.started.clear();
        result.map_err(Error::Remote)
    }

    fn flush(&mut self) -> Result<(), raio::Error> {
        self.held = Held::default();
        let mut result = Ok(());
        for link in self.links.all().iter_mut().filter(|link| link.unflushed) {
            link.unflushed = false;
            result = result.and(link.engine.flush());
        }
        result
    }

    /// Waits until at least `least` units have ended, or all, or the time is over; takes up to `most` of them, and says
    /// how many.
    ///
    /// # Errors
    /// An errno, where this machine's ring fails, or where units are waited for that are not on their way: fio would
    /// take an answer of none for the end of its work.
    pub fn wait(&mut self, least: usize, most: usize, timeout: Option<Duration>) -> Result<usize, i32> {
        self.ended.clear();
        let least = least.min(most);
        // fio takes events one by one unless it is told otherwise: what is here already needs no look at the network.
        self.take(most);
        if self.ended.len() >= least.max(1) {
            return Ok(self.ended.len());
        }
        // Polling sends everything.
        self.held = Held::default();
        let timeout = if least == 0 { Some(Duration::ZERO) } else { timeout };
        let deadline =
            timeout.filter(|time| !time.is_zero()).and_then(|time| Instant::now().checked_add(time));
        let mut left = timeout;
        loop {
            let missing = least - self.ended.len();
            let polled = match self.links.all() {
                [] => Ok(()),
                [only] => only.engine.poll_for(missing, left).map(drop),
                _ => self.wait_for_several(missing, left),
            };
            self.take(most);
            if self.ended.len() >= least {
                break;
            }
            // Fewer than wanted: the time is over, or nothing more can come, or parts of a unit have ended.
            let outstanding: usize = self.links.all().iter().map(|link| link.engine.outstanding()).sum();
            left = deadline.map_or(left, |deadline| Some(deadline.saturating_duration_since(Instant::now())));
            if outstanding > 0 && polled.is_ok() && left.is_none_or(|left| !left.is_zero()) {
                continue;
            }
            if !self.ended.is_empty() || (outstanding > 0 && polled.is_ok()) {
                break;
            }
            self.tell_losses();
            polled.map_err(|error| error.errno())?;
            fio::log_error("units were waited for that are not on their way");
            return Err(libc::EIO);
        }
        self.tell_losses();
        Ok(self.ended.len())
    }

    /// Takes what has ended, up to `most` units in all.
    fn take(&mut self, most: usize) {
        let State { links, ended, parts, .. } = self;
        for link in links.all() {
            while ended.len() < most
                && let Some(completion) = link.engine.next()
            {
                if let Some(unit) = finish(parts, completion) {
                    ended.push(unit);
                }
            }
        }
    }

    /// As the engine's own wait, for the completions of all connections.
    fn wait_for_several(&mut self, least: usize, timeout: Option<Duration>) -> Result<(), raio::Error> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut descriptors = Vec::new();
        loop {
            let (mut ready, mut outstanding) = (0, 0);
            for link in self.links.all() {
                // Turned until nothing happens: only then is its descriptor armed.
                ready += link.engine.poll_for(usize::MAX, Some(Duration::ZERO))?;
                outstanding += link.engine.outstanding();
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if ready >= least.max(1) || outstanding == 0 || left.is_some_and(|left| left.is_zero()) {
                return Ok(());
            }
            descriptors.clear();
            for link in self.links.all().iter_mut().filter(|link| link.engine.lost().is_none()) {
                let fd = link.engine.poll_fd()?;
                descriptors.push(libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
            }
            sleep(&mut descriptors, left.map_or(SLEEP_MAX, |left| left.min(SLEEP_MAX)));
        }
    }

    /// One of the units that the last [`State::wait`] took.
    pub fn event(&self, index: usize) -> Option<Unit> {
        self.ended.get(index).copied()
    }

    /// Takes a unit back that did not go out yet.
    pub fn cancel(&mut self, unit: Unit) -> bool {
        let token = unit.token();
        let cancelled = self.links.all().iter_mut().any(|link| link.engine.cancel_queued(token));
        if cancelled {
            self.started.retain(|other| *other != unit);
        }
        cancelled
    }

    /// Says once for each connection that it is lost.
    fn tell_losses(&mut self) {
        for link in self.links.all() {
            if !link.loss_told
                && let Some(error) = link.engine.lost()
            {
                link.loss_told = true;
                let error = Error::Remote(error.clone());
                fio::log_error(&format!("{error}; {}", error.advice().unwrap_or_default()));
            }
        }
    }
}

/// A read or write of a part of a unit, from `start` bytes behind its own start.
fn transfer(
    unit: Unit,
    open: &OpenFile,
    region: Option<&Region>,
    start: u64,
    length: u32,
) -> Result<Operation, raio::Error> {
    let (handle, offset) = (open.handle, unit.offset() + start);
    let memory = unit.memory().wrapping_add(start as usize);
    // SAFETY: a unit's memory is its own, and lives until the job is over; all operations have ended by then.
    let list = unsafe { memory::list(region, memory, length as usize) }?;
    Ok(match unit.direction() {
        Direction::Read => Operation::Read { handle, offset, length, landing: Landing::Place(list) },
        _ => Operation::Write { handle, offset, data: list, durable: false },
    })
}

/// Says in a unit how it has ended, and returns it; `None` while others of its parts are on their way.
fn finish(parts: &mut Parts, Completion { token, result }: Completion) -> Option<Unit> {
    let (unit, result) = if Parts::is_part(token) {
        let bytes = result.map(|outcome| outcome.bytes() as u32);
        let Ended { unit, result } = parts.ended(token, bytes)?;
        (unit, result)
    } else {
        // SAFETY: such tokens are those of units that fio has queued, and does not have back yet.
        let unit = unsafe { Unit::from_token(token) }?;
        let moved = |outcome| match outcome {
            Outcome::Read { bytes, .. } | Outcome::Written { bytes } => u64::from(bytes),
            _ => unit.length(),
        };
        (unit, result.map(moved))
    };
    match result {
        Ok(bytes) => unit.moved(bytes),
        Err(error) => {
            unit.failed(error.errno());
            let error = Error::Remote(error);
            let advice = error.advice().map(|advice| format!("; {advice}")).unwrap_or_default();
            details::keep(unit, format!("libraio: {error}{advice}"));
        }
    }
    Some(unit)
}

/// Sleeps until one of the descriptors is readable, or the time is over.
fn sleep(descriptors: &mut [libc::pollfd], time: Duration) {
    // At most `SLEEP_MAX`; rounded up, so that a short rest does not become a spin.
    let milliseconds = time.as_micros().div_ceil(1000) as libc::c_int;
    // SAFETY: the array is valid for its length. An interruption is as good as a wake-up.
    unsafe { libc::poll(descriptors.as_mut_ptr(), descriptors.len() as libc::nfds_t, milliseconds) };
}
