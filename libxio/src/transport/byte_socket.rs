//! What a transport that is an ordered stream of bytes has to bring: [`Stream`](super::Stream) makes frames of it.

use super::{Armed, WakeWord};
use crate::mem::IoVec;
use crate::wire::{HeadWords, PlacedPiece, Violation};
use crate::{Buffer, Sgl};
use std::fmt::Debug;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// A non-blocking ordered stream of bytes.
pub trait ByteSocket: Send + Debug {
    /// Sends the pieces in order; `WouldBlock` where there is no room (or no connection yet). A part may be taken.
    ///
    /// # Errors
    /// The stream is broken.
    fn send(&mut self, pieces: &[IoVec<'_>]) -> io::Result<usize>;
    /// What travels together as one packet at the best, in bytes; `None` where there are no packets.
    fn packet_bytes(&self) -> Option<usize> {
        None
    }
    /// Whether [`ByteSocket::lay_out`] is worth trying.
    fn lays_out(&self) -> bool {
        false
    }
    /// Lays out a frame where [`ByteSocket::publish`] hands it to the peer, behind what was laid out before: its head (in words whose lowest byte
    /// comes first), its `parts` in order, then `data`. False, and nothing is laid out, where that can't be done with all of it: it goes with
    /// [`ByteSocket::send`] then, which sends what was laid out before it too.
    fn lay_out(&mut self, head: HeadWords, parts: [&[u8]; 2], data: &Sgl) -> bool {
        let _ = (head, parts, data);
        false
    }
    /// Hands over what was laid out.
    ///
    /// # Errors
    /// The stream is broken.
    fn publish(&mut self) -> io::Result<()> {
        Ok(())
    }
    /// As [`ByteSocket::publish`], of which another call follows soon: whether the peer has to be woken may be seen to then.
    ///
    /// # Errors
    /// The stream is broken.
    fn publish_early(&mut self) -> io::Result<()> {
        self.publish()
    }
    /// Receives into the pieces in order; `WouldBlock` where there is nothing, 0 at the end.
    ///
    /// # Errors
    /// The stream is broken.
    fn receive(&mut self, pieces: &mut [IoVec<'_>]) -> io::Result<usize>;
    /// As [`Link::has_arrived`](super::Link::has_arrived).
    fn has_arrived(&self) -> Option<bool> {
        None
    }
    /// To wait on; `None` if it has to be polled.
    fn readiness(&self) -> Option<RawFd>;
    /// As [`Link::is_told_by_descriptor`](super::Link::is_told_by_descriptor).
    fn is_told_by_descriptor(&self) -> bool {
        false
    }
    /// Ends both directions at once.
    fn shutdown(&mut self);

    /// As [`Link::peer_is_local`](super::Link::peer_is_local).
    fn peer_is_local(&self) -> bool {
        false
    }
    /// As [`Link::arm`](super::Link::arm).
    fn arm(&mut self, reads: bool, blocked: bool) -> Armed {
        Armed::for_descriptor(reads, blocked)
    }
    /// As [`Link::wake_word`](super::Link::wake_word).
    fn wake_word(&mut self) -> Option<WakeWord> {
        None
    }
    /// As [`Link::descriptor_is_ready`](super::Link::descriptor_is_ready).
    fn descriptor_is_ready(&mut self) {}
    /// Whether a send costs so little that what is queued need not wait for more, and the peer is awake to take it.
    fn sends_early(&self) -> bool {
        false
    }
    /// As [`Link::shares_memory`](super::Link::shares_memory).
    fn shares_memory(&self) -> bool {
        false
    }
    /// As [`Link::lends`](super::Link::lends).
    fn lends(&self) -> bool {
        false
    }
    /// Where the peer finds this memory in place; `None` where it can't reach it.
    fn lend(&mut self, buffer: &Buffer) -> Option<PlacedPiece> {
        let _ = buffer;
        None
    }
    /// The peer's memory at this place.
    ///
    /// # Errors
    /// The stream is broken, or there is no such place (a [`Violation`] within the error).
    fn borrow(&mut self, piece: PlacedPiece) -> io::Result<Buffer> {
        let _ = piece;
        Err(io::Error::other(Violation::BadPlacement("this link shares no memory")))
    }
    /// As [`Link::is_released`](super::Link::is_released).
    fn is_released(&mut self, wait: Duration) -> bool {
        let _ = wait;
        true
    }
}
