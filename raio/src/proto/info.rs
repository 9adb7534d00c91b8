//! What a server tells about itself.

use super::{Invalid, PATH_BYTES_MAX};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Most bytes of info in one answer, and the room that a client gives.
pub const INFO_BYTES_MAX: usize = 256 << 10;

/// Longest name or version string in bytes.
const TEXT_BYTES_MAX: usize = 255;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    name_length: U16,
    version_length: U16,
    protocol: U16,
    workers: U16,
    exports: U32,
    io_bytes_max: U32,
    uptime_ms: U64,
    connections: U64,
    connections_total: U64,
    open_files: U64,
    requests: U64,
    bytes_read: U64,
    bytes_written: U64,
    reads_mapped: U64,
    reserved: [u8; 16],
}

const HEAD_BYTES: usize = size_of::<Head>();
const _: () = assert!(HEAD_BYTES == 96);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ExportHead {
    path_length: U16,
    kind: u8,
    read_only: u8,
    reserved: U32,
    size: U64,
}

const EXPORT_HEAD_BYTES: usize = size_of::<ExportHead>();
const _: () = assert!(EXPORT_HEAD_BYTES == 16);

/// What an export is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExportKind {
    /// A directory and everything beneath it.
    Directory,
    /// One file.
    File,
    /// A block device.
    BlockDevice,
    /// Takes and gives any number of bytes, keeps none.
    Null,
    /// Memory of the server.
    Memory,
    /// A kind that a newer server has.
    Unknown(u8),
}

impl ExportKind {
    /// In words.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ExportKind::Directory => "directory",
            ExportKind::File => "file",
            ExportKind::BlockDevice => "block device",
            ExportKind::Null => "null",
            ExportKind::Memory => "memory",
            ExportKind::Unknown(_) => "unknown",
        }
    }

    fn number(self) -> u8 {
        match self {
            ExportKind::Directory => 1,
            ExportKind::File => 2,
            ExportKind::BlockDevice => 3,
            ExportKind::Null => 4,
            ExportKind::Memory => 5,
            ExportKind::Unknown(number) => number,
        }
    }

    fn from_number(number: u8) -> ExportKind {
        match number {
            1 => ExportKind::Directory,
            2 => ExportKind::File,
            3 => ExportKind::BlockDevice,
            4 => ExportKind::Null,
            5 => ExportKind::Memory,
            other => ExportKind::Unknown(other),
        }
    }
}

/// One export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportInfo {
    /// The path that clients name: `/data`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: ExportKind,
    /// Writes are refused.
    pub read_only: bool,
    /// Size in bytes, 0 for a directory.
    pub size: u64,
}

/// What a server tells about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerInfo {
    /// Name of the program.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Version of the file protocol in use on this connection.
    pub protocol: u16,
    /// Worker threads.
    pub workers: u16,
    /// Greatest length of one read or write in bytes.
    pub io_bytes_max: u32,
    /// Time since it was started, in milliseconds.
    pub uptime_ms: u64,
    /// Connections open.
    pub connections: u64,
    /// Connections accepted since the start.
    pub connections_total: u64,
    /// Files open.
    pub open_files: u64,
    /// Commands executed since the start.
    pub requests: u64,
    /// Bytes read for clients since the start.
    pub bytes_read: u64,
    /// Bytes written for clients since the start.
    pub bytes_written: u64,
    /// Reads answered from a mapping of the file, without a system call of their own; 0 from servers that don't know it.
    pub reads_mapped: u64,
    /// What can be opened; in the server's order.
    pub exports: Vec<ExportInfo>,
}

impl ServerInfo {
    /// The bytes on the wire, exports as far as there is `room`; with it whether all of them fitted.
    #[must_use]
    pub fn encode(&self, room: usize) -> (Vec<u8>, bool) {
        let ServerInfo {
            name,
            version,
            protocol,
            workers,
            io_bytes_max,
            uptime_ms,
            connections,
            connections_total,
            open_files,
            requests,
            bytes_read,
            bytes_written,
            reads_mapped,
            exports,
        } = self;
        let room = room.min(INFO_BYTES_MAX);
        let (name, version) = (shorten(name), shorten(version));
        let mut taken = HEAD_BYTES + name.len() + version.len();
        let fits = |export: &&ExportInfo| {
            taken += EXPORT_HEAD_BYTES + export.path.len();
            taken <= room && export.path.len() <= PATH_BYTES_MAX
        };
        let count = exports.iter().take_while(fits).count();
        let head = Head {
            // Both strings were shortened to TEXT_BYTES_MAX.
            name_length: U16::new(name.len() as u16),
            version_length: U16::new(version.len() as u16),
            protocol: (*protocol).into(),
            workers: (*workers).into(),
            // At most INFO_BYTES_MAX / EXPORT_HEAD_BYTES.
            exports: U32::new(count as u32),
            io_bytes_max: (*io_bytes_max).into(),
            uptime_ms: (*uptime_ms).into(),
            connections: (*connections).into(),
            connections_total: (*connections_total).into(),
            open_files: (*open_files).into(),
            requests: (*requests).into(),
            bytes_read: (*bytes_read).into(),
            bytes_written: (*bytes_written).into(),
            reads_mapped: (*reads_mapped).into(),
            reserved: [0; 16],
        };
        let mut bytes = head.as_bytes().to_vec();
        bytes.extend_from_slice(name.as_bytes());
        bytes.extend_from_slice(version.as_bytes());
        for ExportInfo { path, kind, read_only, size } in &exports[..count] {
            let head = ExportHead {
                // At most PATH_BYTES_MAX.
                path_length: U16::new(path.len() as u16),
                kind: kind.number(),
                read_only: u8::from(*read_only),
                reserved: U32::ZERO,
                size: (*size).into(),
            };
            bytes.extend_from_slice(head.as_bytes());
            bytes.extend_from_slice(path);
        }
        (bytes, count == exports.len())
    }

    /// Decodes and checks.
    ///
    /// # Errors
    /// The rule that the bytes break.
    pub fn decode(bytes: &[u8]) -> Result<ServerInfo, Invalid> {
        let short = |what, found: &[u8], expected: usize| Invalid::Length {
            what,
            found: found.len() as u64,
            expected: expected as u64,
        };
        let (head, rest) =
            Head::ref_from_prefix(bytes).map_err(|_| short("server info", bytes, HEAD_BYTES))?;
        let text = |length: U16, rest, what| {
            let (text, rest) = take(rest, usize::from(length.get()), what)?;
            Ok((std::str::from_utf8(text).map_err(|_| Invalid::NotText(what))?.to_owned(), rest))
        };
        let (name, rest) = text(head.name_length, rest, "server name")?;
        let (version, mut rest) = text(head.version_length, rest, "server version")?;
        let mut exports = Vec::new();
        for _ in 0..head.exports.get() {
            let (export, after) =
                ExportHead::ref_from_prefix(rest).map_err(|_| short("export", rest, EXPORT_HEAD_BYTES))?;
            let length = usize::from(export.path_length.get());
            if length > PATH_BYTES_MAX {
                return Err(Invalid::PathTooLong(length));
            }
            let (path, after) = take(after, length, "export path")?;
            exports.push(ExportInfo {
                path: path.to_vec(),
                kind: ExportKind::from_number(export.kind),
                read_only: export.read_only != 0,
                size: export.size.get(),
            });
            rest = after;
        }
        if !rest.is_empty() {
            return Err(short("server info", bytes, bytes.len() - rest.len()));
        }
        Ok(ServerInfo {
            name,
            version,
            protocol: head.protocol.get(),
            workers: head.workers.get(),
            io_bytes_max: head.io_bytes_max.get(),
            uptime_ms: head.uptime_ms.get(),
            connections: head.connections.get(),
            connections_total: head.connections_total.get(),
            open_files: head.open_files.get(),
            requests: head.requests.get(),
            bytes_read: head.bytes_read.get(),
            bytes_written: head.bytes_written.get(),
            reads_mapped: head.reads_mapped.get(),
            exports,
        })
    }
}

fn take<'a>(bytes: &'a [u8], length: usize, what: &'static str) -> Result<(&'a [u8], &'a [u8]), Invalid> {
    bytes.split_at_checked(length).ok_or(Invalid::Length {
        what,
        found: bytes.len() as u64,
        expected: length as u64,
    })
}

/// The text up to its limit, cut between characters.
fn shorten(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ServerInfo {
        let export = |path: &[u8], kind| ExportInfo { path: path.to_vec(), kind, read_only: true, size: 9 };
        ServerInfo {
            name: "raio-server".into(),
            version: "0.1.0".into(),
            protocol: 1,
            workers: 2,
            io_bytes_max: 3,
            uptime_ms: 4,
            connections: 5,
            connections_total: 6,
            open_files: 7,
            requests: 8,
            bytes_read: 9,
            bytes_written: 10,
            reads_mapped: 11,
            exports: vec![
                export(b"/data", ExportKind::Directory),
                export(b"/x\xff", ExportKind::Unknown(77)),
            ],
        }
    }

    #[test]
    fn info_goes_there_and_back() {
        let (bytes, complete) = sample().encode(INFO_BYTES_MAX);
        assert!(complete);
        assert_eq!(ServerInfo::decode(&bytes), Ok(sample()));
        for length in 0..bytes.len() {
            assert!(ServerInfo::decode(&bytes[..length]).is_err(), "cut to {length}");
        }
        assert!(ServerInfo::decode(&[&bytes[..], b"x"].concat()).is_err());
    }

    #[test]
    fn exports_are_left_out_where_there_is_no_room() {
        let (all, _) = sample().encode(INFO_BYTES_MAX);
        let (bytes, complete) = sample().encode(all.len() - 1);
        assert!(!complete);
        assert_eq!(ServerInfo::decode(&bytes).unwrap().exports, sample().exports[..1]);
    }

    #[test]
    fn a_count_that_lies_is_refused_without_memory() {
        let (mut bytes, _) = sample().encode(INFO_BYTES_MAX);
        bytes[8..12].fill(0xff);
        assert!(matches!(ServerInfo::decode(&bytes), Err(Invalid::Length { .. })));
    }
}
