//! Entries of a directory, packed one after the other.

use super::{FileKind, Invalid, NAME_BYTES_MAX};
use zerocopy::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Most bytes of entries in one answer, and the room that a client gives.
pub const LIST_BYTES_MAX: usize = 64 << 10;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    mode: U32,
    name_length: U16,
    reserved: U16,
    size: U64,
    modified_ns: I64,
}

const HEAD_BYTES: usize = size_of::<Head>();
const _: () = assert!(HEAD_BYTES == 24);
const _: () = assert!(LIST_BYTES_MAX >= HEAD_BYTES + NAME_BYTES_MAX);

/// One name in a directory. `.` and `..` are not listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectoryEntry<'a> {
    /// `st_mode` of the name itself (links are not followed).
    pub mode: u32,
    /// Size in bytes.
    pub size: u64,
    /// Last change of the content, in nanoseconds since 1970.
    pub modified_ns: i64,
    /// The name: 1 to [`NAME_BYTES_MAX`] bytes without NUL and `/`.
    pub name: &'a [u8],
}

impl DirectoryEntry<'_> {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        FileKind::from_mode(self.mode)
    }
}

/// Packs entries into a bounded buffer.
#[derive(Debug)]
pub struct EntryWriter {
    bytes: Vec<u8>,
    room: usize,
}

impl EntryWriter {
    /// Takes up to `room` bytes, and no more than [`LIST_BYTES_MAX`].
    #[must_use]
    pub fn new(room: usize) -> EntryWriter {
        EntryWriter { bytes: Vec::new(), room: room.min(LIST_BYTES_MAX) }
    }

    /// Adds an entry; false, and nothing added, when there is no room for it.
    pub fn push(&mut self, entry: &DirectoryEntry<'_>) -> bool {
        let DirectoryEntry { mode, size, modified_ns, name } = *entry;
        if self.bytes.len() + HEAD_BYTES + name.len() > self.room || name.len() > NAME_BYTES_MAX {
            return false;
        }
        let head = Head {
            mode: mode.into(),
            // At most NAME_BYTES_MAX.
            name_length: U16::new(name.len() as u16),
            reserved: U16::ZERO,
            size: size.into(),
            modified_ns: modified_ns.into(),
        };
        self.bytes.extend_from_slice(head.as_bytes());
        self.bytes.extend_from_slice(name);
        true
    }

    /// Whether nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The packed entries.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Unpacks entries. After an error it ends.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    /// Over the data of an answer.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Entries<'a> {
        Entries { rest: bytes }
    }

    fn decode(&mut self) -> Result<DirectoryEntry<'a>, Invalid> {
        let rest = self.rest;
        let (head, after) = Head::ref_from_prefix(rest).map_err(|_| Invalid::Length {
            what: "directory entry",
            found: rest.len() as u64,
            expected: HEAD_BYTES as u64,
        })?;
        let length = usize::from(head.name_length.get());
        if head.reserved.get() != 0 {
            return Err(Invalid::NotZero("directory entry"));
        }
        if length > NAME_BYTES_MAX {
            return Err(Invalid::PathTooLong(length));
        }
        let (name, after) = after.split_at_checked(length).ok_or(Invalid::Length {
            what: "name",
            found: after.len() as u64,
            expected: length as u64,
        })?;
        // A name with a slash in it would let a server lead a client that copies a tree to anywhere.
        if name.is_empty() || name == b"." || name == b".." {
            return Err(Invalid::PathEmpty);
        }
        if name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            return Err(Invalid::PathNul);
        }
        self.rest = after;
        Ok(DirectoryEntry {
            mode: head.mode.get(),
            size: head.size.get(),
            modified_ns: head.modified_ns.get(),
            name,
        })
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<DirectoryEntry<'a>, Invalid>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let entry = self.decode();
        if entry.is_err() {
            self.rest = &[];
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: DirectoryEntry<'static> =
        DirectoryEntry { mode: libc::S_IFDIR | 0o755, size: 4096, modified_ns: -1, name: b"n\xffme" };

    #[test]
    fn entries_go_there_and_back_as_far_as_there_is_room() {
        let mut writer = EntryWriter::new(2 * (HEAD_BYTES + 4));
        assert!(writer.is_empty() && writer.push(&ENTRY) && writer.push(&ENTRY));
        assert!(!writer.push(&ENTRY));
        let bytes = writer.finish();
        assert_eq!(Entries::new(&bytes).collect::<Result<Vec<_>, _>>(), Ok(vec![ENTRY, ENTRY]));
        for length in 1..bytes.len() {
            let cut = Entries::new(&bytes[..length]).collect::<Result<Vec<_>, _>>();
            assert_eq!(cut.is_err(), length != HEAD_BYTES + 4, "cut to {length}");
        }
    }

    #[test]
    fn golden_bytes() {
        let mut writer = EntryWriter::new(usize::MAX);
        writer.push(&ENTRY);
        let golden =
            [&[0xed, 0x41, 0, 0, 4, 0, 0, 0][..], &[0, 16, 0, 0, 0, 0, 0, 0], &[0xff; 8], b"n\xffme"]
                .concat();
        assert_eq!(writer.finish(), golden);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in [&b""[..], b".", b"..", b"a/b", b"a\0b"] {
            let mut writer = EntryWriter::new(1000);
            assert!(writer.push(&DirectoryEntry { name, ..ENTRY }));
            let bytes = writer.finish();
            let mut entries = Entries::new(&bytes);
            assert!(entries.next().unwrap().is_err(), "{name:?}");
            assert!(entries.next().is_none());
        }
        let long = [b'a'; NAME_BYTES_MAX + 1];
        assert!(!EntryWriter::new(usize::MAX).push(&DirectoryEntry { name: &long, ..ENTRY }));
    }
}
