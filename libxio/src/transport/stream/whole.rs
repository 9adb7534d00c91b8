//! Frames that have come whole, as most with little data do: nothing has to be kept of them until more comes.

use super::Stream;
use crate::mem::Sgl;
use crate::transport::{ByteSocket, LinkError, Place, Sink};
use crate::wire::{FrameHead, Violation};

/// The data of a frame and what follows it, if all of it is there.
#[inline]
pub(super) fn data<'a>(head: &FrameHead, bytes: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let bytes = bytes.get(usize::from(head.data_padding)..)?;
    bytes.split_at_checked(head.data_length as usize)
}

impl<S: ByteSocket> Stream<S> {
    /// A frame whose data has come with its head.
    pub(super) fn take_whole(
        &mut self,
        head: &FrameHead,
        header: &[u8],
        landing: Sgl,
        place: Place,
        data: &[u8],
        sink: &mut dyn Sink,
    ) -> Result<(), LinkError> {
        let mut list = Sgl::new();
        if let Place::Into(place) = place {
            debug_assert_eq!(place.len(), data.len());
            list = place;
            list.scatter(0, data);
            if self.limits.crc && list.crc32c() != head.data_crc {
                return Err(Violation::DataChecksum.into());
            }
        }
        if let Some(limits) = sink.deliver(head, header, list, landing)? {
            self.limits = limits;
        }
        Ok(())
    }
}
