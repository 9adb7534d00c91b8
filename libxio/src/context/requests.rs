//! Connections from the application's side: connect, request, respond, close.

use super::Context;
use super::arrived::Arrived;
use super::connection::{ConnectionState, Phase};
use super::event::{Landing, OutgoingRequest, OutgoingResponse, Request};
use super::handle::DroppedMessage;
use super::handles::{Connection, RequestId};
use super::message::{Receipt, SendOptions};
use super::outgoing::{Beginning, Numbered, place_data};
use super::serving::FAREWELL_TIME;
use super::statistics::{ConnectionStatistics, Statistics};
use super::turn::millis;
use crate::reactor::Key;
use crate::transport::{COPIED_BYTES_MAX, Lent, OutgoingFrame, SentFrame};
use crate::wire::{
    CANCEL_DONE, CANCEL_TOO_LATE, ExtensionWriter, FAILED_CANCELLED, FAILED_NO_ROOM, FAILED_NOT_KEPT,
    FAILED_UNANSWERED, FrameFlags, FrameKind, Goodbye, Limits,
};
use crate::{Buffer, Error, Result, Sgl};
use std::time::Instant;

/// Made only where it is told: to make and drop one for each message costs more than to look the connection up.
#[cold]
pub(super) fn stale() -> Error {
    Error::StaleHandle("connection")
}

impl Context {
    /// Queues a request; it is sent at the end of the turn, or by [`Context::flush`]. Its end is an
    /// [`Event::Response`](crate::Event::Response).
    ///
    /// # Errors
    /// [`Error::SlotsExhausted`] when as many requests are outstanding as the server granted;
    /// [`Error::LimitExceeded`] above the peer's limits, or a landing above our own; [`Error::StaleHandle`].
    #[inline]
    pub fn request(&mut self, connection: Connection, request: OutgoingRequest<'_>) -> Result<RequestId> {
        self.request_with(connection, request, SendOptions::default())
    }

    /// As [`Context::request`], with a receipt, a notice, a deadline or a hint.
    ///
    /// # Errors
    /// As [`Context::request`].
    #[inline]
    pub fn request_with(
        &mut self,
        connection: Connection,
        request: OutgoingRequest<'_>,
        options: SendOptions,
    ) -> Result<RequestId> {
        if !self.now_is_fresh {
            self.look_at_clock();
        }
        let now_ns = self.now_ns;
        let (key, state) = self.open_connection(connection)?;
        let OutgoingRequest { header, data, landing, token, idempotent } = request;
        check_message(state, header, &data)?;
        check_landing(&landing)?;
        let room = limit("room for response data in bytes", landing.room(), state.own.data_bytes_max)?;
        let mut beginning = Beginning::new(FrameKind::Request, token, landing, room, now_ns);
        beginning.flags = message_flags(&options);
        if idempotent {
            beginning.flags = beginning.flags.with(FrameFlags::IDEMPOTENT);
        }
        self.begin_request(key, beginning, header, data, &options)
    }

    /// Gives a request (or a one-sided operation) of an open connection its slot and sends it, at once or when its grant
    /// comes.
    #[inline]
    pub(super) fn begin_request(
        &mut self,
        key: Key,
        mut beginning: Beginning,
        header: &[u8],
        data: Sgl,
        options: &SendOptions,
    ) -> Result<RequestId> {
        let state = self.connections.get_mut(key).ok_or_else(stale)?;
        let free = state.requester.free_slots();
        if free == 0 {
            return Err(Error::SlotsExhausted(state.requester.outstanding()));
        }
        let link_key = state.link;
        let mut link = self.links.get_mut(link_key);
        let named = matches!(beginning.landing, Landing::Place(_));
        let mut lent = Lent::default();
        if state.placement
            // Short data is never lent: there is no need to ask.
            && (data.len() > COPIED_BYTES_MAX || beginning.landing.room() > COPIED_BYTES_MAX)
            && let Some(link) = &mut link
            && link.link.lends()
            // Data that is fetched would have to be there before the owner has looked at the address.
            && (beginning.kind != FrameKind::RemoteWrite || !link.link.is_fetched())
        {
            let immediate = state.theirs.immediate_bytes_max;
            let notifies = options.notify.is_some();
            lent = beginning.lend(&data, link.link.as_mut(), &self.pool, immediate, notifies);
        }
        let mut deadline = None;
        if let Some(timeout) = options.timeout {
            let now = if self.options.clock.is_virtual() { self.now } else { Instant::now() };
            let at = now.checked_add(timeout);
            deadline = at.map(|at| (at, millis(timeout)));
            state.next_deadline = earlier(state.next_deadline, at);
            self.next_expiry = earlier(self.next_expiry, at);
        }
        let begun = state.requester.begin_with(|sequence| beginning.begin(sequence, named, &lent));
        let Some((slot, sequence)) = begun else { return Err(Error::SlotsExhausted(free)) };
        if (options.receipt || options.notify.is_some() || deadline.is_some())
            && let Some(entry) = state.requester.get_mut(slot)
        {
            (entry.receipt_due, entry.notify, entry.deadline) = (options.receipt, options.notify, deadline);
        }
        let is_only = state.requester.outstanding() == 1;
        state.counts.requests_sent += 1;
        self.statistics.requests_sent.add(1);
        self.statistics.requests_outstanding.add(1);
        let extension = lent.extension;
        let mut is_sent = false;
        let begins = state.start_with(Numbered::Request { slot }, header, data, extension, |frame| {
            if let Some(link) = link {
                link.link.send(frame);
                is_sent = true;
            }
        });
        if is_sent {
            self.statistics.frames_sent.add(1);
            self.message_queued(link_key, is_only);
        } else if !begins {
            self.count_waiting();
            // Lending may have taken what was to wake this link.
            self.touch_link(link_key);
        }
        Ok(RequestId { slot, sequence })
    }

    fn count_waiting(&self) {
        self.statistics.waiting_for_grant.add(1);
        self.statistics.grant_stalls.add(1);
    }

    pub(super) fn send_or_wait(&mut self, link: Key, frame: Option<OutgoingFrame<'_>>) {
        match frame {
            Some(frame) => self.send_frame(link, frame),
            None => self.count_waiting(),
        }
    }

    /// A connection on which messages can be sent.
    #[inline]
    pub(super) fn open_connection(&mut self, connection: Connection) -> Result<(Key, &mut ConnectionState)> {
        let key = connection.key(self.number).ok_or_else(stale)?;
        let state = self.connections.get_mut(key).ok_or_else(stale)?;
        match state.phase {
            Phase::Open => Ok((key, state)),
            Phase::Connecting { .. } => {
                Err(Error::Unsupported("the connection is still being set up: wait for Event::Connected"))
            }
            Phase::Closing { .. } => Err(Error::ClosedLocally),
        }
    }

    /// Answers a request of the peer. The sender's byte grant is renewed for the request's data.
    ///
    /// # Errors
    /// [`Error::StaleHandle`] when its connection has ended. [`Error::NoRoom`] or [`Error::LimitExceeded`] when the
    /// response does not fit: the requester is told that there is no answer.
    #[inline]
    pub fn respond(&mut self, request: Request, response: OutgoingResponse<'_>) -> Result<()> {
        self.respond_with(request, response, SendOptions::default())
    }

    /// As [`Context::respond`], with a notice or a hint; receipts and deadlines are for requests.
    ///
    /// # Errors
    /// As [`Context::respond`].
    #[inline]
    pub fn respond_with(
        &mut self,
        request: Request,
        response: OutgoingResponse<'_>,
        options: SendOptions,
    ) -> Result<()> {
        let Request { mut record } = request;
        self.check_own(&record)?;
        record.disarm();
        // The request's data is let go before its grant is renewed.
        record.data.clear();
        self.statistics.service_time.record(self.now_ns.saturating_sub(record.arrived_ns));
        let outcome = self.send_response(&record, response, &options);
        self.records.give_back(record);
        // Not as it is: the room of an error would be moved with it.
        outcome?;
        Ok(())
    }

    /// A message is ended by the context that it came in by; another one leaves it armed, to be told when it is dropped.
    #[inline]
    pub(super) fn check_own(&self, record: &Arrived) -> Result<()> {
        record.connection.key(self.number).map(drop).ok_or_else(stale)
    }

    #[inline]
    fn send_response(
        &mut self,
        record: &Arrived,
        response: OutgoingResponse<'_>,
        options: &SendOptions,
    ) -> Result<()> {
        let id = record.request_id();
        let OutgoingResponse { header, data } = response;
        let key = record.connection.key(self.number).ok_or_else(stale)?;
        let state = self.connections.get_mut(key).ok_or_else(stale)?;
        let gather = |target: &mut [u8]| data.gather(0, target);
        let fits =
            header.len() <= state.theirs.header_bytes_max as usize && data.len() <= record.room as usize;
        if !fits || !state.responder.complete(id.slot, id.sequence, header, data.len(), gather) {
            let why = check_response(state, id, header, &data, record.room);
            return Err(self.not_responded(key, id, record.granted, why));
        }
        state.receiving.release(u64::from(record.granted));
        let too_late = state.end_cancel(id, CANCEL_TOO_LATE);
        let mut head = state.frame_for(FrameKind::Response, id);
        if options.more {
            head.flags = FrameFlags::MORE;
        }
        if let Some(token) = options.notify {
            state.notices.push_back((SentFrame::from(&head), token));
        }
        self.statistics.requests_running.subtract(1);
        let (link_key, crc) = (state.link, state.crc);
        let Some(link) = self.links.get_mut(link_key) else { return Ok(()) };
        if let Some(mut result) = too_late {
            link.link.send(&mut result);
            self.statistics.frames_sent.add(1);
        }
        let mut frame = OutgoingFrame::new(head, header, data);
        if !record.landing.is_empty() && !frame.data.is_empty() {
            place_response(&mut frame, &record.landing, crc, &self.statistics);
        }
        link.link.send(&mut frame);
        self.statistics.frames_sent.add(1);
        // An event that is left may bring another answer.
        self.message_queued(link_key, self.events.is_empty());
        Ok(())
    }

    /// An answer that could not be given: the requester is told, where it waits for one.
    #[cold]
    fn not_responded(
        &mut self,
        key: Key,
        id: RequestId,
        granted: u32,
        why: std::result::Result<(), (u32, Error)>,
    ) -> Error {
        match why {
            Ok(()) => Error::StaleHandle("request"),
            Err((why, error)) => {
                self.fail_request(key, id, granted, why);
                error
            }
        }
    }

    /// Tells the requester that there will be no answer.
    pub(super) fn fail_request(&mut self, connection: Key, id: RequestId, data_length: u32, why: u32) {
        let Some(state) = self.connections.get_mut(connection) else { return };
        let asked = state.cancels_asked.contains(&id);
        // Given up after the peer has asked for it: that is a cancel.
        let why = if asked && why == FAILED_UNANSWERED { FAILED_CANCELLED } else { why };
        if !state.responder.fail(id.slot, id.sequence, why) {
            return;
        }
        state.receiving.release(u64::from(data_length));
        let outcome = if why == FAILED_CANCELLED { CANCEL_DONE } else { CANCEL_TOO_LATE };
        let result = state.end_cancel(id, outcome);
        let mut head = state.frame_for(FrameKind::Response, id);
        head.flags = FrameFlags::FAILED;
        head.room = why;
        let link = state.link;
        self.statistics.requests_running.subtract(1);
        if let Some(result) = result {
            self.send_frame(link, result);
        }
        self.send_frame(link, OutgoingFrame::bare(head));
    }

    /// Messages that the application dropped.
    pub(super) fn answer_dropped(&mut self) {
        if self.records.dropped.queue.is_empty() {
            return;
        }
        while let Some((connection, message)) = self.records.dropped.queue.pop() {
            let Some(key) = connection.key(self.number) else { continue };
            match message {
                DroppedMessage::Request { id, data_length } => {
                    self.fail_request(key, id, data_length, FAILED_UNANSWERED);
                }
                DroppedMessage::OneWay { sequence, data_length, wants_receipt } => {
                    let receipt = wants_receipt.then_some(Receipt::Rejected);
                    self.release_one_way(key, sequence, data_length, receipt);
                }
                DroppedMessage::Announced { sequence, wants_receipt } => {
                    self.decline_one_way(key, sequence);
                    let receipt = wants_receipt.then_some(Receipt::Rejected);
                    self.release_one_way(key, sequence, 0, receipt);
                }
            }
        }
    }

    /// A buffer for a response's data: the requester's own memory where the transport shares it, else from the pool.
    /// Filled and given to [`Context::respond`] as the response's data, it is sent without a copy. Whatever writes it has
    /// to have ended before the request is answered or dropped: afterwards the memory is the requester's again.
    ///
    /// # Errors
    /// As [`Pool::take`](crate::Pool::take); [`Error::NoRoom`] above what the requester can take.
    #[inline]
    pub fn response_buffer(&mut self, request: &Request, length: usize) -> Result<Buffer> {
        let Arrived { room, landing, .. } = &*request.record;
        if length > *room as usize {
            return Err(Error::NoRoom { length: length as u64, room: u64::from(*room) });
        }
        if let Some(buffer) = landing.pieces().first().and_then(|piece| piece.peer_part(length)) {
            return Ok(buffer);
        }
        self.pool.take(length)
    }

    pub(super) fn send_frame(&mut self, link: Key, mut frame: OutgoingFrame<'_>) {
        if let Some(entry) = self.links.get_mut(link) {
            entry.link.send(&mut frame);
            self.statistics.frames_sent.add(1);
            self.touch_link(link);
        }
    }

    /// Sends a frame against the rules, for a test of what the peer makes of it.
    #[cfg(all(test, feature = "rdma"))]
    pub(crate) fn forge_frame(&mut self, connection: Connection, head: crate::wire::FrameHead) {
        let link = self.connection_state(connection).map(|state| state.link);
        self.send_frame(link.expect("a connection"), OutgoingFrame::new(head, b"", Sgl::new()));
    }

    /// Bytes queued on a connection and not yet with the transport.
    ///
    /// # Errors
    /// [`Error::StaleHandle`].
    pub fn unsent_bytes(&self, connection: Connection) -> Result<usize> {
        let state = self.connection_state(connection)?;
        Ok(self.links.get(state.link).map_or(0, |entry| entry.link.unsent_bytes()))
    }

    /// Asks for one [`Event::Drained`](crate::Event::Drained) as soon as at most `bytes` wait to be sent on the connection:
    /// for a responder that stops serving a peer which does not read. It comes once; a later call replaces the mark.
    ///
    /// # Errors
    /// [`Error::StaleHandle`].
    pub fn notify_drained(&mut self, connection: Connection, bytes: usize) -> Result<()> {
        let key = connection.key(self.number).ok_or_else(stale)?;
        let state = self.connections.get_mut(key).ok_or_else(stale)?;
        state.drain_mark = Some(bytes);
        // Looked at by the next flush of the link.
        let link = state.link;
        self.touch_link(link);
        Ok(())
    }

    /// The connections of this context, of clients and servers alike.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.connections.iter().map(|state| state.handle).collect()
    }

    /// How many more requests can be sent before [`Error::SlotsExhausted`].
    ///
    /// # Errors
    /// [`Error::StaleHandle`].
    #[inline]
    pub fn free_slots(&self, connection: Connection) -> Result<u32> {
        Ok(self.connection_state(connection)?.requester.free_slots())
    }

    /// Whether the memory that the answer to an outstanding request lands in is there already: it was named with the
    /// request, or was taken from the pool when the request was sent, since the peer writes to it. Otherwise it is taken
    /// from the pool when the answer comes, or there is none.
    #[inline]
    #[must_use]
    pub fn has_landing(&mut self, connection: Connection, id: RequestId) -> bool {
        let state = connection.key(self.number).and_then(|key| self.connections.get_mut(key));
        let outstanding = state
            .filter(|state| state.requester.is_current(id.slot, id.sequence))
            .and_then(|state| state.requester.get_mut(id.slot));
        outstanding.is_some_and(|outstanding| matches!(outstanding.landing, Landing::Place(_)))
    }

    /// What flows over a connection, and what holds it up.
    ///
    /// # Errors
    /// [`Error::StaleHandle`].
    pub fn connection_statistics(&self, connection: Connection) -> Result<ConnectionStatistics> {
        let state = self.connection_state(connection)?;
        let unsent_bytes = self.unsent_bytes(connection)? as u64;
        Ok(ConnectionStatistics {
            requests_outstanding: state.requester.outstanding(),
            slots_free: state.requester.free_slots(),
            requests_running: state.responder.running(),
            one_way_unacknowledged: state.one_way_out.unacknowledged(),
            one_way_free: state.one_way_out.free(),
            one_way_held: state.one_way_held,
            // At most as many as there are slots and one-way messages.
            waiting_for_grant: state.waiting.len() as u32,
            grant_left_bytes: state.sending.left(),
            held_bytes: state.receiving.outstanding(),
            unsent_bytes,
            ..state.counts
        })
    }

    /// What the peer receives at most; in force once the connection is established.
    ///
    /// # Errors
    /// [`Error::StaleHandle`].
    pub fn peer_limits(&self, connection: Connection) -> Result<Limits> {
        Ok(self.connection_state(connection)?.theirs)
    }

    /// The peer's address, for people.
    ///
    /// # Errors
    /// [`Error::StaleHandle`].
    pub fn peer(&self, connection: Connection) -> Result<String> {
        Ok(self.connection_state(connection)?.peer.clone())
    }

    /// Whether the peer's address is one of this host.
    ///
    /// # Errors
    /// [`Error::StaleHandle`].
    pub fn peer_is_local(&self, connection: Connection) -> Result<bool> {
        let state = self.connection_state(connection)?;
        Ok(self.links.get(state.link).is_some_and(|entry| entry.link.peer_is_local()))
    }

    #[inline]
    pub(super) fn connection_state(&self, connection: Connection) -> Result<&ConnectionState> {
        connection.key(self.number).and_then(|key| self.connections.get(key)).ok_or_else(stale)
    }

    /// Closes in good order: what is queued is sent, then a goodbye, within a second. Outstanding requests end with
    /// [`Error::ClosedLocally`], then comes [`Event::Closed`](crate::Event::Closed).
    ///
    /// # Errors
    /// [`Error::StaleHandle`].
    pub fn close(&mut self, connection: Connection) -> Result<()> {
        let key = connection.key(self.number).ok_or_else(stale)?;
        let now = self.options.clock.now();
        let state = self.connections.get_mut(key).ok_or_else(stale)?;
        match state.phase {
            Phase::Closing { .. } => return Ok(()),
            Phase::Connecting { .. } => {
                self.lose(key, Error::ClosedLocally);
                return Ok(());
            }
            Phase::Open => {}
        }
        state.phase = Phase::Closing { deadline: now + FAREWELL_TIME };
        let link = state.link;
        let head = state.frame(FrameKind::Goodbye);
        let body = Goodbye { code: 0, text: String::new() }.encode();
        if let Some(entry) = self.links.get_mut(link) {
            entry.link.stop_receiving();
        }
        self.send_frame(link, OutgoingFrame::new(head, &body, Sgl::new()));
        Ok(())
    }

    /// Closes at once; nothing more is sent. When this returns, no memory of the connection's requests is touched any
    /// more. Their responses (with [`Error::ClosedLocally`]) and [`Event::Closed`](crate::Event::Closed) follow.
    ///
    /// # Errors
    /// [`Error::StaleHandle`].
    pub fn abort(&mut self, connection: Connection) -> Result<()> {
        let key = connection.key(self.number).ok_or_else(stale)?;
        self.connections.get(key).ok_or_else(stale)?;
        self.lose(key, Error::ClosedLocally);
        Ok(())
    }
}

/// The earlier of two times, as far as there are any.
pub(super) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// The flags that a request or one-way message gets from its options.
#[inline]
pub(super) fn message_flags(options: &SendOptions) -> FrameFlags {
    let mut flags = FrameFlags::default();
    if options.receipt {
        flags = flags.with(FrameFlags::RECEIPT);
    }
    if options.more {
        flags = flags.with(FrameFlags::MORE);
    }
    flags
}

/// Puts a response's data where the requester wants it, unless it was made there; it does not travel.
#[inline]
fn place_response(frame: &mut OutgoingFrame<'_>, landing: &Sgl, crc: bool, statistics: &Statistics) {
    let (in_place, copied) = place_data(&std::mem::take(&mut frame.data), landing, crc);
    if copied > 0 {
        statistics.bytes_copied.add(copied as u64);
    }
    statistics.bytes_in_place.add(u64::from(in_place.0));
    (frame.in_place, frame.extension) = (Some(in_place), ExtensionWriter::placed());
}

/// A message against the peer's limits.
#[inline]
pub(super) fn check_message(state: &ConnectionState, header: &[u8], data: &Sgl) -> Result<()> {
    limit("message header in bytes", header.len(), state.theirs.header_bytes_max)?;
    // The window holds at least one message of the greatest size.
    limit("message data in bytes", data.len(), state.theirs.data_bytes_max)?;
    Ok(())
}

/// Data can't land in memory that is for sending only.
#[inline]
pub(super) fn check_landing(landing: &Landing) -> Result<()> {
    match landing {
        Landing::Place(list) if !list.is_writable() => {
            Err(Error::Unsupported("data can't land in a static buffer"))
        }
        _ => Ok(()),
    }
}

#[inline]
pub(super) fn limit(what: &'static str, value: usize, limit: u32) -> Result<u32> {
    match u32::try_from(value) {
        Ok(value) if value <= limit => Ok(value),
        _ => Err(Error::LimitExceeded { what, value: value as u64, limit: u64::from(limit) }),
    }
}

/// Whether a response may be sent; else what the requester is told, and the error for this side.
#[cold]
fn check_response(
    state: &ConnectionState,
    id: RequestId,
    header: &[u8],
    data: &Sgl,
    room: u32,
) -> std::result::Result<(), (u32, Error)> {
    limit("message header in bytes", header.len(), state.theirs.header_bytes_max)
        .map_err(|error| (FAILED_NO_ROOM, error))?;
    if data.len() > room as usize {
        return Err((FAILED_NO_ROOM, Error::NoRoom { length: data.len() as u64, room: u64::from(room) }));
    }
    let length = header.len() + data.len();
    if !state.responder.may_complete(id.slot, length) {
        let error = Error::LimitExceeded {
            what: "response to a request that is not idempotent (it has to be kept), in bytes",
            value: length as u64,
            limit: u64::from(state.own.replay_bytes_max),
        };
        return Err((FAILED_NOT_KEPT, error));
    }
    Ok(())
}
