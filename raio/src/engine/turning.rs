//! The loop, what it brings, and how everything ends.

use super::{Engine, Owner, Promised, State, Verdict};
use crate::operation::{Completion, Operation, Outcome, StatTarget};
use crate::proto::{Handle, Invalid};
use crate::{Error, Result};
use libxio::Event;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Engine {
    /// Runs the loop once, at most for `timeout`, takes up what happened, and says how much.
    pub(super) fn turn(&mut self, timeout: Option<Duration>) -> Result<usize> {
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
    pub(super) fn watch_server(&mut self, events: usize) {
        if events > 0 || self.pending.is_empty() || !matches!(self.state, State::Connected) {
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

    #[inline(always)]
    pub(super) fn take_up(&mut self, event: Event) {
        match event {
            Event::Response { connection, token, outcome, .. } if connection == self.connection => {
                let Some(pending) = usize::try_from(token).ok().and_then(|index| self.pending.remove(index))
                else {
                    return;
                };
                self.answered(pending, outcome);
            }
            other => self.take_up_other(other),
        }
    }

    fn take_up_other(&mut self, event: Event) {
        match event {
            Event::Connected { connection, private_data } if connection == self.connection => {
                self.connected(&private_data);
            }
            Event::Closed { connection, reason } if connection == self.connection => {
                if !self.stay_where_it_is(&reason) {
                    self.lose(reason);
                }
            }
            // This side offers no service; dropped, a request is answered as unanswered.
            other => drop(other),
        }
    }

    /// Notes how an operation has ended, for whom it concerns.
    #[inline]
    pub(super) fn end(&mut self, owner: Owner, result: Result<Outcome>) {
        match owner {
            Owner::Submit(token) => self.ended.push_back(Completion { token, result }),
            Owner::Call => self.call = Some(result),
            Owner::Nobody => self.unwatched -= 1,
        }
    }

    /// The server's answer breaks the protocol: nothing more that it says counts.
    pub(super) fn distrust(&mut self, reason: Invalid) -> Error {
        let error = Error::Protocol { uri: Arc::clone(&self.uri), reason };
        self.lose_with(error.clone());
        error
    }

    /// The ring of this machine fails.
    pub(super) fn broken(&mut self, cause: libxio::Error) -> Error {
        let error = Error::Local(cause);
        self.lose_with(error.clone());
        error
    }

    /// The connection is gone, or could not be made.
    pub(super) fn lose(&mut self, cause: libxio::Error) {
        let uri = Arc::clone(&self.uri);
        let error = match self.state {
            State::Connecting => Error::Connect { uri, cause },
            _ => Error::Lost { uri, cause },
        };
        self.lose_with(error);
    }

    /// Ends everything outstanding with an error, once the old connection can't touch its memory.
    pub(super) fn lose_with(&mut self, error: Error) {
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
    pub(super) fn disown_call(&mut self) {
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
