//! Frames that are with the transport, wholly or in part: who sent them is told, and the room is used again.

use super::{Queued, STAGING_COMPACT_BYTES, STAGING_KEPT_BYTES, Stream};
use crate::transport::{ByteSocket, Sink};

impl<S: ByteSocket> Stream<S> {
    /// What was laid out is handed over.
    pub(super) fn tell_laid_out(&mut self, sink: &mut dyn Sink) {
        for (name, data) in self.laid_out.drain(..) {
            sink.frame_sent(name, data);
        }
    }

    pub(super) fn advance_sent(&mut self, mut sent: usize, sink: &mut dyn Sink) {
        self.unsent -= sent;
        if self.unsent == 0 {
            for Queued { name, data, .. } in self.queue.drain(..) {
                sink.frame_sent(name, data);
            }
        }
        while let Some(front) = self.queue.front_mut() {
            let staged = sent.min(front.staged - front.staged_sent);
            front.staged_sent += staged;
            self.staging_sent += staged;
            sent -= staged;
            let data = sent.min(front.data.len() - front.data_sent);
            front.data_sent += data;
            sent -= data;
            if front.staged_sent < front.staged || front.data_sent < front.data.len() {
                break;
            }
            if let Some(Queued { name, data, .. }) = self.queue.pop_front() {
                sink.frame_sent(name, data);
            }
        }
        if self.queue.is_empty() {
            self.staging.clear();
            self.staging.shrink_to(STAGING_KEPT_BYTES);
            self.staging_sent = 0;
        } else if self.staging_sent >= STAGING_COMPACT_BYTES.max(self.staging.len() / 2) {
            self.staging.drain(..self.staging_sent);
            self.staging_sent = 0;
        }
    }
}
