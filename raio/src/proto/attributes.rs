//! What is known about a file: identity, size, times, and the limits that I/O on it has.

use super::Invalid;
use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of attributes on the wire.
pub const ATTRIBUTES_BYTES: usize = 128;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    size: U64,
    device: U64,
    inode: U64,
    generation: U64,
    special_device: U64,
    blocks: U64,
    accessed_ns: I64,
    modified_ns: I64,
    changed_ns: I64,
    mode: U32,
    links: U32,
    user: U32,
    group: U32,
    block_bytes: U32,
    logical_block_bytes: U32,
    memory_alignment: U32,
    offset_alignment: U32,
    preferred_io_bytes: U32,
    io_bytes_max: U32,
    flags: U32,
    reserved: [u8; 12],
}

const _: () = assert!(size_of::<Wire>() == ATTRIBUTES_BYTES);

/// Writes are refused: the export, or the file as it was opened, is read-only.
const READ_ONLY: u32 = 1;

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A block device.
    BlockDevice,
    /// A character device, `/dev/null` among them.
    CharacterDevice,
    /// A symbolic link.
    Link,
    /// Anything else (pipe, socket).
    Other,
}

impl FileKind {
    /// From the file type bits of `st_mode`.
    #[must_use]
    pub fn from_mode(mode: u32) -> FileKind {
        match mode & libc::S_IFMT {
            libc::S_IFREG => FileKind::File,
            libc::S_IFDIR => FileKind::Directory,
            libc::S_IFBLK => FileKind::BlockDevice,
            libc::S_IFCHR => FileKind::CharacterDevice,
            libc::S_IFLNK => FileKind::Link,
            _ => FileKind::Other,
        }
    }

    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FileKind::File => "file",
            FileKind::Directory => "directory",
            FileKind::BlockDevice => "block device",
            FileKind::CharacterDevice => "character device",
            FileKind::Link => "link",
            FileKind::Other => "other",
        }
    }
}

/// A file's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Size in bytes; of the device for a block device, 4 GiB for the null device.
    pub size: u64,
    /// Device that holds the file (`st_dev`); with inode and generation the identity of the file.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Generation of the inode, 0 where the file system has none.
    pub generation: u64,
    /// The device that a device file stands for (`st_rdev`).
    pub special_device: u64,
    /// Storage in use, in units of 512 bytes.
    pub blocks: u64,
    /// Last access, in nanoseconds since 1970.
    pub accessed_ns: i64,
    /// Last change of the content, in nanoseconds since 1970.
    pub modified_ns: i64,
    /// Last change of the attributes, in nanoseconds since 1970.
    pub changed_ns: i64,
    /// `st_mode`: type and permissions.
    pub mode: u32,
    /// Number of names.
    pub links: u32,
    /// Owner.
    pub user: u32,
    /// Owning group.
    pub group: u32,
    /// `st_blksize`.
    pub block_bytes: u32,
    /// Smallest unit that the device writes, in bytes.
    pub logical_block_bytes: u32,
    /// O_DIRECT: alignment of memory at the server, in bytes; 0 where O_DIRECT is not possible.
    pub memory_alignment: u32,
    /// O_DIRECT: alignment of offsets and lengths, in bytes; 0 where O_DIRECT is not possible.
    pub offset_alignment: u32,
    /// Length of one I/O that works well, in bytes.
    pub preferred_io_bytes: u32,
    /// Greatest length of one read or write, in bytes.
    pub io_bytes_max: u32,
    /// Writes are refused.
    pub read_only: bool,
}

impl Attributes {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> FileKind {
        FileKind::from_mode(self.mode)
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; ATTRIBUTES_BYTES] {
        let Attributes {
            size,
            device,
            inode,
            generation,
            special_device,
            blocks,
            accessed_ns,
            modified_ns,
            changed_ns,
            mode,
            links,
            user,
            group,
            block_bytes,
            logical_block_bytes,
            memory_alignment,
            offset_alignment,
            preferred_io_bytes,
            io_bytes_max,
            read_only,
        } = *self;
        zerocopy::transmute!(Wire {
            size: size.into(),
            device: device.into(),
            inode: inode.into(),
            generation: generation.into(),
            special_device: special_device.into(),
            blocks: blocks.into(),
            accessed_ns: accessed_ns.into(),
            modified_ns: modified_ns.into(),
            changed_ns: changed_ns.into(),
            mode: mode.into(),
            links: links.into(),
            user: user.into(),
            group: group.into(),
            block_bytes: block_bytes.into(),
            logical_block_bytes: logical_block_bytes.into(),
            memory_alignment: memory_alignment.into(),
            offset_alignment: offset_alignment.into(),
            preferred_io_bytes: preferred_io_bytes.into(),
            io_bytes_max: io_bytes_max.into(),
            flags: if read_only { READ_ONLY } else { 0 }.into(),
            reserved: [0; 12],
        })
    }

    /// Decodes and checks.
    ///
    /// # Errors
    /// A length that differs, unknown flags, reserved bytes that are set, a size above `i64::MAX`.
    pub fn decode(bytes: &[u8]) -> Result<Attributes, Invalid> {
        let wire = Wire::ref_from_bytes(bytes).map_err(|_| Invalid::Length {
            what: "attributes",
            found: bytes.len() as u64,
            expected: ATTRIBUTES_BYTES as u64,
        })?;
        if wire.flags.get() & !READ_ONLY != 0 {
            return Err(Invalid::Flags { what: "attributes", bits: wire.flags.get() & !READ_ONLY });
        }
        if wire.reserved != [0; 12] {
            return Err(Invalid::NotZero("attributes"));
        }
        if i64::try_from(wire.size.get()).is_err() {
            return Err(Invalid::Range { offset: 0, length: wire.size.get() });
        }
        Ok(Attributes {
            size: wire.size.get(),
            device: wire.device.get(),
            inode: wire.inode.get(),
            generation: wire.generation.get(),
            special_device: wire.special_device.get(),
            blocks: wire.blocks.get(),
            accessed_ns: wire.accessed_ns.get(),
            modified_ns: wire.modified_ns.get(),
            changed_ns: wire.changed_ns.get(),
            mode: wire.mode.get(),
            links: wire.links.get(),
            user: wire.user.get(),
            group: wire.group.get(),
            block_bytes: wire.block_bytes.get(),
            logical_block_bytes: wire.logical_block_bytes.get(),
            memory_alignment: wire.memory_alignment.get(),
            offset_alignment: wire.offset_alignment.get(),
            preferred_io_bytes: wire.preferred_io_bytes.get(),
            io_bytes_max: wire.io_bytes_max.get(),
            read_only: wire.flags.get() & READ_ONLY != 0,
        })
    }
}

#[cfg(test)]
pub(super) fn sample() -> Attributes {
    Attributes {
        size: 1,
        device: 2,
        inode: 3,
        generation: 4,
        special_device: 5,
        blocks: 6,
        accessed_ns: -7,
        modified_ns: 8,
        changed_ns: 9,
        mode: libc::S_IFREG | 0o644,
        links: 10,
        user: 11,
        group: 12,
        block_bytes: 13,
        logical_block_bytes: 14,
        memory_alignment: 15,
        offset_alignment: 16,
        preferred_io_bytes: 17,
        io_bytes_max: 18,
        read_only: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes_there_and_back() {
        let bytes = sample().encode();
        let mut golden = Vec::new();
        for value in [1_i64, 2, 3, 4, 5, 6, -7, 8, 9] {
            golden.extend_from_slice(&value.to_le_bytes());
        }
        for value in [0o100_644_u32, 10, 11, 12, 13, 14, 15, 16, 17, 18, 1] {
            golden.extend_from_slice(&value.to_le_bytes());
        }
        golden.extend_from_slice(&[0; 12]);
        assert_eq!(bytes[..], golden[..]);
        assert_eq!(Attributes::decode(&bytes), Ok(sample()));
        assert_eq!(sample().kind(), FileKind::File);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let bytes = sample().encode();
        assert!(matches!(Attributes::decode(&bytes[1..]), Err(Invalid::Length { .. })));
        for (index, expected) in [
            (7, Invalid::Range { offset: 0, length: 1 | 0xff << 56 }),
            (112, Invalid::Flags { what: "attributes", bits: 0xfe }),
            (127, Invalid::NotZero("attributes")),
        ] {
            let mut bytes = bytes;
            bytes[index] = 0xff;
            assert_eq!(Attributes::decode(&bytes), Err(expected));
        }
    }
}
