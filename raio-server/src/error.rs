//! The one error type of this crate: why a server could not be configured or started, in a sentence for the operator.

use std::io;
use std::path::PathBuf;

/// Why a server can't be configured or started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An export's description that can't be understood.
    #[error("bad export {text:?}: {reason}")]
    ExportText {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// What an export names can't be opened, or can't be served.
    #[error("export {export}: {}: {cause}", path.display())]
    ExportPath {
        /// The path that clients would name.
        export: String,
        /// What it stands for.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// Two exports that a path could mean both of.
    #[error(
        "exports {one} and {other} overlap: a path below {one} could mean either; give one of them a name of its own \
         (--export NAME=PATH)"
    )]
    ExportsOverlap {
        /// The shorter path.
        one: String,
        /// The longer path, or the same again.
        other: String,
    },
    /// An address to listen on that can't be understood.
    #[error(
        "bad address {text:?}: {reason}; an address is tcp://HOST:PORT, HOST:PORT, or \
             shm:///PATH"
    )]
    ListenText {
        /// The text as given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An address that can't be had.
    #[error("can't listen on {uri}: {cause}")]
    Listen {
        /// The address.
        uri: String,
        /// Why not.
        cause: libxio::Error,
    },
    /// Sockets of a service manager that can't be taken over.
    #[error(
        "can't take over the sockets that the service manager passed: {cause}; LISTEN_PID and LISTEN_FDS name them"
    )]
    Inherited {
        /// Why not.
        cause: io::Error,
    },
    /// An address that others can reach, without leave for it.
    #[error(
        "{uri} can be reached from other machines, and everybody who reaches it may use the exports: add --insecure if \
         that is meant, or listen on 127.0.0.1"
    )]
    Exposed {
        /// The address.
        uri: String,
    },
    /// A setting outside its limits.
    #[error("{what} is {value}, it must be from {min} to {max}")]
    OutOfRange {
        /// Which, with its unit.
        what: &'static str,
        /// What was asked for.
        value: u64,
        /// The least value.
        min: u64,
        /// The greatest value.
        max: u64,
    },
    /// A configuration file that can't be read or understood.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// A command line that contradicts itself.
    #[error("{0}")]
    Usage(String),
    /// A thread of the server could not start.
    #[error("can't start {thread}: {cause}")]
    Thread {
        /// Which.
        thread: String,
        /// Why not.
        cause: libxio::Error,
    },
}

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;
