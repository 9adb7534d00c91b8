//! Which memory the device knows: regions (a pool's chunks, the application's own) are registered once, when one of
//! their buffers is used first, and for as long as they live.
//!
//! A registration is found by its region's number, which is never given twice, so it can't be stale; it is taken back
//! before the region's memory goes. Memory without an
//! owner that we know of (the heap, the caller's own) is never kept here: nobody would tell us that it was unmapped and
//! mapped anew, and the device would go on using the old pages.

use super::verbs::{Access, MemoryRegion, ProtectionDomain};
use crate::mem::{RegionWatcher, WeakRegion, watch_regions, zeros_memory};
use crate::wire::PlacedPiece;
use crate::{Buffer, Statistics};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Regions registered at a time; beyond it the ones whose memory is gone are dropped, then none is added.
const REGISTRATIONS_MAX: usize = 4096;
/// Regions that a link finds without asking here.
const KEYS: usize = 32;

/// Stands for the zeros; regions are numbered from 1.
const ZEROS: u64 = 0;

fn is_zeros(buffer: &Buffer) -> bool {
    let memory = zeros_memory().as_ptr_range();
    memory.contains(&buffer.as_ptr().cast_const())
}

/// How the device names registered memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keys {
    /// The region's number.
    region: u64,
    pub local: u32,
    /// 0 where the peer has no rights.
    pub remote: u32,
}

/// The registrations of a domain.
#[derive(Debug)]
pub(super) struct Registrations {
    protection: Arc<ProtectionDomain>,
    access: Access,
    /// Most that may be registered, by all of the process.
    bytes_max: u64,
    known: Mutex<HashMap<u64, (MemoryRegion, WeakRegion)>>,
    /// The zeros that have no memory of their own; `None` inside where they can't be registered.
    zeros: OnceLock<Option<MemoryRegion>>,
    /// Since they were reported last: regions registered, and memory for one operation.
    made: AtomicU64,
    made_once: AtomicU64,
}

impl Registrations {
    /// `exposes`: the peers of the domain get rights to what is registered.
    pub(super) fn new(
        protection: &Arc<ProtectionDomain>,
        exposes: bool,
        bytes_max: u64,
    ) -> Arc<Registrations> {
        let access = if exposes { Access::Remote } else { Access::Local };
        let registrations = Arc::new(Registrations {
            protection: Arc::clone(protection),
            access,
            bytes_max,
            known: Mutex::default(),
            zeros: OnceLock::new(),
            made: AtomicU64::new(0),
            made_once: AtomicU64::new(0),
        });
        let watcher: Arc<dyn RegionWatcher> = registrations.clone();
        watch_regions(&watcher);
        registrations
    }

    /// Whether the peers of the domain get rights to what is registered.
    pub(super) fn expose(&self) -> bool {
        self.access == Access::Remote
    }

    /// Adds what was made since the last time.
    pub(super) fn report(&self, statistics: &Statistics) {
        let take = |made: &AtomicU64| {
            // Mostly nothing, which a look tells without a locked instruction.
            if made.load(Ordering::Relaxed) == 0 { 0 } else { made.swap(0, Ordering::Relaxed) }
        };
        statistics.rdma_registrations.add(take(&self.made));
        statistics.rdma_registrations_once.add(take(&self.made_once));
    }

    /// The keys of a buffer's region; `None` where it has none, or it can't be registered (the limit on locked memory,
    /// our part of it, the device's own): its bytes are copied then.
    fn find(&self, buffer: &Buffer) -> Option<Keys> {
        if is_zeros(buffer) {
            return self.find_zeros();
        }
        let region = buffer.lasting_region()?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REGISTRATIONS_MAX && !known.contains_key(&region.number()) {
            known.retain(|_, (_, owner)| !owner.is_gone());
            if known.len() >= REGISTRATIONS_MAX {
                return None;
            }
        }
        let registration = match known.entry(region.number()) {
            std::collections::hash_map::Entry::Occupied(found) => &found.into_mut().0,
            std::collections::hash_map::Entry::Vacant(place) => {
                // SAFETY: the region is mapped while it lives; see `forget` for its end. Peers of the domain may write
                // it at any time, which its users know (`Buffer::try_as_slice`).
                let registered = unsafe { self.register(region.as_ptr(), region.len()) };
                match registered {
                    Ok(registration) => {
                        self.made.fetch_add(1, Ordering::Relaxed);
                        &place.insert((registration, region.downgrade())).0
                    }
                    Err(error) => {
                        tracing::debug!(%error, bytes = region.len(), "memory can't be registered, so it is copied");
                        return None;
                    }
                }
            }
        };
        let remote = if self.expose() { registration.remote_key() } else { 0 };
        Some(Keys { region: region.number(), local: registration.local_key(), remote })
    }

    /// Registers memory, within what may be.
    ///
    /// # Safety
    /// As for [`MemoryRegion::register`].
    unsafe fn register(&self, address: *mut u8, length: usize) -> io::Result<MemoryRegion> {
        let (bytes_max, access) = (self.bytes_max, self.access);
        // SAFETY: the caller's promise.
        unsafe { MemoryRegion::register_within(bytes_max, &self.protection, address, length, access) }
    }

    fn find_zeros(&self) -> Option<Keys> {
        let registration = self.zeros.get_or_init(|| {
            let memory = zeros_memory();
            // SAFETY: the memory lives as long as the program, and nobody gets the right to write it.
            unsafe {
                MemoryRegion::register(
                    &self.protection,
                    memory.as_ptr().cast_mut(),
                    memory.len(),
                    Access::LocalRead,
                )
            }
            .ok()
        });
        let local = registration.as_ref()?.local_key();
        Some(Keys { region: ZEROS, local, remote: 0 })
    }

    /// Registers memory for one operation again, by the place that it was said to lie at.
    ///
    /// # Safety
    /// As for [`MemoryRegion::register`].
    pub(super) unsafe fn again(&self, piece: PlacedPiece) -> io::Result<MemoryRegion> {
        // An address of this process.
        let address = piece.offset as *mut u8;
        // Without a limit of ours: it had its part when it was lent, and can't go another way any more.
        // SAFETY: the caller's promise.
        let made =
            unsafe { MemoryRegion::register(&self.protection, address, piece.length as usize, self.access) };
        self.made_once.fetch_add(u64::from(made.is_ok()), Ordering::Relaxed);
        made
    }

    /// Registers memory for one operation.
    ///
    /// # Safety
    /// As for [`MemoryRegion::register`].
    pub(super) unsafe fn once(&self, buffer: &Buffer) -> Option<MemoryRegion> {
        // SAFETY: the caller's promise.
        let made = unsafe { self.register(buffer.as_ptr(), buffer.len()) };
        self.made_once.fetch_add(u64::from(made.is_ok()), Ordering::Relaxed);
        made.ok()
    }
}

impl RegionWatcher for Registrations {
    fn region_ends(&self, number: u64) {
        // Taken out under the lock, deregistered (a call to the kernel) outside of it.
        let ended = self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
        drop(ended);
    }
}

/// A link's own table of the regions that it has used lately, so that it finds them without a lock.
#[derive(Debug)]
pub(super) struct KeyCache([Option<Keys>; KEYS]);

impl KeyCache {
    pub(super) fn new() -> KeyCache {
        KeyCache([None; KEYS])
    }

    /// Whether a remote key is one of these.
    pub(super) fn knows(&self, remote: u32) -> bool {
        self.0.iter().flatten().any(|keys| keys.remote == remote)
    }

    /// As [`Registrations::find`].
    pub(super) fn find(&mut self, buffer: &Buffer, registrations: &Registrations) -> Option<Keys> {
        let number = if is_zeros(buffer) { ZEROS } else { buffer.lasting_region()?.number() };
        // The remainder is below KEYS.
        let place = &mut self.0[(number % KEYS as u64) as usize];
        match place {
            Some(keys) if keys.region == number => Some(*keys),
            _ => {
                let found = registrations.find(buffer)?;
                *place = Some(found);
                Some(found)
            }
        }
    }
}
