//! A connection's state, and what it makes of arriving frames. The state machines of `session` decide; this file
//! turns their decisions into events and frames.

use super::event::{Event, Landing, Reply, Request};
use super::handle::{DropGuard, DroppedRequests};
use super::handles::{Connection, RequestId};
use super::serving::Membership;
use super::session::{Identity, Session};
use super::statistics::Statistics;
use crate::reactor::Key;
use crate::session::{Admission, Answer, Keepalive, ReceiveGrant, Requester, Responder, SendGrant};
use crate::transport::{OutgoingFrame, Place, Sink};
use crate::wire::{
    FAILED_NO_ROOM, FAILED_NOT_KEPT, FEATURE_CRC, FrameFlags, FrameHead, FrameKind, FrameLimits, Goodbye,
    Hello, Limits, LoopKind, Refusal, Violation, Welcome,
};
use crate::{Error, HeaderBytes, Pool, Sgl};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Everything of one connection.
#[derive(Debug)]
pub(crate) struct ConnectionState {
    pub handle: Connection,
    pub link: Key,
    pub phase: Phase,
    pub peer: String,
    /// What we receive at most.
    pub own: Limits,
    /// What the peer receives at most; in force from the hello or welcome on.
    pub theirs: Limits,
    pub requester: Requester<Outstanding>,
    pub responder: Responder,
    pub sending: SendGrant,
    pub receiving: ReceiveGrant,
    /// Slots of requests that wait for the byte grant, in order.
    pub waiting: VecDeque<u16>,
    pub keepalive: Keepalive,
    pub side: Side,
    /// The keepalive has run out once; the link is drained before the verdict.
    pub suspected: bool,
    pub crc: bool,
    /// Tell the application when no more than so many bytes wait to be sent.
    pub drain_mark: Option<usize>,
    /// Our hello, until the welcome is checked against it.
    pub hello: Option<Box<Hello>>,
}

/// Where a connection is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Hello sent.
    Connecting {
        deadline: Instant,
    },
    Open,
    /// Goodbye queued; closed when it is sent, or at the deadline.
    Closing {
        deadline: Instant,
    },
}

/// Which end of a session this is.
#[derive(Debug)]
pub(crate) enum Side {
    Client(Session),
    /// Held for its drop, which takes the connection out of the server's registry.
    Server(#[allow(dead_code)] Membership),
}

impl Drop for Side {
    fn drop(&mut self) {
        if let Side::Client(session) = self {
            session.end_connection();
        }
    }
}

/// A request of this side that has no answer yet.
#[derive(Debug)]
pub(crate) struct Outstanding {
    pub token: u64,
    pub sequence: u32,
    pub idempotent: bool,
    pub landing: Landing,
    pub room: u32,
    /// All of its frame is with the transport: nothing reads its data any more.
    pub sent: bool,
    /// Header and data while it waits for the byte grant.
    pub held: Option<(HeaderBytes, Sgl)>,
    /// Why its response's data was discarded on arrival.
    pub failure: Option<Error>,
}

impl ConnectionState {
    /// What the link checks received frames against.
    pub(crate) fn frame_limits(&self, slots: u16, own_slots: u16) -> FrameLimits {
        FrameLimits {
            header_bytes_max: self.own.header_bytes_max,
            data_bytes_max: self.own.data_bytes_max,
            slots,
            own_slots,
            crc: self.crc,
        }
    }

    /// A frame with the present byte grant in it.
    pub(crate) fn frame(&mut self, kind: FrameKind) -> FrameHead {
        FrameHead { bytes_granted: self.receiving.announce(), ..FrameHead::new(kind) }
    }

    /// The frame of a request that has its grant.
    pub(crate) fn request_frame(&mut self, slot: u16, header: HeaderBytes, data: Sgl) -> OutgoingFrame {
        let mut head = self.frame(FrameKind::Request);
        head.slot = slot;
        if let Some(entry) = self.requester.get_mut(slot) {
            head.sequence = entry.sequence;
            head.room = entry.room;
            if entry.idempotent {
                head.flags = FrameFlags::IDEMPOTENT;
            }
        }
        OutgoingFrame { head, header, data }
    }

    /// Requests whose turn has come by the byte grant.
    pub(crate) fn next_granted(&mut self) -> Option<OutgoingFrame> {
        let slot = *self.waiting.front()?;
        let length = match self.requester.get_mut(slot) {
            Some(Outstanding { held: Some((_, data)), .. }) => data.len(),
            // It was ended meanwhile.
            _ => {
                self.waiting.pop_front();
                return self.next_granted();
            }
        };
        if !self.sending.take(length as u64) {
            return None;
        }
        self.waiting.pop_front();
        let (header, data) = self.requester.get_mut(slot).and_then(|entry| entry.held.take())?;
        Some(self.request_frame(slot, header, data))
    }

    /// Times the peer only where its loop is its own.
    pub(crate) fn keepalive_for(peer_loop: LoopKind, limit: Duration, now: Instant) -> Keepalive {
        Keepalive::new(if peer_loop == LoopKind::Own { limit } else { Duration::ZERO }, now)
    }
}

/// What a connection's link asks and tells.
pub(crate) struct ConnectionSink<'a> {
    pub state: &'a mut ConnectionState,
    pub events: &'a mut VecDeque<Event>,
    /// Frames to send in answer, once the link is free.
    pub replies: &'a mut Vec<OutgoingFrame>,
    pub pool: &'a Pool,
    pub statistics: &'a Statistics,
    pub dropped: &'a Arc<DroppedRequests>,
    pub now: Instant,
    pub keepalive_limit: Duration,
    /// Set when the connection is over.
    pub ended: Option<Error>,
}

impl ConnectionSink<'_> {
    fn reply(&mut self, kind: FrameKind) {
        let head = self.state.frame(kind);
        self.replies.push(OutgoingFrame { head, header: HeaderBytes::new(), data: Sgl::new() });
    }

    fn welcome(&mut self, body: &[u8]) -> Result<Option<FrameLimits>, Violation> {
        let Phase::Connecting { .. } = self.state.phase else {
            return Err(Violation::UnexpectedKind(FrameKind::Welcome as u8));
        };
        let welcome = Welcome::decode(body)?;
        if let Some(hello) = self.state.hello.take() {
            welcome.check_against(&hello)?;
        }
        let Welcome {
            version: _,
            features,
            loop_kind,
            incarnation: _,
            session,
            session_key,
            connection: _,
            limits,
            private_data,
        } = welcome;
        let state = &mut *self.state;
        let (slots, peer_slots) = (limits.slots, limits.peer_slots);
        state.crc = state.crc && features & FEATURE_CRC != 0;
        state.theirs = limits;
        state.requester = Requester::new(slots);
        state.responder = Responder::new(peer_slots, state.own.replay_bytes_max);
        state.sending = SendGrant::new(limits.window_bytes);
        state.keepalive = ConnectionState::keepalive_for(loop_kind, self.keepalive_limit, self.now);
        state.phase = Phase::Open;
        if let Side::Client(own_session) = &state.side {
            own_session.established(Identity { session, key: session_key });
        }
        self.events.push_back(Event::Connected { connection: state.handle, private_data });
        Ok(Some(state.frame_limits(peer_slots, slots)))
    }

    fn request(&mut self, head: &FrameHead, header: &[u8], data: Sgl) -> Result<(), Violation> {
        let idempotent = head.flags.contains(FrameFlags::IDEMPOTENT);
        let (failed, header_again, data_again) =
            match self.state.responder.admit(head.slot, head.sequence, idempotent)? {
                Admission::Execute => {
                    self.execute(head, header, data);
                    return Ok(());
                }
                Admission::Running => {
                    self.state.receiving.release(u64::from(head.data_length));
                    return Ok(());
                }
                Admission::Replay { header, data } => {
                    (None, HeaderBytes::from_slice(header), Sgl::from(data.to_vec()))
                }
                Admission::ReplayFailure { reason } => (Some(reason), HeaderBytes::new(), Sgl::new()),
            };
        self.state.receiving.release(u64::from(head.data_length));
        let mut answer = self.state.frame(FrameKind::Response);
        answer.slot = head.slot;
        answer.sequence = head.sequence;
        answer.flags = FrameFlags::REPLAYED;
        if let Some(reason) = failed {
            answer.flags = answer.flags.with(FrameFlags::FAILED);
            answer.room = reason;
        }
        self.replies.push(OutgoingFrame { head: answer, header: header_again, data: data_again });
        Ok(())
    }

    /// A new request goes to the application.
    fn execute(&mut self, head: &FrameHead, header: &[u8], data: Sgl) {
        self.statistics.requests_running.add(1);
        let connection = self.state.handle;
        let id = RequestId { slot: head.slot, sequence: head.sequence };
        self.events.push_back(Event::Request(Request {
            connection,
            id,
            header: HeaderBytes::from_slice(header),
            data,
            data_length: head.data_length,
            room: head.room,
            guard: DropGuard::new(self.dropped, connection, id, head.data_length),
        }));
    }

    fn response(&mut self, head: &FrameHead, header: &[u8], data: Sgl) -> Result<(), Violation> {
        if self.state.requester.check(head.slot, head.sequence)? == Answer::Stale {
            return Ok(());
        }
        if self.state.requester.get_mut(head.slot).is_some_and(|entry| !entry.sent) {
            return Err(Violation::ResponseBeforeSent { slot: head.slot });
        }
        let Some(entry) = self.state.requester.finish(head.slot) else { return Ok(()) };
        self.statistics.requests_outstanding.subtract(1);
        let mut data = data;
        if head.data_length == 0 {
            // The landing memory goes back to its owner, cut to nothing.
            if let Landing::Place(list) = entry.landing {
                data = list;
                data.truncate(0);
            }
        }
        let outcome = if head.flags.contains(FrameFlags::FAILED) {
            Err(match head.room {
                FAILED_NO_ROOM => {
                    Error::NoRoom { length: u64::from(entry.room) + 1, room: u64::from(entry.room) }
                }
                FAILED_NOT_KEPT => Error::Unsupported(
                    "the response was too long to be kept, which a request that is not idempotent needs",
                ),
                _ => Error::Unanswered,
            })
        } else {
            match entry.failure {
                Some(failure) => Err(failure),
                None => Ok(Reply { header: HeaderBytes::from_slice(header), data }),
            }
        };
        self.events.push_back(Event::Response {
            connection: self.state.handle,
            id: RequestId { slot: head.slot, sequence: head.sequence },
            token: entry.token,
            outcome,
        });
        Ok(())
    }
}

impl Sink for ConnectionSink<'_> {
    fn place(&mut self, head: &FrameHead, first: bool) -> Result<Place, Violation> {
        if self.state.phase != Phase::Open {
            return Err(Violation::UnexpectedKind(head.kind as u8));
        }
        // Limited by `data_bytes_max`.
        let length = head.data_length as usize;
        match head.kind {
            FrameKind::Request => {
                if first {
                    self.state.receiving.receive(u64::from(head.data_length))?;
                }
                match self.pool.take_list(length) {
                    Ok(list) => Ok(Place::Into(list)),
                    Err(_) => {
                        if first {
                            self.statistics.pool_stalls.add(1);
                        }
                        Ok(Place::Later)
                    }
                }
            }
            FrameKind::Response => {
                if self.state.requester.check(head.slot, head.sequence)? == Answer::Stale {
                    return Ok(Place::Discard);
                }
                let Some(entry) = self.state.requester.get_mut(head.slot) else { return Ok(Place::Discard) };
                if !entry.sent {
                    return Err(Violation::ResponseBeforeSent { slot: head.slot });
                }
                if head.data_length > entry.room {
                    return Err(Violation::ResponseTooLong { length: head.data_length, room: entry.room });
                }
                match std::mem::take(&mut entry.landing) {
                    Landing::Place(mut list) => {
                        list.truncate(length);
                        Ok(Place::Into(list))
                    }
                    Landing::Pool(_) | Landing::None => match self.pool.take_list(length) {
                        Ok(list) => Ok(Place::Into(list)),
                        // To stall would wait for this side's own application, which may be waiting for this.
                        Err(error) => {
                            entry.failure = Some(error);
                            Ok(Place::Discard)
                        }
                    },
                }
            }
            kind => Err(Violation::UnexpectedKind(kind as u8)),
        }
    }

    fn deliver(
        &mut self,
        head: &FrameHead,
        header: &[u8],
        data: Sgl,
    ) -> Result<Option<FrameLimits>, Violation> {
        self.statistics.frames_received.add(1);
        if let Phase::Connecting { .. } = self.state.phase {
            return match head.kind {
                FrameKind::Welcome => self.welcome(header),
                FrameKind::Refusal => {
                    let Refusal { reason, private_data } = Refusal::decode(header)?;
                    self.ended =
                        Some(Error::Rejected { peer: self.state.peer.clone(), reason, private_data });
                    Ok(None)
                }
                FrameKind::Goodbye => {
                    let goodbye = Goodbye::decode(header)?;
                    self.ended = Some(Error::Closed(format!("{} ({})", self.state.peer, goodbye.text)));
                    Ok(None)
                }
                kind => Err(Violation::UnexpectedKind(kind as u8)),
            };
        }
        self.state.sending.raise(head.bytes_granted)?;
        match head.kind {
            FrameKind::Request => self.request(head, header, data)?,
            FrameKind::Response => self.response(head, header, data)?,
            FrameKind::Ping => self.reply(FrameKind::Pong),
            FrameKind::Pong | FrameKind::Credit => {}
            FrameKind::Goodbye => {
                let goodbye = Goodbye::decode(header)?;
                let peer = &self.state.peer;
                self.ended = Some(if goodbye.code == 0 {
                    Error::Closed(peer.clone())
                } else {
                    Error::Closed(format!("{peer}, which says: {}", goodbye.text))
                });
            }
            kind => return Err(Violation::UnexpectedKind(kind as u8)),
        }
        Ok(None)
    }

    fn request_sent(&mut self, slot: u16) {
        if let Some(entry) = self.state.requester.get_mut(slot) {
            entry.sent = true;
        }
    }
}
