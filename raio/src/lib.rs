//! raio: read and write files that live on another machine, or in another process.
//!
//! [`proto`] holds the commands and answers as bytes; client and server speak through it alone.

#![deny(unsafe_code)]

pub mod engine;
mod error;
mod operation;
mod options;
pub mod proto;

pub use engine::{Engine, EngineLimits};
pub use error::{Error, Result, describe_errno};
pub use operation::{Completion, Entry, Operation, Outcome, StatTarget};
pub use options::ClientOptions;

/// The messaging library underneath, for its buffers and uris.
pub use libxio;
