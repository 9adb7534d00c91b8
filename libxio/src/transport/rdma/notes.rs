//! Notes: what the two ends of a link tell each other about memory that one exposes and the other reaches by itself.
//! Each is the only content of a message of kind [`Note`](super::message::MessageKind::Note).
//!
//! The owner opens a queue pair for these accesses, the other side answers with its own, and then the owner grants what
//! it exposes. A withdrawal is a courtesy: the access has ended before it is sent.

use crate::Access;
use crate::wire::Violation;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a note.
pub(super) const NOTE_BYTES: usize = 48;
/// Stretches of exposed memory of one link that the peer is granted at a time; their numbers are below it.
pub(super) const GRANTS_MAX: u32 = 1024;
/// Queue pairs that one end opens for accesses on one link, one after another: each refused access ends one.
pub(super) const OPENS_MAX: u16 = 8;

const OPEN: u8 = 1;
const READY: u8 = 2;
const GRANT: u8 = 3;
const WITHDRAW: u8 = 4;
const BROKEN: u8 = 5;

/// One end of a queue pair, as the other has to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    /// The queue pair's number on its device: 24 bits.
    pub queue_pair: u32,
    /// Number of the first packet that it sends: 24 bits.
    pub first_packet: u32,
}

/// Exposed memory that the peer may reach by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grant {
    /// As in its description; below [`GRANTS_MAX`].
    pub number: u32,
    pub access: Access,
    pub remote_key: u32,
    pub address: u64,
    pub length: u64,
    /// The key of its description.
    pub key: [u8; 16],
}

/// What is told. `epoch` counts the queue pairs that the owner has opened on this link, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    /// The owner has a queue pair for accesses.
    Open { epoch: u16, end: End },
    /// The other side has connected its own to it.
    Ready { epoch: u16, end: End },
    /// Memory may be reached by that queue pair.
    Grant { epoch: u16, grant: Grant },
    /// Memory can't be reached any more.
    Withdraw { number: u32 },
    /// The owner's device has refused an access, and the queue pair is of no use any more.
    Broken { epoch: u16 },
}

/// A row for 16 bytes: what, access, epoch, number, value; address and length; key.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct NoteBytes {
    what: u8,
    access: u8,
    epoch: U16,
    /// Of the exposed memory, or of the queue pair.
    number: U32,
    /// The remote key, or the number of the first packet.
    value: U32,
    reserved: U32,
    address: U64,
    length: U64,
    key: [u8; 16],
}

const _: () = assert!(size_of::<NoteBytes>() == NOTE_BYTES);

impl NoteBytes {
    const NONE: NoteBytes = NoteBytes {
        what: 0,
        access: 0,
        epoch: U16::ZERO,
        number: U32::ZERO,
        value: U32::ZERO,
        reserved: U32::ZERO,
        address: U64::ZERO,
        length: U64::ZERO,
        key: [0; 16],
    };

    fn end(&self) -> Option<End> {
        let end = End { queue_pair: self.number.get(), first_packet: self.value.get() };
        let fits = end.queue_pair >> 24 == 0 && end.first_packet >> 24 == 0;
        (fits && self.access == 0 && self.has_no_memory()).then_some(end)
    }

    fn grant(&self) -> Option<Grant> {
        let access = Access { read: self.access & 1 != 0, write: self.access & 2 != 0 };
        let grant = Grant {
            number: self.number.get(),
            access,
            remote_key: self.value.get(),
            address: self.address.get(),
            length: self.length.get(),
            key: self.key,
        };
        let fits = grant.address.checked_add(grant.length).is_some();
        (fits && self.access <= 3 && grant.number < GRANTS_MAX).then_some(grant)
    }

    fn has_no_memory(&self) -> bool {
        self.address.get() == 0 && self.length.get() == 0 && self.key == [0; 16]
    }
}

impl Note {
    pub(super) fn encode(self) -> [u8; NOTE_BYTES] {
        let none = NoteBytes::NONE;
        let of_end = |what, epoch: u16, end: End| NoteBytes {
            what,
            epoch: epoch.into(),
            number: end.queue_pair.into(),
            value: end.first_packet.into(),
            ..none
        };
        let bytes = match self {
            Note::Open { epoch, end } => of_end(OPEN, epoch, end),
            Note::Ready { epoch, end } => of_end(READY, epoch, end),
            Note::Grant { epoch, grant } => {
                let Grant { number, access, remote_key, address, length, key } = grant;
                NoteBytes {
                    what: GRANT,
                    access: u8::from(access.read) + 2 * u8::from(access.write),
                    epoch: epoch.into(),
                    number: number.into(),
                    value: remote_key.into(),
                    address: address.into(),
                    length: length.into(),
                    key,
                    ..none
                }
            }
            Note::Withdraw { number } => NoteBytes { what: WITHDRAW, number: number.into(), ..none },
            Note::Broken { epoch } => NoteBytes { what: BROKEN, epoch: epoch.into(), ..none },
        };
        zerocopy::transmute!(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Note, Violation> {
        let wrong = Violation::BadRdmaMessage("a note about exposed memory can't be right");
        let Ok(raw) = NoteBytes::read_from_bytes(bytes) else { return Err(wrong) };
        let epoch = raw.epoch.get();
        let found = match raw.what {
            OPEN => raw.end().map(|end| Note::Open { epoch, end }),
            READY => raw.end().map(|end| Note::Ready { epoch, end }),
            GRANT => raw.grant().map(|grant| Note::Grant { epoch, grant }),
            WITHDRAW => {
                let number = raw.number.get();
                let bare = raw.has_no_memory() && raw.access == 0 && raw.value.get() == 0 && epoch == 0;
                (bare && number < GRANTS_MAX).then_some(Note::Withdraw { number })
            }
            BROKEN => {
                let bare = raw.has_no_memory() && raw.access == 0;
                (bare && raw.number.get() == 0 && raw.value.get() == 0).then_some(Note::Broken { epoch })
            }
            _ => None,
        };
        let known = found.filter(|note| raw.reserved.get() == 0 && !note.has_bad_epoch());
        known.ok_or(wrong)
    }

    fn has_bad_epoch(&self) -> bool {
        match self {
            Note::Open { epoch, .. }
            | Note::Ready { epoch, .. }
            | Note::Grant { epoch, .. }
            | Note::Broken { epoch } => !(1..=OPENS_MAX).contains(epoch),
            Note::Withdraw { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes() -> [Note; 5] {
        let end = End { queue_pair: 0x0001_0203, first_packet: 0x00ff_fefd };
        let grant = Grant {
            number: 7,
            access: Access::READ_WRITE,
            remote_key: 0xa1b2_c3d4,
            address: 0x0102_0304_0506_0708,
            length: 0x1_0000_0000,
            key: [9; 16],
        };
        [
            Note::Open { epoch: 1, end },
            Note::Ready { epoch: OPENS_MAX, end },
            Note::Grant { epoch: 2, grant },
            Note::Withdraw { number: GRANTS_MAX - 1 },
            Note::Broken { epoch: 3 },
        ]
    }

    #[test]
    fn notes_travel_as_bytes() {
        for note in notes() {
            assert_eq!(Note::decode(&note.encode()), Ok(note));
        }
    }

    #[test]
    fn golden_bytes() {
        #[rustfmt::skip]
        let expected = [
            3, 3, 2, 0, 7, 0, 0, 0, 0xd4, 0xc3, 0xb2, 0xa1, 0, 0, 0, 0,
            8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0, 1, 0, 0, 0,
            9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9,
        ];
        assert_eq!(notes()[2].encode(), expected);
    }

    #[test]
    fn what_can_not_be_right_is_refused() {
        let tampered = |note: Note, at: usize, value: u8| {
            let mut bytes = note.encode();
            bytes[at] = value;
            Note::decode(&bytes)
        };
        for note in notes() {
            assert!(Note::decode(&note.encode()[1..]).is_err());
            assert!(tampered(note, 0, 0).is_err() && tampered(note, 0, 6).is_err(), "{note:?}: what it is");
            assert!(tampered(note, 12, 1).is_err(), "{note:?}: reserved");
            // What no note of its kind says: access, and a number or packet beyond its range.
            assert!(tampered(note, 1, 4).is_err(), "{note:?}: access");
            assert!(tampered(note, 7, 1).is_err(), "{note:?}: number");
            if !matches!(note, Note::Withdraw { .. }) {
                assert!(tampered(note, 2, 0).is_err() && tampered(note, 3, 1).is_err(), "{note:?}: epoch");
            }
            if !matches!(note, Note::Grant { .. }) {
                assert!(tampered(note, 47, 1).is_err() && tampered(note, 16, 1).is_err(), "{note:?}: memory");
            }
        }
        let [_, _, Note::Grant { epoch, grant }, ..] = notes() else { panic!() };
        let grant = Grant { address: u64::MAX - 5, length: 7, ..grant };
        assert!(Note::decode(&Note::Grant { epoch, grant }.encode()).is_err(), "it leaves the address space");
    }
}
