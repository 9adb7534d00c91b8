//! A queue pair with its completion queue: posts chains of work, one doorbell each, and knows what has completed.
//!
//! Completions of sends come in order, so only some are asked for (selective signalling): the last of a chain whose
//! memory somebody waits for, and one of every few, so that the queue never fills with work that nobody hears of. What
//! the device reads or writes (staged bytes, data, registrations made for one operation) is held until then.

use super::cm::CmId;
use super::domain::{Domain, Slab, post_chained};
use super::side_queue::SIDE_DEPTH;
use super::staging::{STAGING_BYTES, Staging};
use super::verbs::{CompletionQueue, MemoryRegion, check};
use crate::Statistics;
use rdma_sys as sys;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Work requests in the send queue at a time.
const SEND_DEPTH: u32 = 256;
/// Work after which a completion is asked for, whoever waits for it.
const SIGNAL_INTERVAL: u32 = SEND_DEPTH / 4;
/// Bytes of staged messages after which a completion is asked for.
const SIGNAL_STAGED_BYTES: usize = STAGING_BYTES / 4;
/// Pieces of memory in one work request.
pub(super) const PIECES_MAX: u32 = 16;
/// Bytes that are asked to be carried in the work request itself; a device that can't is asked for less.
const INLINE_BYTES: [u32; 4] = [256, 128, 64, 0];
/// Completions taken with one call.
const COMPLETION_BATCH: usize = 32;
/// Longest time for the queue pair to give everything back when it is stopped; it does within microseconds.
const FLUSH_TIME: Duration = Duration::from_millis(500);

/// Marks the work requests of received messages.
const RECEIVE: u64 = 1 << 63;
/// Marks the work requests of one-sided operations on the link's other queue pair.
const REACH: u64 = 1 << 62;
/// The number of the request behind all others.
const LAST: u64 = RECEIVE - 1;

/// The identifier of the work request that receives into this buffer.
pub(super) fn receive_id(number: u32) -> u64 {
    RECEIVE | u64::from(number)
}

/// The identifier of the work requests of a one-sided operation, by the other queue pair's epoch and the slot.
pub(super) fn reach_id(epoch: u16, slot: u16) -> u64 {
    REACH | u64::from(epoch) << 16 | u64::from(slot)
}

/// What has happened to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// A message of so many bytes has come into this buffer.
    Received { buffer: u32, length: usize },
    /// All work up to this number is done.
    Sent { upto: u64 },
    /// A one-sided operation on the other queue pair has ended with this status.
    Reached { epoch: u16, slot: u16, status: u32 },
    /// Something has failed with this status; the queue pair is stopped. A receive gives its buffer back.
    Failed { status: u32, buffer: Option<u32> },
}

/// Counts since they were reported last.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct EndpointCounters {
    pub posts: u64,
    pub doorbells: u64,
    pub completions: u64,
    pub copied_bytes: u64,
}

/// A queue pair and what belongs to it.
#[derive(Debug)]
pub(super) struct Endpoint {
    queue: CompletionQueue,
    staging: Staging,
    /// Receive buffers of its own, where the device has no shared queue.
    own_buffers: Vec<Arc<Slab>>,
    /// Shared buffers as known here: those of the domain, which only get more.
    slabs: Vec<Arc<Slab>>,
    chain: Chain,
    /// What the device may still touch, oldest first.
    held: VecDeque<Held>,
    /// Work requests posted and known to be done, counted from the beginning.
    posted: u64,
    done: u64,
    /// Work requests and staged bytes since a completion was asked for last.
    unsignalled: u32,
    unsignalled_staged: usize,
    /// A completion is wanted for the work chained now.
    signal: bool,
    /// Registrations made for the next work request, held until it is done.
    pub registrations: SmallVec<[MemoryRegion; 1]>,
    inline_max: usize,
    pub pieces_max: usize,
    pub read_pieces_max: usize,
    /// Most bytes of one RDMA READ or WRITE.
    pub transfer_max: usize,
    pub window: u32,
    pub counters: EndpointCounters,
    domain: Arc<Domain>,
}

/// Memory that the device may touch until work with this number is done.
#[derive(Debug)]
struct Held {
    work: u64,
    staged_end: u64,
    _registrations: SmallVec<[MemoryRegion; 1]>,
}

/// Work that waits for the doorbell.
#[derive(Default)]
struct Chain {
    work: Vec<Work>,
    pieces: Vec<sys::ibv_sge>,
    raw: Vec<RawRequest>,
}

/// A raw work request, which points into the chain while it is posted.
struct RawRequest(sys::ibv_send_wr);

// SAFETY: the pointers are set for the length of a post and not used otherwise.
unsafe impl Send for RawRequest {}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").field("work", &self.work).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy)]
struct Work {
    kind: WorkKind,
    first_piece: usize,
    pieces: usize,
    bytes: usize,
}

#[derive(Debug, Clone, Copy)]
enum WorkKind {
    Send,
    Write { address: u64, key: u32 },
    Read { address: u64, key: u32 },
}

/// A place in the peer's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Remote {
    pub address: u64,
    pub key: u32,
}

/// A piece of our memory, with the key that the device knows it by.
#[derive(Debug, Clone, Copy)]
pub(super) struct LocalPiece {
    pub address: *const u8,
    pub length: usize,
    pub key: u32,
}

impl Endpoint {
    /// Makes the queue pair of an identifier whose device is known.
    pub(super) fn new(id: &CmId, domain: Arc<Domain>) -> io::Result<Endpoint> {
        let limits = domain.limits;
        let window = domain.receives().join()?;
        let mut endpoint = match Endpoint::build(id, &domain, window) {
            Ok(endpoint) => endpoint,
            Err(cause) => {
                domain.receives().leave(window);
                return Err(cause);
            }
        };
        endpoint.read_pieces_max = PIECES_MAX.min(limits.sge_read_max) as usize;
        let is_shared = !domain.receives().queue().is_null();
        if !is_shared && let Err(cause) = endpoint.post_own(id) {
            endpoint.stop(id, Vec::new());
            return Err(cause);
        }
        Ok(endpoint)
    }

    /// Makes and posts receive buffers of its own.
    fn post_own(&mut self, id: &CmId) -> io::Result<()> {
        let slab = Slab::new(self.domain.protection(), 0, self.window)?;
        self.own_buffers.push(Arc::new(slab));
        let numbers: Vec<u32> = (0..self.window).collect();
        self.post_receives(id, &numbers)
    }

    fn build(id: &CmId, domain: &Arc<Domain>, window: u32) -> io::Result<Endpoint> {
        let limits = domain.limits;
        let depth = SEND_DEPTH.min(limits.work_requests_max);
        // Every send, every message of the window, and every one-sided operation may complete before we look.
        let entries = depth + window + SIDE_DEPTH + 16;
        let queue = CompletionQueue::new(domain.device, entries.min(limits.completions_max))?;
        let pieces_max = PIECES_MAX.min(limits.sge_max);
        let shared = domain.receives().queue();
        let mut inline_max = None;
        for inline in INLINE_BYTES {
            let mut attributes = sys::ibv_qp_init_attr {
                qp_context: ptr::null_mut(),
                send_cq: queue.as_ptr(),
                recv_cq: queue.as_ptr(),
                srq: shared,
                cap: sys::ibv_qp_cap {
                    max_send_wr: depth,
                    max_recv_wr: if shared.is_null() { window } else { 0 },
                    max_send_sge: pieces_max,
                    max_recv_sge: 1,
                    max_inline_data: inline,
                },
                qp_type: sys::ibv_qp_type::IBV_QPT_RC,
                sq_sig_all: 0,
            };
            // SAFETY: identifier, domain and queue live; the attributes are read and written during the call only.
            let made = check(unsafe {
                sys::rdma_create_qp(id.as_ptr(), domain.protection().as_ptr(), &raw mut attributes)
            });
            match made {
                Ok(()) => {
                    inline_max = Some(attributes.cap.max_inline_data.min(INLINE_BYTES[0]));
                    break;
                }
                Err(cause) if inline == 0 => return Err(cause),
                Err(_) => {}
            }
        }
        let staging = match Staging::new(domain) {
            Ok(staging) => staging,
            Err(cause) => {
                // SAFETY: the identifier lives and has the queue pair made above.
                unsafe { sys::rdma_destroy_qp(id.as_ptr()) };
                return Err(cause);
            }
        };
        Ok(Endpoint {
            queue,
            staging,
            own_buffers: Vec::new(),
            slabs: Vec::new(),
            chain: Chain::default(),
            held: VecDeque::new(),
            posted: 0,
            done: 0,
            unsignalled: 0,
            unsignalled_staged: 0,
            signal: false,
            registrations: SmallVec::new(),
            inline_max: inline_max.unwrap_or(0) as usize,
            pieces_max: pieces_max as usize,
            read_pieces_max: 1,
            transfer_max: (limits.message_bytes_max as usize).clamp(4096, 1 << 30),
            window,
            counters: EndpointCounters::default(),
            domain: Arc::clone(domain),
        })
    }

    pub(super) fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }

    /// Where completions come out, for the link's other queue pairs, which have to go before this.
    pub(super) fn completions(&self) -> *mut sys::ibv_cq {
        self.queue.as_ptr()
    }

    pub(super) fn completion_fd(&self) -> RawFd {
        self.queue.fd()
    }

    /// Work requests that may still be posted.
    pub(super) fn room(&self) -> u64 {
        u64::from(SEND_DEPTH.min(self.domain.limits.work_requests_max)) - self.outstanding()
    }

    fn outstanding(&self) -> u64 {
        self.posted + self.chain.work.len() as u64 - self.done
    }

    /// The number that the next work request gets.
    fn next_work(&self) -> u64 {
        self.posted + self.chain.work.len() as u64 + 1
    }

    /// Registered memory for `length` bytes of a message; `None` until earlier ones are gone.
    pub(super) fn stage(&mut self, length: usize) -> Option<&mut [u8]> {
        self.staging.take(length)
    }

    /// Chains a message: what was staged last, then these pieces, which the caller keeps until it is done. Returns its
    /// number.
    pub(super) fn chain_send(&mut self, pieces: &[LocalPiece], signal: bool) -> u64 {
        let staged = self.staging.last();
        self.unsignalled_staged += staged.length;
        let signal = signal || self.unsignalled_staged >= SIGNAL_STAGED_BYTES;
        let first_piece = self.chain.pieces.len();
        self.chain.push_piece(staged);
        for piece in pieces {
            self.chain.push_piece(*piece);
        }
        self.push(WorkKind::Send, first_piece, signal)
    }

    /// Chains an RDMA WRITE of these pieces, which the caller keeps until it is done.
    pub(super) fn chain_write(&mut self, pieces: &[LocalPiece], to: Remote) -> u64 {
        let first_piece = self.chain.pieces.len();
        for piece in pieces {
            self.chain.push_piece(*piece);
        }
        let Remote { address, key } = to;
        self.push(WorkKind::Write { address, key }, first_piece, false)
    }

    /// Chains an RDMA READ into these pieces, which the caller keeps until it is done.
    pub(super) fn chain_read(&mut self, pieces: &[LocalPiece], from: Remote) -> u64 {
        let first_piece = self.chain.pieces.len();
        for piece in pieces {
            self.chain.push_piece(*piece);
        }
        let Remote { address, key } = from;
        self.push(WorkKind::Read { address, key }, first_piece, true)
    }

    fn push(&mut self, kind: WorkKind, first_piece: usize, signal: bool) -> u64 {
        let work = self.next_work();
        let pieces = self.chain.pieces.len() - first_piece;
        let bytes = self.chain.pieces[first_piece..].iter().map(|piece| piece.length as usize).sum();
        self.chain.work.push(Work { kind, first_piece, pieces, bytes });
        self.signal |= signal;
        let registrations = std::mem::take(&mut self.registrations);
        self.held.push_back(Held { work, staged_end: self.staging.end, _registrations: registrations });
        work
    }

    /// Posts the chain with one doorbell.
    pub(super) fn ring(&mut self, id: &CmId) -> io::Result<()> {
        let count = self.chain.work.len();
        if count == 0 {
            return Ok(());
        }
        self.unsignalled += count as u32;
        if self.unsignalled >= SIGNAL_INTERVAL {
            self.signal = true;
        }
        let Chain { work, pieces, raw } = &mut self.chain;
        raw.clear();
        for (at, work) in work.iter().enumerate() {
            let (opcode, rdma) = match work.kind {
                WorkKind::Send => (sys::ibv_wr_opcode::IBV_WR_SEND, sys::rdma_t { remote_addr: 0, rkey: 0 }),
                WorkKind::Write { address, key } => {
                    (sys::ibv_wr_opcode::IBV_WR_RDMA_WRITE, sys::rdma_t { remote_addr: address, rkey: key })
                }
                WorkKind::Read { address, key } => {
                    (sys::ibv_wr_opcode::IBV_WR_RDMA_READ, sys::rdma_t { remote_addr: address, rkey: key })
                }
            };
            let mut flags = 0;
            if matches!(work.kind, WorkKind::Send | WorkKind::Write { .. }) && work.bytes <= self.inline_max {
                flags |= sys::ibv_send_flags::IBV_SEND_INLINE.0;
            }
            if at + 1 == count && self.signal {
                flags |= sys::ibv_send_flags::IBV_SEND_SIGNALED.0;
            }
            // SAFETY: all-zero is a valid value of this plain struct: no next request, no immediate data.
            let mut request: sys::ibv_send_wr = unsafe { std::mem::zeroed() };
            request.wr_id = self.posted + at as u64 + 1;
            // At most PIECES_MAX.
            request.num_sge = work.pieces as libc::c_int;
            request.opcode = opcode;
            request.send_flags = flags;
            request.wr.rdma = rdma;
            raw.push(RawRequest(request));
        }
        for at in (0..count).rev() {
            let next = if at + 1 < count { &raw mut raw[at + 1].0 } else { ptr::null_mut() };
            let list = &raw mut pieces[work[at].first_piece];
            raw[at].0.next = next;
            raw[at].0.sg_list = list;
        }
        let mut bad = ptr::null_mut();
        // SAFETY: the identifier has its queue pair; the chain and its pieces are not moved during the call. The memory
        // that the pieces name is held in `held`, or by the caller of `chain_read`, until the work is done.
        let posted = check(unsafe { sys::ibv_post_send(id.queue_pair(), &raw mut raw[0].0, &raw mut bad) });
        work.clear();
        pieces.clear();
        raw.clear();
        // Where the device refuses a part, the link is given up: nothing has to be told apart then.
        self.posted += count as u64;
        if self.signal {
            self.signal = false;
            self.unsignalled = 0;
            self.unsignalled_staged = 0;
        }
        self.counters.posts += count as u64;
        self.counters.doorbells += 1;
        posted
    }

    /// Takes completions, calling `each` for what they mean; returns how many there were.
    pub(super) fn poll(&mut self, mut each: impl FnMut(Done)) -> io::Result<usize> {
        let mut room = [const { MaybeUninit::uninit() }; COMPLETION_BATCH];
        let batch = self.queue.poll(&mut room)?;
        self.counters.completions += batch.len() as u64;
        for completion in batch {
            let is_receive = completion.wr_id & RECEIVE != 0;
            // The number of a buffer is the lower half.
            let buffer = completion.wr_id as u32;
            if completion.wr_id >> 32 == REACH >> 32 {
                // The two halves of the lower half.
                let (epoch, slot) = ((buffer >> 16) as u16, buffer as u16);
                each(Done::Reached { epoch, slot, status: completion.status });
            } else if completion.status != sys::ibv_wc_status::IBV_WC_SUCCESS {
                each(Done::Failed { status: completion.status, buffer: is_receive.then_some(buffer) });
            } else if is_receive {
                each(Done::Received { buffer, length: completion.byte_len as usize });
            } else {
                self.release(completion.wr_id);
                each(Done::Sent { upto: completion.wr_id });
            }
        }
        Ok(batch.len())
    }

    /// Lets go of what work up to this number has held.
    fn release(&mut self, upto: u64) {
        self.done = self.done.max(upto.min(self.posted));
        while self.held.front().is_some_and(|held| held.work <= upto) {
            if let Some(held) = self.held.pop_front() {
                self.staging.release(held.staged_end);
            }
        }
    }

    /// Makes the completion queue's descriptor readable at the next completion.
    pub(super) fn arm(&mut self) -> io::Result<()> {
        self.queue.arm()
    }

    /// Takes what made the descriptor readable.
    pub(super) fn take_events(&mut self) {
        self.queue.take_events();
    }

    /// Adds what was counted since the last time.
    pub(super) fn report(&mut self, statistics: &Statistics) {
        let EndpointCounters { posts, doorbells, completions, copied_bytes } =
            std::mem::take(&mut self.counters);
        if posts + completions + copied_bytes > 0 {
            statistics.rdma_posts.add(posts);
            statistics.rdma_doorbells.add(doorbells);
            statistics.rdma_completions.add(completions);
            statistics.rdma_bytes_copied.add(copied_bytes);
            self.domain.registrations().report(statistics);
        }
    }

    /// The message in a buffer.
    ///
    /// # Safety
    /// The buffer came with [`Done::Received`] and was not posted since.
    pub(super) unsafe fn message(&mut self, buffer: u32, length: usize) -> Option<&[u8]> {
        let known = if self.own_buffers.is_empty() { &mut self.slabs } else { &mut self.own_buffers };
        if !known.iter().any(|slab| slab.holds(buffer)) {
            *known = self.domain.receives().slabs().to_vec();
        }
        let slab = known.iter().find(|slab| slab.holds(buffer))?;
        // SAFETY: the caller's promise.
        Some(unsafe { slab.message(buffer, length) })
    }

    /// Posts buffers again.
    pub(super) fn post_receives(&mut self, id: &CmId, numbers: &[u32]) -> io::Result<()> {
        if self.own_buffers.is_empty() {
            return self.domain.receives().post(numbers);
        }
        post_chained(&self.own_buffers, numbers, |first, bad| {
            // SAFETY: the identifier has its queue pair, and the chain lives through the call; its buffers are dropped
            // after the queue pair.
            unsafe { sys::ibv_post_recv(id.queue_pair(), first, bad) }
        })
    }

    /// Stops the queue pair and destroys it: when this returns, the device touches no memory for it any more. `unread`
    /// are buffers with messages that nobody wants now.
    pub(super) fn stop(mut self, id: &CmId, mut unread: Vec<u32>) {
        let queue_pair = id.queue_pair();
        if !queue_pair.is_null() {
            id.disconnect();
            // SAFETY: all-zero is a valid value of this plain struct; the mask says that the state alone counts.
            unsafe {
                let mut attributes: sys::ibv_qp_attr = std::mem::zeroed();
                attributes.qp_state = sys::ibv_qp_state::IBV_QPS_ERR;
                let mask = sys::ibv_qp_attr_mask::IBV_QP_STATE.0 as libc::c_int;
                sys::ibv_modify_qp(queue_pair, &raw mut attributes, mask);
            }
            self.drain(queue_pair, &mut unread);
            // SAFETY: the identifier lives and has this queue pair.
            unsafe { sys::rdma_destroy_qp(id.as_ptr()) };
        }
        let mut receives = self.domain.receives();
        if self.own_buffers.is_empty()
            && let Err(error) = receives.post(&unread)
        {
            tracing::error!(%error, "receive buffers are lost");
        }
        receives.leave(self.window);
    }
}

impl Endpoint {
    /// Waits until a stopped queue pair has given back everything: a last request behind all others completes at once,
    /// with an error as they do. Shared buffers that came with messages go back to the others.
    fn drain(&mut self, queue_pair: *mut sys::ibv_qp, unread: &mut Vec<u32>) {
        // SAFETY: all-zero is a valid value of this plain struct: a SEND of no bytes.
        let mut request: sys::ibv_send_wr = unsafe { std::mem::zeroed() };
        request.wr_id = LAST;
        request.opcode = sys::ibv_wr_opcode::IBV_WR_SEND;
        request.send_flags = sys::ibv_send_flags::IBV_SEND_SIGNALED.0;
        let mut bad = ptr::null_mut();
        // SAFETY: the queue pair lives and the request names no memory. A full queue refuses it; then the others tell.
        unsafe { sys::ibv_post_send(queue_pair, &raw mut request, &raw mut bad) };
        let deadline = Instant::now() + FLUSH_TIME;
        let mut is_over = false;
        loop {
            let mut room = [const { MaybeUninit::uninit() }; COMPLETION_BATCH];
            let batch = self.queue.poll(&mut room).unwrap_or_default();
            for completion in batch {
                if completion.wr_id & RECEIVE != 0 {
                    // The number of a buffer is the lower half.
                    unread.push(completion.wr_id as u32);
                } else {
                    is_over |= completion.wr_id == LAST || completion.wr_id == self.posted;
                }
            }
            if batch.is_empty() && (is_over || Instant::now() >= deadline) {
                break;
            }
            if batch.is_empty() {
                std::thread::yield_now();
            }
        }
    }
}

impl Chain {
    fn push_piece(&mut self, piece: LocalPiece) {
        // A piece is shorter than 4 GiB, since lists are.
        self.pieces.push(sys::ibv_sge {
            addr: piece.address as u64,
            length: piece.length as u32,
            lkey: piece.key,
        });
    }
}
