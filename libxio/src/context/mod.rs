//! A context: one thread's loop and everything made on it.
//!
//! `turn.rs` is the loop; `links.rs` attends to transport links; `serving.rs` and `requests.rs` are the application's
//! calls on servers and connections; `files.rs` is for its own descriptors and file operations; `connection.rs` turns
//! arriving frames into events.

mod arrived;
mod attention;
mod cancel;
mod connecting;
mod connection;
mod event;
mod files;
mod fixed;
mod fork;
mod handle;
mod handles;
mod histogram;
mod links;
mod message;
mod one_way;
mod options;
mod outgoing;
mod received;
mod remote;
mod requests;
mod serving;
mod session;
mod statistics;
mod transfer;
mod turn;

pub use crate::wire::LoopKind;
pub use event::{
    AcceptOptions, Completion, ConnectionRequest, Event, FileOp, Interest, Landing, OutgoingRequest,
    OutgoingResponse, Reply, Request,
};
pub use handle::ContextHandle;
pub use handles::{Connection, FdId, OpId, RequestId, Server, TimerId};
pub use histogram::{Histogram, HistogramSnapshot};
pub use message::{CancelOutcome, Incoming, OneWay, OutgoingOneWay, Receipt, SendOptions};
pub use options::{
    ConnectionOptions, ContextOptions, DATA_BYTES_MAX_DEFAULT, HEADER_BYTES_MAX_DEFAULT, ONE_WAY_MAX_DEFAULT,
    REPLAY_BYTES_MAX_DEFAULT, SLOTS_DEFAULT, ServerOptions, WINDOW_BYTES_DEFAULT,
};
pub use remote::{Access, REMOTE_REGION_BYTES, RemoteRegion};
pub use session::Session;
pub use session::SessionStatistics;
pub use statistics::{ConnectionStatistics, Statistics, StatisticsSnapshot};

use crate::reactor::{Key, NearTimer, Outbox, Ring, STAMP_MASK, Slab, SpinBudget, Timers, Waker, inbox};
use crate::transport::{Shm, Tcp, Transport};
use crate::{Error, Pool, Result};
use arrived::Records;
use connection::ConnectionState;
use crossbeam_channel::Receiver;
use files::{ForeignFd, PendingOp};
use fixed::FixedBuffers;
use handle::{DroppedMessages, Post};
use links::LinkEntry;
use outgoing::HeldFrame;
use serving::ServerState;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// Events that wait at a time as a rule; room for them is made at the start, so that no message has to pay for it later.
const EVENTS_USUAL: usize = 1024;

/// Memory that small frames are received into, shared by all links of a context. It takes the largest head and header
/// and a batch of 4 KiB payloads; together with them it stays inside a level-2 cache.
const SCRATCH_BYTES: usize = 192 << 10;

/// One thread's loop, and everything made on it. This kind is `Send`: it may be driven from any thread, one at a time.
/// For a thread that keeps it for good, [`PinnedContext`] costs the kernel less per completion.
///
/// The native form is pull: [`Context::wait`], then [`Context::next_event`] until there is none. Events own what they
/// carry, so nothing is borrowed while the application works and it may call the context as it likes.
///
/// ```
/// use libxio::{Buffer, Context, ContextOptions, Event, FileOp};
/// use std::os::fd::AsRawFd;
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut context = Context::new(ContextOptions::default())?;
/// let file = std::fs::File::open("/proc/self/comm")?;
/// let buffer = Buffer::from_vec(vec![0; 64]);
/// context.submit(FileOp::Read { fd: file.as_raw_fd(), offset: 0, buffer }, 1)?;
/// context.set_timer(Duration::from_millis(20), 2)?;
/// let mut seen = 0;
/// while seen < 2 {
///     context.wait(None)?;
///     while let Some(event) = context.next_event() {
///         seen += 1;
///         match event {
///             Event::Completed(done) => assert!(done.result.is_ok_and(|bytes| bytes > 0)),
///             Event::Timer { token, .. } => assert_eq!(token, 2),
///             other => panic!("{other:?}"),
///         }
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Context {
    number: u32,
    options: ContextOptions,
    transports: Arc<[Arc<dyn Transport>]>,
    /// None on virtual time.
    ring: Option<Ring>,
    stamps: Stamps,
    /// Time of the turn, read after what has come was received.
    now: Instant,
    /// The same, in nanoseconds since the context was made: what statistics are taken from.
    now_ns: u64,
    /// That of the last turn.
    turned_ns: u64,
    /// The application came back at once the last time.
    is_prompt: bool,
    made: Instant,
    /// `now` was read since the application last found no event.
    now_is_fresh: bool,
    links: Slab<LinkEntry>,
    /// Links polled every turn; exactly those whose entry says so.
    hot: VecDeque<Key>,
    /// Polls of links that have fired since the time below.
    crowd: usize,
    crowd_since_ns: u64,
    /// They were many in the time before that.
    is_crowded: bool,
    /// Links with something to send; exactly those whose entry says so.
    dirty: Vec<Key>,
    connections: Slab<ConnectionState>,
    servers: Slab<ServerState>,
    timers: Timers,
    fds: Slab<ForeignFd>,
    ops: Slab<PendingOp>,
    fixed: FixedBuffers,
    events: VecDeque<Event>,
    /// Answers made while a link is being read; empty between calls.
    replies: Vec<HeldFrame>,
    pool: Pool,
    scratch: Box<[u8]>,
    statistics: Arc<Statistics>,
    inbox: Receiver<Post>,
    outbox: Outbox<Post>,
    waker: Arc<Waker>,
    /// Stamp of the poll on the waker's doorbell.
    waker_armed: Option<u32>,
    records: Records,
    spin: SpinBudget,
    /// Set while it sleeps often.
    near_timer: NearTimer,
    /// It has slept, and with that armed everything, since a turn was last taken that did not look at all hot links.
    has_slept: bool,
    /// When the caller left the loop, where that runs only inside calls.
    left_at: Option<Instant>,
    /// When connections, handshakes and farewells are looked through for their deadlines.
    next_sweep: Instant,
    last_sweep: Instant,
    /// When a request's time may be over; never later than the first deadline.
    next_expiry: Option<Instant>,
    /// Somebody else's loop waits on the ring's descriptor.
    driven_outside: bool,
    /// Timeout in the ring for that loop: stamp and time.
    outside_timeout: Option<(u32, Instant)>,
    stopping: bool,
}

/// Numbers for operations in the ring, so that a late completion is known.
#[derive(Debug, Default)]
struct Stamps(u32);

impl Stamps {
    fn next(&mut self) -> u32 {
        self.0 = (self.0 + 1) & STAMP_MASK;
        self.0
    }
}

/// A context that stays on the thread that made it: the kernel saves work per completion. Servers use it. It derefs to
/// [`Context`].
#[derive(Debug)]
pub struct PinnedContext {
    inner: Context,
    not_send: PhantomData<*const ()>,
}

impl PinnedContext {
    /// A context for this thread.
    ///
    /// # Errors
    /// As [`Context::new`]; [`Error::System`] for a processor that is not there or not ours.
    pub fn new(options: ContextOptions) -> Result<PinnedContext> {
        if let Some(cpu) = options.cpu {
            bind_thread(cpu)?;
        }
        Ok(PinnedContext { inner: Context::build(options, true)?, not_send: PhantomData })
    }
}

/// Binds the calling thread to a processor.
fn bind_thread(cpu: usize) -> Result<()> {
    use rustix::thread::{CpuSet, sched_setaffinity};
    if cpu >= CpuSet::MAX_CPU {
        let (value, limit) = (cpu as u64, CpuSet::MAX_CPU as u64 - 1);
        return Err(Error::LimitExceeded { what: "number of a processor", value, limit });
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
        .map_err(|errno| Error::system(format!("binding the thread to processor {cpu}"), &errno.into()))
}

impl std::ops::Deref for PinnedContext {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.inner
    }
}

impl std::ops::DerefMut for PinnedContext {
    fn deref_mut(&mut self) -> &mut Context {
        &mut self.inner
    }
}

impl Context {
    /// A context that may move between threads.
    ///
    /// # Errors
    /// [`Error::RingRefused`] with what to change where io_uring can't be had; [`Error::LimitExceeded`] for limits out of
    /// range.
    pub fn new(options: ContextOptions) -> Result<Context> {
        Context::build(options, false)
    }

    fn build(options: ContextOptions, pinned: bool) -> Result<Context> {
        static NUMBERS: AtomicU32 = AtomicU32::new(0);
        options::check_limits(&options.limits)?;
        let ring =
            if options.clock.is_virtual() { None } else { Some(Ring::new(options.ring_entries, pinned)?) };
        let mut transports: Vec<Arc<dyn Transport>> =
            vec![Arc::new(Tcp), Arc::new(Shm::new(options.shared_memory))];
        let statistics = Arc::new(Statistics::default());
        #[cfg(feature = "rdma")]
        transports.push(Arc::new(crate::transport::Rdma::new(options.rdma, Arc::clone(&statistics))));
        transports.extend(options.transports.iter().cloned());
        let waker = Waker::new()?;
        let (inbox, outbox) = inbox(&waker);
        let now = options.clock.now();
        Ok(Context {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            transports: transports.into(),
            ring,
            stamps: Stamps::default(),
            now,
            now_ns: 0,
            turned_ns: 0,
            is_prompt: false,
            made: now,
            now_is_fresh: false,
            links: Slab::new(),
            hot: VecDeque::new(),
            is_crowded: false,
            crowd: 0,
            crowd_since_ns: 0,
            has_slept: false,
            dirty: Vec::new(),
            connections: Slab::new(),
            servers: Slab::new(),
            timers: Timers::new(),
            fds: Slab::new(),
            ops: Slab::new(),
            fixed: FixedBuffers::new(options.pinned_bytes_max, &waker),
            events: VecDeque::with_capacity(EVENTS_USUAL),
            replies: Vec::new(),
            pool: Pool::new(options.pool.clone()),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            statistics,
            inbox,
            outbox,
            records: Records::new(Arc::new(DroppedMessages {
                queue: crossbeam_queue::SegQueue::new(),
                waker: Arc::clone(&waker),
            })),
            waker,
            waker_armed: None,
            spin: SpinBudget::new(options.polling_timeout),
            near_timer: NearTimer::new(),
            left_at: None,
            next_sweep: now,
            last_sweep: now,
            next_expiry: None,
            driven_outside: false,
            outside_timeout: None,
            stopping: false,
            options,
        })
    }

    fn transport(&self, scheme: &str) -> Result<Arc<dyn Transport>> {
        let found = self.transports.iter().find(|transport| transport.scheme() == scheme);
        match found {
            Some(found) => Ok(Arc::clone(found)),
            #[cfg(not(feature = "rdma"))]
            None if scheme == "rdma" => Err(crate::transport::no_rdma()),
            None => Err(Error::UnknownTransport(scheme.to_owned())),
        }
    }

    /// For other threads.
    #[must_use]
    pub fn handle(&self) -> ContextHandle {
        ContextHandle {
            outbox: self.outbox.clone(),
            statistics: Arc::clone(&self.statistics),
            transports: Arc::clone(&self.transports),
        }
    }

    /// The pool that message data lands in.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The context's counters.
    #[must_use]
    pub fn statistics(&self) -> Arc<Statistics> {
        Arc::clone(&self.statistics)
    }

    /// A descriptor that is readable when there is something to do, for somebody else's loop (epoll, tokio, libevent).
    /// Call [`Context::wait`] with zero until it returns 0, then wait on the descriptor.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on virtual time.
    pub fn poll_fd(&mut self) -> Result<RawFd> {
        let ring =
            self.ring.as_ref().ok_or(Error::Unsupported("a context on virtual time has no descriptor"))?;
        self.driven_outside = true;
        Ok(ring.fd())
    }

    /// The descriptor of [`Context::poll_fd`], borrowed, for interfaces that take no plain numbers.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on virtual time.
    pub fn poll_fd_borrowed(&mut self) -> Result<BorrowedFd<'_>> {
        self.poll_fd()?;
        let ring = self.ring.as_ref().map(Ring::as_fd);
        ring.ok_or(Error::Unsupported("a context on virtual time has no descriptor"))
    }
}

impl Drop for Context {
    /// Closes everything. File operations in flight are cancelled and waited for up to 5 s; memory of those that are
    /// still with the kernel then is not freed.
    fn drop(&mut self) {
        for key in self.links.keys() {
            self.drop_link(key);
        }
        // A poll that is left to the ring's own end, which the kernel does later, would keep the address in use.
        for index in 0..self.servers.index_end() {
            let armed = self.servers.key_at(index).and_then(|key| self.servers.get_mut(key)?.armed.take());
            self.disarm(armed, index, crate::reactor::TicketKind::Listener);
        }
        self.end_operations();
    }
}
