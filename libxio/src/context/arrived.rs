//! Messages of the peer in the application's hands. What belongs to one is a record that is made once and used again:
//! however often a message changes hands, only a pointer moves.

use super::handle::{DroppedMessage, DroppedMessages};
use super::handles::{Connection, RequestId};
use crate::wire::{FrameFlags, FrameHead};
use crate::{HeaderBytes, Sgl};
use std::sync::Arc;

/// Records kept for the next messages; more than this many in use at a time are rare, and made anew.
const SPARE_MAX: usize = 4096;

/// Which message it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MessageId {
    Request(RequestId),
    OneWay { sequence: u32 },
}

/// What belongs to a message that has arrived, or was announced. Dropped while armed, it tells the context.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub connection: Connection,
    pub message: MessageId,
    pub header: HeaderBytes,
    pub data: Sgl,
    /// The peer's memory where the response's data is wanted; empty where it travels.
    pub landing: Sgl,
    /// Length of the data as it arrived or was announced.
    pub data_length: u32,
    /// What the byte grant gets back at the message's end.
    pub granted: u32,
    pub room: u32,
    /// The data has not been sent yet.
    pub announced: bool,
    /// A receipt is wanted and was not given yet.
    pub wants_receipt: bool,
    pub more: bool,
    /// The turn in which it came, in nanoseconds of the context.
    pub arrived_ns: u64,
    armed: bool,
    dropped: Arc<DroppedMessages>,
}

impl Arrived {
    /// The request's number; of a one-way message, one that no request has.
    #[inline]
    pub(crate) fn request_id(&self) -> RequestId {
        match self.message {
            MessageId::Request(id) => id,
            MessageId::OneWay { .. } => RequestId { slot: 0, sequence: 0 },
        }
    }

    /// The one-way message's number, or 0.
    pub(crate) fn sequence(&self) -> u32 {
        match self.message {
            MessageId::OneWay { sequence } => sequence,
            MessageId::Request(_) => 0,
        }
    }

    /// From now on the application answers for it: to drop it is an answer too.
    pub(crate) fn arm(&mut self) {
        self.armed = true;
    }

    /// It has ended, or goes on without the application.
    #[inline]
    pub(crate) fn disarm(&mut self) {
        self.armed = false;
    }
}

impl Drop for Arrived {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let Arrived { granted: data_length, wants_receipt, .. } = *self;
        let message = match self.message {
            MessageId::Request(id) => DroppedMessage::Request { id, data_length },
            MessageId::OneWay { sequence } if self.announced => {
                DroppedMessage::Announced { sequence, wants_receipt }
            }
            MessageId::OneWay { sequence } => DroppedMessage::OneWay { sequence, data_length, wants_receipt },
        };
        self.dropped.queue.push((self.connection, message));
        self.dropped.waker.wake();
    }
}

/// The records of a context that are in nobody's hands.
#[derive(Debug)]
pub(crate) struct Records {
    #[expect(clippy::vec_box, reason = "the records move into messages, and back, as boxes")]
    spare: Vec<Box<Arrived>>,
    pub dropped: Arc<DroppedMessages>,
}

impl Records {
    pub(crate) fn new(dropped: Arc<DroppedMessages>) -> Records {
        Records { spare: Vec::new(), dropped }
    }

    /// A record for what a frame brings, armed.
    #[inline]
    pub(crate) fn take(
        &mut self,
        connection: Connection,
        message: MessageId,
        head: &FrameHead,
        header: &[u8],
        now_ns: u64,
    ) -> Box<Arrived> {
        let mut record = self.spare.pop().unwrap_or_else(|| {
            Box::new(Arrived {
                connection,
                message,
                header: HeaderBytes::new(),
                data: Sgl::new(),
                landing: Sgl::new(),
                data_length: 0,
                granted: 0,
                room: 0,
                announced: false,
                wants_receipt: false,
                more: false,
                arrived_ns: now_ns,
                armed: false,
                dropped: Arc::clone(&self.dropped),
            })
        });
        record.connection = connection;
        record.message = message;
        record.header.extend_from_slice(header);
        record.data_length = head.data_length;
        record.granted = head.data_in_frame();
        record.room = head.room;
        record.announced = head.flags.contains(FrameFlags::ANNOUNCED);
        record.wants_receipt = head.flags.contains(FrameFlags::RECEIPT);
        record.more = head.flags.contains(FrameFlags::MORE);
        record.arrived_ns = now_ns;
        record.armed = true;
        record
    }

    /// The message has ended; its memory is let go.
    #[inline]
    pub(crate) fn give_back(&mut self, mut record: Box<Arrived>) {
        record.armed = false;
        // A long header's memory is in no budget.
        if record.header.spilled() {
            record.header = HeaderBytes::new()
        } else {
            record.header.clear()
        }
        record.data.clear();
        record.landing.clear();
        if self.spare.len() < SPARE_MAX {
            self.spare.push(record);
        }
    }
}
