//! One gathered send of what is queued: all of it, or what fills packets, so that a short rest may go with what comes after it.
//!
//! A packet costs the kernels of both ends as much as ten thousand bytes do, or more, beside what its bytes cost: on
//! loopback both happen within the send.

use super::{Queued, SEND_BYTES_MAX, Stream, link_error};
use crate::mem::{IoVec, PeerPieces};
use crate::sys::IO_VECS_MAX;
use crate::transport::{ByteSocket, Flushed, LinkError, Sink};
use smallvec::SmallVec;
use std::io;

impl<S: ByteSocket> Stream<S> {
    /// Sends what is queued, by one call: whole frames of at most `bytes_max`, but at least one.
    pub(super) fn send_queued(
        &mut self,
        bytes_max: usize,
        sink: &mut dyn Sink,
    ) -> Result<Flushed, LinkError> {
        if self.fenced {
            return Ok(Flushed { bytes: 0, blocked: false });
        }
        let laid_out = std::mem::take(&mut self.laid_out_bytes);
        let owes_publish = std::mem::take(&mut self.owes_publish);
        if laid_out > 0 || owes_publish {
            self.socket.publish().map_err(|cause| link_error(&cause))?;
            self.tell_laid_out(sink);
        }
        if self.queue.is_empty() {
            return Ok(Flushed { bytes: laid_out, blocked: false });
        }
        let mut pieces: SmallVec<[IoVec<'_>; IO_VECS_MAX]> = SmallVec::new();
        let mut guarded = PeerPieces::default();
        let (mut offered, mut bytes) = (0, 0);
        // A run of staged bytes without data between them is one piece.
        let mut run = self.staging_sent..self.staging_sent;
        for queued in &self.queue {
            bytes += queued.left();
            if bytes > bytes_max && bytes > queued.left() {
                break;
            }
            run.end += queued.staged - queued.staged_sent;
            let left = queued.data.len() - queued.data_sent;
            if left == 0 {
                continue;
            }
            if !run.is_empty() {
                offered += run.len();
                pieces.push(IoVec::from_slice(&self.staging[run.clone()]));
                run.start = run.end;
            }
            let covered = queued.data.io_vecs(queued.data_sent, usize::MAX, &mut pieces, IO_VECS_MAX - 1);
            guarded.add(&queued.data);
            offered += covered;
            // The last place is kept for a run, so a piece cut short ends the send.
            if covered < left || pieces.len() + 2 > IO_VECS_MAX {
                run.start = run.end;
                break;
            }
        }
        if !run.is_empty() {
            offered += run.len();
            pieces.push(IoVec::from_slice(&self.staging[run]));
        }
        match guarded.during(|| self.socket.send(&pieces)) {
            Ok(sent) => {
                drop((pieces, guarded));
                self.advance_sent(sent, sink);
                Ok(Flushed { bytes: laid_out + sent, blocked: sent < offered })
            }
            Err(cause) => match cause.kind() {
                io::ErrorKind::WouldBlock => Ok(Flushed { bytes: laid_out, blocked: true }),
                io::ErrorKind::Interrupted => Ok(Flushed { bytes: laid_out, blocked: false }),
                _ => Err(link_error(&cause)),
            },
        }
    }

    /// Most bytes to send of what is queued, where a short rest may wait: whole frames that fill packets, if the rest is too
    /// little for one of its own.
    pub(super) fn whole_packets(&self) -> usize {
        let Some(packet) = self.socket.packet_bytes().filter(|packet| self.unsent > *packet) else {
            return SEND_BYTES_MAX;
        };
        let filled = self.unsent - self.unsent % packet;
        let mut rest = 0;
        for bytes in self.queue.iter().rev().map(Queued::left) {
            if self.unsent - rest <= filled || rest > packet / 2 {
                break;
            }
            rest += bytes;
        }
        if rest > packet / 2 { SEND_BYTES_MAX } else { SEND_BYTES_MAX.min(self.unsent - rest) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::zeros;
    use crate::transport::{Link, OutgoingFrame, SentFrame};
    use crate::wire::{FRAME_HEAD_BYTES, FrameHead, FrameKind};
    use crate::{HeaderBytes, Sgl};
    use std::os::fd::RawFd;

    const PACKET: usize = 65_160;

    /// Takes everything, and notes how much came at a time.
    #[derive(Debug, Default)]
    struct Taken(Vec<usize>);

    impl ByteSocket for Taken {
        fn send(&mut self, pieces: &[IoVec<'_>]) -> io::Result<usize> {
            let bytes = pieces.iter().map(IoVec::len).sum();
            self.0.push(bytes);
            Ok(bytes)
        }

        fn packet_bytes(&self) -> Option<usize> {
            Some(PACKET)
        }

        fn receive(&mut self, _pieces: &mut [IoVec<'_>]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn readiness(&self) -> Option<RawFd> {
            None
        }

        fn shutdown(&mut self) {}
    }

    /// Counts the frames that are gone.
    struct Gone(usize);

    impl Sink for Gone {
        fn frame_sent(&mut self, _sent: SentFrame, _data: Sgl) {
            self.0 += 1;
        }
    }

    /// Queues so many frames with data of this length, and sends what fills packets: how many frames go.
    fn sent(stream: &mut Stream<Taken>, count: usize, length: usize) -> usize {
        for _ in 0..count {
            let head = FrameHead::new(FrameKind::Response);
            let header = HeaderBytes::new();
            stream.send(&mut OutgoingFrame::new(head, &header, zeros(length)));
        }
        let mut sink = Gone(0);
        let flushed = stream.flush_packets(&mut sink).unwrap();
        assert!(!flushed.blocked);
        sink.0
    }

    #[test]
    fn a_short_rest_waits_for_what_comes_after_it() {
        let mut stream = Stream::new(Taken::default(), String::new());
        let frame = FRAME_HEAD_BYTES + 4096;
        // Fifteen fill a packet.
        assert_eq!(sent(&mut stream, 17, 4096), 15);
        assert_eq!(sent(&mut stream, 13, 4096), 15);
        assert_eq!(stream.unsent_bytes(), 0);
        // The same, with two that waited: they are the first of those that go.
        assert_eq!(sent(&mut stream, 17, 4096), 15);
        assert_eq!(sent(&mut stream, 15, 4096), 15);
        assert_eq!(stream.unsent_bytes(), 2 * frame);
        let mut sink = Gone(0);
        stream.flush(&mut sink).unwrap();
        assert_eq!((sink.0, stream.unsent_bytes()), (2, 0));
        assert_eq!(stream.socket.0, [15 * frame, 15 * frame, 15 * frame, 15 * frame, 2 * frame]);
    }

    #[test]
    fn what_is_less_than_a_packet_or_far_more_than_a_rest_goes_at_once() {
        let mut stream = Stream::new(Taken::default(), String::new());
        assert_eq!(sent(&mut stream, 15, 4096), 15);
        assert_eq!(sent(&mut stream, 1, 1 << 20), 1);
        assert_eq!(sent(&mut stream, 2, 64 << 10), 2);
        assert_eq!(sent(&mut stream, 23, 4096), 23, "eight frames are half of a packet");
        assert_eq!(sent(&mut stream, 22, 4096), 15);
        assert_eq!(stream.unsent_frames(), 7);
        // Less than a packet: they don't wait again.
        assert_eq!(sent(&mut stream, 0, 0), 7);
    }

    #[test]
    fn frames_without_number_are_not_counted_one_by_one() {
        let mut stream = Stream::new(Taken::default(), String::new());
        let frames = 20_000;
        let gone = sent(&mut stream, frames, 8);
        let rest = (frames - gone) * (FRAME_HEAD_BYTES + 8);
        assert!(gone < frames && rest <= PACKET / 2, "{gone} frames, {rest} bytes wait");
        assert!((gone * (FRAME_HEAD_BYTES + 8)) <= SEND_BYTES_MAX);
    }
}
