//! raio: read and write files that live on another machine, or in another process, with the ease of local I/O.
//!
//! | to | use |
//! |---|---|
//! | read and write with blocking calls | [`File`], [`OpenOptions`] |
//! | look up, list, rename, remove, ask the server | [`Client`] |
//! | have many requests in flight from one thread | [`Queue`] |
//! | await | [`asynchronous`] |
//! | build something else on the non-blocking core | [`engine`] |
//! | do all this in C | the package libraio: `libraio.so` and `libraio.h` |
//!
//! No helper threads (but for eventfds in C): the loop of a connection runs inside the calls made on it, so a program that is not inside a call
//! costs nothing, and may take its time between two of them. A server that dies or hangs ends everything outstanding
//! with an error within [`ClientOptions::keepalive`].
//!
//! [`proto`] holds the commands and answers as bytes; client and server speak through it alone.

#![deny(unsafe_code)]

pub mod asynchronous;
#[expect(
    unsafe_code,
    reason = "borrowed memory as the place where data lands; the module says how that is sound"
)]
mod borrow;
mod client;
pub mod engine;
mod error;
mod file;
mod open_options;
mod operation;
mod options;
pub mod proto;
mod queue;

pub use client::Client;
pub use engine::{Engine, EngineLimits};
pub use error::{Error, Result, describe_errno};
pub use file::File;
pub use open_options::OpenOptions;
pub use operation::{Completion, Entry, Operation, Outcome, StatTarget};
pub use options::{ClientOptions, Transport};
pub use queue::Queue;

/// The messaging library underneath, for its buffers and uris.
pub use libxio;
