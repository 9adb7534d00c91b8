//! What the links of one context share on one device: a protection domain, receive buffers in a shared receive queue,
//! registrations of memory.
//!
//! There is a domain per peer identity: the links that this side opened to one host share one, and only their
//! registrations give rights to the peer. Accepted links of all peers share another one, whose registrations give none.

use super::RdmaOptions;
use super::locked;
use super::registration::Registrations;
use super::verbs::{Device, DeviceLimits, ProtectionDomain, RegisteredRegion, SharedReceiveQueue, check};
use rdma_sys as sys;
use std::io;
use std::net::IpAddr;
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Bytes of a receive buffer, so of the longest message: 4 KiB of data, and 512 for all heads, placement and header.
pub(super) const MESSAGE_BYTES: usize = 4096 + 512;
/// Messages that a link is ready to receive at a time, while there are few links.
const WINDOW: u32 = 128;
/// The same for each of many links.
const WINDOW_SMALL: u32 = 16;
/// Receive buffers of one domain from where on new links get small windows: 37 MiB.
const BUFFERS_MANY: u32 = 8192;
/// Most receive buffers of one domain: 302 MiB, or what the device takes.
const BUFFERS_MAX: u32 = 65_536;
/// Receive buffers beyond the sum of all windows: messages that a peer sends against the rules meet these first.
const RESERVE: u32 = 16;
/// Buffers posted with one call.
const POST_BATCH: usize = 32;

/// Whose domain it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Identity {
    /// The server at this address, which may be given rights to our memory.
    Server(IpAddr),
    /// All clients; none of them ever gets rights.
    Clients,
}

/// What links share.
#[derive(Debug)]
pub(super) struct Domain {
    // The order of dropping: what is made in the protection domain first.
    receives: Mutex<SharedReceives>,
    registrations: Arc<Registrations>,
    protection: Arc<ProtectionDomain>,
    pub device: Device,
    pub limits: DeviceLimits,
    /// What may be registered of memory that can do without.
    pub registered_bytes_max: u64,
    identity: Identity,
}

/// The domains of a context, which an acceptor's thread may ask for too. A domain lives as long as a link in it.
#[derive(Debug, Default)]
pub(super) struct Domains(Mutex<Vec<Weak<Domain>>>);

impl Domains {
    /// The domain for a new link on this device.
    pub(super) fn get(
        &self,
        device: Device,
        port: u8,
        identity: Identity,
        options: &RdmaOptions,
    ) -> io::Result<Arc<Domain>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|domain| domain.strong_count() > 0);
        let found = known.iter().filter_map(Weak::upgrade);
        if let Some(domain) =
            found.into_iter().find(|domain| domain.device == device && domain.identity == identity)
        {
            return Ok(domain);
        }
        let domain = Arc::new(Domain::new(device, port, identity, options)?);
        known.push(Arc::downgrade(&domain));
        Ok(domain)
    }
}

impl Domain {
    fn new(device: Device, port: u8, identity: Identity, options: &RdmaOptions) -> io::Result<Domain> {
        let mut limits = device.limits(port)?;
        if !options.shared_receives {
            limits.shared_receives_max = 0;
        }
        let protection = Arc::new(ProtectionDomain::new(device)?);
        let receives = SharedReceives::new(&protection, &limits)?;
        let registered_bytes_max = locked::bytes_max(options.registered_bytes_max);
        let exposes = matches!(identity, Identity::Server(_));
        let registrations = Registrations::new(&protection, exposes, registered_bytes_max);
        let receives = Mutex::new(receives);
        Ok(Domain { receives, registrations, protection, device, limits, registered_bytes_max, identity })
    }

    pub(super) fn protection(&self) -> &Arc<ProtectionDomain> {
        &self.protection
    }

    pub(super) fn registrations(&self) -> &Registrations {
        &self.registrations
    }

    /// Locked once for several messages; its holders are links of one context, one thread, but for an acceptor that makes
    /// a link for it, and links whose connection came to another worker than they were made for.
    pub(super) fn receives(&self) -> MutexGuard<'_, SharedReceives> {
        self.receives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The receive buffers of a domain.
#[derive(Debug)]
pub(super) struct SharedReceives {
    // The queue goes before the memory that is posted to it.
    queue: Option<SharedReceiveQueue>,
    protection: Arc<ProtectionDomain>,
    slabs: Vec<Arc<Slab>>,
    /// Buffers in all slabs.
    buffers: u32,
    buffers_max: u32,
    /// Sum of the windows of the links.
    promised: u32,
}

/// Receive buffers in one piece of memory.
#[derive(Debug)]
pub(super) struct Slab {
    memory: RegisteredRegion,
    /// Number of its first buffer.
    first: u32,
    count: u32,
}

impl SharedReceives {
    fn new(protection: &Arc<ProtectionDomain>, limits: &DeviceLimits) -> io::Result<SharedReceives> {
        let buffers_max = limits.shared_receives_max.min(BUFFERS_MAX);
        let queue = if buffers_max >= 2 * WINDOW {
            Some(SharedReceiveQueue::new(protection, buffers_max)?)
        } else {
            None
        };
        Ok(SharedReceives {
            queue,
            protection: Arc::clone(protection),
            slabs: Vec::new(),
            buffers: 0,
            buffers_max,
            promised: 0,
        })
    }

    /// The queue for a new queue pair; null where the device has none, and the link keeps buffers of its own.
    pub(super) fn queue(&self) -> *mut sys::ibv_srq {
        self.queue.as_ref().map_or(ptr::null_mut(), SharedReceiveQueue::as_ptr)
    }

    pub(super) fn slabs(&self) -> &[Arc<Slab>] {
        &self.slabs
    }

    /// Sees to it that there are buffers for one more link; returns its window.
    pub(super) fn join(&mut self) -> io::Result<u32> {
        let mut window = if self.promised < BUFFERS_MANY { WINDOW } else { WINDOW_SMALL };
        if self.queue.is_none() {
            self.promised += window;
            return Ok(window);
        }
        let missing =
            |window: u32, this: &Self| (this.promised + window + RESERVE).saturating_sub(this.buffers);
        let mut wanted = missing(window, self);
        if self.buffers + wanted > self.buffers_max {
            window = WINDOW_SMALL;
            wanted = missing(window, self);
        }
        if self.buffers + wanted > self.buffers_max {
            return Err(io::Error::from_raw_os_error(libc::ENOBUFS));
        }
        if wanted > 0 {
            let count = wanted.max(WINDOW + RESERVE).min(self.buffers_max - self.buffers);
            let slab = Arc::new(Slab::new(&self.protection, self.buffers, count)?);
            let numbers: Vec<u32> = (slab.first..slab.first + count).collect();
            self.slabs.push(slab);
            self.buffers += count;
            self.post(&numbers)?;
        }
        self.promised += window;
        Ok(window)
    }

    /// A link is gone; its buffers, which it has posted again, are for the next.
    pub(super) fn leave(&mut self, window: u32) {
        self.promised -= window;
    }

    /// Posts buffers (again).
    pub(super) fn post(&mut self, numbers: &[u32]) -> io::Result<()> {
        let queue = self.queue();
        if queue.is_null() {
            return Ok(());
        }
        post_chained(&self.slabs, numbers, |first, bad| {
            // SAFETY: the queue lives, and the chain lives through the call; its buffers stay where they are, since the
            // slabs are dropped after the queue.
            unsafe { sys::ibv_post_srq_recv(queue, first, bad) }
        })
    }
}

/// Posts receive buffers in chains.
pub(super) fn post_chained(
    slabs: &[Arc<Slab>],
    numbers: &[u32],
    mut post: impl FnMut(*mut sys::ibv_recv_wr, *mut *mut sys::ibv_recv_wr) -> libc::c_int,
) -> io::Result<()> {
    let mut pieces = [sys::ibv_sge { addr: 0, length: 0, lkey: 0 }; POST_BATCH];
    let none = sys::ibv_recv_wr { wr_id: 0, next: ptr::null_mut(), sg_list: ptr::null_mut(), num_sge: 1 };
    let mut requests = [none; POST_BATCH];
    for batch in numbers.chunks(POST_BATCH) {
        let mut next = ptr::null_mut();
        for (at, number) in batch.iter().enumerate().rev() {
            let Some(slab) = slabs.iter().find(|slab| slab.holds(*number)) else {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            };
            pieces[at] = slab.piece(*number);
            requests[at] = sys::ibv_recv_wr {
                wr_id: super::endpoint::receive_id(*number),
                next,
                sg_list: &raw mut pieces[at],
                num_sge: 1,
            };
            next = &raw mut requests[at];
        }
        let mut bad = ptr::null_mut();
        check(post(next, &raw mut bad))?;
    }
    Ok(())
}

impl Slab {
    pub(super) fn new(protection: &Arc<ProtectionDomain>, first: u32, count: u32) -> io::Result<Slab> {
        let memory = RegisteredRegion::allocate(protection, count as usize * MESSAGE_BYTES)?;
        Ok(Slab { memory, first, count })
    }

    pub(super) fn holds(&self, number: u32) -> bool {
        number.wrapping_sub(self.first) < self.count
    }

    fn address(&self, number: u32) -> *mut u8 {
        debug_assert!(self.holds(number));
        // SAFETY: the slab holds `count` buffers, and the number is one of them (callers look it up by `holds`).
        unsafe { self.memory.as_ptr().add((number - self.first) as usize * MESSAGE_BYTES) }
    }

    fn piece(&self, number: u32) -> sys::ibv_sge {
        sys::ibv_sge {
            addr: self.address(number) as u64,
            length: MESSAGE_BYTES as u32,
            lkey: self.memory.local_key(),
        }
    }

    /// The message in a buffer that came back with a completion.
    ///
    /// # Safety
    /// The buffer is not posted: the device does not write it while the slice lives.
    pub(super) unsafe fn message(&self, number: u32, length: usize) -> &[u8] {
        // SAFETY: the buffer lies in the slab; the caller promises that nobody writes it.
        unsafe { std::slice::from_raw_parts(self.address(number), length.min(MESSAGE_BYTES)) }
    }
}
