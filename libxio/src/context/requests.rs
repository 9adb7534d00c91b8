//! Connections from the application's side: connect, request, respond, close.

use super::Context;
use super::connection::{ConnectionState, Outstanding, Phase, Side};
use super::event::{OutgoingRequest, OutgoingResponse, Request};
use super::handles::{Connection, RequestId};
use super::links::{LinkEntry, Role};
use super::options::ConnectionOptions;
use super::serving::{FAREWELL_TIME, check_limits, check_private_data};
use super::session::Session;
use crate::reactor::Key;
use crate::session::{Keepalive, ReceiveGrant, Requester, Responder, SendGrant};
use crate::transport::OutgoingFrame;
use crate::wire::{
    FAILED_NO_ROOM, FAILED_NOT_KEPT, FAILED_UNANSWERED, FEATURE_CRC, FrameFlags, FrameHead, FrameKind,
    Goodbye, Hello, Limits, VERSION, VERSION_MIN,
};
use crate::{Buffer, Error, HeaderBytes, Result, Sgl};
use std::collections::VecDeque;
use std::time::Duration;

const STALE: Error = Error::StaleHandle("connection");

impl Context {
    /// Starts to open a connection of a session; ends in [`Event::Connected`](crate::Event::Connected) or
    /// [`Event::Closed`](crate::Event::Closed). Looking the host's name up may block.
    ///
    /// # Errors
    /// What is known at once: a bad uri, an unknown transport or host, limits out of range.
    pub fn connect(&mut self, session: &Session, options: ConnectionOptions) -> Result<Connection> {
        check_private_data(&options.private_data)?;
        let limits = options.limits.unwrap_or(self.options.limits);
        check_limits(&limits)?;
        // The best transport that both ends have; with one built in, the choice is made.
        let uri = match session.uri().scheme() {
            "raio" => session.uri().with_scheme("tcp"),
            _ => session.uri().clone(),
        };
        let mut link = self.transport(uri.scheme())?.connect(&uri)?;
        let identity = session.begin_connection()?;
        // From here on `side` gives the session's count back.
        let side = Side::Client(session.clone());
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION,
            features: if self.options.crc { FEATURE_CRC } else { 0 },
            loop_kind: self.options.loop_kind,
            session: identity.map(|identity| identity.session).unwrap_or_default(),
            session_key: identity.map(|identity| identity.key).unwrap_or_default(),
            connection: 0,
            limits,
            resource: uri.resource().to_owned(),
            private_data: options.private_data,
        };
        hello.validate().map_err(|violation| Error::Protocol { peer: "this side".into(), violation })?;
        link.send(OutgoingFrame {
            head: FrameHead::new(FrameKind::Hello),
            header: HeaderBytes::from_vec(hello.encode()),
            data: Sgl::new(),
        });
        self.now = self.options.clock.now();
        let peer = link.peer().to_owned();
        let link = self.links.insert(LinkEntry::new(link, Role::Closing { deadline: self.now }, self.now));
        let key = self.connections.insert(ConnectionState {
            handle: Connection { context: self.number, index: 0, generation: 0 },
            link,
            phase: Phase::Connecting { deadline: self.now + self.options.connect_timeout },
            peer,
            own: limits,
            theirs: limits,
            requester: Requester::new(0),
            responder: Responder::new(0, 0),
            sending: SendGrant::new(0),
            receiving: ReceiveGrant::new(limits.window_bytes),
            waiting: VecDeque::new(),
            keepalive: Keepalive::new(Duration::ZERO, self.now),
            side,
            suspected: false,
            crc: self.options.crc,
            drain_mark: None,
            hello: Some(Box::new(hello)),
        });
        let handle = Connection::new(self.number, key);
        if let Some(state) = self.connections.get_mut(key) {
            state.handle = handle;
        }
        if let Some(entry) = self.links.get_mut(link) {
            entry.role = Role::Connection(key);
        }
        self.statistics.connections.add(1);
        self.statistics.connections_opened.add(1);
        self.touch_link(link);
        Ok(handle)
    }

    /// Queues a request; it is sent at the end of the turn, or by [`Context::flush`]. Its end is an
    /// [`Event::Response`](crate::Event::Response).
    ///
    /// # Errors
    /// [`Error::SlotsExhausted`] when as many requests are outstanding as the server granted;
    /// [`Error::LimitExceeded`] above the peer's limits, or a landing above our own; [`Error::StaleHandle`].
    pub fn request(&mut self, connection: Connection, request: OutgoingRequest<'_>) -> Result<RequestId> {
        let key = connection.key(self.number).ok_or(STALE)?;
        let state = self.connections.get_mut(key).ok_or(STALE)?;
        match state.phase {
            Phase::Open => {}
            Phase::Connecting { .. } => {
                return Err(Error::Unsupported(
                    "the connection is still being set up: wait for Event::Connected",
                ));
            }
            Phase::Closing { .. } => return Err(Error::ClosedLocally),
        }
        let OutgoingRequest { header, data, landing, token, idempotent } = request;
        limit("message header in bytes", header.len(), state.theirs.header_bytes_max)?;
        limit("request data in bytes", data.len(), state.theirs.data_bytes_max)?;
        if data.len() as u64 > state.theirs.window_bytes {
            let (value, limit) = (data.len() as u64, state.theirs.window_bytes);
            return Err(Error::LimitExceeded { what: "request data in bytes", value, limit });
        }
        let room = limit("room for response data in bytes", landing.room(), state.own.data_bytes_max)?;
        let entry = Outstanding {
            token,
            sequence: 0,
            idempotent,
            landing,
            room,
            sent: false,
            held: None,
            failure: None,
        };
        let slots = state.requester.outstanding() + state.requester.free_slots();
        let (slot, sequence) = state.requester.begin(entry).map_err(|_| Error::SlotsExhausted(slots))?;
        let granted = state.waiting.is_empty() && state.sending.take(data.len() as u64);
        let header = HeaderBytes::from_slice(header);
        let link = state.link;
        if let Some(entry) = state.requester.get_mut(slot) {
            entry.sequence = sequence;
        }
        if granted {
            let frame = state.request_frame(slot, header, data);
            self.send_frame(link, frame);
        } else {
            if let Some(entry) = state.requester.get_mut(slot) {
                entry.held = Some((header, data));
            }
            state.waiting.push_back(slot);
        }
        self.statistics.requests_outstanding.add(1);
        Ok(RequestId { slot, sequence })
    }

    /// Answers a request of the peer. The sender's byte grant is renewed for the request's data.
    ///
    /// # Errors
    /// [`Error::StaleHandle`] when its connection has ended. [`Error::NoRoom`] or [`Error::LimitExceeded`] when the
    /// response does not fit: the requester is told that there is no answer.
    pub fn respond(&mut self, request: Request, response: OutgoingResponse<'_>) -> Result<()> {
        let Request { connection, id, header: _, data, data_length, room, mut guard } = request;
        guard.disarm();
        drop(data);
        let OutgoingResponse { header, data } = response;
        let key = connection.key(self.number).ok_or(STALE)?;
        let state = self.connections.get_mut(key).ok_or(STALE)?;
        let fits = check_response(state, id, header, &data, room);
        if let Err(error) = fits {
            let why = if matches!(error, Error::NoRoom { .. }) { FAILED_NO_ROOM } else { FAILED_NOT_KEPT };
            self.fail_request(key, id, data_length, why);
            return Err(error);
        }
        let link = state.link;
        let gather = |target: &mut [u8]| data.gather(0, target);
        if !state.responder.complete(id.slot, id.sequence, header, data.len(), gather) {
            return Err(Error::StaleHandle("request"));
        }
        state.receiving.release(u64::from(data_length));
        self.statistics.requests_running.subtract(1);
        let mut head = state.frame(FrameKind::Response);
        head.slot = id.slot;
        head.sequence = id.sequence;
        self.send_frame(link, OutgoingFrame { head, header: HeaderBytes::from_slice(header), data });
        Ok(())
    }

    /// Tells the requester that there will be no answer.
    fn fail_request(&mut self, connection: Key, id: RequestId, data_length: u32, why: u32) {
        let Some(state) = self.connections.get_mut(connection) else { return };
        if !state.responder.fail(id.slot, id.sequence, why) {
            return;
        }
        state.receiving.release(u64::from(data_length));
        self.statistics.requests_running.subtract(1);
        let mut head = state.frame(FrameKind::Response);
        head.slot = id.slot;
        head.sequence = id.sequence;
        head.flags = FrameFlags::FAILED;
        head.room = why;
        let link = state.link;
        self.send_frame(link, OutgoingFrame { head, header: HeaderBytes::new(), data: Sgl::new() });
    }

    /// Requests that the application dropped.
    pub(super) fn answer_dropped(&mut self) {
        while let Some((connection, id, data_length)) = self.dropped.queue.pop() {
            if let Some(key) = connection.key(self.number) {
                self.fail_request(key, id, data_length, FAILED_UNANSWERED);
            }
        }
    }

    /// A buffer for a response's data: the requester's own memory where the transport shares it, else from the pool.
    ///
    /// # Errors
    /// As [`Pool::take`](crate::Pool::take); [`Error::NoRoom`] above what the requester can take.
    pub fn response_buffer(&mut self, request: &Request, length: usize) -> Result<Buffer> {
        if length > request.room as usize {
            return Err(Error::NoRoom { length: length as u64, room: u64::from(request.room) });
        }
        self.pool.take(length)
    }

    pub(super) fn send_frame(&mut self, link: Key, frame: OutgoingFrame) {
        if let Some(entry) = self.links.get_mut(link) {
            entry.link.send(frame);
            self.statistics.frames_sent.add(1);
            self.touch_link(link);
        }
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
        let key = connection.key(self.number).ok_or(STALE)?;
        let state = self.connections.get_mut(key).ok_or(STALE)?;
        state.drain_mark = Some(bytes);
        // Looked at by the next flush of the link.
        let link = state.link;
        self.touch_link(link);
        Ok(())
    }

    /// How many more requests can be sent before [`Error::SlotsExhausted`].
    ///
    /// # Errors
    /// [`Error::StaleHandle`].
    pub fn free_slots(&self, connection: Connection) -> Result<u32> {
        Ok(self.connection_state(connection)?.requester.free_slots())
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

    fn connection_state(&self, connection: Connection) -> Result<&ConnectionState> {
        connection.key(self.number).and_then(|key| self.connections.get(key)).ok_or(STALE)
    }

    /// Closes in good order: what is queued is sent, then a goodbye, within a second. Outstanding requests end with
    /// [`Error::ClosedLocally`], then comes [`Event::Closed`](crate::Event::Closed).
    ///
    /// # Errors
    /// [`Error::StaleHandle`].
    pub fn close(&mut self, connection: Connection) -> Result<()> {
        let key = connection.key(self.number).ok_or(STALE)?;
        let now = self.options.clock.now();
        let state = self.connections.get_mut(key).ok_or(STALE)?;
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
        self.send_frame(link, OutgoingFrame { head, header: HeaderBytes::from_vec(body), data: Sgl::new() });
        Ok(())
    }

    /// Closes at once; nothing more is sent. When this returns, no memory of the connection's requests is touched any
    /// more. Their responses (with [`Error::ClosedLocally`]) and [`Event::Closed`](crate::Event::Closed) follow.
    ///
    /// # Errors
    /// [`Error::StaleHandle`].
    pub fn abort(&mut self, connection: Connection) -> Result<()> {
        let key = connection.key(self.number).ok_or(STALE)?;
        self.connections.get(key).ok_or(STALE)?;
        self.lose(key, Error::ClosedLocally);
        Ok(())
    }
}

fn limit(what: &'static str, value: usize, limit: u32) -> Result<u32> {
    match u32::try_from(value) {
        Ok(value) if value <= limit => Ok(value),
        _ => Err(Error::LimitExceeded { what, value: value as u64, limit: u64::from(limit) }),
    }
}

fn check_response(
    state: &ConnectionState,
    id: RequestId,
    header: &[u8],
    data: &Sgl,
    room: u32,
) -> Result<()> {
    limit("message header in bytes", header.len(), state.theirs.header_bytes_max)?;
    if data.len() > room as usize {
        return Err(Error::NoRoom { length: data.len() as u64, room: u64::from(room) });
    }
    let length = header.len() + data.len();
    if !state.responder.may_complete(id.slot, length) {
        return Err(Error::LimitExceeded {
            what: "response to a request that is not idempotent (it has to be kept), in bytes",
            value: length as u64,
            limit: u64::from(state.own.replay_bytes_max),
        });
    }
    Ok(())
}
