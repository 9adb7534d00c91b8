//! Requests that end before their answer: cancelled by either side, or late.
//!
//! The peer has the last word about a request that it knows. Until then the request keeps its slot and its landing
//! memory, so that an answer on its way lands where it may.

use super::Context;
use super::connection::ConnectionState;
use super::event::{Event, Landing, Request};
use super::handles::{Connection, RequestId};
use super::message::CancelOutcome;
use super::outgoing::{Cancel, Numbered, Outstanding};
use super::requests::earlier;
use crate::reactor::Key;
use crate::transport::OutgoingFrame;
use crate::wire::{FAILED_CANCELLED, FrameHead, FrameKind};
use crate::{Error, Result};
use std::time::Instant;

impl Context {
    /// Asks the peer to give a request up. What comes of it is an [`Event::CancelEnded`](crate::Event::CancelEnded); the
    /// request itself ends with its [`Event::Response`](crate::Event::Response) as ever: with [`Error::Cancelled`], or
    /// with the answer where it was too late. Cancelling twice changes nothing.
    ///
    /// # Errors
    /// [`Error::StaleHandle`] when the request has ended (its response may wait among the events), or the connection is
    /// gone.
    pub fn cancel(&mut self, connection: Connection, id: RequestId) -> Result<()> {
        let (key, state) = self.open_connection(connection)?;
        if !state.requester.is_current(id.slot, id.sequence) {
            return Err(Error::StaleHandle("request"));
        }
        let Some(entry) = state.requester.get_mut(id.slot).filter(|entry| !entry.expired) else {
            return Err(Error::StaleHandle("request"));
        };
        if entry.waits {
            let token = entry.token;
            let outcome = Ok(CancelOutcome::Cancelled);
            self.events.push_back(Event::CancelEnded { connection, id, token, outcome });
            self.take_request_back(key, id.slot, &Error::Cancelled);
            return Ok(());
        }
        if entry.cancel == Cancel::None {
            entry.cancel = Cancel::Asked;
            self.statistics.cancels.add(1);
            self.send_cancel(key, id);
        }
        Ok(())
    }

    /// Ends a request of the peer without an answer: it gets [`Error::Cancelled`].
    ///
    /// # Errors
    /// [`Error::StaleHandle`] when its connection has ended.
    pub fn abandon(&mut self, request: Request) -> Result<()> {
        let Request { record } = request;
        self.check_own(&record)?;
        let (connection, id, granted) = (record.connection, record.request_id(), record.granted);
        self.records.give_back(record);
        let stale = Error::StaleHandle("connection");
        let key = connection.key(self.number).ok_or(stale.clone())?;
        self.connections.get(key).ok_or(stale)?;
        self.fail_request(key, id, granted, FAILED_CANCELLED);
        Ok(())
    }

    fn send_cancel(&mut self, connection: Key, id: RequestId) {
        let Some(state) = self.connections.get_mut(connection) else { return };
        let head = state.frame_for(FrameKind::Cancel, id);
        let link = state.link;
        self.send_frame(link, OutgoingFrame::bare(head));
    }

    /// Ends a request that waits for its grant: the peer knows nothing of it.
    fn take_request_back(&mut self, connection: Key, slot: u16, reason: &Error) {
        let Some(state) = self.connections.get_mut(connection) else { return };
        let handle = state.handle;
        state.waiting.retain(|waiting| waiting.message != Numbered::Request { slot });
        let Some(entry) = state.requester.take_back(slot) else { return };
        self.statistics.waiting_for_grant.subtract(1);
        self.statistics.requests_outstanding.subtract(1);
        self.end_request(handle, entry, reason);
    }

    /// Requests whose time is over.
    pub(super) fn expire_requests(&mut self) {
        let now = self.now;
        self.next_expiry = None;
        for index in 0..self.connections.index_end() {
            let Some(key) = self.connections.key_at(index) else { continue };
            if let Some(state) = self.connections.get_mut(key)
                && state.next_deadline.is_some_and(|at| at <= now)
            {
                let late = state.take_late(now);
                for (id, held) in late {
                    self.expire_request(key, id, held);
                }
            }
            let next = self.connections.get(key).and_then(|state| state.next_deadline);
            self.next_expiry = earlier(self.next_expiry, next);
        }
    }

    fn expire_request(&mut self, key: Key, id: RequestId, held: bool) {
        let Some(state) = self.connections.get_mut(key) else { return };
        let connection = state.handle;
        let Some(entry) = state.requester.get_mut(id.slot) else { return };
        let Some((_, milliseconds)) = entry.deadline.take() else { return };
        self.statistics.deadlines_exceeded.add(1);
        if held {
            self.take_request_back(key, id.slot, &Error::DeadlineExceeded(milliseconds));
            return;
        }
        entry.expired = true;
        let (token, known) = (entry.token, entry.id(id.slot));
        // What the link does by itself the peer can't stop.
        let ask = entry.cancel == Cancel::None && !entry.alone;
        if ask {
            entry.cancel = Cancel::Silent;
        }
        let asked = entry.cancel == Cancel::Asked;
        let outcome = Err(Error::DeadlineExceeded(milliseconds));
        if asked {
            // The response is the last that the application hears of the request.
            entry.cancel = Cancel::Silent;
            let outcome = Ok(CancelOutcome::TooLate);
            self.events.push_back(Event::CancelEnded { connection, id, token, outcome });
        }
        self.events.push_back(Event::Response { connection, id: known, token, outcome });
        if ask {
            self.statistics.cancels.add(1);
            self.send_cancel(key, id);
        }
    }

    /// Tells the application that a request has ended without an answer; nothing touches its memory any more.
    pub(super) fn end_request(&mut self, connection: Connection, entry: Outstanding, reason: &Error) {
        // The slot is of no use any more: the handle is stale, or the number will be another request's.
        let id = RequestId { slot: 0, sequence: entry.sequence };
        let token = entry.token;
        let error = || reason.clone();
        if let Some(token) = entry.notify {
            self.events.push_back(Event::Sent { connection, token, outcome: Err(error()) });
        }
        if entry.cancel == Cancel::Asked {
            self.events.push_back(Event::CancelEnded { connection, id, token, outcome: Err(error()) });
        }
        if !entry.expired {
            self.events.push_back(Event::Response { connection, id, token, outcome: Err(error()) });
        } else if let (Landing::Place(memory), true) = (entry.landing, entry.named) {
            self.events.push_back(Event::Released { connection, token, memory });
        }
    }
}

impl ConnectionState {
    /// The result of a cancel that the peer asked for, if it did.
    #[inline]
    pub(super) fn end_cancel(&mut self, id: RequestId, outcome: u32) -> Option<OutgoingFrame<'static>> {
        if self.cancels_asked.is_empty() { None } else { self.end_one_cancel(id, outcome) }
    }

    #[cold]
    fn end_one_cancel(&mut self, id: RequestId, outcome: u32) -> Option<OutgoingFrame<'static>> {
        let found = self.cancels_asked.iter().position(|asked| *asked == id)?;
        self.cancels_asked.swap_remove(found);
        let head = FrameHead { room: outcome, ..self.frame_for(FrameKind::CancelResult, id) };
        // One for each cancel of a running request, of which there are as many as slots.
        self.control_unsent += 1;
        Some(OutgoingFrame::bare(head))
    }

    /// The requests whose time is over, and whether they still wait for their grant; looks the next deadline up.
    fn take_late(&mut self, now: Instant) -> Vec<(RequestId, bool)> {
        let mut late = Vec::new();
        self.next_deadline = None;
        for (slot, entry) in self.requester.entries_mut() {
            let Some((at, _)) = entry.deadline else { continue };
            if at <= now {
                late.push((RequestId { slot, sequence: entry.sequence }, entry.waits));
            } else {
                self.next_deadline = earlier(self.next_deadline, Some(at));
            }
        }
        late
    }
}
