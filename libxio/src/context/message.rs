//! One-way messages, announced messages, and what all messages can be sent with.

use super::arrived::{Arrived, MessageId};
use super::handles::{Connection, RequestId};
use crate::Sgl;
use std::time::Duration;

/// What a message can be sent with beside its parts. The default is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SendOptions {
    /// Requests, one-way messages: ask for a receipt ([`Event::Receipt`](crate::Event::Receipt)).
    pub receipt: bool,
    /// Tell, by [`Event::Sent`](crate::Event::Sent) with this token, when the message is with the transport.
    pub notify: Option<u64>,
    /// Say to the receiver that more messages follow at once. What is sent within a turn travels together in any case.
    pub more: bool,
    /// Requests: time for the answer. When it is over, the request ends with
    /// [`Error::DeadlineExceeded`](crate::Error::DeadlineExceeded) and is cancelled; its slot stays in use, and its
    /// landing memory with the library, until the peer has confirmed ([`Event::Released`](crate::Event::Released)).
    pub timeout: Option<Duration>,
}

/// A one-way message to send.
#[derive(Debug, Default)]
pub struct OutgoingOneWay<'a> {
    /// The small leading part: at most the peer's `header_bytes_max`.
    pub header: &'a [u8],
    /// The data: at most the peer's `data_bytes_max`. It waits for the byte grant if need be.
    pub data: Sgl,
    /// Comes back with the receipt, if one is asked for.
    pub token: u64,
    /// How it is sent.
    pub options: SendOptions,
}

/// What a receiving application says about a message that it has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Receipt {
    /// It took the message.
    Accepted,
    /// It did not want it.
    Rejected,
}

/// What came of a cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CancelOutcome {
    /// The request ends with [`Error::Cancelled`](crate::Error::Cancelled).
    Cancelled,
    /// It has its answer.
    TooLate,
    /// The peer does not know the request.
    NotFound,
}

/// A one-way message of the peer. It counts against the peer's limits until [`Context::release`](crate::Context::release),
/// or until it is dropped; dropped, a receipt that was asked for says [`Receipt::Rejected`].
#[derive(Debug)]
pub struct OneWay {
    pub(crate) record: Box<Arrived>,
}

/// What every message of the peer has: its parts, and what its sender says of it.
macro_rules! parts_of_a_message {
    ($message:ident, $renewed:literal) => {
        impl $message {
            /// The connection it came by.
            #[must_use]
            #[inline]
            pub fn connection(&self) -> Connection {
                self.record.connection
            }

            /// The small leading part.
            #[must_use]
            #[inline]
            pub fn header(&self) -> &[u8] {
                &self.record.header
            }

            /// The data.
            #[must_use]
            #[inline]
            pub fn data(&self) -> &Sgl {
                &self.record.data
            }

            /// Takes the data out, to move it into a file operation, say.
            #[doc = $renewed]
            #[inline]
            pub fn take_data(&mut self) -> Sgl {
                std::mem::take(&mut self.record.data)
            }

            /// Whether its sender wants to know that it was read: see
            /// [`Context::give_receipt`](crate::Context::give_receipt).
            #[must_use]
            pub fn wants_receipt(&self) -> bool {
                self.record.wants_receipt
            }

            /// Whether its sender says that more messages follow at once, so that work may be gathered.
            #[must_use]
            pub fn more(&self) -> bool {
                self.record.more
            }
        }
    };
}
pub(super) use parts_of_a_message;

parts_of_a_message!(OneWay, "The sender's grants are renewed when the message is released.");

/// A message whose data has not been sent yet. [`Context::assign`](crate::Context::assign) says where it lands; then it
/// arrives as [`Event::Request`](crate::Event::Request) or [`Event::OneWay`](crate::Event::OneWay). Dropped, a request is
/// answered with [`Error::Unanswered`](crate::Error::Unanswered), a one-way message is released unseen.
#[derive(Debug)]
pub struct Incoming {
    pub(crate) record: Box<Arrived>,
}

impl Incoming {
    /// The connection it came by.
    #[must_use]
    pub fn connection(&self) -> Connection {
        self.record.connection
    }

    /// The small leading part.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        &self.record.header
    }

    /// Length of the data to come, in bytes.
    #[must_use]
    pub fn data_length(&self) -> u32 {
        self.record.data_length
    }

    /// The request's number, as [`Event::Cancel`](crate::Event::Cancel) names it; none for a one-way message.
    #[must_use]
    pub fn id(&self) -> Option<RequestId> {
        match self.record.message {
            MessageId::Request(id) => Some(id),
            MessageId::OneWay { .. } => None,
        }
    }
}
