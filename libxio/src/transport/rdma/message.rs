//! What travels on an RDMA connection: the messages (one SEND each) that carry frames, and the private data of connect,
//! accept and reject.
//!
//! A frame travels alone, in as many messages as its bytes take; a note in one. Every message carries a cumulative credit: the number
//! of messages that its sender has been, and is, ready to receive since the connection began.

use crate::wire::Violation;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes before the frame's bytes in each message.
pub(super) const MESSAGE_HEAD_BYTES: usize = 8;
/// Bytes of private data that we send and look at; rdma_cm carries 56 on connect, 196 on accept, 148 on reject.
pub(super) const GREETING_BYTES: usize = 16;
/// The version of what is described here, beneath that of the frames.
const VERSION: u16 = 1;
/// A feature of the greeting: its sender understands notes. Bits that are not known mean nothing.
const FEATURE_NOTES: u16 = 1;
/// Begins all private data.
const MAGIC: [u8; 4] = *b"RXIO";
/// Smallest receive buffer that a peer may announce: a frame head and the head of a message, and as much again.
const MESSAGE_BYTES_MIN: u32 = 112;
/// Fewest messages that a peer may be ready to receive: one of them is kept for credits.
const CREDITS_MIN: u32 = 4;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MessageKind {
    /// A frame begins with it.
    Frame,
    /// The frame of the message before goes on.
    More,
    /// It carries nothing but credit.
    Credit,
    /// It carries a note about exposed memory.
    Note,
}

/// The head of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MessageHead {
    pub kind: MessageKind,
    /// Messages that the sender has been ready to receive since the beginning, modulo 2^32.
    pub credit: u32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct HeadBytes {
    credit: U32,
    kind: u8,
    reserved: [u8; 3],
}

const _: () = assert!(size_of::<HeadBytes>() == MESSAGE_HEAD_BYTES);

impl MessageHead {
    pub(super) fn encode(self) -> [u8; MESSAGE_HEAD_BYTES] {
        let MessageHead { kind, credit } = self;
        let kind = match kind {
            MessageKind::Frame => 1,
            MessageKind::More => 2,
            MessageKind::Credit => 3,
            MessageKind::Note => 4,
        };
        zerocopy::transmute!(HeadBytes { credit: credit.into(), kind, reserved: [0; 3] })
    }

    /// The head of a message, and what follows it.
    pub(super) fn decode(message: &[u8]) -> Result<(MessageHead, &[u8]), Violation> {
        let Ok((head, rest)) = HeadBytes::read_from_prefix(message) else {
            return Err(Violation::BadRdmaMessage("it is shorter than its head"));
        };
        if head.reserved != [0; 3] {
            return Err(Violation::BadRdmaMessage("reserved bytes are not 0"));
        }
        let kind = match (head.kind, rest.is_empty()) {
            (1, false) => MessageKind::Frame,
            (2, false) => MessageKind::More,
            (3, true) => MessageKind::Credit,
            (4, false) => MessageKind::Note,
            (1 | 2 | 4, true) => return Err(Violation::BadRdmaMessage("it carries nothing")),
            (3, false) => return Err(Violation::BadRdmaMessage("a credit carries something else")),
            _ => return Err(Violation::BadRdmaMessage("its kind is not one of 1 to 4")),
        };
        Ok((MessageHead { kind, credit: head.credit.get() }, rest))
    }
}

/// What both sides say of themselves while they connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Greeting {
    /// Messages that the sender is ready to receive at the beginning.
    pub credits: u32,
    /// Bytes that the longest of them may have.
    pub message_bytes: u32,
    /// It speaks in notes about exposed memory.
    pub notes: bool,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct GreetingBytes {
    magic: [u8; 4],
    version: U16,
    features: U16,
    credits: U32,
    message_bytes: U32,
}

const _: () = assert!(size_of::<GreetingBytes>() == GREETING_BYTES);

/// Why private data is none of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadGreeting {
    /// Somebody else's protocol, or a broken one.
    NotOurs,
    /// Ours, in a version that we don't speak.
    Version(u16),
}

impl Greeting {
    pub(super) fn encode(self) -> [u8; GREETING_BYTES] {
        let Greeting { credits, message_bytes, notes } = self;
        zerocopy::transmute!(GreetingBytes {
            magic: MAGIC,
            version: VERSION.into(),
            features: if notes { FEATURE_NOTES } else { 0 }.into(),
            credits: credits.into(),
            message_bytes: message_bytes.into(),
        })
    }

    /// rdma_cm fills private data up with zeros; what is beyond our bytes belongs to later versions.
    pub(super) fn decode(private_data: &[u8]) -> Result<Greeting, BadGreeting> {
        let Ok((greeting, _)) = GreetingBytes::read_from_prefix(private_data) else {
            return Err(BadGreeting::NotOurs);
        };
        if greeting.magic != MAGIC {
            return Err(BadGreeting::NotOurs);
        }
        if greeting.version.get() != VERSION {
            return Err(BadGreeting::Version(greeting.version.get()));
        }
        let found = Greeting {
            credits: greeting.credits.get(),
            message_bytes: greeting.message_bytes.get(),
            notes: greeting.features.get() & FEATURE_NOTES != 0,
        };
        let sound = (CREDITS_MIN..=1 << 20).contains(&found.credits)
            && (MESSAGE_BYTES_MIN..=1 << 30).contains(&found.message_bytes);
        if sound { Ok(found) } else { Err(BadGreeting::NotOurs) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let head = MessageHead { kind: MessageKind::More, credit: 0x0102_0304 };
        let mut message = head.encode().to_vec();
        assert_eq!(message, [4, 3, 2, 1, 2, 0, 0, 0]);
        message.push(9);
        assert_eq!(MessageHead::decode(&message), Ok((head, &[9][..])));
        let greeting = Greeting { credits: 128, message_bytes: 4608, notes: true };
        #[rustfmt::skip]
        let bytes = [b'R', b'X', b'I', b'O', 1, 0, 1, 0, 128, 0, 0, 0, 0, 0x12, 0, 0];
        assert_eq!(greeting.encode(), bytes);
        let mut padded = bytes.to_vec();
        padded.resize(56, 0);
        assert_eq!(Greeting::decode(&padded), Ok(greeting));
        padded[6] = 0xfe;
        assert_eq!(Greeting::decode(&padded), Ok(Greeting { notes: false, ..greeting }));
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for message in [
            &[][..],
            &[0; 7],
            &[0; 9],
            &[0, 0, 0, 0, 1, 0, 0, 0],
            &[0, 0, 0, 0, 3, 0, 0, 0, 1],
            &[0, 0, 0, 0, 4, 0, 0, 0],
        ] {
            assert!(MessageHead::decode(message).is_err(), "{message:?}");
        }
        assert!(MessageHead::decode(&[0, 0, 0, 0, 1, 1, 0, 0, 5]).is_err());
        let good = Greeting { credits: CREDITS_MIN, message_bytes: MESSAGE_BYTES_MIN, notes: false };
        assert_eq!(Greeting::decode(&good.encode()), Ok(good));
        for bad in [Greeting { credits: CREDITS_MIN - 1, ..good }, Greeting { message_bytes: 0, ..good }] {
            assert_eq!(Greeting::decode(&bad.encode()), Err(BadGreeting::NotOurs));
        }
        let mut later = good.encode();
        later[4] = 2;
        assert_eq!(Greeting::decode(&later), Err(BadGreeting::Version(2)));
        assert_eq!(Greeting::decode(&later[..15]), Err(BadGreeting::NotOurs));
        assert_eq!(Greeting::decode(&[0; 56]), Err(BadGreeting::NotOurs));
    }
}
