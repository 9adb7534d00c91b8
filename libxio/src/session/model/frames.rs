//! The frames that the model's two sides exchange, as bytes.

use crate::wire::{Checksum, FRAME_HEAD_BYTES, FrameHead, FrameLimits, Violation};

/// Bytes of a message header here: the request's number and how often it had been executed.
pub(super) const HEADER_BYTES: usize = 12;

/// A frame on its way.
pub(super) struct Frame {
    pub bytes: Vec<u8>,
    /// Whether it was changed on the way.
    pub corrupt: bool,
}

pub(super) fn header_of(id: usize, executions: u32) -> Vec<u8> {
    [&(id as u64).to_le_bytes()[..], &executions.to_le_bytes()].concat()
}

pub(super) fn data_of(id: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (id * 31 + at) as u8).collect()
}

pub(super) fn frame_of(head: FrameHead, header: &[u8], data: &[u8], crc: bool) -> Frame {
    let head = FrameHead {
        header_length: header.len() as u32,
        data_length: data.len() as u32,
        data_crc: if crc { Checksum::of(data) } else { 0 },
        ..head
    };
    Frame { bytes: [&head.encode(header, crc)[..], header, data].concat(), corrupt: false }
}

/// Head and header of a frame, and what follows them.
pub(super) fn take_apart_head<'a>(
    bytes: &'a [u8],
    limits: &FrameLimits,
) -> Result<(FrameHead, [&'a [u8]; 2]), Violation> {
    let (head_bytes, rest) = bytes.split_first_chunk::<FRAME_HEAD_BYTES>().ok_or(Violation::Truncated)?;
    let head = FrameHead::decode(head_bytes, limits)?;
    let (header, rest) = rest.split_at_checked(head.header_length as usize).ok_or(Violation::Truncated)?;
    if limits.crc {
        FrameHead::verify(head_bytes, header)?;
    }
    Ok((head, [header, rest]))
}

pub(super) fn take_apart<'a>(
    bytes: &'a [u8],
    limits: &FrameLimits,
) -> Result<(FrameHead, &'a [u8], &'a [u8]), Violation> {
    let (head, [header, data]) = take_apart_head(bytes, limits)?;
    if data.len() != head.data_length as usize {
        return Err(Violation::Truncated);
    }
    if limits.crc && Checksum::of(data) != head.data_crc {
        return Err(Violation::DataChecksum);
    }
    Ok((head, header, data))
}
