//! A worker: one thread, one context, and the connections that were placed on it.
//!
//! Requests arrive as events. Where nobody waits one is begun as it comes, else it waits in [`fair::Fair`] for its turn.
//! In its turn a request is begun (`serving.rs`): it ends at once, goes to the ring, or off the loop; its end is answered (`answering.rs`). Each turn of the loop begins
//! requests for a bounded number of bytes, then lets the context send and receive. A client whose answers are not taken
//! is left alone until they are: what the server holds for one client is bounded, whatever it asks for.

mod answering;
mod calls;
mod client;
mod fair;
mod job;
mod pending;
mod serving;

use crate::counters::Counters;
use crate::exports::Exports;
use crate::offloop::{Group, OffLoop};
use crate::server::Shared;
use crate::windows::{SWEEP_INTERVAL, Windows};
use crate::{Config, Error, Result};
use calls::{Ended, Postbox};
use client::{Client, Opened};
use crossbeam_channel::{Receiver, unbounded};
use fair::{Fair, Lane};
use job::Item;
use libxio::{
    AcceptOptions, Connection, ConnectionRequest, ContextHandle, ContextOptions, Event, PinnedContext,
    RejectReason,
};
use pending::Table;
use raio::proto::{Greeting, RESOURCE, encode_portals};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes of requests that are begun before the context has its turn: long enough for a gathered send to pay, short
/// enough for a new request of another client to be seen soon.
const TURN_BYTES: u64 = 512 << 10;

/// Most bytes that one client's requests may begin in a row as they come: what others may have to wait for who came at
/// the same moment.
const AT_ONCE_BYTES: u64 = 256 << 10;

/// Most bytes that are being read or wait to be sent for one client: two operations of the greatest length, so that one
/// is worked at while the other is sent.
const CLIENT_BYTES_MAX: u64 = 8 << 20;

/// A client may hold no more than one part in so many of the memory that is free, so that however many clients do not
/// take their answers, some is left for others; looked at after each 64 KiB of answers (A. K. Choudhury and E. L. Hahne, "Dynamic Queue Length Thresholds for
/// Shared-Memory Packet Switches", 1998).
const FREE_MEMORY_PARTS: u64 = 4;

/// Calls off the loop that one client may have at a time.
const CLIENT_CALLS_MAX: usize = 4;

/// Time after which a request is tried again that found no memory.
const MEMORY_RETRY: Duration = Duration::from_millis(1);

/// A client's number.
type ClientId = usize;

/// Entries of a worker's submission ring.
const RING_ENTRIES: u32 = 1024;

/// What other threads tell a worker.
pub(crate) enum Mail {
    /// A call off the loop has ended.
    Ended(u64, Ended),
    /// Take no more requests; end, at the latest then.
    Drain(Instant),
    /// These are the exports from now on.
    Exports(Arc<Exports>),
}

/// A worker as the server sees it.
pub(crate) struct WorkerHandle {
    postbox: Postbox,
    pub thread: JoinHandle<()>,
}

impl WorkerHandle {
    /// For the acceptor, which places connections here.
    pub(crate) fn context(&self) -> ContextHandle {
        self.postbox.context.clone()
    }

    pub(crate) fn post(&self, mail: Mail) {
        self.postbox.post(mail);
    }
}

/// What a worker is made of.
pub(crate) struct Setup {
    pub number: usize,
    pub config: Arc<Config>,
    pub shared: Arc<Shared>,
    pub counters: Arc<Counters>,
    pub exports: Arc<Exports>,
    pub off_loop: OffLoop,
    /// Of calls off the loop that unmap files.
    pub unmapping: Group,
    /// CPU to be bound to.
    pub cpu: Option<usize>,
}

struct Worker {
    context: PinnedContext,
    setup: Setup,
    exports: Arc<Exports>,
    clients: Vec<Option<Client>>,
    /// Numbers in `clients` that are free.
    vacant: Vec<ClientId>,
    /// The client of a connection, by the connection's number.
    ids: Vec<ClientId>,
    /// Bytes that the present turn has begun requests for.
    spent: u64,
    /// The client whose requests have come last, and how many bytes of them in a row.
    at_once: (ClientId, u64),
    fair: Fair<Item>,
    pending: Table,
    postbox: Postbox,
    mail: Receiver<Mail>,
    /// Lanes whose next request found no memory.
    starved: Vec<Lane>,
    /// Parts of files that are read without a system call each; none where that is switched off.
    windows: Option<Windows>,
    /// The timer of the next sweep is set.
    will_sweep: bool,
    /// The server is stopping: the end of patience.
    draining: Option<Instant>,
}

/// Starts a worker's thread, and waits until its loop is ready.
///
/// # Errors
/// [`Error::Thread`].
pub(crate) fn start(setup: Setup) -> Result<WorkerHandle> {
    let name = format!("raio-worker-{}", setup.number);
    let failed = |cause| Error::Thread { thread: name.clone(), cause };
    let (ready, is_ready) = crossbeam_channel::bounded(1);
    let body = move || match Worker::new(setup) {
        Ok(mut worker) => {
            let _ = ready.send(Ok(worker.postbox.clone()));
            worker.run();
        }
        Err(cause) => {
            let _ = ready.send(Err(cause));
        }
    };
    let thread = std::thread::Builder::new()
        .name(name.clone())
        .spawn(body)
        .map_err(|cause| failed(libxio::Error::system("making a thread", &cause)))?;
    let answer = is_ready.recv().unwrap_or(Err(libxio::Error::Unsupported("the thread ended at once")));
    Ok(WorkerHandle { postbox: answer.map_err(failed)?, thread })
}

impl Worker {
    fn new(setup: Setup) -> libxio::Result<Worker> {
        let context =
            PinnedContext::new(ContextOptions { cpu: setup.cpu, ..context_options(&setup.config) })?;
        let (sender, mail) = unbounded();
        let postbox = Postbox { mail: sender, context: context.handle() };
        let has_windows = setup.config.mapped_reads && Windows::are_possible();
        let windows = has_windows.then(|| Windows::new(setup.shared.workers(), Arc::clone(&setup.counters)));
        Ok(Worker {
            context,
            exports: Arc::clone(&setup.exports),
            setup,
            clients: Vec::new(),
            vacant: Vec::new(),
            ids: Vec::new(),
            spent: 0,
            at_once: (0, 0),
            fair: Fair::new(),
            pending: Table::new(),
            postbox,
            mail,
            starved: Vec::new(),
            windows,
            will_sweep: false,
            draining: None,
        })
    }

    fn run(&mut self) {
        loop {
            self.spent = 0;
            self.at_once.1 = 0;
            if let Some(windows) = &mut self.windows {
                windows.begin_turn();
            }
            let mut is_expected = false;
            while let Some(event) = self.context.next_event() {
                // The first comes unforeseen; some of its memory is there before it is needed.
                if !is_expected {
                    self.expect(&event);
                }
                is_expected = self.context.peek_event().is_some_and(|next| self.expect(next));
                self.handle(event);
            }
            // Looking costs less than trying.
            while !self.mail.is_empty()
                && let Ok(mail) = self.mail.try_recv()
            {
                self.take_mail(mail);
            }
            if self.is_finished() {
                break;
            }
            self.retry_starved();
            self.serve_turn();
            self.tend_windows();
            self.setup.counters.memory_bytes.set(self.context.pool().bytes_in_use() as u64);
            let timeout = match self.draining {
                _ if !self.fair.is_idle() => Some(Duration::ZERO),
                _ if !self.starved.is_empty() => Some(MEMORY_RETRY),
                Some(deadline) => Some(deadline.saturating_duration_since(Instant::now())),
                None => None,
            };
            if let Err(error) = self.context.wait(timeout) {
                tracing::error!(worker = self.setup.number, %error, "the worker's ring has failed; its connections end");
                break;
            }
        }
    }

    /// Hands over what has to be unmapped, and sees that there will be a sweep while anything is mapped.
    #[inline]
    fn tend_windows(&mut self) {
        let Some(windows) = &mut self.windows else { return };
        if windows.has_retired() {
            let retired = windows.take_retired();
            self.setup.off_loop.run(self.setup.unmapping, move || drop(retired));
        }
        if !self.will_sweep && !windows.is_empty() {
            // A second is within its limits.
            self.will_sweep = self.context.set_timer(SWEEP_INTERVAL, 0).is_ok();
        }
    }

    /// Stopping, and nothing is left, or patience is.
    fn is_finished(&self) -> bool {
        let Some(deadline) = self.draining else { return false };
        if self.clients.len() == self.vacant.len() && self.pending.is_empty() {
            return true;
        }
        let over = Instant::now() >= deadline;
        if over {
            let connections = self.clients.len() - self.vacant.len();
            tracing::warn!(worker = self.setup.number, connections, "cut: they did not end in time");
        }
        over
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Request(request) => self.receive(request),
            Event::Completed(completion) => self.resume(completion),
            Event::Drained { connection } => {
                if let Some(id) = self.id_of(connection) {
                    self.reconsider(id);
                }
            }
            Event::ConnectionRequest(request) => self.connect(request),
            Event::Closed { connection, reason } => self.disconnect(connection, &reason),
            // The only timer that is ever set here.
            Event::Timer { .. } => {
                self.will_sweep = false;
                if let Some(windows) = &mut self.windows {
                    windows.sweep();
                }
            }
            // The bell for the mail; nothing else is asked for.
            _ => {}
        }
    }

    fn take_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Ended(token, ended) => self.call_ended(token, ended),
            Mail::Exports(exports) => self.exports = exports,
            Mail::Drain(deadline) => {
                self.draining = Some(deadline);
                for id in 0..self.clients.len() {
                    self.close_if_done(id);
                }
            }
        }
    }

    #[inline]
    pub(super) fn id_of(&self, connection: Connection) -> Option<ClientId> {
        let id = *self.ids.get(connection.number())?;
        let client = self.clients.get(id)?.as_ref()?;
        (client.connection == connection).then_some(id)
    }

    fn connect(&mut self, request: ConnectionRequest) {
        let peer = request.peer().to_owned();
        let refused = match self.agree(&request) {
            Ok(greeting) => {
                let mut private_data = greeting.encode().to_vec();
                if request.is_local() {
                    private_data.extend(encode_portals(self.setup.shared.portals()));
                }
                let options = AcceptOptions { private_data, ..AcceptOptions::new() };
                match self.context.accept(request, options) {
                    Ok(connection) => {
                        tracing::info!(peer, worker = self.setup.number, "connected");
                        let id = self.vacant.pop().unwrap_or_else(|| {
                            self.clients.push(None);
                            self.clients.len() - 1
                        });
                        self.fair.add(id);
                        self.clients[id] = Some(Client::new(connection, peer, greeting.version_max));
                        let number = connection.number();
                        if self.ids.len() <= number {
                            self.ids.resize(number + 1, 0);
                        }
                        self.ids[number] = id;
                        self.setup.counters.connections.add(1);
                        self.setup.counters.connections_total.add(1);
                    }
                    Err(error) => tracing::info!(peer, %error, "a client left before it was accepted"),
                }
                return;
            }
            Err(refused) => refused,
        };
        let (reason, why) = refused;
        tracing::info!(peer, why, "refused");
        // The client may have gone already.
        let _ = self.context.reject(request, reason, why.as_bytes());
    }

    /// Whether a client is welcome, and what is spoken with it.
    fn agree(&self, request: &ConnectionRequest) -> std::result::Result<Greeting, (RejectReason, String)> {
        if self.draining.is_some() {
            return Err((RejectReason::ShuttingDown, "the server is stopping".to_owned()));
        }
        if request.resource() != RESOURCE {
            let why = "files are named by commands: connect to the resource / of this server".to_owned();
            return Err((RejectReason::NoResource, why));
        }
        Greeting::decode(request.private_data())
            .and_then(|greeting| Greeting::reply(&greeting, self.setup.config.io_bytes_max))
            .map_err(|reason| (RejectReason::NotSupported, reason.to_string()))
    }

    /// A connection has ended: all that was held for it is given back.
    fn disconnect(&mut self, connection: Connection, reason: &libxio::Error) {
        // Its number may have been given to another one, whose request was seen first.
        let is_it =
            |client: &Option<Client>| client.as_ref().is_some_and(|client| client.connection == connection);
        let id = self.id_of(connection).or_else(|| self.clients.iter().position(is_it));
        let Some(id) = id else { return };
        // Requests that nobody waits for any more; what is in progress ends by itself.
        let dropped = self.fair.remove(id);
        let Some(client) = self.clients[id].take() else { return };
        self.vacant.push(id);
        self.starved.retain(|starved| starved.client() != id);
        let counters = &self.setup.counters;
        counters.connections.subtract(1);
        counters.requests_running.subtract((dropped + client.held.len()) as u64);
        match reason {
            libxio::Error::Closed(_) | libxio::Error::ClosedLocally => {
                tracing::info!(peer = client.peer, files = client.open, "disconnected");
            }
            reason => tracing::warn!(peer = client.peer, files = client.open, %reason, "connection lost"),
        }
        let mut files = client.into_files();
        for opened in &files {
            self.closed(&*opened.file);
        }
        let counters = &self.setup.counters;
        counters.open_files.subtract(files.len() as u64);
        while let Some(Opened { calls, .. }) = files.last() {
            let calls = *calls;
            let (closed, others): (Vec<_>, Vec<_>) =
                files.into_iter().partition(|opened| opened.calls == calls);
            // A close may wait (the last one of a large removed file, or over a network).
            self.setup.off_loop.run(calls, move || drop(closed));
            files = others;
        }
    }

    /// A stopping server says goodbye to a client as soon as it has all its answers.
    #[inline]
    fn close_if_done(&mut self, id: ClientId) {
        if self.draining.is_some() {
            self.close_drained(id);
        }
    }

    #[cold]
    fn close_drained(&mut self, id: ClientId) {
        if let Some(Some(client)) = self.clients.get(id)
            && client.running == client.held.len()
        {
            // It may have ended already.
            let _ = self.context.close(client.connection);
        }
    }
}

fn context_options(config: &Config) -> ContextOptions {
    let mut options = ContextOptions {
        polling_timeout: config.polling_timeout,
        ring_entries: RING_ENTRIES,
        keepalive: config.keepalive,
        lease: config.lease,
        pinned_bytes_max: config.pinned_bytes_max,
        crc: true,
        ..ContextOptions::default()
    };
    #[cfg(feature = "rdma")]
    {
        options.rdma.registered_bytes_max = config.rdma_bytes_max;
    }
    options.pool.bytes_max = config.memory_bytes_max;
    options.limits.peer_slots = config.requests_max;
    // A server sends no requests.
    options.limits.slots = 1;
    // Nor does it take any messages but requests.
    options.limits.one_way_max = 0;
    options.limits.data_bytes_max = config.io_bytes_max;
    options.limits.window_bytes = 2 * u64::from(config.io_bytes_max);
    options.limits.keepalive_ms = u32::try_from(config.keepalive.as_millis()).unwrap_or(u32::MAX);
    options
}
