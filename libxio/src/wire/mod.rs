//! Frames as bytes: encode, validate, decode. Pure: no I/O, no clock, no unsafe. docs/PROTOCOL.md has the pictures.
//!
//! A frame is a [`FrameHead`] of 48 bytes, a message header, padding, and data. A receiver decodes the head against
//! the [`FrameLimits`] it has granted before it touches any memory, then, where checksums are in force, verifies head
//! and header ([`FrameHead::verify`]) and data ([`Checksum`]). What breaks a rule is a [`Violation`]: one variant per
//! rule, with a number that travels in the [`Goodbye`].
#![forbid(unsafe_code)]

mod body;
mod checksum;
mod extension;
mod frame;
mod goodbye;
mod hello;
mod limits;
#[cfg(test)]
mod property;
mod refusal;
mod remote;
mod violation;
mod welcome;

pub use checksum::Checksum;
pub use extension::{
    EXTENSION_BYTES_MAX, Extension, ExtensionBytes, ExtensionWriter, PLACED_PIECES_MAX, PlacedPiece,
};
pub use frame::{
    CANCEL_DONE, CANCEL_NOT_FOUND, CANCEL_TOO_LATE, FAILED_CANCELLED, FAILED_NO_REGION, FAILED_NO_ROOM,
    FAILED_NOT_KEPT, FAILED_NOT_PERMITTED, FAILED_OUT_OF_BOUNDS, FAILED_UNANSWERED, FRAME_HEAD_BYTES,
    FrameFlags, FrameHead, FrameKind, FrameLimits, HeadWords, PADDING_BYTES_MAX, READY_NOT_WANTED,
    RECEIPT_ACCEPTED, RECEIPT_REJECTED,
};
pub use goodbye::{GOODBYE_TEXT_BYTES_MAX, Goodbye};
pub use hello::{
    FEATURE_CRC, FEATURE_PLACEMENT, FEATURES, HELLO_BODY_BYTES_MAX, HELLO_MAGIC, Hello, LoopKind,
    PRIVATE_DATA_BYTES_MAX, RESOURCE_BYTES_MAX, SessionId, VERSION, VERSION_MIN,
};
pub use limits::{GRANT_AHEAD_MAX, Limits, ONE_WAY_MAX};
pub use refusal::{REDIRECT_BYTES_MAX, Refusal, RejectReason};
pub use remote::{REMOTE_ADDRESS_BYTES, RemoteAddress};
pub use violation::Violation;
pub use welcome::Welcome;
