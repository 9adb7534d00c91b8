//! The file protocol: commands and answers as fixed little-endian structs, with paths, lists and numbers validated.
//!
//! Pure: no I/O, no clock, no unsafe. A request's message header is a 48-byte [`Request`] and up to two paths, its data
//! are the bytes to write. An answer's header is 32 bytes of status, followed by [`Attributes`] where a file was opened
//! or looked up; its data are the bytes read, [`DirectoryEntry`]s or [`ServerInfo`]. docs/PROTOCOL-RAIO.md has the
//! pictures. Every number received is checked here, so that what decodes can be acted upon: offsets and ends of ranges
//! fit `i64`, paths have no NUL and bounded length, flags are known, reserved bytes are zero.

mod answer;
mod attributes;
mod check;
mod greeting;
mod info;
mod invalid;
mod list;
mod op;
mod open_flags;
mod request;

pub use answer::{ANSWER_BYTES_MAX, Answer, AnswerBytes, STATUS_BYTES};
pub use attributes::{ATTRIBUTES_BYTES, Attributes, FileKind};
pub use greeting::{GREETING_BYTES, Greeting, decode_portals, encode_portals};
pub use info::{ExportInfo, ExportKind, INFO_BYTES_MAX, ServerInfo};
pub use invalid::Invalid;
pub use list::{DirectoryEntry, Entries, EntryWriter, LIST_BYTES_MAX};
pub use op::Op;
pub use open_flags::OpenFlags;
pub use request::{COMMAND_BYTES, Handle, Request, Target};

/// Version of the file protocol spoken here; it is agreed upon by [`Greeting`]s in hello and welcome.
pub const VERSION: u16 = 1;

/// Oldest version still spoken.
pub const VERSION_MIN: u16 = 1;

/// The resource that a client names when it connects. Files are named by the commands, so that one connection can
/// serve many.
pub const RESOURCE: &str = "/";

/// Longest path in bytes (Linux's PATH_MAX, less nothing: there is no terminating NUL on the wire).
pub const PATH_BYTES_MAX: usize = 4096;

/// Longest name of a directory entry in bytes (NAME_MAX of Linux, with room for file systems that allow more).
pub const NAME_BYTES_MAX: usize = 1024;

/// Largest answer to a request that may not be executed twice, in bytes: what every server keeps for replay.
pub const REPLAY_BYTES_MAX: usize = 256;

const _: () = assert!(ANSWER_BYTES_MAX <= REPLAY_BYTES_MAX);
