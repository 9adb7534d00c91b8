//! A connection's state, and what its link asks and tells. The state machines of `session` decide; `received.rs` turns
//! their decisions into events and frames, `outgoing.rs` makes the frames of messages.

use super::arrived::{Arrived, MessageId, Records};
use super::event::{Event, Landing};
use super::handles::{Connection, RequestId};
use super::outgoing::{HeldFrame, Outstanding, Unacknowledged, Waiting};
use super::remote::Exposed;
use super::serving::Membership;
use super::session::{Identity, Session};
use super::statistics::{ConnectionStatistics, Statistics};
use crate::reactor::Key;
use crate::session::{
    Answer, Arrival, Keepalive, OneWayReceiver, OneWaySender, ReceiveGrant, Requester, Responder, SendGrant,
};
use crate::transport::{OutgoingFrame, Place, SentFrame, Sink};
use crate::wire::{
    EXTENSION_BYTES_MAX, FEATURE_CRC, FEATURE_PLACEMENT, FrameFlags, FrameHead, FrameKind, FrameLimits,
    Goodbye, Hello, Limits, LoopKind, Refusal, RejectReason, RemoteAddress, SessionId, Violation, Welcome,
};
use crate::{Error, Pool, Sgl, Uri};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The link of a connection that has none (yet, or any more).
pub(super) const NO_LINK: Key = Key { index: u32::MAX, generation: u32::MAX };

/// Answers to probes and cancels that may wait to be sent, beside one for each request slot. Who sends more without
/// reading the answers would otherwise fill our memory with them.
const CONTROL_ANSWERS_EXTRA: u32 = 64;

/// Bytes that one-sided operations of a peer may copy in one receive, and one operation more, so that the other
/// connections have their turn: as much as one send takes.
const COPY_BYTES_MAX: usize = 2 << 20;

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
    pub one_way_out: OneWaySender<Unacknowledged>,
    pub one_way_in: OneWayReceiver,
    /// One-way messages of the peer that the application holds.
    pub one_way_held: u32,
    /// Messages that wait for the byte grant, in order; each has its parts in its entry.
    pub waiting: VecDeque<Waiting>,
    /// Frames with the link whose sender wants to know when they are gone, in their order.
    pub notices: VecDeque<(SentFrame, u64)>,
    /// A one-way message was turned away: tell when there is room again.
    pub send_blocked: bool,
    /// Requests of the peer that it wants cancelled and that still run.
    pub cancels_asked: Vec<RequestId>,
    /// Messages whose data was asked for and has not arrived.
    pub transfers: Vec<Transfer>,
    /// Memory that the peer may reach, by its number.
    pub exposed: Vec<Option<Exposed>>,
    /// The exposed memory that data is landing in now.
    pub landing_in: Option<u32>,
    /// The data that is landing now.
    pub arrival: Option<Arrival>,
    /// Answers to probes and cancels that are not sent yet.
    pub control_unsent: u32,
    /// Not later than the first deadline of a request.
    pub next_deadline: Option<Instant>,
    pub keepalive: Keepalive,
    /// Frames that may wait to be sent before nothing more is received: more than an honest peer can cause.
    pub unsent_frames_max: usize,
    pub side: Side,
    /// The keepalive has run out once; the link is drained before the verdict.
    pub suspected: bool,
    pub crc: bool,
    /// Frames may say where data lies in the client's memory.
    pub placement: bool,
    /// Tell the application when no more than so many bytes wait to be sent.
    pub drain_mark: Option<usize>,
    /// Totals; the rest of the statistics is looked up when asked for.
    pub counts: ConnectionStatistics,
    /// Redirects followed so far.
    pub redirects: u8,
    /// Another way to the session's server than the session's uri.
    pub via: Option<Uri>,
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
    /// A client whose session's first connection is being set up.
    Waiting(Session),
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

/// A message whose data lands where the application said.
#[derive(Debug)]
pub(crate) struct Transfer {
    pub record: Box<Arrived>,
    /// Until its data arrives.
    pub into: Option<Sgl>,
}

impl ConnectionState {
    /// A connection whose handshake is not over: no slots, no grants.
    pub(crate) fn new(link: Key, phase: Phase, peer: String, own: Limits, side: Side, now: Instant) -> Self {
        ConnectionState {
            // Set once the connection has its place in the table.
            handle: Connection { context: 0, index: 0, generation: 0 },
            link,
            phase,
            peer,
            own,
            theirs: own,
            requester: Requester::new(0),
            responder: Responder::new(0, 0),
            sending: SendGrant::new(0),
            receiving: ReceiveGrant::new(own.window_bytes),
            one_way_out: OneWaySender::new(0),
            one_way_in: OneWayReceiver::new(own.one_way_max),
            one_way_held: 0,
            waiting: VecDeque::new(),
            notices: VecDeque::new(),
            send_blocked: false,
            cancels_asked: Vec::new(),
            transfers: Vec::new(),
            exposed: Vec::new(),
            landing_in: None,
            arrival: None,
            control_unsent: 0,
            next_deadline: None,
            unsent_frames_max: 0,
            keepalive: Keepalive::new(Duration::ZERO, now),
            side,
            suspected: false,
            crc: false,
            placement: false,
            drain_mark: None,
            counts: ConnectionStatistics::default(),
            redirects: 0,
            via: None,
            hello: None,
        }
    }

    /// The handshake is done: `slots` are the peer's for its requests, `own_slots` ours.
    pub(crate) fn establish(&mut self, theirs: Limits, slots: u16, own_slots: u16) -> FrameLimits {
        self.theirs = theirs;
        self.requester = Requester::new(own_slots);
        self.responder = Responder::new(slots, self.own.replay_bytes_max);
        self.sending = SendGrant::new(theirs.window_bytes);
        self.one_way_out = OneWaySender::new(theirs.one_way_max);
        self.phase = Phase::Open;
        // A request costs its sender at most three frames (itself, its announced data, a cancel) and its receiver four (the
        // question for its data, a receipt, the result of a cancel, the response); a one-way message two, and three (the
        // question, a receipt, a credit).
        self.unsent_frames_max = 3 * usize::from(own_slots)
            + 4 * usize::from(slots)
            + 2 * theirs.one_way_max as usize
            + 3 * self.own.one_way_max as usize
            + CONTROL_ANSWERS_EXTRA as usize;
        FrameLimits {
            header_bytes_max: self.own.header_bytes_max,
            data_bytes_max: self.own.data_bytes_max,
            immediate_bytes_max: self.own.immediate_bytes_max,
            slots,
            own_slots,
            crc: self.crc,
            extension_bytes_max: if self.placement { EXTENSION_BYTES_MAX } else { 0 },
        }
    }

    /// Whether the peer was given memory of a request that has no answer yet.
    pub(crate) fn has_lent(&mut self) -> bool {
        self.requester.entries_mut().any(|(_, entry)| entry.landing_lent || entry.data_lent)
    }

    /// Takes lent memory out of the peer's reach, where the peer may still be at it.
    pub(crate) fn take_back(&mut self) {
        for (_, entry) in self.requester.entries_mut() {
            let landing = match &entry.landing {
                Landing::Place(list) if entry.landing_lent => Some(list),
                _ => None,
            };
            let lent = if entry.data_lent { entry.kept.detach() } else { Ok(()) };
            let detached = lent.and_then(|()| landing.map_or(Ok(()), Sgl::detach));
            if let Err(error) = detached {
                // Better lost than written by somebody else.
                tracing::error!(peer = self.peer, %error, "memory of a request is left to the peer");
                std::mem::forget(std::mem::take(&mut entry.kept));
                std::mem::forget(std::mem::take(&mut entry.landing));
            }
        }
    }

    /// A frame with the present grants in it.
    #[inline]
    pub(crate) fn frame(&mut self, kind: FrameKind) -> FrameHead {
        FrameHead {
            bytes_granted: self.receiving.announce(),
            acknowledged: self.one_way_in.announce(),
            ..FrameHead::new(kind)
        }
    }

    /// A frame that names one of the peer's requests.
    #[inline]
    pub(crate) fn frame_for(&mut self, kind: FrameKind, id: RequestId) -> FrameHead {
        FrameHead { slot: id.slot, sequence: id.sequence, ..self.frame(kind) }
    }

    /// A frame of its own for the grants, if that is worth it.
    pub(crate) fn due_credit(&mut self) -> Option<OutgoingFrame<'static>> {
        let due = self.one_way_in.is_due() || self.receiving.is_due();
        due.then(|| OutgoingFrame::bare(self.frame(FrameKind::Credit)))
    }

    /// An answer to a probe or a cancel is queued.
    fn count_control(&mut self) -> Result<(), Violation> {
        let limit = u32::from(self.own.slots.max(self.own.peer_slots)) + CONTROL_ANSWERS_EXTRA;
        if self.control_unsent >= limit {
            return Err(Violation::AnswersNotRead { limit });
        }
        self.control_unsent += 1;
        Ok(())
    }

    /// The transfer that a Data frame belongs to.
    pub(crate) fn transfer_of(&self, head: &FrameHead) -> Result<usize, Violation> {
        let message = if head.flags.contains(FrameFlags::ONE_WAY) {
            MessageId::OneWay { sequence: head.sequence }
        } else {
            MessageId::Request(RequestId { slot: head.slot, sequence: head.sequence })
        };
        let found = self.transfers.iter().position(|transfer| transfer.record.message == message);
        found.ok_or(Violation::DataNotExpected { slot: head.slot, sequence: head.sequence })
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
    pub replies: &'a mut Vec<HeldFrame>,
    pub pool: &'a Pool,
    pub statistics: &'a Statistics,
    pub records: &'a mut Records,
    pub now: Instant,
    pub now_ns: u64,
    pub keepalive_limit: Duration,
    /// Bytes that one-sided operations have copied in this receive.
    pub copied: usize,
    /// Set when the connection is over.
    pub ended: Option<Error>,
    /// Set when the server sends us elsewhere: the uri and its private data.
    pub redirected: Option<(String, Vec<u8>)>,
}

/// The sink of a context for one of its connections. A macro, since a function would borrow all of the context, whose links
/// are used beside it.
macro_rules! connection_sink {
    ($context:ident, $state:ident) => {
        $crate::context::connection::ConnectionSink {
            state: $state,
            events: &mut $context.events,
            replies: &mut $context.replies,
            pool: &$context.pool,
            statistics: &$context.statistics,
            records: &mut $context.records,
            now: $context.now,
            now_ns: $context.now_ns,
            keepalive_limit: $context.options.keepalive,
            copied: 0,
            ended: None,
            redirected: None,
        }
    };
}
pub(super) use connection_sink;

impl ConnectionSink<'_> {
    pub(super) fn reply(&mut self, head: FrameHead) {
        self.replies.push(HeldFrame::bare(head));
    }

    /// An answer to a probe or a cancel.
    pub(super) fn reply_control(&mut self, head: FrameHead) -> Result<(), Violation> {
        self.state.count_control()?;
        self.reply(head);
        Ok(())
    }

    fn welcome(&mut self, body: &[u8]) -> Result<Option<FrameLimits>, Violation> {
        let Phase::Connecting { .. } = self.state.phase else {
            return Err(Violation::UnexpectedKind(FrameKind::Welcome as u8));
        };
        let welcome = Welcome::decode(body)?;
        if let Some(hello) = self.state.hello.take() {
            welcome.check_against(&hello)?;
            if hello.session != SessionId::default() && hello.session != welcome.session {
                // It did not join what it was asked to join: another server than the session's.
                let (peer, reason) = (self.state.peer.clone(), RejectReason::UnknownSession);
                self.ended = Some(Error::Rejected { peer, reason, private_data: Vec::new() });
                return Ok(None);
            }
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
        state.placement = features & FEATURE_PLACEMENT != 0;
        let frame_limits = state.establish(limits, peer_slots, slots);
        state.keepalive = ConnectionState::keepalive_for(loop_kind, self.keepalive_limit, self.now);
        if let Side::Client(own_session) = &state.side {
            own_session.established(Identity { session, key: session_key });
        }
        self.events.push_back(Event::Connected { connection: state.handle, private_data });
        Ok(Some(frame_limits))
    }

    /// Where the data of a frame lands.
    #[inline(always)]
    fn find_place(&mut self, head: &FrameHead, header: &[u8], first: bool) -> Result<Place, Violation> {
        if self.state.phase != Phase::Open {
            return Err(Violation::UnexpectedKind(head.kind as u8));
        }
        // Limited by `data_bytes_max`.
        let length = head.data_length as usize;
        match head.kind {
            FrameKind::Request | FrameKind::OneWay => {
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
                if head.extension_length > 0 && !entry.landing_lent {
                    return Err(Violation::BadPlacement("a response is placed where nothing was lent"));
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
                            entry.failure = Some(Box::new(error));
                            Ok(Place::Discard)
                        }
                    },
                }
            }
            FrameKind::Data => {
                let transfer = self.state.transfer_of(head)?;
                let transfer = &mut self.state.transfers[transfer];
                let (length, announced) = (head.data_length, transfer.record.data_length);
                if length != announced {
                    return Err(Violation::DataLengthDiffers { length, announced });
                }
                Ok(transfer.into.take().map_or(Place::Discard, Place::Into))
            }
            FrameKind::RemoteWrite => {
                self.state.receiving.receive(u64::from(head.data_length))?;
                Ok(self.place_remote(head, header)?.map_or(Place::Discard, Place::Into))
            }
            kind => Err(Violation::UnexpectedKind(kind as u8)),
        }
    }

    /// A frame before the connection is made.
    #[cold]
    fn deliver_to_connecting(
        &mut self,
        head: &FrameHead,
        header: &[u8],
    ) -> Result<Option<FrameLimits>, Violation> {
        match head.kind {
            FrameKind::Welcome => self.welcome(header),
            FrameKind::Refusal => {
                let Refusal { reason, redirect, private_data } = Refusal::decode(header)?;
                if reason == RejectReason::Redirected {
                    self.redirected = Some((redirect, private_data));
                } else {
                    let peer = self.state.peer.clone();
                    self.ended = Some(Error::Rejected { peer, reason, private_data });
                }
                Ok(None)
            }
            FrameKind::Goodbye => {
                let goodbye = Goodbye::decode(header)?;
                self.ended = Some(Error::Closed(format!("{} ({})", self.state.peer, goodbye.text)));
                Ok(None)
            }
            kind => Err(Violation::UnexpectedKind(kind as u8)),
        }
    }

    /// A frame that is no message, nor a response.
    #[inline(never)]
    fn deliver_other(
        &mut self,
        kind: FrameKind,
        head: &FrameHead,
        header: &[u8],
        data: Sgl,
        landing: &Sgl,
    ) -> Result<(), Violation> {
        match kind {
            FrameKind::Receipt => {}
            FrameKind::Cancel => self.cancel(head)?,
            FrameKind::CancelResult => self.cancel_result(head)?,
            FrameKind::Ready => self.ready(head)?,
            FrameKind::Data => self.data(head, data)?,
            FrameKind::RemoteRead => self.remote_read(head, header, landing)?,
            FrameKind::RemoteWrite => self.remote_write(head, header, &data)?,
            FrameKind::Ping => {
                let pong = self.state.frame(FrameKind::Pong);
                self.reply_control(pong)?;
            }
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
        Ok(())
    }
}

impl Sink for ConnectionSink<'_> {
    // This and `deliver` are compiled into `take_whole`: lists of memory that move through results are slow to follow.
    #[inline(always)]
    fn place(&mut self, head: &FrameHead, header: &[u8], first: bool) -> Result<Place, Violation> {
        let place = self.find_place(head, header, first)?;
        if matches!(place, Place::Into(_)) {
            self.state.arrival = Some(Arrival::begin(head.data_length));
        }
        Ok(place)
    }

    #[inline]
    fn in_place(&mut self, head: &FrameHead) -> Result<(), Violation> {
        if self.state.phase != Phase::Open {
            return Err(Violation::UnexpectedKind(head.kind as u8));
        }
        self.state.receiving.receive(u64::from(head.data_length))
    }

    #[inline(always)]
    fn deliver(
        &mut self,
        head: &FrameHead,
        header: &[u8],
        data: Sgl,
        landing: Sgl,
    ) -> Result<Option<FrameLimits>, Violation> {
        self.statistics.frames_received.add(1);
        self.state.arrival = None;
        if let Phase::Connecting { .. } = self.state.phase {
            return self.deliver_to_connecting(head, header);
        }
        self.state.sending.raise(head.bytes_granted)?;
        // A receipt comes before, or with, the acknowledgement of its message.
        if head.kind == FrameKind::Receipt {
            self.receipt(head)?;
        }
        if head.acknowledged > 0 {
            self.acknowledged(head.acknowledged)?;
        }
        match head.kind {
            FrameKind::Request => self.request(head, header, data, landing)?,
            FrameKind::Response => self.response(head, header, data)?,
            FrameKind::OneWay => self.one_way(head, header, data)?,
            kind => self.deliver_other(kind, head, header, data, &landing)?,
        }
        Ok(None)
    }

    fn reached(&mut self, slot: u16, sequence: u32, refused: Option<RemoteAddress>) {
        self.end_alone(slot, sequence, refused);
    }

    fn has_enough(&self) -> bool {
        self.copied >= COPY_BYTES_MAX
    }

    fn frame_sent(&mut self, sent: SentFrame, data: Sgl) {
        let state = &mut *self.state;
        match sent.kind {
            FrameKind::Request | FrameKind::RemoteRead | FrameKind::RemoteWrite => {
                if let Some(entry) = state.requester.get_mut(sent.slot) {
                    entry.sent = true;
                }
            }
            FrameKind::Data if !sent.flags.contains(FrameFlags::ONE_WAY) => {
                if let Some(entry) = state.requester.get_mut(sent.slot) {
                    entry.sent = true;
                }
            }
            FrameKind::Pong | FrameKind::CancelResult => {
                state.control_unsent = state.control_unsent.saturating_sub(1);
            }
            _ => {}
        }
        if let Some((_, token)) = state.notices.pop_front_if(|(frame, _)| *frame == sent) {
            self.events.push_back(Event::Sent { connection: state.handle, token, outcome: Ok(data) });
        }
    }
}
