//! Frames whose data lies in memory that both ends reach, and requests that say where the answer's shall land.

use super::{Stream, link_error};
use crate::mem::Sgl;
use crate::transport::{ByteSocket, LinkError, Place, Sink};
use crate::wire::{Extension, FrameFlags, FrameHead, FrameKind, PlacedPiece, Violation};

impl<S: ByteSocket> Stream<S> {
    /// A frame with an extension: finds the landing, and takes the frame whole if its data is in place.
    #[inline]
    pub(super) fn take_in_place(
        &mut self,
        head: &FrameHead,
        extension: &[u8],
        header: &[u8],
        landing: &mut Sgl,
        sink: &mut dyn Sink,
    ) -> Result<bool, LinkError> {
        let extension = Extension::decode(head.kind, extension)?;
        let wrong = |why| Err(LinkError::Violation(Violation::BadPlacement(why)));
        if head.flags.contains(FrameFlags::ANNOUNCED) {
            return wrong("data that is only announced has no place, nor has its answer");
        }
        let has_data = extension.has_data(head.kind);
        let limit = self.limits.immediate_bytes_max;
        if !has_data && head.data_length > limit {
            return Err(Violation::NotAnnounced { length: head.data_length, limit }.into());
        }
        if has_data && (head.data_length == 0 || head.data_padding != 0) {
            return wrong("data in place has a length and no padding");
        }
        if self.discarding {
            return Ok(has_data);
        }
        *landing = self.borrow(extension.landing())?;
        if !landing.is_empty() && landing.len() != head.room as usize {
            return wrong("the landing is not as long as the room");
        }
        if !has_data {
            return Ok(false);
        }
        let data = if matches!(head.kind, FrameKind::Request | FrameKind::RemoteWrite) {
            let data = self.borrow(extension.data())?;
            if data.len() != head.data_length as usize {
                return wrong("the pieces are not as long as the data");
            }
            sink.in_place(head)?;
            Some(data)
        } else {
            match sink.place(head, header, true)? {
                Place::Into(list) => Some(list),
                Place::Discard => None,
                Place::Later => return wrong("there was no landing for this response"),
            }
        };
        if self.limits.crc && data.as_ref().is_some_and(|list| list.crc32c() != head.data_crc) {
            return Err(Violation::DataChecksum.into());
        }
        let landing = std::mem::take(landing);
        if let Some(limits) = sink.deliver(head, header, data.unwrap_or_default(), landing)? {
            self.limits = limits;
        }
        Ok(true)
    }

    /// The peer's memory at these places.
    #[inline]
    fn borrow(&mut self, pieces: impl Iterator<Item = PlacedPiece>) -> Result<Sgl, LinkError> {
        let mut list = Sgl::new();
        for piece in pieces {
            list.push(self.socket.borrow(piece).map_err(|cause| link_error(&cause))?)
                .map_err(|_| Violation::BadPlacement("its pieces are longer than any message"))?;
        }
        Ok(list)
    }
}
