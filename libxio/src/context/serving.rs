//! Servers: listening, reading hellos, handing links to the worker that owns their connection, accept and reject.

use super::Context;
use super::connection::{ConnectionState, Phase, Side};
use super::event::{AcceptOptions, ConnectionRequest, Event, Offer};
use super::handle::Post;
use super::handles::{Connection, Server};
use super::links::{LinkEntry, Role};
use super::options::{ServerOptions, check_limits, check_private_data};
use crate::reactor::{Key, Ticket, TicketKind};
use crate::transport::{Link, Listener, OutgoingFrame, SentFrame, Sink};
use crate::wire::{
    FEATURE_CRC, FEATURE_PLACEMENT, FrameHead, FrameKind, FrameLimits, Goodbye, Hello, REDIRECT_BYTES_MAX,
    Refusal, RejectReason, SessionId, VERSION, VERSION_MIN, Violation, Welcome,
};
use crate::{Error, Result, Sgl, Uri, sys};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Accepts per turn, so that a storm of connects does not stall the connections of the same context.
const ACCEPTS_PER_TURN: usize = 64;
/// Time for a refusal or a goodbye to get out before the link is cut.
pub(super) const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// A listening address of a context.
#[derive(Debug)]
pub(super) struct ServerState {
    pub listener: Box<dyn Listener>,
    pub options: ServerOptions,
    pub shared: Arc<ServerShared>,
    /// Links without a valid hello yet, oldest first; some may be gone.
    pub handshakes: VecDeque<Key>,
    /// Stamp of the poll in the ring.
    pub armed: Option<u32>,
    /// There may be links to accept.
    pub ready: bool,
}

/// What a server's contexts share; touched when connections come and go, never per message.
#[derive(Debug)]
pub(crate) struct ServerShared {
    incarnation: u64,
    connections_max: usize,
    connections: AtomicUsize,
    /// Connections of each worker (one entry where the server's own context is the worker).
    loads: Vec<AtomicUsize>,
    /// Links without a hello whose resources were made at each worker.
    prepared: Vec<AtomicUsize>,
    sessions: Mutex<HashMap<SessionId, SessionRecord>>,
}

#[derive(Debug)]
struct SessionRecord {
    key: [u8; 16],
    /// Worker of each connection.
    connections: BTreeMap<u32, usize>,
    next_number: u32,
}

impl SessionRecord {
    /// Connections of the session on a worker. They are spread, so that each thread of a client reaches its own worker.
    fn on_worker(&self, worker: usize) -> usize {
        self.connections.values().filter(|one| **one == worker).count()
    }
}

/// A connection's place in the server's registry; given back on drop.
#[derive(Debug)]
pub(crate) struct Membership {
    shared: Arc<ServerShared>,
    pub session: SessionId,
    key: [u8; 16],
    pub number: u32,
    worker: usize,
}

/// A link without a hello that was made for a worker, whether or not its connection will come there; counts until
/// it is dropped.
#[derive(Debug)]
pub(crate) struct Prepared {
    shared: Arc<ServerShared>,
    worker: usize,
}

impl Drop for Prepared {
    fn drop(&mut self) {
        self.shared.prepared[self.worker].fetch_sub(1, Ordering::Relaxed);
    }
}

/// A link whose hello was read, on its way to the worker.
pub(crate) struct Adoption {
    pub link: Box<dyn Link>,
    pub hello: Hello,
    pub membership: Membership,
    pub time: Duration,
}

impl ServerShared {
    /// The worker that the next link will probably come to.
    fn prepare(self: &Arc<Self>) -> Prepared {
        let load = |worker: usize| {
            self.loads[worker].load(Ordering::Relaxed) + self.prepared[worker].load(Ordering::Relaxed)
        };
        let worker = (0..self.loads.len()).min_by_key(|&worker| load(worker)).unwrap_or_default();
        self.prepared[worker].fetch_add(1, Ordering::Relaxed);
        Prepared { shared: Arc::clone(self), worker }
    }

    /// Finds the place of a connection: its worker, its session, its number. Among workers with as few connections of
    /// the session, the one that its link was made for.
    fn admit(
        self: &Arc<Self>,
        hello: &Hello,
        prepared: Option<&Prepared>,
    ) -> std::result::Result<Membership, RejectReason> {
        if self.connections.load(Ordering::Relaxed) >= self.connections_max {
            return Err(RejectReason::Busy);
        }
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let (session, key) = if hello.session == SessionId::default() {
            let fresh = sys::random_bytes().and_then(|id| Ok((SessionId(id), sys::random_bytes()?)));
            // Without random bytes no session can be kept apart from a forged one.
            fresh.map_err(|_| RejectReason::Busy)?
        } else {
            let record = sessions.get(&hello.session).ok_or(RejectReason::UnknownSession)?;
            if !sys::equal_in_constant_time(&record.key, &hello.session_key) {
                return Err(RejectReason::UnknownSession);
            }
            if hello.connection != 0 {
                // A second path to a connection; protocol version 1 has one.
                return Err(if record.connections.contains_key(&hello.connection) {
                    RejectReason::NotSupported
                } else {
                    RejectReason::UnknownSession
                });
            }
            (hello.session, record.key)
        };
        let worker = (0..self.loads.len())
            .min_by_key(|&worker| {
                let siblings = sessions.get(&session).map_or(0, |record| record.on_worker(worker));
                let is_other = prepared.is_some_and(|prepared| prepared.worker != worker);
                (siblings, is_other, self.loads[worker].load(Ordering::Relaxed))
            })
            .unwrap_or_default();
        let record = sessions.entry(session).or_insert_with(|| SessionRecord {
            key,
            connections: BTreeMap::new(),
            next_number: 1,
        });
        let number = record.next_number;
        record.next_number = number.checked_add(1).ok_or(RejectReason::Busy)?;
        record.connections.insert(number, worker);
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.loads[worker].fetch_add(1, Ordering::Relaxed);
        Ok(Membership { shared: Arc::clone(self), session, key, number, worker })
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Ordering::Relaxed);
        self.shared.loads[self.worker].fetch_sub(1, Ordering::Relaxed);
        let mut sessions = self.shared.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(record) = sessions.get_mut(&self.session) {
            record.connections.remove(&self.number);
            if record.connections.is_empty() {
                sessions.remove(&self.session);
            }
        }
    }
}

/// Waits for the hello of a new link.
#[derive(Default)]
pub(super) struct HelloSink {
    pub hello: Option<std::result::Result<Hello, Violation>>,
}

impl Sink for HelloSink {
    fn deliver(
        &mut self,
        head: &FrameHead,
        header: &[u8],
        _data: Sgl,
        _landing: Sgl,
    ) -> std::result::Result<Option<FrameLimits>, Violation> {
        if head.kind != FrameKind::Hello || self.hello.is_some() {
            return Err(Violation::UnexpectedKind(head.kind as u8));
        }
        self.hello = Some(Hello::decode(header));
        Ok(None)
    }

    fn frame_sent(&mut self, _sent: SentFrame, _data: Sgl) {}
}

impl Context {
    /// Listens at the uri's address; port 0 takes a free one (see [`Context::local_uri`]). Connection requests arrive as
    /// [`Event::ConnectionRequest`], here or at the workers.
    ///
    /// # Errors
    /// The transport is unknown, or the address can't be had.
    pub fn listen(&mut self, uri: &Uri, options: ServerOptions) -> Result<Server> {
        let listener = self.transport(uri.scheme())?.listen(uri)?;
        self.serve(listener, options)
    }

    /// Listens by a TCP socket that listens already: from a service manager, or a parent process. As [`Context::listen`]
    /// otherwise; a restart loses no client's attempt to connect.
    ///
    /// # Errors
    /// [`Error::System`] where it is no listening TCP socket.
    pub fn listen_with(&mut self, socket: std::net::TcpListener, options: ServerOptions) -> Result<Server> {
        let listener = crate::transport::adopt_tcp(socket)?;
        self.serve(listener, options)
    }

    fn serve(&mut self, listener: Box<dyn Listener>, mut options: ServerOptions) -> Result<Server> {
        let joined = match options.join {
            None => None,
            Some(server) => {
                let state = server.key(self.number).and_then(|key| self.servers.get(key));
                let state = state.ok_or(Error::StaleHandle("server"))?;
                options.workers.clone_from(&state.options.workers);
                Some(Arc::clone(&state.shared))
            }
        };
        let shared = match joined {
            Some(shared) => shared,
            None => Arc::new(ServerShared {
                incarnation: u64::from_le_bytes(
                    sys::random_bytes().map_err(|cause| Error::system("reading random bytes", &cause))?,
                ),
                connections_max: options.connections_max,
                connections: AtomicUsize::new(0),
                loads: (0..options.workers.len().max(1)).map(|_| AtomicUsize::new(0)).collect(),
                prepared: (0..options.workers.len().max(1)).map(|_| AtomicUsize::new(0)).collect(),
                sessions: Mutex::default(),
            }),
        };
        let key = self.servers.insert(ServerState {
            listener,
            options,
            shared,
            handshakes: VecDeque::new(),
            armed: None,
            ready: true,
        });
        Ok(Server::new(self.number, key))
    }

    /// Where a server listens, the port filled in.
    ///
    /// # Errors
    /// [`Error::StaleHandle`].
    pub fn local_uri(&self, server: Server) -> Result<Uri> {
        let state = server.key(self.number).and_then(|key| self.servers.get(key));
        Ok(state.ok_or(Error::StaleHandle("server"))?.listener.local_uri().clone())
    }

    /// Stops listening; links without an accepted connection are closed, connections stay.
    ///
    /// # Errors
    /// [`Error::StaleHandle`].
    pub fn close_server(&mut self, server: Server) -> Result<()> {
        let key = server.key(self.number).ok_or(Error::StaleHandle("server"))?;
        let state = self.servers.remove(key).ok_or(Error::StaleHandle("server"))?;
        self.disarm(state.armed, key.index, TicketKind::Listener);
        for link in state.handshakes {
            if self.links.get(link).is_some_and(|entry| matches!(entry.role, Role::Handshake { .. })) {
                self.drop_link(link);
            }
        }
        Ok(())
    }

    /// Accepts a connection. Requests can be sent on it at once.
    ///
    /// # Errors
    /// [`Error::StaleHandle`] when the client has gone, or its time was over; [`Error::LimitExceeded`].
    pub fn accept(&mut self, request: ConnectionRequest, options: AcceptOptions) -> Result<Connection> {
        check_private_data(&options.private_data)?;
        let own = options.limits.unwrap_or(self.options.limits);
        check_limits(&own)?;
        self.check_offered(&request)?;
        let Offer { link, hello, peer, .. } = *request.offer;
        let now = self.now;
        let keepalive = self.options.keepalive;
        let offer_crc = self.options.crc;
        let loop_kind = self.options.loop_kind;
        let entry = self.links.get_mut(link).ok_or(Error::StaleHandle("connection request"))?;
        let Role::Offered { membership, .. } =
            std::mem::replace(&mut entry.role, Role::Closing { deadline: now + FAREWELL_TIME })
        else {
            return Err(Error::StaleHandle("connection request"));
        };
        let slots = hello.limits.slots.min(own.peer_slots);
        let own_slots = hello.limits.peer_slots.min(own.slots);
        let crc = offer_crc && hello.features & FEATURE_CRC != 0;
        let placement = entry.link.shares_memory() && hello.features & FEATURE_PLACEMENT != 0;
        let welcome = Welcome {
            version: VERSION.min(hello.version_max),
            features: if crc { FEATURE_CRC } else { 0 } | if placement { FEATURE_PLACEMENT } else { 0 },
            loop_kind,
            incarnation: membership.shared.incarnation,
            session: membership.session,
            session_key: membership.key,
            connection: membership.number,
            limits: crate::wire::Limits { slots, peer_slots: own_slots, ..own },
            private_data: options.private_data,
        };
        entry.link.send(&mut OutgoingFrame::new(
            FrameHead::new(FrameKind::Welcome),
            &welcome.encode(),
            Sgl::new(),
        ));
        let mut state = ConnectionState::new(link, Phase::Open, peer, own, Side::Server(membership), now);
        state.crc = crc;
        state.placement = placement;
        state.keepalive = ConnectionState::keepalive_for(hello.loop_kind, keepalive, now);
        entry.link.set_limits(state.establish(hello.limits, slots, own_slots));
        let key = self.connections.insert(state);
        let handle = Connection::new(self.number, key);
        if let Some(state) = self.connections.get_mut(key) {
            state.handle = handle;
        }
        entry.role = Role::Connection(key);
        self.statistics.connections.add(1);
        self.statistics.connections_opened.add(1);
        self.touch_link(link);
        Ok(handle)
    }

    /// Rejects a connection, with a reason and up to [`PRIVATE_DATA_BYTES_MAX`](crate::wire::PRIVATE_DATA_BYTES_MAX)
    /// bytes for the client's application.
    ///
    /// # Errors
    /// [`Error::StaleHandle`] when the client has gone, or its time was over; [`Error::LimitExceeded`].
    pub fn reject(
        &mut self,
        request: ConnectionRequest,
        reason: RejectReason,
        private_data: &[u8],
    ) -> Result<()> {
        check_private_data(private_data)?;
        if reason == RejectReason::Redirected {
            return Err(Error::Unsupported("a redirect has to say where: use Context::redirect"));
        }
        self.check_offered(&request)?;
        self.refuse_link(request.offer.link, reason, private_data);
        Ok(())
    }

    /// Sends a client to another server. It goes there by itself, with a new session, unless it has been sent around four
    /// times or the session has other connections; then its connection ends with
    /// [`RejectReason::Redirected`](crate::RejectReason::Redirected).
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] for a uri of more than 4,096 bytes; otherwise as [`Context::reject`].
    pub fn redirect(&mut self, request: ConnectionRequest, to: &Uri, private_data: &[u8]) -> Result<()> {
        check_private_data(private_data)?;
        let redirect = to.to_string();
        if redirect.len() > REDIRECT_BYTES_MAX {
            return Err(Error::LimitExceeded {
                what: "uri of a redirect in bytes",
                value: redirect.len() as u64,
                limit: REDIRECT_BYTES_MAX as u64,
            });
        }
        self.check_offered(&request)?;
        let refusal =
            Refusal { reason: RejectReason::Redirected, redirect, private_data: private_data.to_vec() };
        self.farewell(request.offer.link, FrameKind::Refusal, refusal.encode());
        Ok(())
    }

    /// Hands a new connection to another context, where it arrives as
    /// [`Event::ConnectionRequest`](crate::Event::ConnectionRequest): a server can so choose the worker by what the
    /// client asks for, where [`ServerOptions::workers`] spreads connections evenly.
    ///
    /// # Errors
    /// [`Error::StaleHandle`] when the client has gone, its time was over, or the other context is gone;
    /// [`Error::InboxFull`]. In the last two cases the connection is closed.
    pub fn hand_over(&mut self, request: ConnectionRequest, to: &super::ContextHandle) -> Result<()> {
        self.check_offered(&request)?;
        let Offer { link, hello, .. } = *request.offer;
        let Some(entry) = self.take_link(link) else { return Err(Error::StaleHandle("connection request")) };
        let Role::Offered { membership, deadline } = entry.role else {
            return Err(Error::StaleHandle("connection request"));
        };
        let time = deadline.saturating_duration_since(self.now);
        to.outbox.post(Post::Adopt(Box::new(Adoption { link: entry.link, hello, membership, time })))
    }

    fn check_offered(&self, request: &ConnectionRequest) -> Result<()> {
        match self.links.get(request.offer.link).map(|entry| &entry.role) {
            Some(Role::Offered { .. }) if request.offer.context == self.number => Ok(()),
            _ => Err(Error::StaleHandle("connection request")),
        }
    }

    /// Sends a refusal and lets the link go once it is out.
    pub(super) fn refuse_link(&mut self, link: Key, reason: RejectReason, private_data: &[u8]) {
        let body = Refusal { reason, redirect: String::new(), private_data: private_data.to_vec() }.encode();
        self.farewell(link, FrameKind::Refusal, body);
    }

    /// Sends a goodbye that names a broken rule and lets the link go once it is out.
    pub(super) fn dismiss_link(&mut self, link: Key, violation: Violation) {
        let body = Goodbye { code: violation.code(), text: violation.to_string() }.encode();
        self.farewell(link, FrameKind::Goodbye, body);
    }

    fn farewell(&mut self, link: Key, kind: FrameKind, body: Vec<u8>) {
        let Some(entry) = self.links.get_mut(link) else { return };
        entry.role = Role::Closing { deadline: self.now + FAREWELL_TIME };
        entry.link.stop_receiving();
        entry.link.send(&mut OutgoingFrame::new(FrameHead::new(kind), &body, Sgl::new()));
        self.touch_link(link);
    }

    /// Takes the links that wait at the servers.
    pub(super) fn accept_ready(&mut self) {
        for index in 0..self.servers.index_end() {
            let Some(key) = self.servers.key_at(index) else { continue };
            let Some(server) = self.servers.get_mut(key) else { continue };
            if !server.ready {
                continue;
            }
            for _ in 0..ACCEPTS_PER_TURN {
                let Some(server) = self.servers.get_mut(key) else { break };
                let worker = (!server.options.workers.is_empty()).then(|| server.shared.prepare());
                let home = worker
                    .as_ref()
                    .and_then(|prepared| server.options.workers.get(prepared.worker))
                    .and_then(|worker| worker.transport(server.listener.local_uri().scheme()));
                let accepted = match home {
                    Some(home) => server.listener.accept_at(home),
                    None => server.listener.accept(),
                };
                match accepted {
                    Ok(Some(link)) => self.begin_handshake(key, link, worker),
                    Ok(None) => {
                        // Armed at once: a context that is busy may not sleep for long.
                        server.ready = server.listener.readiness().is_none();
                        self.arm_listener(key);
                        break;
                    }
                    Err(error) => {
                        // Descriptors have run out, say: the next sweep tries again.
                        tracing::warn!(%error, "can't accept connections now");
                        server.ready = false;
                        break;
                    }
                }
            }
        }
    }

    fn arm_listener(&mut self, key: Key) {
        if let (Some(server), Some(ring)) = (self.servers.get_mut(key), &mut self.ring)
            && server.armed.is_none()
            && let Some(fd) = server.listener.readiness()
        {
            let stamp = self.stamps.next();
            server.armed = Some(stamp);
            ring.poll(fd, libc::POLLIN, Ticket { kind: TicketKind::Listener, stamp, index: key.index });
        }
    }

    fn begin_handshake(&mut self, server: Key, link: Box<dyn Link>, prepared: Option<Prepared>) {
        let Some(state) = self.servers.get_mut(server) else { return };
        let deadline = self.now + state.options.handshake_timeout;
        let shared = Arc::clone(&state.shared);
        let oldest = if state.handshakes.len() >= state.options.handshakes_max {
            state.handshakes.pop_front()
        } else {
            None
        };
        let role = Role::Handshake { server, shared, prepared, deadline };
        let key = self.links.insert(LinkEntry::new(link, role, self.now));
        if let Some(state) = self.servers.get_mut(server) {
            state.handshakes.push_back(key);
        }
        self.touch_link(key);
        if let Some(oldest) = oldest.filter(|key| self.is_handshake(*key)) {
            self.handshake_failed(oldest, "too many links wait for their hello, this is the oldest");
        }
    }

    fn is_handshake(&self, link: Key) -> bool {
        self.links.get(link).is_some_and(|entry| matches!(entry.role, Role::Handshake { .. }))
    }

    pub(super) fn handshake_failed(&mut self, link: Key, why: &str) {
        if let Some(entry) = self.links.get(link) {
            tracing::info!(peer = entry.link.peer(), why, "link closed before its hello");
        }
        self.statistics.handshakes_failed.add(1);
        self.drop_link(link);
    }

    /// A new link has said hello (or something else).
    pub(super) fn hello_arrived(&mut self, link: Key, hello: std::result::Result<Hello, Violation>) {
        let Some(entry) = self.links.get_mut(link) else { return };
        let Role::Handshake { server, shared, prepared, deadline } = &mut entry.role else { return };
        let (server, shared, deadline) = (*server, Arc::clone(shared), *deadline);
        let prepared = prepared.take();
        if let Some(state) = self.servers.get_mut(server) {
            state.handshakes.retain(|waiting| *waiting != link);
        }
        let hello = match hello {
            Ok(hello) => hello,
            Err(Violation::NoCommonVersion) => {
                self.statistics.handshakes_failed.add(1);
                return self.refuse_link(link, RejectReason::Version { min: VERSION_MIN, max: VERSION }, &[]);
            }
            Err(violation) => {
                self.statistics.handshakes_failed.add(1);
                tracing::info!(peer = entry.link.peer(), %violation, "bad hello");
                return self.dismiss_link(link, violation);
            }
        };
        let membership = match shared.admit(&hello, prepared.as_ref()) {
            Ok(membership) => membership,
            Err(reason) => return self.refuse_link(link, reason, &[]),
        };
        let worker =
            self.servers.get(server).and_then(|state| state.options.workers.get(membership.worker).cloned());
        let time = deadline.saturating_duration_since(self.now);
        match worker {
            None => self.offer(Some(Server::new(self.number, server)), link, hello, membership, time),
            Some(worker) => {
                // Links leave disarmed: the poll that brought the hello was a one-shot; one left is taken back.
                let Some(entry) = self.take_link(link) else { return };
                let adoption = Box::new(Adoption { link: entry.link, hello, membership, time });
                if let Err(error) = worker.outbox.post(Post::Adopt(adoption)) {
                    tracing::warn!(%error, "a worker takes no connections");
                }
            }
        }
    }

    /// A link comes over from an acceptor.
    pub(super) fn adopt(&mut self, adoption: Adoption) {
        let Adoption { link, hello, membership, time } = adoption;
        let deadline = self.now + time;
        // A placeholder role until `offer` puts the membership in.
        let key = self.links.insert(LinkEntry::new(link, Role::Closing { deadline }, self.now));
        self.touch_link(key);
        self.offer(None, key, hello, membership, time);
    }

    fn offer(
        &mut self,
        server: Option<Server>,
        link: Key,
        hello: Hello,
        membership: Membership,
        time: Duration,
    ) {
        let deadline: Instant = self.now + time;
        let session = membership.session;
        let Some(entry) = self.links.get_mut(link) else { return };
        let peer = entry.link.peer().to_owned();
        let is_local = entry.link.peer_is_local();
        entry.role = Role::Offered { membership, deadline };
        let offer = Offer { context: self.number, server, link, hello, peer, is_local, session };
        self.events.push_back(Event::ConnectionRequest(ConnectionRequest { offer: Box::new(offer) }));
    }
}
