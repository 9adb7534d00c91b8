//! One-way messages from the application's side: send, release, receipts.

use super::Context;
use super::connection::ConnectionState;
use super::event::{Event, Request};
use super::handles::Connection;
use super::message::{OneWay, OutgoingOneWay, Receipt};
use super::outgoing::{Numbered, Unacknowledged};
use super::requests::{check_message, message_flags, stale};
use crate::reactor::Key;
use crate::transport::OutgoingFrame;
use crate::wire::{
    ExtensionBytes, FrameFlags, FrameHead, FrameKind, READY_NOT_WANTED, RECEIPT_ACCEPTED, RECEIPT_REJECTED,
};
use crate::{Error, Result};

impl Context {
    /// Queues a one-way message; it is sent at the end of the turn, or by [`Context::flush`]. Messages and requests of a
    /// connection arrive in the order in which they were sent. It has no end of its own, unless a receipt
    /// ([`Event::Receipt`](crate::Event::Receipt)) or a notice ([`Event::Sent`](crate::Event::Sent)) is asked for.
    ///
    /// # Errors
    /// [`Error::OneWayExhausted`] when as many messages are unacknowledged as the peer takes:
    /// [`Event::SendReady`](crate::Event::SendReady) follows. [`Error::LimitExceeded`] above the peer's limits;
    /// [`Error::Unsupported`] for a message with a timeout; [`Error::StaleHandle`].
    pub fn send(&mut self, connection: Connection, message: OutgoingOneWay<'_>) -> Result<()> {
        let (_, state) = self.open_connection(connection)?;
        let OutgoingOneWay { header, data, token, options } = message;
        check_message(state, header, &data)?;
        if options.timeout.is_some() {
            return Err(Error::Unsupported("a one-way message has no answer that could be late"));
        }
        let entry = Unacknowledged {
            token,
            flags: message_flags(&options),
            announced: None,
            receipt_due: options.receipt,
            notify: options.notify,
        };
        let Ok(sequence) = state.one_way_out.begin(entry) else {
            state.send_blocked = true;
            return Err(Error::OneWayExhausted(state.theirs.one_way_max));
        };
        state.counts.one_way_sent += 1;
        let link = state.link;
        let frame = state.start(Numbered::OneWay { sequence }, header, data, ExtensionBytes::new());
        self.statistics.one_way_sent.add(1);
        self.statistics.one_way_unacknowledged.add(1);
        self.send_or_wait(link, frame);
        Ok(())
    }

    /// Ends a one-way message of the peer: its data is dropped, the sender's grants are renewed, and the receipt goes
    /// out if one was asked for.
    ///
    /// # Errors
    /// [`Error::StaleHandle`] when its connection has ended.
    pub fn release(&mut self, message: OneWay, receipt: Receipt) -> Result<()> {
        let OneWay { record } = message;
        self.check_own(&record)?;
        let (connection, sequence, granted) = (record.connection, record.sequence(), record.granted);
        let wants_receipt = record.wants_receipt;
        self.records.give_back(record);
        let key = connection.key(self.number).ok_or_else(stale)?;
        let receipt = wants_receipt.then_some(receipt);
        if self.release_one_way(key, sequence, granted, receipt) { Ok(()) } else { Err(stale()) }
    }

    /// Tells the requester that its request was read, before it is answered.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when no receipt was asked for, or it was given; [`Error::StaleHandle`] when the connection
    /// has ended.
    pub fn give_receipt(&mut self, request: &mut Request, receipt: Receipt) -> Result<()> {
        let record = &mut *request.record;
        if !record.wants_receipt {
            return Err(Error::Unsupported("the request wants no receipt, or has it already"));
        }
        let stale = Error::StaleHandle("connection");
        let key = record.connection.key(self.number).ok_or(stale.clone())?;
        let state = self.connections.get_mut(key).ok_or(stale)?;
        record.wants_receipt = false;
        let head = FrameHead {
            room: number_of(receipt),
            ..state.frame_for(FrameKind::Receipt, record.request_id())
        };
        let link = state.link;
        self.statistics.receipts_given.add(1);
        self.send_frame(link, OutgoingFrame::bare(head));
        Ok(())
    }

    /// How many more one-way messages can be sent before [`Error::OneWayExhausted`].
    ///
    /// # Errors
    /// [`Error::StaleHandle`].
    pub fn free_one_way(&self, connection: Connection) -> Result<u32> {
        Ok(self.connection_state(connection)?.one_way_out.free())
    }

    /// False when there is no such message (any more).
    pub(super) fn release_one_way(
        &mut self,
        connection: Key,
        sequence: u32,
        data_length: u32,
        receipt: Option<Receipt>,
    ) -> bool {
        let Some(state) = self.connections.get_mut(connection) else { return false };
        let link = state.link;
        if let Some(receipt) = receipt {
            // Made before the release, so that its acknowledgement does not reach the message.
            let mut head = state.frame(FrameKind::Receipt);
            (head.flags, head.sequence, head.room) = (FrameFlags::ONE_WAY, sequence, number_of(receipt));
            self.statistics.receipts_given.add(1);
            self.send_frame(link, OutgoingFrame::bare(head));
        }
        let Some(state) = self.connections.get_mut(connection) else { return false };
        if !state.one_way_in.release(sequence) {
            return false;
        }
        state.one_way_held -= 1;
        state.receiving.release(u64::from(data_length));
        let credit = state.due_credit();
        self.statistics.one_way_held.subtract(1);
        if let Some(credit) = credit {
            self.send_frame(link, credit);
        }
        true
    }

    /// The data of an announced one-way message is not wanted.
    pub(super) fn decline_one_way(&mut self, connection: Key, sequence: u32) {
        let Some(state) = self.connections.get_mut(connection) else { return };
        let mut head = state.frame(FrameKind::Ready);
        (head.flags, head.sequence, head.room) = (FrameFlags::ONE_WAY, sequence, READY_NOT_WANTED);
        let link = state.link;
        self.send_frame(link, OutgoingFrame::bare(head));
    }

    /// The connection is lost: what was asked for about its messages is answered with the reason.
    pub(super) fn end_one_way(&mut self, state: &mut ConnectionState, reason: &Error) {
        let connection = state.handle;
        for (_, token) in state.notices.drain(..) {
            self.events.push_back(Event::Sent { connection, token, outcome: Err(reason.clone()) });
        }
        for entry in state.one_way_out.drain() {
            self.statistics.one_way_unacknowledged.subtract(1);
            if let Some(token) = entry.notify {
                self.events.push_back(Event::Sent { connection, token, outcome: Err(reason.clone()) });
            }
            if entry.receipt_due {
                let (token, outcome) = (entry.token, Err(reason.clone()));
                self.events.push_back(Event::Receipt { connection, token, outcome });
            }
        }
    }
}

fn number_of(receipt: Receipt) -> u32 {
    match receipt {
        Receipt::Accepted => RECEIPT_ACCEPTED,
        Receipt::Rejected => RECEIPT_REJECTED,
    }
}
