//! Messages on their way out: what is kept of each until its end, the queue before the byte grant, and their frames.

use super::connection::ConnectionState;
use super::event::Landing;
use crate::transport::{OutgoingFrame, SentFrame};
use crate::wire::{FrameFlags, FrameKind};
use crate::{Error, HeaderBytes, Sgl};
use std::time::Instant;

/// A request of this side (or a one-sided operation) that has no answer yet.
#[derive(Debug)]
pub(crate) struct Outstanding {
    pub token: u64,
    pub sequence: u32,
    /// The turn in which it began.
    pub begun: Instant,
    /// Request, RemoteRead or RemoteWrite.
    pub kind: FrameKind,
    pub flags: FrameFlags,
    pub landing: Landing,
    /// The landing memory is the application's own.
    pub named: bool,
    pub room: u32,
    /// All of its frames are with the transport: nothing reads its data any more.
    pub sent: bool,
    /// Header and data while it waits for the byte grant.
    pub held: Option<(HeaderBytes, Sgl)>,
    /// Announced data that the peer has not asked for.
    pub announced: Option<Sgl>,
    /// Why its response's data was discarded on arrival.
    pub failure: Option<Error>,
    /// A receipt may come.
    pub receipt_due: bool,
    /// Token of the notice that its data is sent, until that is on its way.
    pub notify: Option<u64>,
    pub cancel: Cancel,
    /// When its time is over, and how long it was in milliseconds.
    pub deadline: Option<(Instant, u64)>,
    /// Its time was over, the application has its response: only slot and landing are still in use.
    pub expired: bool,
}

/// What was said to the peer about cancelling a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cancel {
    /// Nothing.
    None,
    /// The application wants to know what comes of it.
    Asked,
    /// Its time was over; nobody wants to know.
    Silent,
    /// The peer has answered.
    Answered,
}

impl Outstanding {
    pub(crate) fn new(kind: FrameKind, token: u64, landing: Landing, room: u32, now: Instant) -> Outstanding {
        Outstanding {
            token,
            sequence: 0,
            begun: now,
            kind,
            flags: FrameFlags::default(),
            named: matches!(landing, Landing::Place(_)),
            landing,
            room,
            sent: false,
            held: None,
            announced: None,
            failure: None,
            receipt_due: false,
            notify: None,
            cancel: Cancel::None,
            deadline: None,
            expired: false,
        }
    }
}

/// A one-way message of this side that is not acknowledged.
#[derive(Debug)]
pub(crate) struct Unacknowledged {
    pub token: u64,
    pub flags: FrameFlags,
    /// Header and data while it waits for the byte grant.
    pub held: Option<(HeaderBytes, Sgl)>,
    /// Announced data that the peer has not asked for.
    pub announced: Option<Sgl>,
    /// A receipt has to come.
    pub receipt_due: bool,
    /// Token of the notice that its data is sent, until that is on its way.
    pub notify: Option<u64>,
}

/// A message in the queue before the byte grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiting {
    Request { slot: u16 },
    OneWay { sequence: u32 },
}

impl ConnectionState {
    /// Sends a message whose entry is made, or lets it wait behind others or for the byte grant (then there is no
    /// frame yet).
    pub(crate) fn start(
        &mut self,
        message: Waiting,
        header: HeaderBytes,
        data: Sgl,
    ) -> Option<OutgoingFrame> {
        if self.waiting.is_empty() && self.take_grant(message, data.len()) {
            return self.message_frame(message, header, data);
        }
        let held = match message {
            Waiting::Request { slot } => self.requester.get_mut(slot).map(|entry| &mut entry.held),
            Waiting::OneWay { sequence } => self.one_way_out.get_mut(sequence).map(|entry| &mut entry.held),
        };
        if let Some(held) = held {
            *held = Some((header, data));
        }
        self.waiting.push_back(message);
        None
    }

    /// Messages whose turn has come by the byte grant.
    pub(crate) fn next_granted(&mut self) -> Option<OutgoingFrame> {
        let message = *self.waiting.front()?;
        let length = self.held(message)?.as_ref().map_or(0, |(_, data)| data.len());
        if !self.take_grant(message, length) {
            return None;
        }
        self.waiting.pop_front();
        let (header, data) = self.held(message)?.take()?;
        self.message_frame(message, header, data)
    }

    fn held(&mut self, message: Waiting) -> Option<&mut Option<(HeaderBytes, Sgl)>> {
        match message {
            Waiting::Request { slot } => self.requester.get_mut(slot).map(|entry| &mut entry.held),
            Waiting::OneWay { sequence } => self.one_way_out.get_mut(sequence).map(|entry| &mut entry.held),
        }
    }

    fn take_grant(&mut self, message: Waiting, length: usize) -> bool {
        self.is_announced(message, length) || self.sending.take(length as u64)
    }

    /// Whether data of this length waits at our side until the peer says where it lands.
    fn is_announced(&mut self, message: Waiting, length: usize) -> bool {
        let one_sided = match message {
            Waiting::Request { slot } => {
                self.requester.get_mut(slot).is_some_and(|entry| entry.kind != FrameKind::Request)
            }
            Waiting::OneWay { .. } => false,
        };
        !one_sided && length > self.theirs.immediate_bytes_max as usize
    }

    /// The frame of a message that has its grant.
    fn message_frame(&mut self, message: Waiting, header: HeaderBytes, data: Sgl) -> Option<OutgoingFrame> {
        let announced = self.is_announced(message, data.len());
        let mut frame = OutgoingFrame { head: self.frame(FrameKind::OneWay), header, data };
        let head = &mut frame.head;
        let (notify, keep) = match message {
            Waiting::Request { slot } => {
                let entry = self.requester.get_mut(slot)?;
                (head.kind, head.flags, head.room) = (entry.kind, entry.flags, entry.room);
                (head.slot, head.sequence) = (slot, entry.sequence);
                if entry.kind == FrameKind::RemoteWrite {
                    head.room = 0;
                }
                (&mut entry.notify, &mut entry.announced)
            }
            Waiting::OneWay { sequence } => {
                let entry = self.one_way_out.get_mut(sequence)?;
                (head.flags, head.sequence) = (entry.flags, sequence);
                (&mut entry.notify, &mut entry.announced)
            }
        };
        if announced {
            head.flags = head.flags.with(FrameFlags::ANNOUNCED);
            // Checked against the peer's `data_bytes_max`.
            head.data_length = frame.data.len() as u32;
            *keep = Some(std::mem::take(&mut frame.data));
        } else if let Some(token) = notify.take() {
            self.notices.push_back((SentFrame::from(&*head), token));
        }
        Some(frame)
    }
}
