//! What one side is ready for.

use super::Violation;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// How far a byte grant may be ahead of what was sent: 1 TiB. Nobody means to receive more at once, and cumulative
/// counters then stay below 2^64 for years at 100 GB/s.
pub const GRANT_AHEAD_MAX: u64 = 1 << 40;
/// Most one-way messages that may be unacknowledged: a bit for each is kept by the receiver, 128 KiB in all.
pub const ONE_WAY_MAX: u32 = 1 << 20;

/// What one side is ready for, in a hello or a welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Hello: requests that the sender wants to have outstanding. Welcome: what it got.
    pub slots: u16,
    /// Hello: requests of the server that the sender is ready to have at a time. Welcome: how many of these the server
    /// takes, at most so many.
    pub peer_slots: u16,
    /// Greatest message header that the sender receives, in bytes.
    pub header_bytes_max: u32,
    /// Greatest data of one message that the sender receives, in bytes.
    pub data_bytes_max: u32,
    /// Bytes of request data that the sender is ready to receive before it raises the grant: at least `data_bytes_max`
    /// and at most [`GRANT_AHEAD_MAX`].
    pub window_bytes: u64,
    /// Largest response (header and data) that the sender keeps for replay, in bytes.
    pub replay_bytes_max: u32,
    /// The sender answers a ping within this time, in milliseconds; 0 promises nothing.
    pub keepalive_ms: u32,
    /// One-way messages that the sender is ready to have unacknowledged: at most [`ONE_WAY_MAX`], 0 takes none.
    pub one_way_max: u32,
    /// Greatest data, in bytes, that may come together with its message. Above it the message is announced, and its
    /// data comes when the sender of these limits has said where it lands. `u32::MAX`: all data comes at once.
    pub immediate_bytes_max: u32,
}

/// The limits as bytes.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct LimitsBytes {
    slots: U16,
    peer_slots: U16,
    header_bytes_max: U32,
    data_bytes_max: U32,
    window_bytes: U64,
    replay_bytes_max: U32,
    keepalive_ms: U32,
    one_way_max: U32,
    immediate_bytes_max: U32,
}

const _: () = assert!(size_of::<LimitsBytes>() == 36);

impl Limits {
    /// Checks that a peer could live with these limits.
    ///
    /// # Errors
    /// A window that is beyond reason, or smaller than one message; more one-way messages than anybody counts.
    pub fn validate(&self) -> Result<(), Violation> {
        if self.window_bytes > GRANT_AHEAD_MAX {
            return Err(Violation::FieldTooLarge {
                field: "window_bytes",
                value: self.window_bytes,
                limit: GRANT_AHEAD_MAX,
            });
        }
        if self.one_way_max > ONE_WAY_MAX {
            return Err(Violation::FieldTooLarge {
                field: "one_way_max",
                value: self.one_way_max.into(),
                limit: ONE_WAY_MAX.into(),
            });
        }
        if self.window_bytes < u64::from(self.data_bytes_max) {
            return Err(Violation::WindowTooSmall {
                window: self.window_bytes,
                data_bytes_max: self.data_bytes_max,
            });
        }
        Ok(())
    }

    pub(super) fn to_bytes(self) -> LimitsBytes {
        let Limits {
            slots,
            peer_slots,
            header_bytes_max,
            data_bytes_max,
            window_bytes,
            replay_bytes_max,
            keepalive_ms,
            one_way_max,
            immediate_bytes_max,
        } = self;
        LimitsBytes {
            slots: slots.into(),
            peer_slots: peer_slots.into(),
            header_bytes_max: header_bytes_max.into(),
            data_bytes_max: data_bytes_max.into(),
            window_bytes: window_bytes.into(),
            replay_bytes_max: replay_bytes_max.into(),
            keepalive_ms: keepalive_ms.into(),
            one_way_max: one_way_max.into(),
            immediate_bytes_max: immediate_bytes_max.into(),
        }
    }

    pub(super) fn from_bytes(bytes: &LimitsBytes) -> Limits {
        Limits {
            slots: bytes.slots.get(),
            peer_slots: bytes.peer_slots.get(),
            header_bytes_max: bytes.header_bytes_max.get(),
            data_bytes_max: bytes.data_bytes_max.get(),
            window_bytes: bytes.window_bytes.get(),
            replay_bytes_max: bytes.replay_bytes_max.get(),
            keepalive_ms: bytes.keepalive_ms.get(),
            one_way_max: bytes.one_way_max.get(),
            immediate_bytes_max: bytes.immediate_bytes_max.get(),
        }
    }
}
