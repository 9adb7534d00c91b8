//! Frames that have come whole, as most with little data do: nothing has to be kept of them until more comes.

use crate::mem::Sgl;
use crate::wire::{FrameHead, Violation};

/// The data of a frame and what follows it, if all of it is there.
#[inline]
pub(super) fn data<'a>(head: &FrameHead, bytes: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let bytes = bytes.get(usize::from(head.data_padding)..)?;
    bytes.split_at_checked(head.data_length as usize)
}

impl Sgl {
    /// Puts the data of a frame, all of which has come, where it was given a place.
    ///
    /// # Errors
    /// [`Violation::DataChecksum`], where there is one (`crc`) that does not fit.
    #[inline]
    pub(crate) fn fill(&mut self, data: &[u8], head: &FrameHead, crc: bool) -> Result<(), Violation> {
        debug_assert_eq!(self.len(), data.len());
        self.scatter(0, data);
        if crc && self.crc32c() != head.data_crc {
            return Err(Violation::DataChecksum);
        }
        Ok(())
    }
}
