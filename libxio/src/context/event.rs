//! What a context tells its owner, and what the owner hands to it. Everything is owned: nothing is borrowed while user
//! code runs.

use super::arrived::Arrived;
use super::handles::{Connection, FdId, OpId, RequestId, Server, TimerId};
use super::message::{CancelOutcome, Incoming, OneWay, Receipt, parts_of_a_message};
use crate::reactor::Key;
use crate::{Buffer, Error, HeaderBytes, Result, Sgl, wire};
use std::any::Any;
use std::os::fd::RawFd;

/// Something that happened in a context.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A peer wants a connection: answer with [`Context::accept`](crate::Context::accept) or
    /// [`Context::reject`](crate::Context::reject).
    ConnectionRequest(ConnectionRequest),
    /// A connection that this side opened was accepted.
    Connected {
        /// The connection.
        connection: Connection,
        /// What the server's application said with it.
        private_data: Vec<u8>,
    },
    /// A connection has ended, or could not be opened. It comes once per connection, after the responses (with errors)
    /// of all its outstanding requests; afterwards its handle is stale.
    Closed {
        /// The connection.
        connection: Connection,
        /// Why: [`Error::ClosedLocally`] and [`Error::Closed`] are the orderly ways.
        reason: Error,
    },
    /// The peer asks for something: answer with [`Context::respond`](crate::Context::respond), now or later.
    Request(Request),
    /// A request of this side has ended.
    Response {
        /// Its connection.
        connection: Connection,
        /// The request.
        id: RequestId,
        /// The token given with the request.
        token: u64,
        /// The answer, or why there is none.
        outcome: Result<Reply>,
    },
    /// A one-way message of the peer.
    OneWay(OneWay),
    /// A message of the peer whose data waits there until [`Context::assign`](crate::Context::assign) says where it
    /// lands; see [`wire::Limits::immediate_bytes_max`].
    Incoming(Incoming),
    /// The peer's application has read a message for which a receipt was asked. For a one-way message it comes exactly
    /// once (with an error when the connection ends first); for a request at most once, before its response.
    Receipt {
        /// Its connection.
        connection: Connection,
        /// The token given with the message.
        token: u64,
        /// What the peer's application said.
        outcome: Result<Receipt>,
    },
    /// A message whose sender asked for it ([`SendOptions::notify`](crate::SendOptions::notify)) is with the transport:
    /// its memory is free.
    Sent {
        /// Its connection.
        connection: Connection,
        /// The token given for this.
        token: u64,
        /// The message's memory, or why it was not sent.
        outcome: Result<Sgl>,
    },
    /// The peer takes one-way messages again, after [`Error::OneWayExhausted`].
    SendReady {
        /// The connection.
        connection: Connection,
    },
    /// The peer does not want the answer to a request any more. Answer it as ever, or end it with
    /// [`Context::abandon`](crate::Context::abandon) (or by dropping it).
    Cancel {
        /// The connection.
        connection: Connection,
        /// The request, as [`Request::id`] gives it.
        id: RequestId,
    },
    /// What came of a [`Context::cancel`](crate::Context::cancel). The request's response follows, or came before.
    CancelEnded {
        /// The connection.
        connection: Connection,
        /// The request.
        id: RequestId,
        /// The request's token.
        token: u64,
        /// What came of it; an error when the connection ended first.
        outcome: Result<CancelOutcome>,
    },
    /// The memory named as landing place by a request that ended at its deadline: the peer has confirmed, nothing
    /// touches it any more.
    Released {
        /// The connection.
        connection: Connection,
        /// The request's token.
        token: u64,
        /// The memory; its content is undefined.
        memory: Sgl,
    },
    /// What waits to be sent on a connection has shrunk to the mark of
    /// [`Context::notify_drained`](crate::Context::notify_drained).
    Drained {
        /// The connection.
        connection: Connection,
    },
    /// A file operation has ended.
    Completed(Completion),
    /// A foreign file descriptor is ready. It stays quiet until [`Context::modify_fd`](crate::Context::modify_fd)
    /// arms it again.
    FdReady {
        /// Which.
        id: FdId,
        /// The token given with it.
        token: u64,
        /// What it is ready for (errors and hang-ups show as both).
        ready: Interest,
    },
    /// A timer fired.
    Timer {
        /// Which.
        id: TimerId,
        /// The token given with it.
        token: u64,
    },
    /// Another thread sent this by [`ContextHandle::post_message`](crate::ContextHandle::post_message).
    Message {
        /// The sender's number.
        token: u64,
        /// What it sent.
        payload: Box<dyn Any + Send>,
    },
}

/// What a foreign descriptor is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interest {
    /// Data to read, or end of file.
    pub readable: bool,
    /// Room to write.
    pub writable: bool,
}

impl Interest {
    /// Readable only.
    pub const READ: Interest = Interest { readable: true, writable: false };
    /// Writable only.
    pub const WRITE: Interest = Interest { readable: false, writable: true };
    /// Both.
    pub const BOTH: Interest = Interest { readable: true, writable: true };
}

/// A peer's wish for a connection. Dropped without an answer, it is rejected as busy when its time is over.
#[derive(Debug)]
pub struct ConnectionRequest {
    /// Behind a pointer: an event is as large as its largest kind, and this one is rare.
    pub(crate) offer: Box<Offer>,
}

/// What belongs to a peer's wish.
#[derive(Debug)]
pub(crate) struct Offer {
    /// Number of the context that it waits in.
    pub(crate) context: u32,
    pub(crate) server: Option<Server>,
    pub(crate) link: Key,
    pub(crate) hello: wire::Hello,
    pub(crate) peer: String,
    pub(crate) is_local: bool,
    /// What the session is called on this server; fresh unless the hello joins one.
    pub(crate) session: wire::SessionId,
}

impl ConnectionRequest {
    /// The resource that the client named in its uri.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.offer.hello.resource
    }

    /// What the client's application sent along.
    #[must_use]
    pub fn private_data(&self) -> &[u8] {
        &self.offer.hello.private_data
    }

    /// The client's address.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.offer.peer
    }

    /// Whether the client's address is one of this host (and, for TCP, of this network namespace).
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.offer.is_local
    }

    /// The session that the connection will belong to: the same for all connections of one client session.
    #[must_use]
    pub fn session(&self) -> wire::SessionId {
        self.offer.session
    }

    /// Who runs the client's loop.
    #[must_use]
    pub fn loop_kind(&self) -> wire::LoopKind {
        self.offer.hello.loop_kind
    }

    /// The client's limits and wishes.
    #[must_use]
    pub fn limits(&self) -> &wire::Limits {
        &self.offer.hello.limits
    }

    /// The server (listening address) it came in by, where that belongs to this context.
    #[must_use]
    pub fn server(&self) -> Option<Server> {
        self.offer.server
    }
}

/// How a connection is accepted. The limits are upper bounds: the client gets the smaller of these and its wishes.
#[derive(Debug, Clone)]
pub struct AcceptOptions {
    /// For the client's application, at most [`wire::PRIVATE_DATA_BYTES_MAX`] bytes.
    pub private_data: Vec<u8>,
    /// Limits of this connection; `None` takes the context's.
    pub limits: Option<wire::Limits>,
}

impl AcceptOptions {
    /// The context's limits and no private data.
    #[must_use]
    pub fn new() -> AcceptOptions {
        AcceptOptions { private_data: Vec::new(), limits: None }
    }
}

impl Default for AcceptOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Where the data of a response shall land.
#[derive(Debug, Default)]
pub enum Landing {
    /// No data is expected.
    #[default]
    None,
    /// Buffers of the context's pool, taken when the data arrives: at most this many bytes.
    Pool(u32),
    /// This memory. It comes back in the reply, cut to the length that arrived.
    Place(Sgl),
}

impl Landing {
    /// Most bytes that a response may carry.
    #[must_use]
    #[inline]
    pub fn room(&self) -> usize {
        match self {
            Landing::None => 0,
            Landing::Pool(room) => *room as usize,
            Landing::Place(list) => list.len(),
        }
    }
}

/// A request to send.
#[derive(Debug)]
pub struct OutgoingRequest<'a> {
    /// The small leading part: at most the peer's `header_bytes_max`.
    pub header: &'a [u8],
    /// The data: at most the peer's `data_bytes_max`. It waits for the byte grant if need be.
    pub data: Sgl,
    /// Where the response's data shall land.
    pub landing: Landing,
    /// Comes back with the response.
    pub token: u64,
    /// Whether executing it twice does no harm (reads, look-ups). Responses to other requests have to be small enough to
    /// be kept (`replay_bytes_max`).
    pub idempotent: bool,
}

impl<'a> OutgoingRequest<'a> {
    /// A request with a header and no data, idempotent.
    #[must_use]
    pub fn new(header: &'a [u8], token: u64) -> Self {
        OutgoingRequest { header, data: Sgl::new(), landing: Landing::None, token, idempotent: true }
    }
}

/// An answer to a request of this side.
#[derive(Debug)]
pub struct Reply {
    /// The small leading part.
    pub header: HeaderBytes,
    /// The data, where it landed.
    pub data: Sgl,
}

/// A request of the peer. It moves to whoever answers it; dropped, it is answered with [`Error::Unanswered`].
#[derive(Debug)]
pub struct Request {
    pub(crate) record: Box<Arrived>,
}

parts_of_a_message!(Request, "The sender's byte grant is renewed when the request is answered.");

impl Request {
    /// Most bytes of data that the response may carry.
    #[must_use]
    #[inline]
    pub fn room(&self) -> u32 {
        self.record.room
    }

    /// Its number, as [`Event::Cancel`] names it.
    #[must_use]
    #[inline]
    pub fn id(&self) -> RequestId {
        self.record.request_id()
    }
}

/// An answer to a request of the peer.
#[derive(Debug, Default)]
pub struct OutgoingResponse<'a> {
    /// The small leading part.
    pub header: &'a [u8],
    /// The data: at most [`Request::room`] bytes.
    pub data: Sgl,
}

/// An operation on a file, run by the context's ring.
#[derive(Debug)]
#[non_exhaustive]
pub enum FileOp {
    /// `pread(2)` into the buffer. A short count is the end of the file, or an early return.
    Read {
        /// An open descriptor; it must stay open until the completion.
        fd: RawFd,
        /// Offset in bytes.
        offset: u64,
        /// Filled from its start.
        buffer: Buffer,
    },
    /// `pwritev(2)` of the list.
    Write {
        /// An open descriptor; it must stay open until the completion.
        fd: RawFd,
        /// Offset in bytes.
        offset: u64,
        /// What to write.
        data: Sgl,
        /// Ends only when the data, and what is needed to read it back, is on stable storage: `RWF_DSYNC` of
        /// `pwritev2(2)`. Where that is not known the operation ends with `EOPNOTSUPP`.
        durable: bool,
    },
    /// `fsync(2)` or `fdatasync(2)`.
    Sync {
        /// An open descriptor; it must stay open until the completion.
        fd: RawFd,
        /// Leave out metadata that is not needed to read the data back.
        data_only: bool,
    },
    /// `fallocate(2)`.
    Allocate {
        /// An open descriptor; it must stay open until the completion.
        fd: RawFd,
        /// `FALLOC_FL_*` flags.
        mode: i32,
        /// Offset in bytes.
        offset: u64,
        /// Length in bytes.
        length: u64,
    },
}

/// A file operation that has ended.
#[derive(Debug)]
pub struct Completion {
    /// Which.
    pub id: OpId,
    /// The token given with it.
    pub token: u64,
    /// Bytes moved, or the errno value.
    pub result: std::result::Result<u32, i32>,
    /// The memory that went in (whole; cut it to `result` yourself).
    pub data: Sgl,
}
