//! The frame head: 48 bytes before every frame. Its layout never changes, whatever the version.

mod check;

use super::{Checksum, HELLO_BODY_BYTES_MAX, Violation};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a frame head.
pub const FRAME_HEAD_BYTES: usize = 48;
/// A head as words of 8 bytes.
pub type HeadWords = [u64; FRAME_HEAD_BYTES / size_of::<u64>()];
/// Most padding before data, in bytes: enough to align it to a page of 4 KiB.
pub const PADDING_BYTES_MAX: u16 = 4095;

/// `room` of a failed response: the application gave no answer. Numbers that are not known mean the same.
pub const FAILED_UNANSWERED: u32 = 1;
/// `room` of a failed response: the answer was longer than the request's room, or than the requester receives.
pub const FAILED_NO_ROOM: u32 = 2;
/// `room` of a failed response: the answer was longer than `replay_bytes_max` and the request not idempotent.
pub const FAILED_NOT_KEPT: u32 = 3;
/// `room` of a failed response: the request was cancelled.
pub const FAILED_CANCELLED: u32 = 4;
/// `room` of a failed response to a remote read or write: no such memory is exposed (any more), or the key is wrong.
pub const FAILED_NO_REGION: u32 = 5;
/// `room` of a failed response to a remote read or write: the range leaves the exposed memory.
pub const FAILED_OUT_OF_BOUNDS: u32 = 6;
/// `room` of a failed response to a remote read or write: the memory is not exposed for this.
pub const FAILED_NOT_PERMITTED: u32 = 7;

/// `room` of a receipt: the application took the message.
pub const RECEIPT_ACCEPTED: u32 = 1;
/// `room` of a receipt: the application did not want the message.
pub const RECEIPT_REJECTED: u32 = 2;

/// `room` of the result of a cancel: the request was not executed, or not to its end.
pub const CANCEL_DONE: u32 = 1;
/// `room` of the result of a cancel: the request has its answer.
pub const CANCEL_TOO_LATE: u32 = 2;
/// `room` of the result of a cancel: the responder does not know the request.
pub const CANCEL_NOT_FOUND: u32 = 3;

/// `room` of a Ready for a one-way message: its data is not wanted.
pub const READY_NOT_WANTED: u32 = 1;

/// What a frame is. Number 18 was never used, 19 is reserved (see docs/PROTOCOL.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// First frame of the connecting side.
    Hello = 1,
    /// Its acceptance.
    Welcome = 2,
    /// Its rejection.
    Refusal = 3,
    /// Orderly close, with a reason.
    Goodbye = 4,
    /// Are you there?
    Ping = 5,
    /// I am.
    Pong = 6,
    /// A raised byte grant with nothing else to say.
    Credit = 7,
    /// A request.
    Request = 8,
    /// A response.
    Response = 9,
    /// A one-way message.
    OneWay = 10,
    /// The application has read a message, and accepted or rejected it.
    Receipt = 11,
    /// The requester does not want the answer any more.
    Cancel = 12,
    /// What came of a cancel.
    CancelResult = 13,
    /// The receiver has chosen where the data of an announced message lands.
    Ready = 14,
    /// The data of an announced message.
    Data = 15,
    /// Read exposed memory.
    RemoteRead = 16,
    /// Write exposed memory.
    RemoteWrite = 17,
}

impl FrameKind {
    /// The kind with this number.
    ///
    /// # Errors
    /// [`Violation::UnknownKind`].
    #[inline]
    pub fn from_byte(byte: u8) -> Result<FrameKind, Violation> {
        Ok(match byte {
            1 => FrameKind::Hello,
            2 => FrameKind::Welcome,
            3 => FrameKind::Refusal,
            4 => FrameKind::Goodbye,
            5 => FrameKind::Ping,
            6 => FrameKind::Pong,
            7 => FrameKind::Credit,
            8 => FrameKind::Request,
            9 => FrameKind::Response,
            10 => FrameKind::OneWay,
            11 => FrameKind::Receipt,
            12 => FrameKind::Cancel,
            13 => FrameKind::CancelResult,
            14 => FrameKind::Ready,
            15 => FrameKind::Data,
            16 => FrameKind::RemoteRead,
            17 => FrameKind::RemoteWrite,
            other => return Err(Violation::UnknownKind(other)),
        })
    }

    /// Hello, Welcome and Refusal: they carry checksums whatever was negotiated, and no grant.
    #[inline]
    fn is_handshake(self) -> bool {
        matches!(self, FrameKind::Hello | FrameKind::Welcome | FrameKind::Refusal)
    }

    #[inline]
    fn flags_allowed(self) -> FrameFlags {
        match self {
            FrameKind::Hello | FrameKind::Welcome | FrameKind::Refusal | FrameKind::Goodbye => {
                FrameFlags::default()
            }
            FrameKind::Ping
            | FrameKind::Pong
            | FrameKind::Credit
            | FrameKind::Cancel
            | FrameKind::CancelResult
            | FrameKind::RemoteRead
            | FrameKind::RemoteWrite => FrameFlags::MORE,
            FrameKind::Request => FrameFlags::MESSAGE.with(FrameFlags::IDEMPOTENT),
            FrameKind::OneWay => FrameFlags::MESSAGE,
            FrameKind::Receipt | FrameKind::Ready | FrameKind::Data => {
                FrameFlags::MORE.with(FrameFlags::ONE_WAY)
            }
            FrameKind::Response => FrameFlags::MORE.with(FrameFlags::REPLAYED).with(FrameFlags::FAILED),
        }
    }
}

/// Flag bits of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct FrameFlags(pub u8);

impl FrameFlags {
    /// Request: executing it twice does no harm.
    pub const IDEMPOTENT: FrameFlags = FrameFlags(1);
    /// More frames follow at once.
    pub const MORE: FrameFlags = FrameFlags(2);
    /// Response: it was kept and is sent again.
    pub const REPLAYED: FrameFlags = FrameFlags(4);
    /// Request, one-way message: the sender wants a receipt.
    pub const RECEIPT: FrameFlags = FrameFlags(8);
    /// Response: the responder's application gave no answer; `room` says why.
    pub const FAILED: FrameFlags = FrameFlags(16);
    /// Request, one-way message: the data is not in the frame; it comes when the receiver is ready for it.
    pub const ANNOUNCED: FrameFlags = FrameFlags(32);
    /// Receipt, Ready, Data: the sequence number is that of a one-way message, not of a request.
    pub const ONE_WAY: FrameFlags = FrameFlags(64);
    /// All bits that are known.
    const KNOWN: FrameFlags = FrameFlags(127);
    /// What requests and one-way messages have in common.
    const MESSAGE: FrameFlags = FrameFlags(2 + 8 + 32);

    /// Whether all bits of `other` are set.
    #[must_use]
    #[inline]
    pub fn contains(self, other: FrameFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets of bits.
    #[must_use]
    #[inline]
    pub fn with(self, other: FrameFlags) -> FrameFlags {
        FrameFlags(self.0 | other.0)
    }

    /// The bits that are not in `other`.
    #[inline]
    fn without(self, other: FrameFlags) -> FrameFlags {
        FrameFlags(self.0 & !other.0)
    }
}

/// A decoded frame head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHead {
    /// What the frame is.
    pub kind: FrameKind,
    /// Flag bits.
    pub flags: FrameFlags,
    /// Request slot; 0 for frames without one.
    pub slot: u16,
    /// Number of the request in its slot, or of the one-way message in its direction, from 1.
    pub sequence: u32,
    /// Bytes of the message header that follows.
    pub header_length: u32,
    /// Bytes of data; they follow the header (and the padding) unless the frame is [announced](FrameFlags::ANNOUNCED).
    pub data_length: u32,
    /// Padding between header and data, so that data can land aligned.
    pub data_padding: u16,
    /// Bytes of the extension between head and header, which says where data lies ([`super::Extension`]).
    pub extension_length: u16,
    /// Request: most bytes of data that the response may carry. Remote read: bytes asked for. Failed response: the
    /// reason. Receipt, CancelResult, Ready: the result.
    pub room: u32,
    /// Cumulative bytes of message data that the sender of this frame is ready to receive.
    pub bytes_granted: u64,
    /// All one-way messages up to this one have been released; 0 says nothing new.
    pub acknowledged: u32,
    /// CRC-32C of the data where negotiated, else 0.
    pub data_crc: u32,
}

/// What a received frame is checked against.
#[derive(Debug, Clone, Copy)]
pub struct FrameLimits {
    /// Greatest header in bytes.
    pub header_bytes_max: u32,
    /// Greatest data in bytes.
    pub data_bytes_max: u32,
    /// Greatest data that comes without an announcement, in bytes.
    pub immediate_bytes_max: u32,
    /// Slots that the peer may use for requests.
    pub slots: u16,
    /// Slots that we use.
    pub own_slots: u16,
    /// Whether head, header and data carry checksums (always so for Hello, Welcome and Refusal).
    pub crc: bool,
    /// Greatest extension in bytes; 0 where no feature that uses it is in force.
    pub extension_bytes_max: u16,
}

impl FrameLimits {
    /// Those in force until the handshake is done: room for a body, no slots, no data, checksums.
    #[must_use]
    pub fn handshake() -> FrameLimits {
        FrameLimits {
            header_bytes_max: HELLO_BODY_BYTES_MAX as u32,
            data_bytes_max: 0,
            immediate_bytes_max: 0,
            slots: 0,
            own_slots: 0,
            crc: true,
            extension_bytes_max: 0,
        }
    }
}

/// The head as bytes.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct HeadBytes {
    kind: u8,
    flags: u8,
    slot: U16,
    sequence: U32,
    header_length: U32,
    data_length: U32,
    data_padding: U16,
    extension_length: U16,
    room: U32,
    bytes_granted: U64,
    acknowledged: U32,
    data_crc: U32,
    head_crc: U32,
    reserved: U32,
}

const _: () = assert!(size_of::<HeadBytes>() == FRAME_HEAD_BYTES);

impl HeadBytes {
    /// The checksum of this head, its own field taken as zero, and of what follows it: extension and header.
    fn checksum(mut self, header: &[u8]) -> u32 {
        self.head_crc = 0.into();
        let mut sum = Checksum::new();
        sum.add(self.as_bytes());
        sum.add(header);
        sum.value()
    }
}

impl FrameHead {
    /// A head with everything zero but its kind.
    #[must_use]
    #[inline]
    pub fn new(kind: FrameKind) -> FrameHead {
        FrameHead {
            kind,
            flags: FrameFlags::default(),
            slot: 0,
            sequence: 0,
            header_length: 0,
            data_length: 0,
            data_padding: 0,
            extension_length: 0,
            room: 0,
            bytes_granted: 0,
            acknowledged: 0,
            data_crc: 0,
        }
    }

    /// Bytes of data that follow in this frame: none for an announcement.
    #[must_use]
    #[inline]
    pub fn data_in_frame(&self) -> u32 {
        if self.flags.contains(FrameFlags::ANNOUNCED) { 0 } else { self.data_length }
    }

    /// The bytes of this head; with `crc` (and always for Hello, Welcome and Refusal) the checksum of the head and of
    /// `header` (with the extension before it) is put in.
    #[must_use]
    #[inline]
    pub fn encode(&self, header: &[u8], crc: bool) -> [u8; FRAME_HEAD_BYTES] {
        let mut bytes: HeadBytes = zerocopy::transmute!(self.words().map(u64::to_le));
        if crc || self.kind.is_handshake() {
            let length = usize::from(self.extension_length) + self.header_length as usize;
            debug_assert_eq!(header.len(), length, "the head describes another header");
            bytes.head_crc = bytes.checksum(header).into();
        }
        zerocopy::transmute!(bytes)
    }

    /// The bytes of this head without a checksum, as words whose lowest byte comes first. Put together in registers: bytes
    /// that are written one by one and read again as a whole keep the processor waiting for all that was written before.
    #[must_use]
    #[inline]
    pub fn words(&self) -> HeadWords {
        let &FrameHead {
            kind,
            flags,
            slot,
            sequence,
            header_length,
            data_length,
            data_padding,
            extension_length,
            room,
            bytes_granted,
            acknowledged,
            data_crc,
        } = self;
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let halves = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        [
            pair(halves(u16::from_le_bytes([kind as u8, flags.0]), slot), sequence),
            pair(header_length, data_length),
            pair(halves(data_padding, extension_length), room),
            bytes_granted,
            pair(acknowledged, data_crc),
            0,
        ]
    }

    /// Decodes and validates against the limits (all but the checksum, which needs the header's bytes).
    ///
    /// # Errors
    /// The rule that the bytes break.
    #[inline]
    pub fn decode(bytes: &[u8; FRAME_HEAD_BYTES], limits: &FrameLimits) -> Result<FrameHead, Violation> {
        let raw: HeadBytes = zerocopy::transmute!(*bytes);
        let head = FrameHead::of(&raw)?;
        if head.is_plain(&raw, limits) {
            debug_assert_eq!(head.check(&raw, limits), Ok(()));
        } else {
            FrameHead::check_rest(bytes, limits)?;
        }
        Ok(head)
    }

    /// Checks a head that is not plain. It is read again, since one that is passed on has to be in memory first, and to move it from
    /// there, by words, is to wait for all of its fields to be written.
    #[cold]
    #[inline(never)]
    fn check_rest(bytes: &[u8; FRAME_HEAD_BYTES], limits: &FrameLimits) -> Result<(), Violation> {
        let raw: HeadBytes = zerocopy::transmute!(*bytes);
        FrameHead::of(&raw)?.check(&raw, limits)
    }

    #[inline(always)]
    fn of(raw: &HeadBytes) -> Result<FrameHead, Violation> {
        Ok(FrameHead {
            kind: FrameKind::from_byte(raw.kind)?,
            flags: FrameFlags(raw.flags),
            slot: raw.slot.get(),
            sequence: raw.sequence.get(),
            header_length: raw.header_length.get(),
            data_length: raw.data_length.get(),
            data_padding: raw.data_padding.get(),
            extension_length: raw.extension_length.get(),
            room: raw.room.get(),
            bytes_granted: raw.bytes_granted.get(),
            acknowledged: raw.acknowledged.get(),
            data_crc: raw.data_crc.get(),
        })
    }

    /// Verifies the checksum over head and header (with the extension before it).
    ///
    /// # Errors
    /// [`Violation::HeaderChecksum`] when it differs.
    pub fn verify(bytes: &[u8; FRAME_HEAD_BYTES], header: &[u8]) -> Result<(), Violation> {
        let raw: HeadBytes = zerocopy::transmute!(*bytes);
        if raw.checksum(header) == raw.head_crc.get() { Ok(()) } else { Err(Violation::HeaderChecksum) }
    }
}

#[cfg(test)]
mod tests;
