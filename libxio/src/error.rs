//! The one error type of this crate. Each variant says whose fault it is, in a sentence that the person at the
//! terminal can act on; [`Error::errno`] gives the number for callers that speak errno.

use std::io;

/// What went wrong, and on whose side.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    // ---- the caller ----
    /// A uri that can't be understood.
    #[error("bad uri {uri:?}: {reason}")]
    BadUri {
        /// The text as given.
        uri: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An argument outside its limits.
    #[error("{what} is {value}, the limit is {limit}")]
    LimitExceeded {
        /// The quantity, with its unit.
        what: &'static str,
        /// What was asked for.
        value: u64,
        /// The greatest value allowed.
        limit: u64,
    },
    /// A call that this object, or this state of it, does not offer.
    #[error("{0}")]
    Unsupported(&'static str),
    /// A handle whose object is gone, or that belongs to another context.
    #[error("stale {0} handle: it was closed, or belongs to another context")]
    StaleHandle(&'static str),
    /// The transport of a uri is not known here.
    #[error("no transport {0:?} in this build; known are: tcp, shm, rdma")]
    UnknownTransport(String),

    // ---- resources of this machine ----
    /// The transport can't be used on this machine; the reason says what is missing.
    #[error("{scheme} can't be used here: {reason}")]
    TransportUnavailable {
        /// The transport's scheme.
        scheme: &'static str,
        /// What is missing, and how to get it.
        reason: String,
    },
    /// All request slots of the connection are in use: wait for a response.
    #[error("all {0} request slots of the connection are in use")]
    SlotsExhausted(u32),
    /// The pool's limit is reached: release buffers, or raise the limit.
    #[error("the buffer pool's limit of {limit} bytes is reached (asked for {asked} more)")]
    PoolExhausted {
        /// Bytes asked for.
        asked: usize,
        /// The pool's limit in bytes.
        limit: usize,
    },
    /// io_uring can't be used on this machine.
    #[error("io_uring is refused by the kernel ({cause}): {advice}")]
    RingRefused {
        /// The kernel's error.
        cause: String,
        /// What to change.
        advice: &'static str,
    },
    /// Memory that the peer has handed over can't be taken here, so its connection had to end; the peer is not at fault.
    #[error(
        "memory of {peer} can't be taken here ({}), so its connection had to end: {}",
        io::Error::from_raw_os_error(*errno),
        advice_on_limit(*errno)
    )]
    MemoryNotTaken {
        /// The other end.
        peer: String,
        /// The errno value: EMFILE for want of descriptors, ENOMEM for want of mappings.
        errno: i32,
    },
    /// A system call failed.
    #[error("{what}: {}", io::Error::from_raw_os_error(*errno))]
    System {
        /// What was attempted, with the object's name.
        what: String,
        /// The errno value.
        errno: i32,
    },
    /// Another thread's queue to this context is full.
    #[error("the context's inbox is full ({0} posts)")]
    InboxFull(usize),

    // ---- the network and the peer ----
    /// The peer could not be reached.
    #[error("can't connect to {address}: {}", io::Error::from_raw_os_error(*errno))]
    ConnectFailed {
        /// Where to.
        address: String,
        /// The errno value.
        errno: i32,
    },
    /// The connection was lost.
    #[error("connection to {peer} lost: {}", io::Error::from_raw_os_error(*errno))]
    ConnectionLost {
        /// The other end.
        peer: String,
        /// The errno value (ECONNRESET when the peer is gone).
        errno: i32,
    },
    /// The peer is silent for longer than the keepalive limit, or did not answer a connect in time.
    #[error("{peer} did not answer for {silent_ms} ms")]
    TimedOut {
        /// The other end.
        peer: String,
        /// How long, in milliseconds.
        silent_ms: u64,
    },
    /// The peer has begun to send data and does not go on with it, within [`lease`](crate::ContextOptions::lease).
    #[error(
        "{peer} has not sent all {length} bytes of a message in {waited_ms} ms, and was given up for the memory that it held"
    )]
    Stalled {
        /// The other end.
        peer: String,
        /// Length of the message's data in bytes.
        length: u32,
        /// How long it was waited for, in milliseconds.
        waited_ms: u64,
    },
    /// The peer closed the connection in good order.
    #[error("the connection was closed by {0}")]
    Closed(String),
    /// The connection was closed by this side.
    #[error("the connection was closed by this side")]
    ClosedLocally,
    /// The server refused the connection.
    #[error("{peer} rejected the connection: {reason}")]
    Rejected {
        /// The other end.
        peer: String,
        /// Why.
        reason: crate::RejectReason,
        /// What the server's application said with it.
        private_data: Vec<u8>,
    },
    /// What the peer sent breaks the protocol; the connection is closed.
    #[error("{peer} broke the protocol: {violation}")]
    Protocol {
        /// The other end.
        peer: String,
        /// Which rule.
        violation: crate::wire::Violation,
    },
    /// The responder dropped the request without an answer.
    #[error("the peer's application gave no answer to this request")]
    Unanswered,
    /// The request was cancelled, by this side or by the peer.
    #[error("the request was cancelled")]
    Cancelled,
    /// The request had no answer within its time.
    #[error("the request had no answer within its {0} ms")]
    DeadlineExceeded(u64),
    /// As many one-way messages are unacknowledged as the peer takes: wait for
    /// [`Event::SendReady`](crate::Event::SendReady).
    #[error("{0} one-way messages are not acknowledged yet, the peer takes no more")]
    OneWayExhausted(u32),
    /// The memory that a one-sided operation named is not exposed (any more).
    #[error("the peer exposes no such memory (any more)")]
    NotExposed,
    /// The range of a one-sided operation leaves the exposed memory.
    #[error("the range leaves the memory that the peer exposes")]
    OutOfBounds,
    /// The memory is not exposed for this kind of one-sided operation.
    #[error("the peer's memory is not exposed for this kind of access")]
    NotPermitted,
    /// The response does not fit where the requester wanted it.
    #[error("the response has {length} bytes, room was given for {room}")]
    NoRoom {
        /// Length of the response's data in bytes.
        length: u64,
        /// Room named by the requester in bytes.
        room: u64,
    },
}

impl Error {
    /// A failed system call, with what it was for.
    pub fn system(what: impl Into<String>, cause: &io::Error) -> Self {
        Error::System { what: what.into(), errno: cause.raw_os_error().unwrap_or(libc::EIO) }
    }

    /// The errno that describes this error best.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Error::BadUri { .. } | Error::LimitExceeded { .. } => libc::EINVAL,
            Error::Unsupported(_) => libc::EOPNOTSUPP,
            Error::StaleHandle(_) => libc::EBADF,
            Error::UnknownTransport(_) => libc::EPROTONOSUPPORT,
            Error::TransportUnavailable { .. } => libc::ENODEV,
            Error::SlotsExhausted(_) | Error::InboxFull(_) | Error::OneWayExhausted(_) => libc::EAGAIN,
            Error::PoolExhausted { .. } => libc::ENOMEM,
            Error::RingRefused { .. } => libc::ENOSYS,
            Error::System { errno, .. }
            | Error::MemoryNotTaken { errno, .. }
            | Error::ConnectFailed { errno, .. }
            | Error::ConnectionLost { errno, .. } => *errno,
            Error::TimedOut { .. } | Error::Stalled { .. } | Error::DeadlineExceeded(_) => libc::ETIMEDOUT,
            Error::Cancelled => libc::ECANCELED,
            Error::NotExposed => libc::EFAULT,
            Error::OutOfBounds => libc::ERANGE,
            Error::NotPermitted => libc::EACCES,
            Error::Closed(_) | Error::ClosedLocally => libc::ECONNRESET,
            Error::Rejected { reason, .. } => reason.errno(),
            Error::Protocol { .. } => libc::EPROTO,
            Error::Unanswered => libc::EIO,
            Error::NoRoom { .. } => libc::EMSGSIZE,
        }
    }
}

/// Which limit to raise where memory of a peer can't be taken.
pub(crate) fn advice_on_limit(errno: i32) -> &'static str {
    match errno {
        libc::EMFILE => "raise the limit of open files (ulimit -n, LimitNOFILE= of a service)",
        _ => "raise the limit of mappings (sysctl vm.max_map_count), or of address space (ulimit -v)",
    }
}

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;
