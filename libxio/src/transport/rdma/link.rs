//! A link over one reliable connection: set up by rdma_cm without blocking, then frames by [`Sending`] and
//! [`Receiving`].

mod connecting;
mod one_sided;

use super::Shared;
use super::cm::{CmEvent, CmEventKind, CmId, ConnectParameters};
use super::credit::Credits;
use super::domain::{Identity, MESSAGE_BYTES};
use super::endpoint::{Done, Endpoint};
use super::events::DeviceWatch;
use super::exposing::Exposing;
use super::message::{Greeting, MessageHead, MessageKind};
use super::notes::Note;
use super::reaching::Reaching;
use super::receiving::Receiving;
use super::registration::KeyCache;
use super::sending::Sending;
use crate::transport::{
    Armed, Flushed, Lent, Link, LinkError, OutgoingFrame, Placement, Reach, Received, Sink,
};
use crate::wire::{FrameHead, FrameKind, FrameLimits, RemoteAddress, Violation};
use crate::{Access, Buffer, Sgl};
use one_sided::Parts;
use rdma_sys::ibv_wc_status as status;
use rustix::event::epoll;
use rustix::io::Errno;
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// Time for an address, then for a route, to be found.
const RESOLVE_TIME: Duration = Duration::from_secs(2);
/// The device waits 4.096 us times 2 to this power for an acknowledgement: 0.54 s.
const ACK_TIMEOUT_EXPONENT: u8 = 17;
/// Times that it sends again: silence is noticed after 7 times 0.54 s.
const RETRY_COUNT: u8 = 6;
/// RDMA READs at a time on one connection that we ask for.
const READS_MAX: u8 = 16;
/// Polls without a completion after which the other descriptors are looked at too: a few hundred microseconds.
const QUIET_POLLS: u32 = 256;
/// Buffers whose messages are taken are posted again when they are one of so many parts of the window.
const POSTED_PARTS: u32 = 16;
/// Messages taken in one call, so that one link's turn stays short beside others.
const MESSAGES_PER_TURN: usize = 64;

/// A reliable connection.
#[derive(Debug)]
pub(super) struct RdmaLink {
    peer: String,
    phase: Phase,
    /// Why the link is dead; told when everything that has arrived is delivered.
    dead: Option<LinkError>,
    // Before the endpoint, whose completion queue they use.
    exposing: Exposing,
    reaching: Reaching,
    endpoint: Option<Endpoint>,
    // After the endpoint, which is stopped before the identifier goes.
    id: CmId,
    /// Of the completion queue, the identifier, the device and its bell.
    descriptors: OwnedFd,
    // After the identifier, for it lets go of a removed device.
    watch: Option<DeviceWatch>,
    /// While the port is down: tells of the end of its grace.
    alarm: Option<OwnedFd>,
    shared: Arc<Shared>,
    source: Option<IpAddr>,
    /// Addresses of the host still to be tried while connecting.
    untried: VecDeque<SocketAddr>,
    credits: Option<Credits>,
    /// Longest message that the peer takes.
    message_bytes: usize,
    sending: Sending,
    receiving: Receiving,
    keys: KeyCache,
    /// Both ends speak in notes.
    has_notes: bool,
    /// Notes that wait for credits, few for each exposed memory.
    notes: VecDeque<Note>,
    /// Messages that have come and are not taken yet: buffer, length, kind.
    arrived: VecDeque<Arrived>,
    /// Buffers whose messages are taken, to be posted again.
    free: Vec<u32>,
    /// The completion queue's descriptor tells of the next completion.
    armed: bool,
    /// The link is in its context, whose thread alone counts: not while another one reads the hello.
    counts: bool,
    /// The last flush left something that waits for credits or the device.
    blocked: bool,
    quiet_polls: u32,
}

#[derive(Debug, Clone, Copy)]
struct Arrived {
    buffer: u32,
    length: usize,
    kind: MessageKind,
}

/// Where a link is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Resolving,
    Routing,
    Connecting,
    Accepting,
    Established,
    Fenced,
}

impl RdmaLink {
    /// Starts to connect to the first of these addresses that answers.
    pub(super) fn connect(
        peer: String,
        addresses: Vec<SocketAddr>,
        source: Option<IpAddr>,
        shared: &Arc<Shared>,
    ) -> io::Result<RdmaLink> {
        let mut link = RdmaLink::new(peer, CmId::new()?, shared)?;
        link.source = source;
        link.untried = addresses.into();
        link.resolve_next(libc::EADDRNOTAVAIL)?;
        Ok(link)
    }

    /// Accepts a connection request.
    pub(super) fn accept(
        mut id: CmId,
        greeting: Greeting,
        event: &CmEvent,
        shared: &Arc<Shared>,
    ) -> io::Result<RdmaLink> {
        id.take_channel()?;
        let peer = id.peer_address().map_or_else(|| "rdma://?".into(), |address| format!("rdma://{address}"));
        let mut link = RdmaLink::new(peer, id, shared)?;
        link.phase = Phase::Accepting;
        link.counts = false;
        link.open(Identity::Clients)?;
        link.greeted(greeting);
        let own = link.greeting().encode();
        let limits = link.endpoint.as_ref().map(|endpoint| endpoint.domain().limits);
        let served = limits.map_or(0, |limits| limits.reads_served_max);
        let started = limits.map_or(0, |limits| limits.reads_started_max);
        link.id.accept(&ConnectParameters {
            private_data: &own,
            initiator_depth: event.responder_resources.min(started).min(READS_MAX),
            responder_resources: event.initiator_depth.min(served).min(READS_MAX),
            retry_count: RETRY_COUNT,
        })?;
        Ok(link)
    }

    fn new(peer: String, id: CmId, shared: &Arc<Shared>) -> io::Result<RdmaLink> {
        let descriptors = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let link = RdmaLink {
            peer,
            phase: Phase::Resolving,
            dead: None,
            exposing: Exposing::default(),
            reaching: Reaching::default(),
            endpoint: None,
            id,
            descriptors,
            watch: None,
            alarm: None,
            shared: Arc::clone(shared),
            source: None,
            untried: VecDeque::new(),
            credits: None,
            message_bytes: MESSAGE_BYTES,
            sending: Sending::default(),
            receiving: Receiving::new(),
            keys: KeyCache::new(),
            has_notes: false,
            notes: VecDeque::new(),
            arrived: VecDeque::new(),
            free: Vec::new(),
            armed: false,
            counts: true,
            blocked: false,
            quiet_polls: 0,
        };
        link.wait_for(link.id.fd())?;
        Ok(link)
    }

    /// Adds a descriptor to those that make ours readable.
    fn wait_for(&self, fd: Option<RawFd>) -> io::Result<()> {
        let Some(fd) = fd else { return Ok(()) };
        // SAFETY: the descriptor is the identifier's, the completion queue's or the device's, which all live now.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        self.wait_on(fd, epoll::EventFlags::IN)
    }

    fn wait_on(&self, fd: BorrowedFd<'_>, events: epoll::EventFlags) -> io::Result<()> {
        match epoll::add(&self.descriptors, fd, epoll::EventData::new_u64(0), events) {
            // By an address that was tried before, on the same device.
            Err(Errno::EXIST) => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    fn die(&mut self, error: LinkError) {
        match self.dead {
            None => self.dead = Some(error),
            // Stopped work says less than what comes after it: why it was stopped.
            Some(LinkError::Failed(libc::ECONNABORTED)) => self.dead = Some(error),
            Some(_) => {}
        }
    }

    /// Looks at everything that may have happened: completions always, events when there is a reason to. Returns the
    /// number of completions.
    fn look(&mut self) -> Result<usize, LinkError> {
        if self.phase == Phase::Fenced {
            return Ok(0);
        }
        let woken = std::mem::take(&mut self.armed);
        if woken && let Some(endpoint) = &mut self.endpoint {
            endpoint.take_events();
        }
        let completions = self.look_at_completions()?;
        self.quiet_polls = if completions > 0 { 0 } else { self.quiet_polls + 1 };
        let is_due = self.quiet_polls >= QUIET_POLLS;
        if woken || is_due || self.phase != Phase::Established || self.dead.is_some() {
            self.quiet_polls = 0;
            self.check_events();
        }
        Ok(completions)
    }

    /// Whether a look that found no completion was all that there is to do in this turn: the way that is taken again and
    /// again while the context polls.
    fn is_quiet(&self) -> bool {
        self.is_open()
            && self.arrived.is_empty()
            && self.receiving.is_idle()
            && !self.sending.has_news()
            && !self.reaching.has_news()
            && self.notes.is_empty()
            && !self.credits.as_ref().is_some_and(Credits::is_due)
    }

    fn look_at_completions(&mut self) -> Result<usize, LinkError> {
        let Some(endpoint) = &mut self.endpoint else { return Ok(0) };
        let (arrived, free, sending) = (&mut self.arrived, &mut self.free, &mut self.sending);
        let fetching = &mut self.receiving.fetching;
        let reaching = &mut self.reaching;
        let (mut failed, mut refused) = (None, false);
        let known = arrived.len();
        let polled = endpoint.poll(|done| match done {
            Done::Received { buffer, length } => {
                arrived.push_back(Arrived { buffer, length, kind: MessageKind::Credit });
            }
            Done::Sent { upto } => {
                sending.done(upto);
                fetching.done(upto);
            }
            Done::Reached { epoch, slot, status } => match reaching.completed(epoch, slot, status) {
                Ok(is_sound) => refused |= !is_sound,
                Err(status) => failed = failed.or(Some(status)),
            },
            Done::Failed { status, buffer } => {
                free.extend(buffer);
                failed = failed.or(Some(status));
            }
        });
        let completions = polled.map_err(|cause| LinkError::Failed(errno(&cause)))?;
        if refused {
            tracing::debug!(peer = self.peer, "an access to exposed memory was refused");
            self.reaching.broken(&mut self.notes);
        }
        self.take_heads(known)?;
        if let Some(status) = failed {
            tracing::debug!(peer = self.peer, status, "RDMA work failed");
            self.die(LinkError::Failed(status_errno(status)));
        }
        Ok(completions)
    }

    /// Reads the heads of messages that have just come: their credits count at once, whatever waits before them.
    fn take_heads(&mut self, known: usize) -> Result<(), LinkError> {
        let Some(endpoint) = &mut self.endpoint else { return Ok(()) };
        for arrived in self.arrived.iter_mut().skip(known) {
            // SAFETY: the buffer has just come with its completion and was not posted since.
            let message = unsafe { endpoint.message(arrived.buffer, arrived.length) };
            let (head, _) = MessageHead::decode(message.unwrap_or_default())?;
            arrived.kind = head.kind;
            if let Some(credits) = &mut self.credits {
                credits.receive(head.credit)?;
            }
        }
        Ok(())
    }

    /// Takes messages that have come; returns their bytes.
    fn take_messages(&mut self, sink: &mut dyn Sink) -> Result<usize, LinkError> {
        let Some(endpoint) = &mut self.endpoint else { return Ok(0) };
        let mut bytes = 0;
        self.receiving.deliver_fetched(sink)?;
        for _ in 0..MESSAGES_PER_TURN {
            if !self.receiving.retry(sink)? || self.receiving.fetching.is_full() {
                break;
            }
            let Some(&Arrived { buffer, length, kind }) = self.arrived.front() else { break };
            // SAFETY: the buffer came with its completion and was not posted since.
            let message = unsafe { endpoint.message(buffer, length) }.unwrap_or_default();
            let (_, rest) = MessageHead::decode(message)?;
            if kind == MessageKind::Frame && self.sending.awaits(rest) {
                break;
            }
            if kind == MessageKind::Note {
                if !self.has_notes {
                    return Err(Violation::BadRdmaMessage("a note to a side that knows none").into());
                }
                let note = Note::decode(rest)?;
                let (exposing, reaching, notes) = (&mut self.exposing, &mut self.reaching, &mut self.notes);
                Parts { id: &self.id, endpoint, exposing, reaching, notes }.take_note(note)?;
            } else {
                self.receiving.message(kind, rest, sink)?;
            }
            bytes += length;
            self.arrived.pop_front();
            self.free.push(buffer);
        }
        // Not one by one, since a call costs as much as a message; the peer's credits last meanwhile.
        if self.free.len() as u32 >= endpoint.window.div_ceil(POSTED_PARTS) {
            endpoint.post_receives(&self.id, &self.free).map_err(|cause| LinkError::Failed(errno(&cause)))?;
            if let Some(credits) = &mut self.credits {
                credits.release(self.free.len() as u32);
            }
            self.free.clear();
        }
        self.receiving
            .fetching
            .post(&self.id, endpoint, &mut self.keys)
            .map_err(|cause| LinkError::Failed(errno(&cause)))?;
        endpoint.counters.copied_bytes += std::mem::take(&mut self.receiving.copied_bytes);
        Ok(bytes)
    }

    fn is_open(&self) -> bool {
        self.phase == Phase::Established && self.dead.is_none()
    }
}

impl Link for RdmaLink {
    fn peer(&self) -> &str {
        &self.peer
    }

    fn set_limits(&mut self, limits: FrameLimits) {
        self.receiving.limits = limits;
        self.counts = true;
    }

    fn send(&mut self, frame: &mut OutgoingFrame<'_>) {
        if self.phase == Phase::Fenced {
            return;
        }
        let receiving = &mut self.receiving;
        if matches!(frame.head.kind, FrameKind::Request | FrameKind::RemoteRead) {
            let endpoint = self.endpoint.as_ref().map(|endpoint| (endpoint, &mut self.keys));
            let FrameHead { slot, sequence, .. } = frame.head;
            if let Err(cause) = receiving.lending.attach(slot, sequence, &mut frame.extension, endpoint) {
                self.die(LinkError::Failed(errno(&cause)));
                return;
            }
        }
        let endpoint = self.endpoint.as_ref();
        let peer = endpoint.map(|endpoint| (endpoint, &mut self.keys, &self.shared.options));
        self.sending.push(frame.take(), receiving.limits.crc, &mut receiving.landings, peer);
    }

    fn flush(&mut self, sink: &mut dyn Sink) -> Result<Flushed, LinkError> {
        self.ring_reaches()?;
        if self.sending.unsent() == 0 && self.dead.is_none() {
            return Ok(Flushed { bytes: 0, blocked: false });
        }
        // While nothing is waited for, `receive` looks: once a turn is enough.
        let mut looks = self.blocked || !self.is_open();
        let mut bytes = 0;
        loop {
            if looks {
                self.look()?;
                self.sending.report(sink);
            }
            if let Some(dead) = self.dead {
                return Err(dead);
            }
            let (true, Some(endpoint), Some(credits)) =
                (self.phase == Phase::Established, &mut self.endpoint, &mut self.credits)
            else {
                return Ok(Flushed { bytes: 0, blocked: true });
            };
            let sent = self
                .sending
                .flush(&self.id, endpoint, credits, &mut self.keys, self.message_bytes, sink)
                .map_err(|cause| LinkError::Failed(errno(&cause)))?;
            if self.counts {
                endpoint.report(&self.shared.statistics);
            }
            bytes += sent.bytes;
            // A farewell that the device still has is waited for too.
            self.blocked = sent.blocked || (self.sending.is_empty() && self.sending.unsent() > 0);
            // What it waits for may have come already.
            if looks || !self.blocked {
                return Ok(Flushed { bytes, blocked: self.blocked });
            }
            looks = true;
        }
    }

    fn receive(&mut self, _scratch: &mut [u8], sink: &mut dyn Sink) -> Result<Received, LinkError> {
        if self.look()? == 0 && self.is_quiet() {
            return Ok(Received { bytes: 0, frames: 0, progress: false, stalled: false });
        }
        self.sending.report(sink);
        let reached = self.reaching.report(sink);
        self.receiving.frames = 0;
        let bytes = self.take_messages(sink)?;
        self.post_notes();
        if self.is_open()
            && let (Some(endpoint), Some(credits)) = (&mut self.endpoint, &mut self.credits)
            && self.sending.is_empty()
        {
            self.sending
                .send_credit(&self.id, endpoint, credits)
                .map_err(|cause| LinkError::Failed(errno(&cause)))?;
        }
        if let Some(endpoint) = self.endpoint.as_mut().filter(|_| self.counts) {
            endpoint.report(&self.shared.statistics);
        }
        let (frames, stalled) = (self.receiving.frames, self.receiving.is_stalled());
        if let Some(dead) = self.dead
            && bytes == 0
            && reached == 0
            && !stalled
        {
            return Err(dead);
        }
        Ok(Received { bytes, frames, progress: bytes > 0 || reached > 0, stalled })
    }

    fn readiness(&self) -> Option<RawFd> {
        Some(self.descriptors.as_raw_fd())
    }

    fn arm(&mut self, reads: bool, _blocked: bool) -> Armed {
        // Whatever a send waits for (credits, room in the queue) comes as a completion.
        let Some(endpoint) = &mut self.endpoint else { return Armed::Wait(libc::POLLIN) };
        if !self.armed {
            if let Err(cause) = endpoint.arm() {
                self.die(LinkError::Failed(errno(&cause)));
                return Armed::Ready;
            }
            self.armed = true;
        }
        // What came before the queue was armed makes no descriptor readable.
        let waits = !reads || self.receiving.is_stalled() || self.receiving.fetching.is_full();
        let came = self.look_at_completions();
        // A flush may have looked, and found what only `receive` tells.
        self.post_notes();
        let nothing = self.arrived.is_empty() && !self.reaching.has_news();
        match came {
            Ok(0) if self.dead.is_none() && (nothing || waits) => Armed::Wait(libc::POLLIN),
            Ok(_) => Armed::Ready,
            Err(error) => {
                self.die(error);
                Armed::Ready
            }
        }
    }

    fn shares_memory(&self) -> bool {
        true
    }

    fn lends(&self) -> bool {
        self.endpoint.as_ref().is_some_and(|endpoint| endpoint.domain().registrations().expose())
    }

    fn is_fetched(&self) -> bool {
        true
    }

    fn lend(&mut self, data: &Sgl, landing: Option<&Sgl>) -> Lent {
        match &self.endpoint {
            Some(endpoint) => {
                self.receiving.lending.lend(endpoint, &mut self.keys, &self.shared.options, data, landing)
            }
            None => Lent::default(),
        }
    }

    fn expose(&mut self, region: u32, memory: &Buffer, access: Access, key: &[u8; 16]) -> Option<Placement> {
        // What the peer's link has to know it is told by notes.
        self.expose_memory(region, memory, access, key);
        None
    }

    fn revoke(&mut self, region: u32) {
        self.revoke_memory(region);
    }

    fn reaches(&self, address: &RemoteAddress, length: usize, write: bool) -> bool {
        self.is_open() && self.reaching.reaches(address, length, write)
    }

    fn reach(&mut self, reach: Reach<'_>) -> bool {
        self.start_reach(&reach)
    }

    fn leave_memory(&mut self) {
        self.exposing.stop();
        self.reaching.stop();
        self.notes.clear();
    }

    fn unsent_bytes(&self) -> usize {
        self.sending.unsent()
    }

    fn unsent_frames(&self) -> usize {
        self.sending.frames()
    }

    fn stop_receiving(&mut self) {
        self.receiving.discard();
    }

    fn discard_landing(&mut self) {
        self.receiving.discard_landing();
    }

    fn fence(&mut self) {
        if self.phase == Phase::Fenced {
            return;
        }
        self.phase = Phase::Fenced;
        // Whatever has ended the link, a device's removal has to be known.
        while let Ok(Some(event)) = self.id.next_event() {
            if let (CmEventKind::DeviceRemoved, Some(watch)) = (event.kind, &self.watch) {
                watch.removed();
            }
        }
        self.leave_memory();
        let mut unread = std::mem::take(&mut self.free);
        unread.extend(self.arrived.drain(..).map(|arrived| arrived.buffer));
        if let Some(endpoint) = self.endpoint.take() {
            endpoint.stop(&self.id, unread);
        }
        self.sending.clear();
        self.receiving.discard();
    }
}

impl Drop for RdmaLink {
    fn drop(&mut self) {
        self.fence();
    }
}

fn errno(cause: &io::Error) -> i32 {
    cause.raw_os_error().unwrap_or(libc::EIO)
}

/// The errno value of an event's status, which may be 0, the reason of a rejection, or -1 where the library has failed.
fn failure_of(status: i32, otherwise: i32) -> i32 {
    if (-4095..-1).contains(&status) { -status } else { otherwise }
}

/// The errno value that describes failed work best.
fn status_errno(of: u32) -> i32 {
    match of {
        status::IBV_WC_RETRY_EXC_ERR | status::IBV_WC_RESP_TIMEOUT_ERR => libc::ETIMEDOUT,
        status::IBV_WC_RNR_RETRY_EXC_ERR => libc::ENOBUFS,
        status::IBV_WC_WR_FLUSH_ERR => libc::ECONNABORTED,
        status::IBV_WC_REM_ACCESS_ERR | status::IBV_WC_REM_INV_REQ_ERR => libc::EACCES,
        status::IBV_WC_REM_OP_ERR | status::IBV_WC_REM_ABORT_ERR => libc::ECONNRESET,
        status::IBV_WC_LOC_PROT_ERR | status::IBV_WC_LOC_ACCESS_ERR => libc::EFAULT,
        _ => libc::EIO,
    }
}
