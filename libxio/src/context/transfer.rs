//! Announced messages from the receiving application's side: where their data lands.

use super::Context;
use super::arrived::MessageId;
use super::connection::Transfer;
use super::message::Incoming;
use crate::transport::OutgoingFrame;
use crate::wire::{FrameFlags, FrameKind};
use crate::{Error, Result, Sgl};

impl Context {
    /// Says where the data of an announced message lands, and asks the sender for it. The message arrives, with this
    /// memory as its data, as [`Event::Request`](crate::Event::Request) or [`Event::OneWay`](crate::Event::OneWay). Where
    /// the memory is longer than the data it is cut. It is dropped when the connection ends first.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] where the memory is too short (the message is then dropped); [`Error::StaleHandle`] when
    /// the connection has ended.
    pub fn assign(&mut self, incoming: Incoming, mut memory: Sgl) -> Result<()> {
        let Incoming { mut record } = incoming;
        if memory.len() < record.data_length as usize {
            return Err(Error::LimitExceeded {
                what: "data of an announced message in bytes (beyond the memory assigned to it)",
                value: u64::from(record.data_length),
                limit: memory.len() as u64,
            });
        }
        if !memory.is_writable() {
            return Err(Error::Unsupported("data can't land in a static buffer"));
        }
        self.check_own(&record)?;
        // The context has it again.
        record.disarm();
        memory.truncate(record.data_length as usize);
        let stale = Error::StaleHandle("connection");
        let key = record.connection.key(self.number).ok_or(stale.clone())?;
        let state = self.connections.get_mut(key).ok_or(stale)?;
        let mut head = state.frame(FrameKind::Ready);
        match record.message {
            MessageId::Request(id) => (head.slot, head.sequence) = (id.slot, id.sequence),
            MessageId::OneWay { sequence } => (head.flags, head.sequence) = (FrameFlags::ONE_WAY, sequence),
        }
        state.transfers.push(Transfer { record, into: Some(memory) });
        let link = state.link;
        self.send_frame(link, OutgoingFrame::bare(head));
        Ok(())
    }
}
