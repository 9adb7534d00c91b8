//! libxio: asynchronous, reliable, zero-copy messaging; one thread, one io_uring, no locks on the data path.
//!
//! A [`Context`] belongs to one thread at a time and owns everything made on it. It is pulled: [`Context::wait`], then
//! [`Context::next_event`] until there is none. A [`Server`] listens at a [`Uri`]; a [`Session`] is a client's dialogue
//! with one resource, made of [`Connection`]s, one per client thread as a rule. Requests flow both ways over a
//! connection; each has a small header and data as a scatter-gather list ([`Sgl`]), and the requester may name where
//! the response's data shall land ([`Landing`]).
//!
//! ```
//! use libxio::{
//!     AcceptOptions, ConnectionOptions, Context, ContextOptions, Event, OutgoingRequest, OutgoingResponse,
//!     ServerOptions, Session,
//! };
//!
//! # fn main() -> libxio::Result<()> {
//! let mut server = Context::new(ContextOptions::default())?;
//! let listening = server.listen(&"tcp://127.0.0.1:0/".parse()?, ServerOptions::default())?;
//! let uri = server.local_uri(listening)?.with_resource("/greetings");
//!
//! // A second thread is the server.
//! let stop = server.handle();
//! let thread = std::thread::spawn(move || {
//!     server.run(|context, event| match event {
//!         Event::ConnectionRequest(request) => {
//!             context.accept(request, AcceptOptions::new()).expect("the client waits");
//!         }
//!         Event::Request(request) => {
//!             let greeting = format!("hello, {}", String::from_utf8_lossy(request.header()));
//!             let response = OutgoingResponse { header: greeting.as_bytes(), ..Default::default() };
//!             context.respond(request, response).expect("the client waits");
//!         }
//!         _ => {}
//!     })
//! });
//!
//! let mut client = Context::new(ContextOptions::default())?;
//! let connection = client.connect(&Session::new(uri), ConnectionOptions::default())?;
//! let answer = loop {
//!     client.wait(None)?;
//!     match client.next_event() {
//!         Some(Event::Connected { .. }) => {
//!             client.request(connection, OutgoingRequest::new(b"world", 1))?;
//!         }
//!         Some(Event::Response { outcome, .. }) => break outcome?,
//!         Some(Event::Closed { reason, .. }) => return Err(reason),
//!         _ => {}
//!     }
//! };
//! assert_eq!(&answer.header[..], b"hello, world");
//! stop.stop();
//! thread.join().expect("the server does not panic")?;
//! # Ok(())
//! # }
//! ```
//!
//! Beside requests there are one-way messages with receipts, cancel and deadlines, announced data (the receiver says
//! where it lands), and one-sided reads and writes of memory that a side has exposed. The [`manual`] goes through all of
//! it: concepts, patterns, threads, what is guaranteed and what is not, tuning, errors.
//!
//! In short: a request is executed at most once, and ends in exactly one response event: the answer, or an error that says
//! why there is none. Memory that comes back in an event is touched by nobody any more. A peer that goes silent is given
//! up after the keepalive time; nothing waits for ever.

mod context;
mod error;
pub mod log;
pub mod manual;
mod mem;
mod reactor;
pub mod session;
mod sys;
pub mod transport;
mod uri;
pub mod wire;

pub use context::{
    AcceptOptions, Access, CancelOutcome, Completion, Connection, ConnectionOptions, ConnectionRequest,
    ConnectionStatistics, Context, ContextHandle, ContextOptions, DATA_BYTES_MAX_DEFAULT, Event, FdId,
    FileOp, HEADER_BYTES_MAX_DEFAULT, Histogram, HistogramSnapshot, Incoming, Interest, Landing, LoopKind,
    ONE_WAY_MAX_DEFAULT, OneWay, OpId, OutgoingOneWay, OutgoingRequest, OutgoingResponse, PinnedContext,
    REMOTE_REGION_BYTES, REPLAY_BYTES_MAX_DEFAULT, Receipt, RemoteRegion, Reply, Request, RequestId,
    SLOTS_DEFAULT, SendOptions, Server, ServerOptions, Session, SessionStatistics, Statistics,
    StatisticsSnapshot, TimerId, WINDOW_BYTES_DEFAULT,
};
pub use error::{Error, Result};
pub use mem::{BUFFER_LEN_MAX, Buffer, FileWindow, Pool, PoolOptions, Region, SGL_PIECES_MAX, Sgl, zeros};
pub use sys::{collapse_memory, prefetch_memory};
pub use uri::{DEFAULT_PORT, URI_LEN_MAX, Uri};
pub use wire::RejectReason;

/// The small leading part of a message, kept inline up to 64 bytes.
pub type HeaderBytes = smallvec::SmallVec<[u8; 64]>;
