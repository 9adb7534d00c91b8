//! The links of a context: what they bring and take, and what happens when one dies. Which of them are looked at is in
//! `attention`.

use super::Context;
use super::connection::{ConnectionState, NO_LINK, Phase, connection_sink};
use super::event::Event;
use super::serving::{HelloSink, Membership, Prepared, ServerShared};
use crate::reactor::{Key, TicketKind};
use crate::transport::{Flushed, Link, LinkError, OutgoingFrame, Received, SentFrame, Sink};
use crate::wire::{FrameKind, Goodbye, Violation};
use crate::{Error, Sgl};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a peer is waited for that may still be at memory which was lent to it, before the memory is taken from it.
/// A peer that runs answers in a turn; the whole context stands still meanwhile.
const RELEASE_TIME: Duration = Duration::from_millis(5);

/// Most bytes that wait as a rest: half a packet of TCP on the largest interface.
const REST_BYTES_MAX: usize = 32 << 10;

/// A link and how it is attended to.
#[derive(Debug)]
pub(super) struct LinkEntry {
    pub link: Box<dyn Link>,
    pub role: Role,
    /// Stamp and events of the poll in the ring.
    pub(super) armed: Option<(u32, i16)>,
    /// When that was put there; the time of the last one.
    pub(super) armed_at: Instant,
    /// Stamp of the wait on the word by which the peer wakes, in the ring.
    pub(super) word: Option<u32>,
    /// Such a wait has failed: the peer has to wake by the descriptor.
    pub(super) word_failed: bool,
    /// How long the last poll waited before it fired.
    pub(super) waited: Duration,
    /// That poll has told of something, and nothing was received since.
    pub(super) has_news: bool,
    /// In the list of hot links.
    pub(super) hot: bool,
    /// In the list of links with something to send.
    pub(super) dirty: bool,
    /// The transport took less than was offered.
    pub(super) blocked: bool,
    /// Bytes of a short rest that was left for what comes after it, or 0.
    pub(super) rest_bytes: usize,
    /// Data waits for pool memory.
    pub stalled: bool,
    pub(super) last_active: Instant,
}

/// What a link is there for.
#[derive(Debug)]
pub(super) enum Role {
    /// It has to say hello.
    Handshake { server: Key, shared: Arc<ServerShared>, prepared: Option<Prepared>, deadline: Instant },
    /// The application has to answer its hello.
    Offered { membership: Membership, deadline: Instant },
    /// It carries a connection.
    Connection(Key),
    /// A last frame is on its way out.
    Closing { deadline: Instant },
}

impl LinkEntry {
    pub(super) fn new(link: Box<dyn Link>, role: Role, now: Instant) -> Self {
        let (has_news, hot, dirty, blocked, stalled) = (false, false, false, false, false);
        let rest_bytes = 0;
        let (armed, waited) = (None, Duration::ZERO);
        let (word, word_failed) = (None, false);
        let (armed_at, last_active) = (now, now);
        LinkEntry {
            link,
            role,
            armed,
            word,
            word_failed,
            armed_at,
            waited,
            has_news,
            hot,
            dirty,
            blocked,
            rest_bytes,
            stalled,
            last_active,
        }
    }
}

/// What a link sends when it is flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flushing {
    /// All, and there will be another flush at the turn's end.
    Early,
    /// What fills packets: there will be another flush soon.
    Packets,
    /// All, but for links that have a rest since then, and nothing more.
    Others,
    /// All.
    All,
}

/// For links that expect nothing.
struct DeafSink;

impl Sink for DeafSink {
    fn frame_sent(&mut self, _sent: SentFrame, _data: Sgl) {}
}

impl Context {
    pub(super) fn receive_link(&mut self, key: Key) -> bool {
        let Some(entry) = self.links.get_mut(key) else { return false };
        let connection = match &entry.role {
            Role::Connection(connection) => *connection,
            Role::Handshake { .. } => return self.receive_hello(key),
            // Neither has anything to say now; a dead link is noticed by the deadline, or when it is flushed.
            Role::Offered { .. } | Role::Closing { .. } => return false,
        };
        let Some(state) = self.connections.get_mut(connection) else { return false };
        if !is_read(state, entry.link.as_ref()) {
            return false;
        }
        let mut sink = connection_sink!(self, state);
        let outcome = entry.link.receive(&mut self.scratch, &mut sink);
        let ended = sink.ended.take();
        let redirected = sink.redirected.take();
        if let Some((uri, private_data)) = redirected {
            // What the link says after its refusal is of no interest.
            self.replies.clear();
            self.follow_redirect(connection, &uri, private_data);
            return true;
        }
        let came = match outcome {
            Ok(Received { bytes, progress, stalled, .. }) => {
                entry.stalled = stalled;
                if bytes > 0 {
                    self.statistics.link_receives.add(1);
                    self.statistics.bytes_received.add(bytes as u64);
                    entry.last_active = self.now;
                } else {
                    self.statistics.link_receives_empty.add(1);
                }
                if progress {
                    state.keepalive.heard(self.now);
                    state.suspected = false;
                }
                bytes > 0
            }
            Err(error) => {
                self.replies.clear();
                let reason = ended.unwrap_or_else(|| link_failure(state, error));
                if let LinkError::Violation(violation) = error {
                    self.violated(connection, key, violation, reason);
                } else {
                    self.lose(connection, reason);
                }
                return true;
            }
        };
        if let Some(reason) = ended {
            self.replies.clear();
            self.lose(connection, reason);
            return true;
        }
        if came {
            // A raised grant may let waiting requests go.
            while let Some(frame) = state.next_granted() {
                self.statistics.waiting_for_grant.subtract(1);
                self.replies.push(frame);
            }
        }
        if !self.replies.is_empty() {
            self.statistics.frames_sent.add(self.replies.len() as u64);
            for frame in self.replies.drain(..) {
                frame.send(entry.link.as_mut());
            }
            self.touch_link(key);
        }
        came
    }

    fn receive_hello(&mut self, key: Key) -> bool {
        let Some(entry) = self.links.get_mut(key) else { return false };
        let mut sink = HelloSink::default();
        let outcome = entry.link.receive(&mut self.scratch, &mut sink);
        match (outcome, sink.hello) {
            (Err(LinkError::Violation(violation)), _) => {
                tracing::info!(peer = entry.link.peer(), %violation, "no hello of this protocol");
                self.statistics.handshakes_failed.add(1);
                self.forget_handshake(key);
                self.dismiss_link(key, violation);
                true
            }
            (Err(error), _) => {
                self.forget_handshake(key);
                let is_ours = matches!(error, LinkError::NotTaken(_));
                let why = if is_ours { "its memory can't be taken" } else { "the peer closed it" };
                self.handshake_failed(key, why);
                true
            }
            (Ok(_), Some(hello)) => {
                self.hello_arrived(key, hello);
                true
            }
            (Ok(Received { bytes, .. }), None) => {
                if bytes > 0 {
                    entry.last_active = self.now;
                }
                bytes > 0
            }
        }
    }

    fn forget_handshake(&mut self, link: Key) {
        if let Some(Role::Handshake { server, .. }) = self.links.get(link).map(|entry| &entry.role)
            && let Some(state) = self.servers.get_mut(*server)
        {
            state.handshakes.retain(|waiting| *waiting != link);
        }
    }

    /// Gives every dirty link one send.
    pub(super) fn flush_dirty(&mut self, how: Flushing) {
        let mut at = 0;
        while at < self.dirty.len() {
            let key = self.dirty[at];
            let rests =
                |entry: &LinkEntry| entry.rest_bytes > 0 && entry.link.unsent_bytes() == entry.rest_bytes;
            let stays = how == Flushing::Others && self.links.get(key).is_some_and(rests);
            let more = stays || self.flush_link(key, how);
            if more {
                at += 1;
            } else {
                self.dirty.swap_remove(at);
                if let Some(entry) = self.links.get_mut(key) {
                    entry.dirty = false;
                }
            }
        }
    }

    /// Whether a link has more to send than one send takes, and its transport has room: nothing would wake us for that.
    pub(super) fn sends_at_once(&self) -> bool {
        self.dirty.iter().any(|key| self.links.get(*key).is_some_and(|entry| !entry.blocked))
    }

    /// One send; true if the link should be tried again next turn.
    pub(super) fn flush_link(&mut self, key: Key, how: Flushing) -> bool {
        let Some(entry) = self.links.get_mut(key) else { return false };
        let (outcome, connection) = match &entry.role {
            Role::Connection(connection) => {
                let connection = *connection;
                let Some(state) = self.connections.get_mut(connection) else { return false };
                let mut sink = connection_sink!(self, state);
                let link = &mut entry.link;
                let flushed = match how {
                    Flushing::Early => link.flush_early(&mut sink),
                    Flushing::Packets => link.flush_packets(&mut sink),
                    Flushing::Others | Flushing::All => link.flush(&mut sink),
                };
                (flushed, Some(connection))
            }
            _ => (entry.link.flush(&mut DeafSink), None),
        };
        match outcome {
            Ok(Flushed { bytes, blocked }) => {
                // More is left where a send takes no more, or was interrupted: that goes at the turn's end.
                let left = if how == Flushing::Packets && !blocked { entry.link.unsent_bytes() } else { 0 };
                entry.rest_bytes = if left <= REST_BYTES_MAX { left } else { 0 };
                if bytes > 0 {
                    self.statistics.link_sends.add(1);
                    self.statistics.bytes_sent.add(bytes as u64);
                }
                // Nearly always: all of it went, and nobody waits for that.
                if !entry.blocked
                    && !blocked
                    && entry.link.unsent_bytes() == 0
                    && let Some(state) = connection.and_then(|key| self.connections.get(key))
                    && state.phase == Phase::Open
                    && state.drain_mark.is_none()
                {
                    return false;
                }
                if entry.blocked
                    && bytes > 0
                    && let Some(state) = connection.and_then(|key| self.connections.get_mut(key))
                {
                    // The transport was full and has room again: the peer reads, though it may have nothing to say, and
                    // a ping would wait behind all that is queued.
                    state.keepalive.heard(self.now);
                    state.suspected = false;
                }
                entry.blocked = blocked;
                if let Some(state) = connection.and_then(|key| self.connections.get_mut(key))
                    && state.drain_mark.is_some_and(|mark| entry.link.unsent_bytes() <= mark)
                {
                    state.drain_mark = None;
                    self.events.push_back(Event::Drained { connection: state.handle });
                }
                if entry.link.unsent_bytes() > 0 {
                    // Room that has come meanwhile is no news to wait for.
                    if blocked && !entry.hot && self.arm_link(key) {
                        self.heat_link(key);
                    }
                    // A blocked link waits for the transport: while hot it is tried each turn, else the ring tells.
                    return !blocked || self.links.get(key).is_some_and(|entry| entry.hot);
                }
                match (&entry.role, connection.and_then(|key| self.connections.get(key))) {
                    (Role::Closing { .. }, _) => self.drop_link(key),
                    (
                        Role::Connection(connection),
                        Some(ConnectionState { phase: Phase::Closing { .. }, .. }),
                    ) => {
                        let connection = *connection;
                        self.lose(connection, Error::ClosedLocally);
                    }
                    _ => {}
                }
                false
            }
            Err(error) => {
                match connection.and_then(|key| self.connections.get(key).map(|state| (key, state))) {
                    // Our goodbye was not heard, which changes nothing for us.
                    Some((key, ConnectionState { phase: Phase::Closing { .. }, .. })) => {
                        self.lose(key, Error::ClosedLocally);
                    }
                    Some((key, state)) => {
                        let reason = link_failure(state, error);
                        // What the peer said before it went (a refusal, a goodbye) explains more than a broken pipe.
                        self.receive_last_words(key, reason);
                    }
                    None => self.drop_link(key),
                }
                false
            }
        }
    }

    /// A send has failed: what has arrived before is still delivered, then the connection is lost.
    fn receive_last_words(&mut self, connection: Key, reason: Error) {
        let Some(link) = self.connections.get(connection).map(|state| state.link) else { return };
        // Bounded: a peer can't keep a half-dead link alive by talking on.
        for _ in 0..64 {
            if !self.receive_link(link) {
                break;
            }
        }
        self.lose(connection, reason);
    }

    /// Takes a link out of this context, whole.
    pub(super) fn take_link(&mut self, key: Key) -> Option<LinkEntry> {
        let entry = self.links.remove(key)?;
        self.disarm(entry.armed.map(|(stamp, _)| stamp), key.index, TicketKind::Link);
        self.disarm(entry.word, key.index, TicketKind::Word);
        Some(entry)
    }

    /// Ends a link: when this returns, it touches no memory any more.
    pub(super) fn drop_link(&mut self, key: Key) {
        if let Some(mut entry) = self.take_link(key) {
            entry.link.fence();
        }
    }

    /// Ends a connection's link. What was lent to the peer is its owner's again when this returns: the peer has given it
    /// back, is gone, or has lost its way to it.
    fn fence_connection(&mut self, state: &mut ConnectionState) {
        let Some(mut entry) = self.take_link(state.link) else { return };
        entry.link.fence();
        if state.has_lent() && !entry.link.is_released(RELEASE_TIME) {
            state.take_back();
        }
    }

    /// The peer broke a rule: it is told, then the connection is lost.
    fn violated(&mut self, connection: Key, link: Key, violation: Violation, reason: Error) {
        self.statistics.protocol_violations.add(1);
        tracing::warn!(%reason, "closing a connection");
        // The link lives on for its farewell, without the connection; not where frames are queued, whose data goes
        // back to its owner now. Where the peer may have memory of ours for a request it hears what can be said at once.
        if let Some(entry) = self.links.get_mut(link)
            && entry.link.unsent_bytes() == 0
            && let Some(state) = self.connections.get_mut(connection)
        {
            if entry.link.lends() {
                let body = Goodbye { code: violation.code(), text: violation.to_string() }.encode();
                entry.link.send(&mut OutgoingFrame::new(state.frame(FrameKind::Goodbye), &body, Sgl::new()));
                // The connection is lost, whatever comes of it.
                let _ = entry.link.flush(&mut DeafSink);
            } else {
                entry.link.leave_memory();
                state.link = NO_LINK;
                self.dismiss_link(link, violation);
            }
        }
        self.lose(connection, reason);
    }

    /// Ends a connection: its link first, then its requests, then itself.
    pub(super) fn lose(&mut self, connection: Key, reason: Error) {
        let Some(mut state) = self.connections.remove(connection) else { return };
        self.fence_connection(&mut state);
        self.statistics.connections_closed.add(1);
        self.statistics.connections.subtract(1);
        self.statistics.requests_running.subtract(u64::from(state.responder.running()));
        self.statistics.one_way_held.subtract(u64::from(state.one_way_held));
        self.statistics.waiting_for_grant.subtract(state.waiting.len() as u64);
        self.end_one_way(&mut state, &reason);
        tracing::debug!(peer = state.peer, %reason, "connection ended");
        for entry in state.requester.drain() {
            self.statistics.requests_outstanding.subtract(1);
            self.end_request(state.handle, entry, &reason);
        }
        self.events.push_back(Event::Closed { connection: state.handle, reason });
    }
}

/// Whether anything is received for a connection now. Not once it is closing, nor while more waits to be sent than an
/// honest peer can have caused: it takes nothing itself, so its questions wait.
pub(super) fn is_read(state: &ConnectionState, link: &dyn Link) -> bool {
    !matches!(state.phase, Phase::Closing { .. })
        && (link.unsent_frames() <= state.unsent_frames_max
            || matches!(state.phase, Phase::Connecting { .. }))
}

fn link_failure(state: &ConnectionState, error: LinkError) -> Error {
    let peer = state.peer.clone();
    let connecting = matches!(state.phase, Phase::Connecting { .. });
    match error {
        LinkError::Violation(violation) => Error::Protocol { peer, violation },
        LinkError::NotTaken(errno) => Error::MemoryNotTaken { peer, errno },
        LinkError::Ended if connecting => Error::ConnectFailed { address: peer, errno: libc::ECONNRESET },
        LinkError::Ended => Error::ConnectionLost { peer, errno: libc::ECONNRESET },
        LinkError::Failed(errno) if connecting => Error::ConnectFailed { address: peer, errno },
        // A broken pipe is what a sender sees of a reset.
        LinkError::Failed(libc::EPIPE) => Error::ConnectionLost { peer, errno: libc::ECONNRESET },
        LinkError::Failed(errno) => Error::ConnectionLost { peer, errno },
    }
}
