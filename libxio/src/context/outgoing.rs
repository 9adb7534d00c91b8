//! Messages on their way out: what is kept of each until its end, the queue before the byte grant, and their frames.

use super::connection::ConnectionState;
use super::event::Landing;
use crate::transport::{Lent, Link, OutgoingFrame, SentFrame};
use crate::wire::{ExtensionBytes, FrameFlags, FrameKind};
use crate::{Error, HeaderBytes, Pool, Sgl};
use std::time::Instant;

/// Data of so many bytes is cheaper copied than found in place.
const COPIED_BYTES_MAX: usize = 512;

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
    /// All of its frames are with the transport: nothing reads its data any more, but for what was lent.
    pub sent: bool,
    /// Says to the peer where data and landing lie that it reaches in place.
    pub extension: ExtensionBytes,
    /// The peer reads the data in place, and writes the landing.
    pub data_lent: bool,
    pub landing_lent: bool,
    /// The data that was lent, once the request is on its way.
    pub lent: Sgl,
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
            extension: ExtensionBytes::new(),
            data_lent: false,
            landing_lent: false,
            lent: Sgl::new(),
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

impl Outstanding {
    /// Lends the peer what it can reach of the request's data and landing. `immediate` is the most data that travels
    /// without an announcement: where one is needed, the landing's turn does not come.
    pub(crate) fn lend(&mut self, data: &Sgl, link: &mut dyn Link, pool: &Pool, immediate: u32) {
        let none = Sgl::new();
        let is_long = data.len() > immediate as usize;
        let travels = link.is_fetched() && (is_long || self.notify.is_some());
        let data = if travels { &none } else { data };
        let wanted = match self.landing {
            Landing::Pool(room) if room as usize > COPIED_BYTES_MAX => room,
            _ => 0,
        };
        // The peer writes now, not when the response comes: the memory is taken now. Without any, the data travels.
        if wanted > 0
            && let Ok(list) = pool.take_list(wanted as usize)
        {
            self.landing = Landing::Place(list);
        }
        let landing = match &self.landing {
            Landing::Place(list) => Some(list),
            Landing::Pool(_) | Landing::None => None,
        };
        let mut lent = link.lend(data, landing);
        if !lent.data && is_long {
            lent = Lent::default();
        }
        if wanted > 0 && !lent.landing {
            self.landing = Landing::Pool(wanted);
        }
        Lent { extension: self.extension, data: self.data_lent, landing: self.landing_lent } = lent;
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
        let stays = match message {
            Waiting::Request { slot } => {
                let entry = self.requester.get_mut(slot);
                entry.is_some_and(|entry| entry.kind != FrameKind::Request || entry.data_lent)
            }
            Waiting::OneWay { .. } => false,
        };
        !stays && length > self.theirs.immediate_bytes_max as usize
    }

    /// The frame of a message that has its grant.
    fn message_frame(&mut self, message: Waiting, header: HeaderBytes, data: Sgl) -> Option<OutgoingFrame> {
        let announced = self.is_announced(message, data.len());
        let mut frame = OutgoingFrame::new(self.frame(FrameKind::OneWay), header, data);
        let crc = self.crc;
        let head = &mut frame.head;
        let (notify, keep) = match message {
            Waiting::Request { slot } => {
                let entry = self.requester.get_mut(slot)?;
                (head.kind, head.flags, head.room) = (entry.kind, entry.flags, entry.room);
                (head.slot, head.sequence) = (slot, entry.sequence);
                if entry.kind == FrameKind::RemoteWrite {
                    head.room = 0;
                }
                frame.extension = std::mem::take(&mut entry.extension);
                if entry.data_lent {
                    entry.lent = std::mem::take(&mut frame.data);
                    let sum = if crc { entry.lent.crc32c() } else { 0 };
                    // Checked against the peer's limit, a u32.
                    frame.in_place = Some((entry.lent.len() as u32, sum));
                    // The sender hears of it with the response.
                    return Some(frame);
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
