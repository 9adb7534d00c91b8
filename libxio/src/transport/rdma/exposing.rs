//! Memory that this side exposes on a link, so that the peer's device reaches it without this side's doing.
//!
//! It is registered in a protection domain of the link's own, and reached by a [queue pair of its own](super::side_queue):
//! a remote key is good for this link's peer alone, whoever else learns it. Taking memory back deregisters it: when that
//! returns, the device knows the key no more. What the peer is told by [notes](super::notes) saves it a refusal.

use super::domain::Domain;
use super::notes::{End, GRANTS_MAX, Grant, Note, OPENS_MAX};
use super::side_queue::{Role, SideQueue};
use super::verbs::{Access as Rights, DeviceLimits, MemoryRegion, ProtectionDomain};
use crate::mem::{RegionWatcher, watch_regions};
use crate::wire::Violation;
use crate::{Access, Buffer, Region};
use rdma_sys as sys;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What this side exposes.
#[derive(Debug, Default)]
pub(super) struct Exposing {
    // The queue pair goes first, then the registrations, then their protection domain.
    side: Option<SideQueue>,
    memory: Option<Arc<ExposedMemory>>,
    /// The peer has connected to the queue pair, and is granted what is exposed.
    is_connected: bool,
    /// Queue pairs opened so far.
    epoch: u16,
}

/// The registrations, by the number of the exposed memory.
#[derive(Debug)]
struct ExposedMemory {
    known: Mutex<HashMap<u32, Exposed>>,
    protection: Arc<ProtectionDomain>,
    limits: DeviceLimits,
}

#[derive(Debug)]
struct Exposed {
    grant: Grant,
    // Before the memory.
    registration: MemoryRegion,
    region: Region,
}

impl ExposedMemory {
    fn known(&self) -> MutexGuard<'_, HashMap<u32, Exposed>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RegionWatcher for ExposedMemory {
    // While it is exposed it does not end.
    fn region_ends(&self, _number: u64) {}

    fn region_torn(&self, number: u64) {
        // The device would go on with the pages that were replaced. By frames the memory can still be reached.
        self.known().retain(|_, exposed| exposed.region.number() != number);
    }
}

impl Exposing {
    /// Exposes memory, if the device can do that. Otherwise it is reached by frames, which is no error.
    pub(super) fn expose(
        &mut self,
        number: u32,
        memory: &Buffer,
        access: Access,
        key: &[u8; 16],
        link: (&Domain, *mut sys::ibv_cq),
        notes: &mut VecDeque<Note>,
    ) {
        let Some(region) = memory.lasting_region() else { return };
        if number >= GRANTS_MAX || memory.is_empty() || self.epoch > OPENS_MAX {
            return;
        }
        match self.register(number, memory, region, access, key, link, notes) {
            Ok(grant) if self.is_connected => {
                notes.push_back(Note::Grant { epoch: self.epoch, grant });
            }
            Ok(_) => {}
            Err(error) => {
                let bytes = memory.len();
                tracing::debug!(%error, bytes, "exposed memory is reached by frames only");
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "what is exposed, and on what")]
    fn register(
        &mut self,
        number: u32,
        memory: &Buffer,
        region: &Region,
        access: Access,
        key: &[u8; 16],
        (domain, completions): (&Domain, *mut sys::ibv_cq),
        notes: &mut VecDeque<Note>,
    ) -> io::Result<Grant> {
        let table = match &self.memory {
            Some(table) => Arc::clone(table),
            None => {
                let protection = Arc::new(ProtectionDomain::new(domain.device)?);
                let limits = domain.limits;
                let table = Arc::new(ExposedMemory { known: Mutex::default(), protection, limits });
                let watcher: Arc<dyn RegionWatcher> = table.clone();
                watch_regions(&watcher);
                Arc::clone(self.memory.insert(table))
            }
        };
        if self.side.is_none() {
            self.open(completions, notes)?;
        }
        let rights = Rights::Exposed { read: access.read, write: access.write };
        let (bytes_max, address, length) = (domain.registered_bytes_max, memory.as_ptr(), memory.len());
        // SAFETY: the region is held beside the registration, so it stays mapped; its users know that a peer writes it.
        let registration =
            unsafe { MemoryRegion::register_within(bytes_max, &table.protection, address, length, rights)? };
        let grant = Grant {
            number,
            access,
            remote_key: registration.remote_key(),
            address: memory.as_ptr() as u64,
            length: memory.len() as u64,
            key: *key,
        };
        let mut known = table.known();
        known.insert(number, Exposed { grant, registration, region: region.clone() });
        drop(known);
        if region.is_torn() {
            // Meanwhile, and perhaps before the table was looked at.
            table.region_torn(region.number());
            return Err(io::Error::from_raw_os_error(libc::ESTALE));
        }
        Ok(grant)
    }

    /// Opens a queue pair for the peer, in place of one before.
    fn open(&mut self, completions: *mut sys::ibv_cq, notes: &mut VecDeque<Note>) -> io::Result<()> {
        let Some(memory) = self.memory.as_ref().filter(|_| self.epoch < OPENS_MAX) else {
            return Err(io::Error::from_raw_os_error(libc::EBUSY));
        };
        let side = SideQueue::new(Role::Owner, &memory.protection, completions, &memory.limits)?;
        self.epoch += 1;
        notes.push_back(Note::Open { epoch: self.epoch, end: side.end() });
        self.side = Some(side);
        self.is_connected = false;
        Ok(())
    }

    /// Takes memory back: when this returns, no access of the peer's device begins or goes on. False where the device will
    /// not: then the queue pair is gone, and the link has to go.
    pub(super) fn revoke(&mut self, number: u32, notes: &mut VecDeque<Note>) -> bool {
        let Some(memory) = &self.memory else { return true };
        let Some(mut exposed) = memory.known().remove(&number) else { return true };
        let ended = exposed.registration.deregister();
        // What the peer was never told need not be taken back; so the queue is no longer than what is exposed.
        let granted = notes
            .iter()
            .rposition(|note| matches!(note, Note::Grant { grant, .. } if grant.number == number));
        match granted {
            Some(at) => {
                notes.remove(at);
            }
            None if self.is_connected => notes.push_back(Note::Withdraw { number }),
            None => {}
        }
        if let Err(error) = ended {
            tracing::error!(%error, "exposed memory can't be deregistered");
            self.side = None;
            return false;
        }
        true
    }

    /// The peer has connected its end.
    pub(super) fn ready(
        &mut self,
        epoch: u16,
        end: End,
        own: *mut sys::ibv_qp,
        notes: &mut VecDeque<Note>,
    ) -> Result<(), Violation> {
        let Some(side) = self.side.as_ref().filter(|_| epoch == self.epoch && !self.is_connected) else {
            return Err(Violation::BadRdmaMessage("it connects to what was not opened"));
        };
        if let Err(error) = side.connect(own, end) {
            tracing::warn!(%error, "exposed memory is reached by frames only");
            return Ok(());
        }
        self.is_connected = true;
        let memory = self.memory.as_ref().map(|memory| memory.known());
        let grants = memory.iter().flat_map(|known| known.values()).map(|exposed| exposed.grant);
        notes.extend(grants.map(|grant| Note::Grant { epoch, grant }));
        Ok(())
    }

    /// The peer's end of the queue pair is gone, since an access was refused: it gets another one, a few times.
    pub(super) fn broken(
        &mut self,
        epoch: u16,
        completions: *mut sys::ibv_cq,
        notes: &mut VecDeque<Note>,
    ) -> Result<(), Violation> {
        if epoch != self.epoch || self.side.is_none() {
            return Err(Violation::BadRdmaMessage("what it says is broken is not there"));
        }
        self.side = None;
        self.is_connected = false;
        // Of the one before.
        notes.retain(|note| !matches!(note, Note::Grant { .. } | Note::Withdraw { .. }));
        if let Err(error) = self.open(completions, notes) {
            tracing::info!(%error, "exposed memory is reached by frames only from now on");
        }
        Ok(())
    }

    /// Ends all access: when this returns, nothing is reached any more.
    pub(super) fn stop(&mut self) {
        self.side = None;
        self.memory = None;
        self.is_connected = false;
        self.epoch = OPENS_MAX + 1;
    }
}
