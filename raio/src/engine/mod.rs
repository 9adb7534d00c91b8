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
mod choosing;
mod connecting;
mod memory;
mod sending;
mod slab;
mod turning;
mod watch;

pub use crate::operation::{Completion, Entry, Operation, Outcome, StatTarget};
pub use crate::options::ClientOptions;
use choosing::Choice;
use memory::Promised;
pub(crate) use memory::pool_bytes;
/// For libraio; no part of the interface.
#[doc(hidden)]
pub use slab::Slab;
use watch::{Verdict, Watch};

use crate::proto::Op;
use crate::{Error, Result};
use libxio::{Connection, Context, Pool, Statistics};
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
    choice: Choice,
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
    /// that both sides have: see [`Transport`](crate::Transport).
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
    #[inline]
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
    /// block). Says how many are ready. With nothing outstanding it returns 0 after one turn. What was submitted is sent; a
    /// few may wait for the next call, as [`Context::wait`] tells, or for [`Engine::flush`].
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
        // Who does not wait needs no clock.
        let limit = timeout.filter(|timeout| !timeout.is_zero());
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        loop {
            let idle = self.outstanding() == 0 && !matches!(self.state, State::Connecting);
            let left = match (deadline, timeout) {
                _ if idle => Some(Duration::ZERO),
                (Some(deadline), _) => Some(deadline.saturating_duration_since(Instant::now())),
                (None, Some(Duration::ZERO)) => timeout,
                (None, _) => None,
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
    #[inline]
    pub fn next(&mut self) -> Option<Completion> {
        self.ended.pop_front()
    }

    /// Operations taken that have not ended yet. Completions that were not taken do not count.
    #[must_use]
    #[inline]
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

    /// Whether the server has accepted, and the connection is not lost.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        matches!(self.state, State::Connected)
    }

    /// What a child made by fork has to close, see [`Context::descriptors`](libxio::Context::descriptors).
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.context.descriptors()
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
    #[inline]
    pub fn pool(&self) -> &Pool {
        self.context.pool()
    }

    /// Counters of the messaging layer.
    #[must_use]
    pub fn statistics(&self) -> libxio::StatisticsSnapshot {
        self.statistics.snapshot()
    }

    /// The transport in use, and why it was chosen, in a sentence.
    #[must_use]
    pub fn transport(&self) -> (&'static str, &str) {
        self.choice.described()
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
    pub fn say_goodbye(&mut self) {
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
    pub fn sever(&mut self) {
        self.lose(libxio::Error::ClosedLocally);
        self.ended.clear();
        self.call = None;
    }
}

impl Drop for Engine {
    /// Cuts the connection; [`Engine::close`] is the orderly way.
    fn drop(&mut self) {
        let _ = self.context.abort(self.connection);
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
}
