//! The non-blocking core that every face of this crate stands on: one connection to a server, in a loop that runs in
//! the caller's thread.
//!
//! [`Engine::submit`] takes [`Operation`]s, [`Engine::poll`] runs the loop, [`Engine::next`] gives [`Completion`]s:
//! exactly one for each operation taken, however it ends. Operations beyond the server's grant wait in a local queue,
//! so a caller sees no limit but its own. When the connection is gone, everything outstanding ends with the same
//! error, and later operations are refused with it at once. Once warm, reads and writes allocate nothing here.
//!
//! ```no_run
//! use raio::engine::{Engine, Operation, Outcome};
//! use raio::proto::OpenFlags;
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let uri = "tcp://127.0.0.1:5555/data/big.img".parse()?;
//! let mut engine = Engine::connect(&uri, &raio::ClientOptions::default())?;
//! let open = Operation::Open { path: uri.resource().into(), flags: OpenFlags::READ, mode: 0 };
//! let Outcome::Opened { handle, .. } = engine.call(open)? else { unreachable!("an open ends in Opened") };
//! for block in 0..32 {
//!     let landing = libxio::Landing::Pool(4096);
//!     engine.submit(Operation::Read { handle, offset: block * 4096, length: 4096, landing }, block)?;
//! }
//! while engine.outstanding() > 0 {
//!     engine.poll(None)?;
//!     while let Some(completion) = engine.next() {
//!         println!("block {}: {:?}", completion.token, completion.result?);
//!     }
//! }
//! engine.close();
//! # Ok(())
//! # }
//! ```

mod answers;
mod connecting;
mod memory;
mod slab;
mod watch;

pub use crate::operation::{Completion, Entry, Operation, Outcome, StatTarget};
pub use crate::options::ClientOptions;
use memory::Promised;
pub(crate) use memory::pool_bytes;
pub(crate) use slab::Slab;
use watch::{Verdict, Watch};

use crate::proto::{Handle, Invalid, Op, OpenFlags};
use crate::{Error, Result};
use libxio::{Connection, Context, Event, Landing, OutgoingRequest, Pool, Statistics};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most operations in the local queue; each keeps its memory, so it must have an end.
pub const QUEUED_MAX: usize = 65_536;

/// Time for the orderly close: a round trip, and the server's patience with our last frames.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What one connection allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineLimits {
    /// Greatest length of one read or write in bytes. A file may have a smaller one (see
    /// [`Attributes::io_bytes_max`](crate::proto::Attributes::io_bytes_max)).
    pub io_bytes_max: u32,
    /// Operations that the server takes at a time; more wait in the local queue.
    pub requests_max: u32,
}

/// One connection to a server. See the [module](self).
#[derive(Debug)]
pub struct Engine {
    context: Context,
    connection: Connection,
    state: State,
    /// Server and resource, for messages.
    uri: Arc<str>,
    limits: EngineLimits,
    /// What was sent and not answered; the index is the token at the messaging layer.
    pending: Slab<Pending>,
    /// What waits for a slot, in order.
    queued: VecDeque<(Owner, Operation)>,
    /// What has ended and was not taken yet.
    ended: VecDeque<Completion>,
    /// How the present call has ended.
    call: Option<Result<Outcome>>,
    /// Header of the request being encoded; its memory is used again.
    scratch: Vec<u8>,
    /// Pool memory that answers in flight will take.
    promised: Promised,
    /// How many of those pending or queued nobody waits for.
    unwatched: usize,
    watch: Watch,
    statistics: Arc<Statistics>,
}

#[derive(Debug)]
enum State {
    /// The server has not answered the connect yet; operations wait in the queue.
    Connecting,
    Connected,
    /// The connection is gone (or never was).
    Lost(Error),
}

/// Who wants to know about the end of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// The caller of `submit`, by this token.
    Submit(u64),
    /// The caller of `call`, who waits. Calls don't nest.
    Call,
    /// Nobody any more: a call that was given up.
    Nobody,
}

#[derive(Debug)]
struct Pending {
    owner: Owner,
    op: Op,
    /// Pool memory that its answer may take, in bytes.
    promised: usize,
    /// What to do without O_NOATIME, which only a file's owner may ask for.
    again: Option<Box<Operation>>,
}

impl Engine {
    /// Connects to the server of a uri (its resource is not looked at) and waits until that is done, at most
    /// [`ClientOptions::connect_timeout`]; looking up the host's name comes on top. `raio:` uses the best transport
    /// that both sides have, which is TCP today.
    ///
    /// # Errors
    /// [`Error::Uri`], [`Error::Connect`], [`Error::Incompatible`], [`Error::Local`].
    pub fn connect(uri: &libxio::Uri, options: &ClientOptions) -> Result<Engine> {
        let mut engine = Engine::begin(uri, options)?;
        // The messaging layer keeps the time limit; this one is for a fault there.
        let deadline = Instant::now() + options.connect_timeout + Duration::from_secs(1);
        while matches!(engine.state, State::Connecting) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let silent_ms = u64::try_from(options.connect_timeout.as_millis()).unwrap_or(u64::MAX);
                engine.lose(libxio::Error::TimedOut { peer: engine.uri.to_string(), silent_ms });
                break;
            }
            engine.turn(Some(left))?;
        }
        match engine.lost() {
            Some(error) => Err(error.clone()),
            None => Ok(engine),
        }
    }

    /// Does one operation and waits for its end. Completions of others stay for [`Engine::next`].
    ///
    /// # Errors
    /// Those of the operation, of [`Engine::submit`] and [`Engine::poll`].
    pub fn call(&mut self, operation: Operation) -> Result<Outcome> {
        self.call = None;
        self.start(operation, Owner::Call)?;
        loop {
            if let Some(result) = self.call.take() {
                return result;
            }
            if let Err(error) = self.turn(None) {
                self.disown_call();
                return Err(error);
            }
        }
    }

    /// Takes an operation, to be sent at the next [`Engine::flush`], [`Engine::poll`] or [`Engine::call`].
    ///
    /// # Errors
    /// It was not taken, and nothing will be heard of it: [`Error::Invalid`], [`Error::Limit`], [`Error::QueueFull`],
    /// or the error that the connection was lost with.
    pub fn submit(&mut self, operation: Operation, token: u64) -> Result<()> {
        self.start(operation, Owner::Submit(token))
    }

    /// Hands everything to the network that it takes now, without blocking.
    ///
    /// # Errors
    /// [`Error::Local`] where this machine's ring fails.
    pub fn flush(&mut self) -> Result<()> {
        self.send_queued();
        if matches!(self.state, State::Lost(_)) {
            return Ok(());
        }
        self.context.flush().map_err(|cause| self.broken(cause))
    }

    /// Runs the loop until a completion is ready or the time is over (`None`: no limit; zero: one turn that does not
    /// block). Says how many are ready. With nothing outstanding it returns 0 after one turn.
    ///
    /// # Errors
    /// [`Error::Local`] where this machine's ring fails; the connection is lost then.
    pub fn poll(&mut self, timeout: Option<Duration>) -> Result<usize> {
        self.poll_for(1, timeout)
    }

    /// As [`Engine::poll`], until `count` completions are ready, or all that are outstanding.
    ///
    /// # Errors
    /// As [`Engine::poll`].
    pub fn poll_for(&mut self, count: usize, timeout: Option<Duration>) -> Result<usize> {
        self.send_queued();
        if self.ended.len() >= count.max(1) {
            self.flush()?;
            return Ok(self.ended.len());
        }
        if matches!(self.state, State::Lost(_)) {
            return Ok(0);
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let idle = self.outstanding() == 0 && !matches!(self.state, State::Connecting);
            let left = match (deadline, timeout) {
                _ if idle => Some(Duration::ZERO),
                (None, _) => None,
                (_, Some(Duration::ZERO)) => timeout,
                (Some(deadline), _) => Some(deadline.saturating_duration_since(Instant::now())),
            };
            let events = self.turn(left)?;
            // As long as there were events, sources may not be armed for `poll_fd`: look again.
            let over = (events == 0 && left.is_some_and(|left| left.is_zero()))
                || matches!(self.state, State::Lost(_));
            if over || self.ended.len() >= count.max(1) {
                return Ok(self.ended.len());
            }
        }
    }

    /// The next completion, oldest first.
    #[expect(clippy::should_implement_trait, reason = "not the end of anything when it is None")]
    pub fn next(&mut self) -> Option<Completion> {
        self.ended.pop_front()
    }

    /// Operations taken that have not ended yet. Completions that were not taken do not count.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.pending.len() + self.queued.len() - self.unwatched
    }

    /// A descriptor that is readable when there is something to do, after [`Engine::poll`] with a timeout of zero
    /// returned 0.
    ///
    /// # Errors
    /// [`Error::Local`] where the system has no descriptor left.
    pub fn poll_fd(&mut self) -> Result<RawFd> {
        self.context.poll_fd().map_err(Error::Local)
    }

    /// Takes an operation back that still waits in the local queue; false when it is on its way, or unknown.
    pub fn cancel_queued(&mut self, token: u64) -> bool {
        let found = self.queued.iter().position(|(owner, _)| *owner == Owner::Submit(token));
        found.is_some_and(|index| self.queued.remove(index).is_some())
    }

    /// Why the connection is gone; `None` while it is not.
    #[must_use]
    pub fn lost(&self) -> Option<&Error> {
        match &self.state {
            State::Lost(error) => Some(error),
            _ => None,
        }
    }

    /// What the connection allows.
    #[must_use]
    pub fn limits(&self) -> EngineLimits {
        self.limits
    }

    /// Where buffers come from that this connection's transport likes best.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        self.context.pool()
    }

    /// Counters of the messaging layer.
    #[must_use]
    pub fn statistics(&self) -> libxio::StatisticsSnapshot {
        self.statistics.snapshot()
    }

    /// Server and resource, as given.
    #[must_use]
    pub fn uri(&self) -> &Arc<str> {
        &self.uri
    }

    /// Says goodbye to the server and waits, for a bounded time, until it is said. What is outstanding is given up.
    pub fn close(mut self) {
        self.say_goodbye();
    }

    /// Does an operation whose end nobody wants to know; best effort.
    pub(crate) fn submit_unwatched(&mut self, operation: Operation) {
        self.unwatched += 1;
        if self.start(operation, Owner::Nobody).is_err() {
            self.unwatched -= 1;
        } else {
            // What can't be sent now is sent with what comes next.
            let _ = self.flush();
        }
    }

    /// Closes in good order; afterwards the connection is lost.
    pub(crate) fn say_goodbye(&mut self) {
        if !matches!(self.state, State::Lost(_)) && self.context.close(self.connection).is_ok() {
            let deadline = Instant::now() + CLOSE_TIMEOUT;
            while !matches!(self.state, State::Lost(_)) {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || self.turn(Some(left)).is_err() {
                    break;
                }
            }
        }
    }

    /// Says goodbye without waiting for the server to hear it.
    pub(crate) fn leave(&mut self) {
        if matches!(self.state, State::Connected) && self.context.close(self.connection).is_ok() {
            // Best effort: the connection ends either way.
            let _ = self.context.flush();
        }
    }

    /// Cuts the connection at once. When this returns nobody touches memory of any operation any more, and what had
    /// ended and was not taken is gone too.
    pub(crate) fn sever(&mut self) {
        self.lose(libxio::Error::ClosedLocally);
        self.ended.clear();
        self.call = None;
    }

    /// Checks an operation, and sends it or queues it.
    fn start(&mut self, operation: Operation, owner: Owner) -> Result<()> {
        if let State::Lost(error) = &self.state {
            return Err(error.clone());
        }
        self.check(&operation)?;
        self.send_queued();
        if self.queued.is_empty() && self.can_send(&operation) {
            self.send(operation, owner);
            return Ok(());
        }
        if self.queued.len() >= QUEUED_MAX {
            return Err(Error::QueueFull { depth: QUEUED_MAX });
        }
        self.queued.push_back((owner, operation));
        Ok(())
    }

    /// Refuses what the server would refuse, and what has no room to land in.
    fn check(&mut self, operation: &Operation) -> Result<()> {
        let op = operation.op();
        operation.request().encode(&mut self.scratch).map_err(|reason| Error::Invalid { op, reason })?;
        let limit = |what, value, limit: u32| {
            if value > u64::from(limit) {
                Err(Error::Limit { what, value, limit: limit.into() })
            } else {
                Ok(())
            }
        };
        match operation {
            Operation::Read { length, landing, .. } => {
                limit("length of a read in bytes", u64::from(*length), self.limits.io_bytes_max)?;
                let room = u32::try_from(landing.room()).unwrap_or(u32::MAX);
                limit("length of a read into smaller memory, in bytes,", u64::from(*length), room)
            }
            Operation::Write { data, .. } => {
                limit("length of a write in bytes", data.len() as u64, self.limits.io_bytes_max)
            }
            _ => Ok(()),
        }
    }

    /// Whether there is a slot, and pool memory for the answer.
    fn can_send(&self, operation: &Operation) -> bool {
        matches!(self.state, State::Connected)
            && self.context.free_slots(self.connection).is_ok_and(|free| free > 0)
            && self.promised.fits(operation.pool_bytes(), self.context.pool())
    }

    /// Sends from the queue as far as possible, in order.
    fn send_queued(&mut self) {
        while self.queued.front().is_some_and(|(_, operation)| self.can_send(operation)) {
            if let Some((owner, operation)) = self.queued.pop_front() {
                self.send(operation, owner);
            }
        }
    }

    /// Sends an operation that was checked, on a slot that is free. If that fails it has ended.
    fn send(&mut self, operation: Operation, owner: Owner) {
        let op = operation.op();
        if let Err(reason) = operation.request().encode(&mut self.scratch) {
            return self.end(owner, Err(Error::Invalid { op, reason }));
        }
        let again = without_noatime(&operation);
        let (data, landing) = operation.into_memory();
        // The answer of a read of nothing carries nothing.
        let landing = if landing.room() == 0 { Landing::None } else { landing };
        let promised = pool_bytes(&landing);
        self.promised.add(promised);
        let index = self.pending.insert(Pending { owner, op, promised, again });
        let request = OutgoingRequest {
            header: &self.scratch,
            data,
            landing,
            token: index as u64,
            idempotent: op.is_idempotent(),
        };
        if let Err(cause) = self.context.request(self.connection, request) {
            self.pending.remove(index);
            self.promised.subtract(promised);
            let error = match cause {
                cause @ (libxio::Error::LimitExceeded { .. } | libxio::Error::PoolExhausted { .. }) => {
                    Error::Local(cause)
                }
                cause => Error::Lost { uri: Arc::clone(&self.uri), cause },
            };
            self.end(owner, Err(error));
        }
    }

    /// Runs the loop once, at most for `timeout`, takes up what happened, and says how much.
    fn turn(&mut self, timeout: Option<Duration>) -> Result<usize> {
        if let State::Lost(error) = &self.state {
            return Err(error.clone());
        }
        self.send_queued();
        if let Err(cause) = self.context.wait(timeout) {
            return Err(self.broken(cause));
        }
        let mut events = 0;
        while let Some(event) = self.context.next_event() {
            self.take_up(event);
            events += 1;
        }
        self.send_queued();
        self.watch_server(events);
        Ok(events)
    }

    /// Gives a silent server up where the messaging layer does not.
    fn watch_server(&mut self, events: usize) {
        if events > 0 || self.pending.len() == 0 || !matches!(self.state, State::Connected) {
            return self.watch.reset();
        }
        match self.watch.silent(Instant::now(), self.statistics.snapshot().frames_received) {
            Verdict::Wait => {}
            Verdict::Probe => {
                // Any server answers that there is no such file.
                let probe = Operation::Stat(StatTarget::Handle(Handle(u64::MAX)));
                if self.can_send(&probe) {
                    self.unwatched += 1;
                    self.send(probe, Owner::Nobody);
                    // What can't be sent now is sent at the next poll.
                    let _ = self.context.flush();
                }
            }
            Verdict::Dead(silence) => {
                let silent_ms = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
                self.lose(libxio::Error::TimedOut { peer: self.uri.to_string(), silent_ms });
            }
        }
    }

    fn take_up(&mut self, event: Event) {
        match event {
            Event::Response { connection, token, outcome, .. } if connection == self.connection => {
                let Some(pending) = usize::try_from(token).ok().and_then(|index| self.pending.remove(index))
                else {
                    return;
                };
                self.answered(pending, outcome);
            }
            Event::Connected { connection, private_data } if connection == self.connection => {
                self.connected(&private_data);
            }
            Event::Closed { connection, reason } if connection == self.connection => self.lose(reason),
            // This side offers no service; dropped, a request is answered as unanswered.
            other => drop(other),
        }
    }

    /// Notes how an operation has ended, for whom it concerns.
    fn end(&mut self, owner: Owner, result: Result<Outcome>) {
        match owner {
            Owner::Submit(token) => self.ended.push_back(Completion { token, result }),
            Owner::Call => self.call = Some(result),
            Owner::Nobody => self.unwatched -= 1,
        }
    }

    /// The server's answer breaks the protocol: nothing more that it says counts.
    fn distrust(&mut self, reason: Invalid) -> Error {
        let error = Error::Protocol { uri: Arc::clone(&self.uri), reason };
        self.lose_with(error.clone());
        error
    }

    /// The ring of this machine fails.
    fn broken(&mut self, cause: libxio::Error) -> Error {
        let error = Error::Local(cause);
        self.lose_with(error.clone());
        error
    }

    /// The connection is gone, or could not be made.
    fn lose(&mut self, cause: libxio::Error) {
        let uri = Arc::clone(&self.uri);
        let error = match self.state {
            State::Connecting => Error::Connect { uri, cause },
            _ => Error::Lost { uri, cause },
        };
        self.lose_with(error);
    }

    /// Ends everything outstanding with an error, once the old connection can't touch its memory.
    fn lose_with(&mut self, error: Error) {
        if matches!(self.state, State::Lost(_)) {
            return;
        }
        tracing::debug!(%error, outstanding = self.outstanding(), "connection over");
        self.state = State::Lost(error.clone());
        // Already closed, this is refused, and there is nothing left to fence.
        let _ = self.context.abort(self.connection);
        while let Some(event) = self.context.next_event() {
            self.take_up(event);
        }
        self.promised = Promised::default();
        let owners: Vec<Owner> = self.pending.drain().map(|pending| pending.owner).collect();
        for owner in owners {
            self.end(owner, Err(error.clone()));
        }
        while let Some((owner, _)) = self.queued.pop_front() {
            self.end(owner, Err(error.clone()));
        }
    }

    /// The caller of `call` does not wait any more.
    fn disown_call(&mut self) {
        self.call = None;
        for pending in self.pending.iter_mut() {
            if pending.owner == Owner::Call {
                pending.owner = Owner::Nobody;
                self.unwatched += 1;
            }
        }
        self.queued.retain(|(owner, _)| *owner != Owner::Call);
    }
}

impl Drop for Engine {
    /// Cuts the connection; [`Engine::close`] is the orderly way.
    fn drop(&mut self) {
        let _ = self.context.abort(self.connection);
    }
}

/// The same open without O_NOATIME, if it asks for that.
fn without_noatime(operation: &Operation) -> Option<Box<Operation>> {
    match operation {
        Operation::Open { path, flags, mode } if flags.contains(OpenFlags::NO_ATIME) => {
            let flags = flags.without(OpenFlags::NO_ATIME);
            Some(Box::new(Operation::Open { path: path.clone(), flags, mode: *mode }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn sendable<T: Send>() {}
    const fn shareable<T: Send + Sync>() {}

    /// These are promises: a context moves with its owner, and files can be shared.
    const _: () = {
        sendable::<Engine>();
        sendable::<Completion>();
        sendable::<crate::Queue>();
        shareable::<crate::Client>();
        shareable::<crate::File>();
        shareable::<crate::asynchronous::AsyncFile>();
        shareable::<Error>();
    };

    #[test]
    fn an_open_without_noatime_is_the_same_otherwise() {
        let flags = OpenFlags::READ.with(OpenFlags::NO_ATIME);
        let open = Operation::Open { path: b"/x".to_vec(), flags, mode: 0o600 };
        let again = without_noatime(&open).unwrap();
        assert!(matches!(*again, Operation::Open { flags: OpenFlags::READ, mode: 0o600, .. }), "{again:?}");
        assert!(without_noatime(&again).is_none());
    }
}
