//! Messages on their way out: what is kept of each until its end, the queue before the byte grant, and their frames.

use super::connection::ConnectionState;
use super::event::Landing;
use super::handles::RequestId;
use crate::transport::{COPIED_BYTES_MAX, Lent, Link, OutgoingFrame, SentFrame};
use crate::wire::{ExtensionBytes, FrameFlags, FrameHead, FrameKind};
use crate::{Error, HeaderBytes, Pool, Sgl};
use std::time::Instant;

/// A request of this side (or a one-sided operation) that has no answer yet.
#[derive(Debug)]
pub(crate) struct Outstanding {
    pub token: u64,
    pub sequence: u32,
    /// The turn in which it began, in nanoseconds of the context.
    pub begun_ns: u64,
    /// Request, RemoteRead or RemoteWrite.
    pub kind: FrameKind,
    pub flags: FrameFlags,
    pub landing: Landing,
    /// The landing memory is the application's own.
    pub named: bool,
    pub room: u32,
    /// All of its frames are with the transport: nothing reads its data any more, but for what was lent.
    pub sent: bool,
    /// The peer reads the data in place, and writes the landing.
    pub data_lent: bool,
    pub landing_lent: bool,
    /// The link does it by itself; the peer knows nothing of it.
    pub alone: bool,
    /// It began so: its number is not the application's, since it may be another request's soon.
    pub nameless: bool,
    /// It waits for the byte grant.
    pub waits: bool,
    /// Its data was announced, and the peer has not asked for it.
    pub announced: bool,
    /// The data that stays here while the request is on its way: what was lent, or announced.
    pub kept: Sgl,
    /// Why its response's data was discarded on arrival.
    pub failure: Option<Box<Error>>,
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

/// What a request is begun with.
#[derive(Debug)]
pub(crate) struct Beginning {
    /// Request, RemoteRead or RemoteWrite.
    pub kind: FrameKind,
    pub flags: FrameFlags,
    pub token: u64,
    pub landing: Landing,
    pub room: u32,
    /// The present turn, in nanoseconds of the context.
    begun_ns: u64,
}

impl Beginning {
    #[inline]
    pub(crate) fn new(kind: FrameKind, token: u64, landing: Landing, room: u32, now_ns: u64) -> Beginning {
        Beginning { kind, flags: FrameFlags::default(), token, landing, room, begun_ns: now_ns }
    }

    /// The entry of a request with this number, whose landing was `named` by the application.
    #[inline]
    pub(crate) fn begin(self, sequence: u32, named: bool, lent: &Lent) -> Outstanding {
        let Beginning { kind, flags, token, landing, room, begun_ns } = self;
        Outstanding {
            token,
            sequence,
            begun_ns,
            kind,
            flags,
            landing,
            named,
            room,
            sent: false,
            data_lent: lent.data,
            landing_lent: lent.landing,
            alone: false,
            nameless: false,
            waits: false,
            announced: false,
            kept: Sgl::new(),
            failure: None,
            receipt_due: false,
            notify: None,
            cancel: Cancel::None,
            deadline: None,
            expired: false,
        }
    }

    /// Lends the peer what it can reach of the request's data and landing; what is returned tells it where they lie.
    /// `immediate` is the most data that travels without an announcement: where one is needed, the landing's turn does
    /// not come. Nor does data whose owner waits for it (`notifies`) stay where the peer would fetch it.
    #[inline]
    pub(crate) fn lend(
        &mut self,
        data: &Sgl,
        link: &mut dyn Link,
        pool: &Pool,
        immediate: u32,
        notifies: bool,
    ) -> Lent {
        let none = Sgl::new();
        let is_long = data.len() > immediate as usize;
        let travels = (is_long || notifies) && link.is_fetched();
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
        lent
    }
}

impl Outstanding {
    /// What the application knows it by. Numbers count from 1, so that one without can't be cancelled.
    #[inline]
    pub(crate) fn id(&self, slot: u16) -> RequestId {
        RequestId { slot, sequence: if self.nameless { 0 } else { self.sequence } }
    }

    /// What it was begun with, to begin it in another way.
    pub(crate) fn into_beginning(self) -> Beginning {
        let Outstanding { kind, flags, token, landing, room, begun_ns, .. } = self;
        Beginning { kind, flags, token, landing, room, begun_ns }
    }

    /// Whether its end is more than an answer for the application.
    #[inline]
    pub(crate) fn is_special(&self) -> bool {
        self.expired || self.cancel != Cancel::None || self.notify.is_some() || self.failure.is_some()
    }
}

/// A one-way message of this side that is not acknowledged.
#[derive(Debug)]
pub(crate) struct Unacknowledged {
    pub token: u64,
    pub flags: FrameFlags,
    /// Announced data that the peer has not asked for.
    pub announced: Option<Sgl>,
    /// A receipt has to come.
    pub receipt_due: bool,
    /// Token of the notice that its data is sent, until that is on its way.
    pub notify: Option<u64>,
}

/// Puts the data of an answer where it shall land in the peer's memory, if it does not lie there. What the frame says in its
/// place, length and checksum; and the bytes copied.
#[inline]
pub(super) fn place_data(data: &Sgl, landing: &Sgl, crc: bool) -> ((u32, u32), usize) {
    let copied = if data.is_start_of(landing) { 0 } else { landing.copy_from_list(data) };
    let sum = match crc {
        false => 0,
        // Exposed memory may change at any time: what has landed counts.
        true if landing.len() == data.len() => landing.crc32c(),
        true => data.crc32c(),
    };
    // At most the room, a u32.
    ((data.len() as u32, sum), copied)
}

/// Which message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbered {
    Request { slot: u16 },
    OneWay { sequence: u32 },
}

/// A message in the queue before the byte grant.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub message: Numbered,
    header: HeaderBytes,
    data: Sgl,
    extension: ExtensionBytes,
}

/// A frame that this side keeps for a moment, until its link is free.
#[derive(Debug)]
pub(crate) struct HeldFrame {
    pub head: FrameHead,
    header: HeaderBytes,
    pub data: Sgl,
    pub extension: ExtensionBytes,
    pub in_place: Option<(u32, u32)>,
}

impl HeldFrame {
    pub(crate) fn new(head: FrameHead, header: HeaderBytes, data: Sgl) -> HeldFrame {
        HeldFrame { head, header, data, extension: ExtensionBytes::new(), in_place: None }
    }

    pub(crate) fn bare(head: FrameHead) -> HeldFrame {
        HeldFrame::new(head, HeaderBytes::new(), Sgl::new())
    }

    pub(crate) fn send(self, link: &mut dyn Link) {
        let HeldFrame { head, header, data, extension, in_place } = self;
        link.send(&mut OutgoingFrame { head, header: &header, data, extension, in_place });
    }
}

impl ConnectionState {
    /// Sends a message whose entry is made, or lets it wait behind others or for the byte grant (then there is no
    /// frame yet).
    #[inline]
    pub(crate) fn start<'a>(
        &mut self,
        message: Numbered,
        header: &'a [u8],
        data: Sgl,
        extension: ExtensionBytes,
    ) -> Option<OutgoingFrame<'a>> {
        let mut started = None;
        self.start_with(message, header, data, extension, |frame| started = Some(frame.take()));
        started
    }

    /// As [`ConnectionState::start`], with the frame given to `send` where it is made; false if it waits.
    #[inline]
    pub(crate) fn start_with<'a>(
        &mut self,
        message: Numbered,
        header: &'a [u8],
        data: Sgl,
        extension: ExtensionBytes,
        send: impl FnOnce(&mut OutgoingFrame<'a>),
    ) -> bool {
        let announced = self.is_announced(message, data.len());
        if !self.waiting.is_empty() || !(announced || self.sending.take(data.len() as u64)) {
            self.wait(Waiting { message, header: HeaderBytes::from_slice(header), data, extension });
            return false;
        }
        let head = self.frame(FrameKind::OneWay);
        let mut frame = OutgoingFrame { head, header, data, extension, in_place: None };
        if self.fill_frame(message, announced, &mut frame).is_some() {
            send(&mut frame);
        }
        true
    }

    #[cold]
    fn wait(&mut self, waiting: Waiting) {
        if let Numbered::Request { slot } = waiting.message
            && let Some(entry) = self.requester.get_mut(slot)
        {
            entry.waits = true;
        }
        self.waiting.push_back(waiting);
    }

    /// Messages whose turn has come by the byte grant.
    pub(crate) fn next_granted(&mut self) -> Option<HeldFrame> {
        let Waiting { message, data, .. } = self.waiting.front()?;
        let (message, length) = (*message, data.len());
        let announced = self.is_announced(message, length);
        if !announced && !self.sending.take(length as u64) {
            return None;
        }
        let Waiting { header, data, extension, .. } = self.waiting.pop_front()?;
        if let Numbered::Request { slot } = message {
            self.requester.get_mut(slot)?.waits = false;
        }
        let head = self.frame(FrameKind::OneWay);
        let mut frame = OutgoingFrame { head, header: &header, data, extension, in_place: None };
        self.fill_frame(message, announced, &mut frame)?;
        let OutgoingFrame { head, data, extension, in_place, .. } = frame;
        Some(HeldFrame { head, header, data, extension, in_place })
    }

    /// Whether data of this length waits at our side until the peer says where it lands.
    #[inline]
    fn is_announced(&mut self, message: Numbered, length: usize) -> bool {
        length > self.theirs.immediate_bytes_max as usize && self.long_is_announced(message)
    }

    fn long_is_announced(&mut self, message: Numbered) -> bool {
        match message {
            Numbered::Request { slot } => {
                let entry = self.requester.get_mut(slot);
                entry.is_none_or(|entry| entry.kind == FrameKind::Request && !entry.data_lent)
            }
            Numbered::OneWay { .. } => true,
        }
    }

    /// Puts what a message is into its frame, once it has its grant; `None` if it has ended meanwhile.
    #[inline]
    fn fill_frame(
        &mut self,
        message: Numbered,
        announced: bool,
        frame: &mut OutgoingFrame<'_>,
    ) -> Option<()> {
        let head = &mut frame.head;
        let notify = match message {
            Numbered::Request { slot } => {
                let entry = self.requester.get_mut(slot)?;
                (head.kind, head.flags, head.room) = (entry.kind, entry.flags, entry.room);
                (head.slot, head.sequence) = (slot, entry.sequence);
                if entry.kind == FrameKind::RemoteWrite {
                    head.room = 0;
                }
                if entry.data_lent {
                    entry.kept = std::mem::take(&mut frame.data);
                    let sum = if self.crc { entry.kept.crc32c() } else { 0 };
                    // Checked against the peer's limit, a u32.
                    frame.in_place = Some((entry.kept.len() as u32, sum));
                    // The sender hears of it with the response.
                    return Some(());
                }
                if announced {
                    (entry.announced, entry.kept) = (true, std::mem::take(&mut frame.data));
                    // Checked against the peer's `data_bytes_max`.
                    head.data_length = entry.kept.len() as u32;
                }
                &mut entry.notify
            }
            Numbered::OneWay { sequence } => {
                let entry = self.one_way_out.get_mut(sequence)?;
                (head.flags, head.sequence) = (entry.flags, sequence);
                if announced {
                    head.data_length = frame.data.len() as u32;
                    entry.announced = Some(std::mem::take(&mut frame.data));
                }
                &mut entry.notify
            }
        };
        if announced {
            head.flags = head.flags.with(FrameFlags::ANNOUNCED);
        } else if let Some(token) = notify.take() {
            self.notices.push_back((SentFrame::from(&*head), token));
        }
        Some(())
    }
}
