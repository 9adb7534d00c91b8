//! Frames over any ordered stream of bytes: TCP here, Unix sockets and simulated ones alike.
//!
//! Sending: heads, headers and short data are laid out one after another in a staging buffer, other data stays where it
//! is; one gathered send a turn takes as much as the socket does. Receiving: one large receive into the context's scratch
//! memory is parsed in place; the rest of a payload is received straight to where it lands, with the scratch memory
//! behind it for the frames that follow.

mod in_place;
mod landing;
mod sending;
mod sent;
mod whole;

use super::{
    Armed, ByteSocket, COPIED_BYTES_MAX, Flushed, Lent, Link, LinkError, NotTaken, OutgoingFrame, Received,
    SentFrame, Sink, WakeWord, Whole,
};
use crate::HeaderBytes;
use crate::mem::{IoVec, PeerPieces, Sgl};
use crate::sys::{IO_VECS_MAX, prefetch, prefetch_bytes};
use crate::wire::{
    ExtensionWriter, FRAME_HEAD_BYTES, FrameFlags, FrameHead, FrameKind, FrameLimits, Violation,
};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// Most bytes handed to the socket in one send: keeps one link's turn short beside others.
const SEND_BYTES_MAX: usize = 2 << 20;
/// Frames that are sent without waiting for the end of the turn, where a send costs little: fewer cost more for each,
/// with more the peer waits where no more than these are in flight.
const EARLY_FRAMES: usize = 4;
/// Frames with at most so much data are laid out in a socket that can do that: more is better copied while the peer takes
/// what comes before it.
const LAID_OUT_DATA_MAX: usize = 4 << 10;
/// Data of at most so many bytes is copied behind its header: a piece of its own costs the kernel more.
const STAGED_DATA_MAX: usize = 512;
/// Sent bytes at the front of the staging buffer before it is compacted.
const STAGING_COMPACT_BYTES: usize = 4 << 10;
/// Capacity that an empty staging buffer keeps: a thousand frames with small headers.
const STAGING_KEPT_BYTES: usize = 256 << 10;
/// What the staging buffer and the queue grow by at least: a moment busier than those before it is rare, and finds room.
const STAGING_STEP_BYTES: usize = 16 << 10;
const QUEUE_STEP: usize = 128;
/// As much for frames laid out, of which there are few before they go: an idle connection keeps the room.
const LAID_OUT_STEP: usize = 32;
/// What the stash has room for from the start: a head, an extension and a small header, of which a receive may bring a part at any
/// time.
const STASH_BYTES: usize = 256;
/// Payloads with more left have only a little scratch memory behind them: the head of the next one is not copied.
const LARGE_PAYLOAD_BYTES: usize = 128 << 10;
/// That little.
const SCRATCH_BEHIND_LARGE_BYTES: usize = 4 << 10;

/// Frames over a byte stream.
#[derive(Debug)]
pub struct Stream<S> {
    socket: S,
    peer: String,
    limits: FrameLimits,
    /// Heads, headers, padding and short data of the queued frames, in order.
    staging: Vec<u8>,
    /// Bytes of `staging` that were sent.
    staging_sent: usize,
    queue: VecDeque<Queued>,
    /// Bytes of `queue` not yet sent.
    unsent: usize,
    /// Frames that the socket has laid out and not handed over, before all that are queued; and their bytes.
    laid_out: Vec<(SentFrame, Sgl)>,
    laid_out_bytes: usize,
    /// Some were handed over early, and whether the peer has to be woken was not seen to.
    owes_publish: bool,
    state: Receiving,
    /// Received and not parsed: part of a head and header, or what came behind data that found no memory.
    stash: Vec<u8>,
    /// The stash holds whole frames: the last receive had brought enough for a turn.
    paused: bool,
    discarding: bool,
    fenced: bool,
}

/// A frame in the send queue.
#[derive(Debug)]
struct Queued {
    /// Bytes of it in the staging buffer, and how many of them were sent.
    staged: usize,
    staged_sent: usize,
    /// The data, and how much of it needs not be sent from where it is (any more): all, where it is staged.
    data: Sgl,
    data_sent: usize,
    /// What is reported when it is gone.
    name: SentFrame,
}

impl Queued {
    /// Bytes of it that were not sent.
    #[inline]
    fn left(&self) -> usize {
        self.staged - self.staged_sent + self.data.len() - self.data_sent
    }
}

#[derive(Debug)]
enum Receiving {
    /// At the start of a frame.
    Head,
    /// The head is known, its data has no place yet.
    Stalled { head: FrameHead, header: HeaderBytes, landing: Sgl },
    /// Data is landing; `into` is `None` where it is discarded.
    Data {
        head: FrameHead,
        header: HeaderBytes,
        /// The peer's memory for the response.
        landing: Sgl,
        into: Option<Sgl>,
        padding_left: usize,
        done: usize,
    },
}

impl<S: ByteSocket> Stream<S> {
    /// Frames over this socket; `peer` names the other end for people.
    #[must_use]
    pub fn new(socket: S, peer: String) -> Self {
        Stream {
            socket,
            peer,
            limits: FrameLimits::handshake(),
            staging: Vec::new(),
            staging_sent: 0,
            queue: VecDeque::new(),
            unsent: 0,
            laid_out: Vec::new(),
            laid_out_bytes: 0,
            owes_publish: false,
            state: Receiving::Head,
            stash: Vec::with_capacity(STASH_BYTES),
            paused: false,
            discarding: false,
            fenced: false,
        }
    }

    /// Parses `bytes`, which follow everything received before; what is left over goes into the stash.
    fn parse(&mut self, mut bytes: &[u8], sink: &mut dyn Sink, frames: &mut usize) -> Result<(), LinkError> {
        loop {
            match &mut self.state {
                Receiving::Head if sink.has_enough() => {
                    self.paused = !bytes.is_empty();
                    break;
                }
                Receiving::Head => {
                    let Some((head_bytes, rest)) = bytes.split_first_chunk::<FRAME_HEAD_BYTES>() else {
                        break;
                    };
                    let head = FrameHead::decode(head_bytes, &self.limits)?;
                    // Checked by `decode` against limits far below usize.
                    let extension_length = usize::from(head.extension_length);
                    let header_length = extension_length + head.header_length as usize;
                    if rest.len() < header_length {
                        break;
                    }
                    let (header, rest) = rest.split_at(header_length);
                    if self.limits.crc || has_checksum_always(head.kind) {
                        FrameHead::verify(head_bytes, header)?;
                    }
                    bytes = rest;
                    let (extension, header) = header.split_at(extension_length);
                    let mut landing = Sgl::new();
                    if extension_length > 0
                        && self.take_in_place(&head, extension, header, &mut landing, sink)?
                    {
                        *frames += 1;
                        continue;
                    }
                    if head.data_in_frame() == 0 {
                        *frames += 1;
                        if self.discarding {
                            continue;
                        }
                        if let Some(limits) = sink.deliver(&head, header, Sgl::new(), landing)? {
                            self.limits = limits;
                        }
                    } else if let Some((data, rest)) = whole::data(&head, bytes).filter(|_| !self.discarding)
                    {
                        // All of it has come: nothing has to be kept.
                        match sink.take_whole(&head, header, data, &mut landing, self.limits.crc)? {
                            Whole::Later => {
                                let header = HeaderBytes::from_slice(header);
                                self.state = Receiving::Stalled { head, header, landing };
                            }
                            Whole::Taken(limits) => {
                                bytes = rest;
                                *frames += 1;
                                if let Some(limits) = limits {
                                    self.limits = limits;
                                }
                            }
                        }
                    } else {
                        self.begin_data(head, HeaderBytes::from_slice(header), landing, true, sink)?;
                    }
                }
                Receiving::Stalled { .. } => break,
                Receiving::Data { head, into, padding_left, done, .. } => {
                    let skip = bytes.len().min(*padding_left);
                    *padding_left -= skip;
                    bytes = &bytes[skip..];
                    let take = bytes.len().min(head.data_length as usize - *done);
                    if let Some(list) = into {
                        list.scatter(*done, &bytes[..take]);
                    }
                    *done += take;
                    bytes = &bytes[take..];
                    if *padding_left > 0 || *done < head.data_length as usize {
                        break;
                    }
                    *frames += 1;
                    self.end_data(sink)?;
                }
            }
        }
        self.stash.extend_from_slice(bytes);
        Ok(())
    }
}

/// What a failed socket call says. A socket that reads shared memory may find a broken rule, or have no room for it.
fn link_error(cause: &io::Error) -> LinkError {
    let inner = cause.get_ref();
    if let Some(violation) = inner.and_then(|inner| inner.downcast_ref::<Violation>()) {
        LinkError::Violation(*violation)
    } else if let Some(NotTaken(errno)) = inner.and_then(|inner| inner.downcast_ref::<NotTaken>()) {
        LinkError::NotTaken(*errno)
    } else {
        LinkError::Failed(cause.raw_os_error().unwrap_or(libc::EIO))
    }
}

fn has_checksum_always(kind: FrameKind) -> bool {
    matches!(kind, FrameKind::Hello | FrameKind::Welcome | FrameKind::Refusal)
}

impl<S: ByteSocket> Link for Stream<S> {
    fn peer(&self) -> &str {
        &self.peer
    }

    fn peer_is_local(&self) -> bool {
        self.socket.peer_is_local()
    }

    fn set_limits(&mut self, limits: FrameLimits) {
        self.limits = limits;
    }

    fn send(&mut self, frame: &mut OutgoingFrame<'_>) {
        if self.fenced {
            return;
        }
        let (head, header) = (&mut frame.head, frame.header);
        let extension: &[u8] = &frame.extension;
        // Headers and data were checked against the peer's limits, which are u32; an extension is far below u16.
        head.header_length = header.len() as u32;
        head.extension_length = extension.len() as u16;
        let crc = self.limits.crc || has_checksum_always(head.kind);
        if let Some((length, data_crc)) = frame.in_place {
            debug_assert!(frame.data.is_empty());
            (head.data_length, head.data_crc) = (length, data_crc);
        } else if !head.flags.contains(FrameFlags::ANNOUNCED) {
            head.data_length = frame.data.len() as u32;
            if self.limits.crc && !frame.data.is_empty() {
                head.data_crc = frame.data.crc32c();
            }
        }
        if self.queue.is_empty()
            && !crc
            && head.data_padding == 0
            && frame.data.len() <= LAID_OUT_DATA_MAX
            && self.socket.lays_out()
        {
            // Noted before it is laid out: between that and its publishing nothing may have to wait for what is written
            // there, which are lines of cache that the peer had.
            let bytes = FRAME_HEAD_BYTES + extension.len() + header.len() + frame.data.len();
            if self.laid_out.len() == self.laid_out.capacity() {
                self.laid_out.reserve(LAID_OUT_STEP);
            }
            self.laid_out.push((SentFrame::from(&*head), std::mem::take(&mut frame.data)));
            if let Some((_, data)) = self.laid_out.last()
                && self.socket.lay_out(head.words(), [extension, header], data)
            {
                self.laid_out_bytes += bytes;
                return;
            }
            if let Some((_, data)) = self.laid_out.pop() {
                frame.data = data;
            }
        }
        let start = self.staging.len();
        let data_staged = if frame.data.len() <= STAGED_DATA_MAX { frame.data.len() } else { 0 };
        let needed =
            FRAME_HEAD_BYTES + extension.len() + header.len() + usize::from(head.data_padding) + data_staged;
        if self.staging.capacity() - start < needed {
            self.staging.reserve(needed.max(STAGING_STEP_BYTES));
        }
        if self.queue.len() == self.queue.capacity() {
            self.queue.reserve(QUEUE_STEP);
        }
        if crc {
            // The head's checksum covers what follows it, so that is laid out first.
            self.staging.resize(start + FRAME_HEAD_BYTES, 0);
            self.staging.extend_from_slice(extension);
            self.staging.extend_from_slice(header);
            let (place, follows) = self.staging[start..].split_at_mut(FRAME_HEAD_BYTES);
            place.copy_from_slice(&head.encode(follows, true));
        } else {
            self.staging.extend_from_slice(&head.encode(&[], false));
            if !extension.is_empty() {
                self.staging.extend_from_slice(extension);
            }
            self.staging.extend_from_slice(header);
        }
        if head.data_padding > 0 {
            self.staging.resize(self.staging.len() + usize::from(head.data_padding), 0);
        }
        if data_staged > 0 {
            let end = self.staging.len();
            self.staging.resize(end + data_staged, 0);
            frame.data.gather(0, &mut self.staging[end..]);
        }
        let staged = self.staging.len() - start;
        self.unsent += staged + frame.data.len() - data_staged;
        let name = SentFrame::from(&*head);
        let (data, data_sent) = (std::mem::take(&mut frame.data), data_staged);
        self.queue.push_back(Queued { staged, staged_sent: 0, data, data_sent, name });
    }

    fn flush(&mut self, sink: &mut dyn Sink) -> Result<Flushed, LinkError> {
        self.send_queued(SEND_BYTES_MAX, sink)
    }

    fn flush_packets(&mut self, sink: &mut dyn Sink) -> Result<Flushed, LinkError> {
        self.send_queued(self.whole_packets(), sink)
    }

    fn flush_early(&mut self, sink: &mut dyn Sink) -> Result<Flushed, LinkError> {
        if self.fenced || !self.queue.is_empty() {
            return self.flush(sink);
        }
        let bytes = std::mem::take(&mut self.laid_out_bytes);
        if bytes > 0 {
            self.socket.publish_early().map_err(|cause| link_error(&cause))?;
            self.owes_publish = true;
            self.tell_laid_out(sink);
        }
        Ok(Flushed { bytes, blocked: false })
    }

    fn prefetch(&self) {
        prefetch(self);
        prefetch_bytes(self.staging.as_ptr(), 2 * FRAME_HEAD_BYTES);
        // Where the next frame goes, as long as none is queued.
        prefetch_bytes(self.queue.as_slices().0.as_ptr().cast(), size_of::<Queued>());
    }

    fn receive(&mut self, scratch: &mut [u8], sink: &mut dyn Sink) -> Result<Received, LinkError> {
        let mut frames = 0;
        if self.fenced {
            return Ok(Received { bytes: 0, frames, progress: frames > 0, stalled: false });
        }
        if std::mem::take(&mut self.paused) {
            let stash = std::mem::replace(&mut self.stash, Vec::with_capacity(STASH_BYTES));
            self.parse(&stash, sink, &mut frames)?;
            let stalled = matches!(self.state, Receiving::Stalled { .. });
            return Ok(Received { bytes: stash.len(), frames, progress: true, stalled });
        }
        if !self.retry_stalled(sink, &mut frames)? {
            return Ok(Received { bytes: 0, frames, progress: frames > 0, stalled: true });
        }
        if self.paused {
            return Ok(Received { bytes: 0, frames, progress: true, stalled: false });
        }
        // The stash (less than one head and header) goes in front of what comes.
        let stashed = self.stash.len();
        let (front, behind) = scratch.split_at_mut(stashed);
        if stashed > 0 {
            front.copy_from_slice(&self.stash);
        }
        let mut direct = 0;
        let outcome =
            if let Receiving::Data { head, into: Some(list), padding_left: 0, done, .. } = &self.state {
                let mut pieces: SmallVec<[IoVec<'_>; IO_VECS_MAX]> = SmallVec::new();
                let mut guarded = PeerPieces::default();
                let mut scratch_bytes = behind.len();
                let left = head.data_length as usize - *done;
                let covered = list.io_vecs(*done, usize::MAX, &mut pieces, IO_VECS_MAX - 1);
                guarded.add(list);
                direct = covered;
                if covered < left {
                    scratch_bytes = 0;
                } else if left > LARGE_PAYLOAD_BYTES {
                    scratch_bytes = scratch_bytes.min(SCRATCH_BEHIND_LARGE_BYTES);
                }
                if scratch_bytes > 0 {
                    pieces.push(IoVec::from_mut_slice(&mut behind[..scratch_bytes]));
                }
                guarded.during(|| self.socket.receive(&mut pieces))
            } else {
                self.socket.receive(&mut [IoVec::from_mut_slice(behind)])
            };
        let bytes = match outcome {
            Ok(0) => return Err(LinkError::Ended),
            Ok(bytes) => bytes,
            Err(cause) => match cause.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {
                    return Ok(Received { bytes: 0, frames, progress: frames > 0, stalled: false });
                }
                _ => return Err(link_error(&cause)),
            },
        };
        let landed = bytes.min(direct);
        if let Receiving::Data { head, done, .. } = &mut self.state {
            *done += landed;
            if landed > 0 && *done == head.data_length as usize {
                frames += 1;
                self.end_data(sink)?;
            }
        }
        if bytes > landed {
            self.stash.clear();
            let (parsed, _) = scratch.split_at(stashed + bytes - landed);
            self.parse(parsed, sink, &mut frames)?;
        }
        let progress = frames > 0 || !matches!(self.state, Receiving::Head);
        Ok(Received { bytes, frames, progress, stalled: matches!(self.state, Receiving::Stalled { .. }) })
    }

    fn is_flushed_early(&self, is_last: bool) -> bool {
        (is_last || self.unsent_frames() >= EARLY_FRAMES) && self.socket.sends_early()
    }

    fn has_arrived(&self) -> Option<bool> {
        // A stalled frame has come already: what it waits for is memory.
        if self.paused { Some(true) } else { self.socket.has_arrived() }
    }

    fn readiness(&self) -> Option<RawFd> {
        self.socket.readiness()
    }

    fn is_told_by_descriptor(&self) -> bool {
        // What is in the stash makes no descriptor readable.
        !self.paused && self.socket.is_told_by_descriptor()
    }

    fn arm(&mut self, reads: bool, blocked: bool) -> Armed {
        if self.paused && reads {
            return Armed::Ready;
        }
        self.socket.arm(reads, blocked)
    }

    fn wake_word(&mut self) -> Option<WakeWord> {
        self.socket.wake_word()
    }

    fn descriptor_is_ready(&mut self) {
        self.socket.descriptor_is_ready();
    }

    fn shares_memory(&self) -> bool {
        self.socket.shares_memory()
    }

    fn lends(&self) -> bool {
        self.socket.lends()
    }

    fn lend(&mut self, data: &Sgl, landing: Option<&Sgl>) -> Lent {
        let mut writer = ExtensionWriter::new();
        let lent_data = data.len() > COPIED_BYTES_MAX
            && data
                .pieces()
                .iter()
                .all(|piece| self.socket.lend(piece).is_some_and(|place| writer.push_data(place)));
        if !lent_data && !data.is_empty() {
            writer.clear();
        }
        let lent_landing = landing.is_some_and(|landing| {
            landing.len() > COPIED_BYTES_MAX
                && landing
                    .pieces()
                    .iter()
                    .all(|piece| self.socket.lend(piece).is_some_and(|place| writer.push_landing(place)))
        });
        if !lent_landing && landing.is_some() {
            writer.clear_landing();
        }
        Lent { extension: writer.finish(), data: lent_data, landing: lent_landing }
    }

    fn is_released(&mut self, wait: Duration) -> bool {
        self.socket.is_released(wait)
    }

    fn unsent_bytes(&self) -> usize {
        self.unsent + self.laid_out_bytes
    }

    fn unsent_frames(&self) -> usize {
        self.laid_out.len() + self.queue.len()
    }

    fn stop_receiving(&mut self) {
        self.discarding = true;
        match &mut self.state {
            Receiving::Data { into, landing, .. } => {
                *into = None;
                *landing = Sgl::new();
            }
            Receiving::Stalled { .. } | Receiving::Head => {}
        }
    }

    fn discard_landing(&mut self) {
        if let Receiving::Data { into, .. } = &mut self.state {
            *into = None;
        }
    }

    fn fence(&mut self) {
        if !self.fenced {
            self.fenced = true;
            self.socket.shutdown();
            self.queue.clear();
            self.staging = Vec::new();
            self.unsent = 0;
            self.laid_out.clear();
            self.laid_out_bytes = 0;
            self.stash = Vec::new();
            self.state = Receiving::Head;
            self.paused = false;
        }
    }
}
