//! How frames travel: [`Transport`] makes [`Link`]s and [`Listener`]s; a context drives them through these traits and
//! knows nothing else about them. Adding a transport touches this folder only.
//!
//! A link moves whole frames. It asks a [`Sink`] where a frame's data shall land before the data arrives, delivers
//! frames in order, and never blocks. Faults, capture and throttling are links (or sockets) around others.
//!
//! An application brings a transport of its own by [`ContextOptions::transports`](crate::ContextOptions::transports).
//! Where it is an ordered stream of bytes, a [`ByteSocket`] under a [`Stream`] is all there is to write; docs/TRANSPORTS.md
//! goes through an example.

mod byte_socket;
mod clock;
#[cfg(feature = "rdma")]
mod rdma;
mod rdma_device;
mod shm;
mod sim;
mod stream;
mod tcp;

pub use crate::mem::IoVec;
pub use crate::sys::{receive_vectored, send_vectored};
pub use byte_socket::ByteSocket;
pub use clock::{Clock, VirtualClock};
#[cfg(feature = "rdma")]
pub(crate) use rdma::Rdma;
#[cfg(feature = "rdma")]
pub use rdma::RdmaOptions;
pub use rdma_device::{RdmaDevice, RdmaPort, rdma_devices};
pub use shm::SharedMemoryOptions;
pub(crate) use shm::Shm;
pub use sim::{Faults, SimNetwork, Stranger, StrangerListener};
pub use stream::Stream;
pub(crate) use tcp::{Tcp, adopt_tcp};

use crate::wire::{ExtensionBytes, FrameFlags, FrameHead, FrameKind, FrameLimits, RemoteAddress, Violation};
use crate::{Access, Buffer, Result, Sgl, Uri};
use std::any::Any;
use std::fmt::Debug;
use std::os::fd::RawFd;
use std::time::Duration;

/// Data of so many bytes is cheaper copied through a ring than found in place, in other lines of the cache.
pub(crate) const COPIED_BYTES_MAX: usize = 512;

/// Why a build without the feature can't use RDMA.
#[cfg(not(feature = "rdma"))]
pub(crate) fn no_rdma() -> crate::Error {
    let reason = "this build has none (the cargo feature rdma was off)".into();
    crate::Error::TransportUnavailable { scheme: "rdma", reason }
}

/// A kind of link.
pub trait Transport: Any + Send + Sync + Debug {
    /// The scheme of its uris.
    fn scheme(&self) -> &'static str;

    /// Starts to connect, without blocking on the peer.
    ///
    /// # Errors
    /// What can be known at once: no such host, no descriptor left.
    fn connect(&self, uri: &Uri) -> Result<Box<dyn Link>>;

    /// Listens at the uri's address.
    ///
    /// # Errors
    /// The address is taken, not ours, or not permitted.
    fn listen(&self, uri: &Uri) -> Result<Box<dyn Listener>>;
}

/// Accepts links.
pub trait Listener: Send + Debug {
    /// Where it listens, with the port that was found.
    fn local_uri(&self) -> &Uri;

    /// The next link that waits, without blocking.
    ///
    /// # Errors
    /// Why it can't accept now (no descriptor left); it may be tried again later.
    fn accept(&mut self) -> Result<Option<Box<dyn Link>>>;

    /// As [`Listener::accept`], for a link that will live in another context: `home` is that one's transport of this
    /// kind. Where links hold resources of their context (on a device), they are made there from the beginning.
    ///
    /// # Errors
    /// As [`Listener::accept`].
    fn accept_at(&mut self, home: &dyn Transport) -> Result<Option<Box<dyn Link>>> {
        let _ = home;
        self.accept()
    }

    /// Readable when a link waits; `None`: has to be asked every turn.
    fn readiness(&self) -> Option<RawFd>;
}

/// One transport connection: a path of a connection.
pub trait Link: Send + Debug {
    /// The other end, for people: `tcp://127.0.0.1:5555`.
    fn peer(&self) -> &str;

    /// Whether the other end's address is one of this host.
    fn peer_is_local(&self) -> bool {
        false
    }

    /// Sets what received frames are checked against, and whether checksums are in force.
    fn set_limits(&mut self, limits: FrameLimits);

    /// Queues a frame, out of which its data and extension are taken: it is large, and worked at where it is. How much may
    /// be queued is the session's business (slots and grants).
    fn send(&mut self, frame: &mut OutgoingFrame<'_>);

    /// Hands queued frames to the transport: one call, never blocking. Tells the sink about each frame that is gone
    /// entirely ([`Sink::frame_sent`]).
    ///
    /// # Errors
    /// The link is dead.
    fn flush(&mut self, sink: &mut dyn Sink) -> std::result::Result<Flushed, LinkError>;

    /// As [`Link::flush`], of which another call follows when the turn ends: whether the peer has to be woken may be seen to
    /// then.
    ///
    /// # Errors
    /// The link is dead.
    fn flush_early(&mut self, sink: &mut dyn Sink) -> std::result::Result<Flushed, LinkError> {
        self.flush(sink)
    }

    /// As [`Link::flush`], of which another call follows soon: few frames that would need a packet of their own may wait for
    /// what comes after them.
    ///
    /// # Errors
    /// The link is dead.
    fn flush_packets(&mut self, sink: &mut dyn Sink) -> std::result::Result<Flushed, LinkError> {
        self.flush(sink)
    }

    /// Whether enough is queued for a flush of its own before the turn ends: the peer works at it while this side goes on. A
    /// single frame is enough if no other is in sight (`is_last`). Only where a flush is no system call, and wakes nobody.
    fn is_flushed_early(&self, is_last: bool) -> bool {
        let _ = is_last;
        false
    }

    /// Asks for the memory that a receive and a send will need, soon: a hint.
    fn prefetch(&self) {}

    /// Takes what has arrived, one call, never blocking. `scratch` is the context's buffer for small frames; it keeps
    /// nothing between calls.
    ///
    /// # Errors
    /// The link is dead, or the peer broke a rule.
    fn receive(
        &mut self,
        scratch: &mut [u8],
        sink: &mut dyn Sink,
    ) -> std::result::Result<Received, LinkError>;

    /// Whether there may be something to receive, or room after a blocked flush, where that can be told from memory;
    /// `None` where it takes a system call.
    fn has_arrived(&self) -> Option<bool> {
        None
    }

    /// The descriptor to wait on for `receive` (readable) and a blocked `flush` (writable). It may change while
    /// connecting. `None`: the link has to be polled.
    fn readiness(&self) -> Option<RawFd>;

    /// Whether a wait on the descriptor tells of whatever there is to receive, even if frames are sent meanwhile. Not where
    /// a flush looks at what has come, nor where the peer has to know that this side waits.
    fn is_told_by_descriptor(&self) -> bool {
        false
    }

    /// The context is about to wait on the descriptor, for something to receive if it `reads`, and for room if the last
    /// flush was `blocked`: says what to wait for, or that something came meanwhile.
    fn arm(&mut self, reads: bool, blocked: bool) -> Armed {
        Armed::for_descriptor(reads, blocked)
    }

    /// After [`Link::arm`] has said what to wait for, from a context that can wait on a word of memory as well: the word by
    /// which the peer wakes it. The descriptor is waited on too, for all else.
    fn wake_word(&mut self) -> Option<WakeWord> {
        None
    }

    /// A wait on the descriptor has ended since the last receive.
    fn descriptor_is_ready(&mut self) {}

    /// Whether the two ends share memory, so that frames may say where data lies
    /// ([`FEATURE_PLACEMENT`](crate::wire::FEATURE_PLACEMENT)).
    fn shares_memory(&self) -> bool {
        false
    }

    /// Whether this end lets the peer reach its memory.
    fn lends(&self) -> bool {
        false
    }

    /// Whether the peer fetches lent data into memory of its own, rather than using it where it is: then data that the
    /// peer wants announced is announced, and data whose owner waits for it travels.
    fn is_fetched(&self) -> bool {
        false
    }

    /// Lets the peer reach a request's data, and the memory where its response shall land, in place. What was lent has
    /// to stay as it is until the response has come, or the link is fenced and [`Link::is_released`].
    fn lend(&mut self, data: &Sgl, landing: Option<&Sgl>) -> Lent {
        let _ = (data, landing);
        Lent::default()
    }

    /// After [`Link::fence`]: whether the peer can't touch any more what was lent to it. Waits for the peer's word at
    /// most so long; without it, the memory has to be taken away from the peer.
    fn is_released(&mut self, wait: Duration) -> bool {
        let _ = wait;
        true
    }

    /// Bytes queued and not yet with the transport.
    fn unsent_bytes(&self) -> usize;

    /// Frames queued of which something is not yet with the transport. A peer that takes nothing is read no more when
    /// these are more than an honest peer could have caused.
    fn unsent_frames(&self) -> usize;

    /// Gives back where data is landing now and discards what still arrives; afterwards no landing memory is touched.
    fn stop_receiving(&mut self);

    /// Gives back where data is landing now; the rest of that data is discarded, and its frame delivered without data.
    /// Links that never hold landing memory between calls have nothing to do.
    fn discard_landing(&mut self) {}

    /// Memory was exposed to the peer, with a key that its description carries. A transport that can let the peer reach it
    /// without frames (a device) sees to that, and may return bytes of its own for the description. The default has no
    /// such way.
    fn expose(&mut self, region: u32, memory: &Buffer, access: Access, key: &[u8; 16]) -> Option<Placement> {
        let _ = (region, memory, access, key);
        None
    }

    /// Exposed memory was revoked: when this returns, the peer can't reach it any more by what `expose` gave.
    fn revoke(&mut self, region: u32) {
        let _ = region;
    }

    /// Whether this end may be able to do an access of so many bytes to the peer's exposed memory by itself.
    fn reaches(&self, address: &RemoteAddress, length: usize, write: bool) -> bool {
        let _ = (address, length, write);
        false
    }

    /// Begins to read or write the peer's exposed memory without frames and without the peer's doing; the next flush sends
    /// it on its way. False: this transport (or this memory) has no such way, the session uses frames. What comes of it
    /// is told by [`Sink::reached`] in a receive; until then, or until the link is fenced, the local memory is in use.
    fn reach(&mut self, reach: Reach<'_>) -> bool {
        let _ = reach;
        false
    }

    /// Ends all that [`Link::reach`] and [`Link::expose`] have begun: when this returns, neither side's device touches the
    /// other's memory by them, or local memory for them, and nothing more is told of it. For a link that outlives its
    /// connection for a farewell.
    fn leave_memory(&mut self) {}

    /// Ends the link: when this returns, no memory that was handed to it is touched any more, but for what was lent.
    fn fence(&mut self);
}

/// What a link asks and tells while it works. What a sink does not say how to take, nobody expects: it breaks a rule.
pub trait Sink {
    /// Where a frame's data (never empty) shall land; `header` is the frame's. Called again with `first` false after
    /// [`Place::Later`].
    ///
    /// # Errors
    /// The frame breaks a rule; the link must be given up.
    fn place(
        &mut self,
        head: &FrameHead,
        header: &[u8],
        first: bool,
    ) -> std::result::Result<Place, Violation> {
        let _ = (header, first);
        Err(Violation::UnexpectedKind(head.kind as u8))
    }

    /// A request's data lies in the peer's memory and needs no place here. `place` is not called for it.
    ///
    /// # Errors
    /// The frame breaks a rule; the link must be given up.
    fn in_place(&mut self, head: &FrameHead) -> std::result::Result<(), Violation> {
        Err(Violation::UnexpectedKind(head.kind as u8))
    }

    /// A whole frame has arrived; `data` is what `place` gave, filled, or empty, or is in the peer's memory. `landing` is
    /// the peer's memory where the response's data is wanted; empty where it shall travel. New limits are in force from
    /// the next frame on.
    ///
    /// # Errors
    /// The frame breaks a rule; the link must be given up.
    fn deliver(
        &mut self,
        head: &FrameHead,
        header: &[u8],
        data: Sgl,
        landing: Sgl,
    ) -> std::result::Result<Option<FrameLimits>, Violation> {
        let _ = (header, data, landing);
        Err(Violation::UnexpectedKind(head.kind as u8))
    }

    /// A frame has arrived whole, and its data lies in `data` for the moment: what `place`, the copy to there, and
    /// `deliver` are for data that comes in pieces. With `crc` the data's checksum is verified. `landing` is taken.
    ///
    /// # Errors
    /// The frame breaks a rule; the link must be given up.
    fn take_whole(
        &mut self,
        head: &FrameHead,
        header: &[u8],
        data: &[u8],
        landing: &mut Sgl,
        crc: bool,
    ) -> std::result::Result<Whole, Violation> {
        let list = match self.place(head, header, true)? {
            Place::Later => return Ok(Whole::Later),
            Place::Discard => Sgl::new(),
            Place::Into(mut list) => {
                list.fill(data, head, crc)?;
                list
            }
        };
        self.deliver(head, header, list, std::mem::take(landing)).map(Whole::Taken)
    }

    /// Whether the frames of this receive have cost as much as one turn may: what follows is left for the next.
    fn has_enough(&self) -> bool {
        false
    }

    /// An access that [`Link::reach`] has begun, by the numbers that it was given, is done; or it could not be, and has to
    /// go to this address by frames.
    fn reached(&mut self, slot: u16, sequence: u32, refused: Option<RemoteAddress>) {
        let _ = (slot, sequence, refused);
    }

    /// The last byte of a frame is with the transport, which does not touch its data any more.
    fn frame_sent(&mut self, sent: SentFrame, data: Sgl);
}

/// Where data lands.
#[derive(Debug)]
pub enum Place {
    /// Here; the list is as long as the data.
    Into(Sgl),
    /// Nowhere.
    Discard,
    /// There is no memory now: stop receiving on this link, ask again next turn.
    Later,
}

/// What became of a frame that had arrived whole.
#[derive(Debug)]
pub enum Whole {
    /// It is delivered; new limits are in force from the next frame on.
    Taken(Option<FrameLimits>),
    /// There is no memory now: as [`Place::Later`].
    Later,
}

/// What a transport has to say in the description of exposed memory: bytes of its own.
pub type Placement = [u8; PLACEMENT_BYTES];
/// Bytes of a [`Placement`].
pub const PLACEMENT_BYTES: usize = 24;

/// An access to the peer's exposed memory without frames.
#[derive(Debug)]
pub struct Reach<'a> {
    /// Numbers that name it.
    pub slot: u16,
    /// As above.
    pub sequence: u32,
    /// Where.
    pub address: RemoteAddress,
    /// Local memory: the source of a write, the target of a read, as long as the range.
    pub local: &'a Sgl,
    /// Whether the peer's memory is written.
    pub write: bool,
}

/// A frame to send. What is borrowed is copied by the link, at once.
#[derive(Debug)]
pub struct OutgoingFrame<'a> {
    /// Its head; lengths (but that of [announced](crate::wire::FrameFlags::ANNOUNCED) data) and checksums are filled in
    /// by the link.
    pub head: FrameHead,
    /// The message header.
    pub header: &'a [u8],
    /// The data; dropped when it is with the transport.
    pub data: Sgl,
    /// Where data lies that does not travel; mostly empty.
    pub extension: ExtensionBytes,
    /// Length and checksum (0 where none is in force) of data that does not travel; `data` is empty then.
    pub in_place: Option<(u32, u32)>,
}

impl<'a> OutgoingFrame<'a> {
    /// A frame whose data travels with it.
    #[must_use]
    #[inline]
    pub fn new(head: FrameHead, header: &'a [u8], data: Sgl) -> OutgoingFrame<'a> {
        OutgoingFrame { head, header, data, extension: ExtensionBytes::new(), in_place: None }
    }

    /// All of it.
    #[must_use]
    #[inline]
    pub fn take(&mut self) -> OutgoingFrame<'a> {
        let OutgoingFrame { head, header, data, extension, in_place } = self;
        let (data, extension) = (std::mem::take(data), std::mem::take(extension));
        OutgoingFrame { head: *head, header, data, extension, in_place: *in_place }
    }

    /// A head alone.
    #[must_use]
    #[inline]
    pub fn bare(head: FrameHead) -> OutgoingFrame<'a> {
        OutgoingFrame::new(head, &[], Sgl::new())
    }
}

/// What a link has lent to the peer for one request.
#[derive(Debug, Default)]
pub struct Lent {
    /// Says where it lies.
    pub extension: ExtensionBytes,
    /// The request's data is in it: it must not travel.
    pub data: bool,
    /// The landing is in it.
    pub landing: bool,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Armed {
    /// These `poll(2)` events of the descriptor; 0 is none.
    Wait(i16),
    /// Nothing: there is something to do.
    Ready,
}

/// A word of shared memory that a peer changes, and then wakes who waits on it, as by `futex(2)` without FUTEX_PRIVATE_FLAG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WakeWord {
    /// Where it is; the link keeps it mapped as long as it lives.
    pub address: *const u32,
    /// What it is as long as the peer has not changed it.
    pub value: u32,
}

impl Armed {
    /// A descriptor that is readable when something has come, and writable when there is room.
    fn for_descriptor(reads: bool, blocked: bool) -> Armed {
        let readable = if reads { libc::POLLIN } else { 0 };
        Armed::Wait(readable | if blocked { libc::POLLOUT } else { 0 })
    }
}

/// Names a frame that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentFrame {
    /// Its kind.
    pub kind: FrameKind,
    /// Its flags.
    pub flags: FrameFlags,
    /// Its slot.
    pub slot: u16,
    /// Its sequence number.
    pub sequence: u32,
}

impl From<&FrameHead> for SentFrame {
    #[inline]
    fn from(head: &FrameHead) -> Self {
        SentFrame { kind: head.kind, flags: head.flags, slot: head.slot, sequence: head.sequence }
    }
}

/// How a flush ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flushed {
    /// Bytes that the transport took.
    pub bytes: usize,
    /// Whether something is left that has to wait for the transport.
    pub blocked: bool,
}

/// How a receive ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes that the transport brought.
    pub bytes: usize,
    /// Frames delivered.
    pub frames: usize,
    /// Whether a frame was delivered or data landed: the sign of life that keepalive counts. Bytes alone are none: a
    /// head whose length was damaged on the way would swallow every later answer.
    pub progress: bool,
    /// Whether data waits for memory ([`Place::Later`]).
    pub stalled: bool,
}

/// What a socket says, within an [`io::Error`](std::io::Error), for [`LinkError::NotTaken`].
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("memory of the peer can't be taken: {}", std::io::Error::from_raw_os_error(self.0))]
pub(crate) struct NotTaken(pub i32);

/// Why a link is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkError {
    /// The peer ended the stream.
    Ended,
    /// The transport failed with this errno.
    Failed(i32),
    /// This process could not take memory that the peer has handed over, for this errno: the peer is not at fault.
    NotTaken(i32),
    /// The peer broke a rule.
    Violation(Violation),
}

impl From<Violation> for LinkError {
    fn from(violation: Violation) -> Self {
        LinkError::Violation(violation)
    }
}
