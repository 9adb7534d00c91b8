//! Data that comes in pieces: where it lands, the wait for memory, and its end.

use super::{Receiving, Stream};
use crate::HeaderBytes;
use crate::mem::Sgl;
use crate::transport::{ByteSocket, LinkError, Place, Sink};
use crate::wire::{FrameHead, Violation};

impl<S: ByteSocket> Stream<S> {
    /// Asks where the data of a frame lands.
    pub(super) fn begin_data(
        &mut self,
        head: FrameHead,
        header: HeaderBytes,
        landing: Sgl,
        first: bool,
        sink: &mut dyn Sink,
    ) -> Result<(), LinkError> {
        let place = if self.discarding { Place::Discard } else { sink.place(&head, &header, first)? };
        let into = match place {
            Place::Into(list) => {
                debug_assert_eq!(list.len(), head.data_length as usize);
                Some(list)
            }
            Place::Discard => None,
            Place::Later => {
                self.state = Receiving::Stalled { head, header, landing };
                return Ok(());
            }
        };
        let padding_left = usize::from(head.data_padding);
        self.state = Receiving::Data { head, header, landing, into, padding_left, done: 0 };
        Ok(())
    }

    /// All data of a frame has arrived.
    pub(super) fn end_data(&mut self, sink: &mut dyn Sink) -> Result<(), LinkError> {
        let Receiving::Data { head, header, landing, into, .. } =
            std::mem::replace(&mut self.state, Receiving::Head)
        else {
            return Ok(());
        };
        if self.discarding {
            return Ok(());
        }
        if self.limits.crc && into.as_ref().is_some_and(|list| list.crc32c() != head.data_crc) {
            return Err(Violation::DataChecksum.into());
        }
        if let Some(limits) = sink.deliver(&head, &header, into.unwrap_or_default(), landing)? {
            self.limits = limits;
        }
        Ok(())
    }

    /// Tries again to find a place for the data of a stalled frame.
    pub(super) fn retry_stalled(
        &mut self,
        sink: &mut dyn Sink,
        frames: &mut usize,
    ) -> Result<bool, LinkError> {
        match std::mem::replace(&mut self.state, Receiving::Head) {
            Receiving::Stalled { head, header, landing } => {
                self.begin_data(head, header, landing, false, sink)?;
            }
            other => {
                self.state = other;
                return Ok(true);
            }
        }
        if matches!(self.state, Receiving::Stalled { .. }) {
            return Ok(false);
        }
        let stash = std::mem::take(&mut self.stash);
        self.parse(&stash, sink, frames)?;
        Ok(!matches!(self.state, Receiving::Stalled { .. }))
    }
}
