//! The peer's exposed memory, as far as this side may reach it by itself: RDMA READs and WRITEs on a
//! [queue pair of their own](super::side_queue), without the owner's doing.
//!
//! An operation is done so only where the owner has granted the memory by its [note](super::notes); all others go by
//! frames, and get their error from the owner. An access that the owner's device refuses, since it met a revoke on its
//! way, ends the queue pair, not the link: it and those behind it go by frames then.

use super::domain::Domain;
use super::endpoint::{LocalPiece, Remote};
use super::lending::Registrations;
use super::notes::{End, GRANTS_MAX, Grant, Note};
use super::registration::KeyCache;
use super::sending::name_pieces;
use super::side_queue::{Role, SideQueue};
use crate::sys::equal_in_constant_time;
use crate::transport::{Reach, Sink};
use crate::wire::{RemoteAddress, Violation};
use rdma_sys as sys;
use rdma_sys::ibv_wc_status as status;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::io;

/// What this side may reach, and what is on its way.
#[derive(Debug, Default)]
pub(super) struct Reaching {
    side: Option<SideQueue>,
    /// The owner's count of its queue pairs; 0 before the first.
    epoch: u16,
    /// By the number of the exposed memory; at most [`GRANTS_MAX`].
    grants: Vec<Option<Grant>>,
    /// By slot.
    operations: Vec<Option<Operation>>,
    /// Operations that have ended, to be told.
    ended: VecDeque<Ended>,
}

/// An operation on its way.
#[derive(Debug)]
struct Operation {
    sequence: u32,
    address: RemoteAddress,
    /// Work requests.
    work: u32,
    /// Held for their drop.
    _registrations: Registrations,
}

#[derive(Debug, Clone, Copy)]
struct Ended {
    slot: u16,
    sequence: u32,
    /// Where it was to go, if it was not done.
    refused: Option<RemoteAddress>,
}

impl Reaching {
    /// The owner has opened a queue pair: connects to it. Where that can't be, frames are the way.
    pub(super) fn open(
        &mut self,
        epoch: u16,
        end: End,
        domain: &Domain,
        (own, completions): (*mut sys::ibv_qp, *mut sys::ibv_cq),
        notes: &mut VecDeque<Note>,
    ) -> Result<(), Violation> {
        // It only rises, and is bounded where notes are decoded: so are the queue pairs that are made.
        if epoch <= self.epoch {
            return Err(Violation::BadRdmaMessage("it opens what was opened before"));
        }
        self.give_up();
        self.epoch = epoch;
        let made = SideQueue::new(Role::Requester, domain.protection(), completions, &domain.limits)
            .and_then(|side| side.connect(own, end).map(|()| side));
        match made {
            Ok(side) => {
                notes.push_back(Note::Ready { epoch, end: side.end() });
                self.side = Some(side);
            }
            Err(error) => tracing::debug!(%error, "exposed memory of the peer is reached by frames only"),
        }
        Ok(())
    }

    /// Memory may be reached.
    pub(super) fn grant(&mut self, epoch: u16, grant: Grant) {
        // One of a queue pair that has broken meanwhile is void.
        if epoch != self.epoch || self.side.is_none() {
            return;
        }
        let number = grant.number as usize;
        debug_assert!(grant.number < GRANTS_MAX, "checked when it was decoded");
        if self.grants.len() <= number {
            self.grants.resize(number + 1, None);
        }
        self.grants[number] = Some(grant);
        #[cfg(test)]
        super::hostile::seen(grant);
    }

    /// Memory can't be reached any more.
    pub(super) fn withdraw(&mut self, number: u32) {
        if let Some(place) = self.grants.get_mut(number as usize) {
            *place = None;
        }
    }

    /// The grant that covers an access.
    fn granted(&self, address: &RemoteAddress, length: usize, write: bool) -> Option<&Grant> {
        let grant = self.grants.get(address.region as usize)?.as_ref()?;
        let permitted = if write { grant.access.write } else { grant.access.read };
        let end = address.offset.checked_add(length as u64)?;
        let covers = permitted && end <= grant.length && equal_in_constant_time(&grant.key, &address.key);
        covers.then_some(grant)
    }

    /// Whether this side can do an access by itself, as far as can be said without its memory.
    pub(super) fn reaches(&self, address: &RemoteAddress, length: usize, write: bool) -> bool {
        length > 0
            && self.side.as_ref().is_some_and(|side| side.room() > 0)
            && self.granted(address, length, write).is_some()
    }

    /// Chains an operation; false where it has to go by frames.
    pub(super) fn start(
        &mut self,
        reach: &Reach<'_>,
        domain: &Domain,
        keys: &mut KeyCache,
        (register_min, transfer_max): (usize, usize),
    ) -> bool {
        let &Reach { slot, sequence, address, local, write } = reach;
        let length = local.len();
        let Some(grant) = self.granted(&address, length, write).filter(|_| length > 0).copied() else {
            return false;
        };
        let epoch = self.epoch;
        let Some(side) = &mut self.side else { return false };
        let registrations = domain.registrations();
        let mut once = Registrations::new();
        for piece in local.pieces() {
            if piece.is_empty() || keys.find(piece, registrations).is_some() {
                continue;
            }
            if piece.len() < register_min {
                return false;
            }
            // SAFETY: the caller keeps the memory until the operation has ended, or the link is fenced, and the
            // registration goes before that is told.
            match unsafe { registrations.once(piece) } {
                Some(registration) => once.push(registration),
                None => return false,
            }
        }
        let (mut done, mut work) = (0, 0);
        while done < length {
            let mut pieces: SmallVec<[LocalPiece; 16]> = SmallVec::new();
            let part = (length - done).min(transfer_max);
            let named = name_pieces(local, done, part, side.pieces_max(write), &mut pieces, |buffer| {
                let known = keys.find(buffer, registrations).map(|keys| keys.local);
                known.or_else(|| once.iter().find(|once| once.covers(buffer)).map(|once| once.local_key()))
            });
            if named == 0 || side.room() == 0 {
                side.unchain(work);
                return false;
            }
            let at = grant.address + address.offset + done as u64;
            let remote = Remote { address: at, key: grant.remote_key };
            #[cfg(test)]
            let remote = super::hostile::forged(remote);
            done += named;
            side.chain(super::endpoint::reach_id(epoch, slot), &pieces, remote, write, done == length);
            work += 1;
        }
        let place = usize::from(slot);
        if self.operations.len() <= place {
            self.operations.resize_with(place + 1, || None);
        }
        self.operations[place] = Some(Operation { sequence, address, work, _registrations: once });
        true
    }

    /// Posts what is chained; returns the number of work requests.
    pub(super) fn ring(&mut self) -> io::Result<u64> {
        self.side.as_mut().map_or(Ok(0), SideQueue::ring)
    }

    /// A completion: returns false where the queue pair has to be given up, or why the link has to be.
    pub(super) fn completed(&mut self, epoch: u16, slot: u16, outcome: u32) -> Result<bool, u32> {
        if epoch != self.epoch || self.side.is_none() {
            return Ok(true);
        }
        match outcome {
            status::IBV_WC_SUCCESS => {}
            status::IBV_WC_REM_ACCESS_ERR
            | status::IBV_WC_REM_INV_REQ_ERR
            | status::IBV_WC_REM_OP_ERR
            | status::IBV_WC_WR_FLUSH_ERR => return Ok(false),
            other => return Err(other),
        }
        let operation = self.operations.get_mut(usize::from(slot)).and_then(Option::take);
        if let (Some(operation), Some(side)) = (operation, &mut self.side) {
            side.done(operation.work);
            let Operation { sequence, .. } = operation;
            self.ended.push_back(Ended { slot, sequence, refused: None });
        }
        Ok(true)
    }

    /// An access was refused: the queue pair goes, and the owner is told.
    pub(super) fn broken(&mut self, notes: &mut VecDeque<Note>) {
        if self.side.is_some() {
            self.give_up();
            notes.push_back(Note::Broken { epoch: self.epoch });
        }
    }

    /// Ends the queue pair and its grants; what was on its way goes by frames.
    fn give_up(&mut self) {
        // First, so that the device touches no memory of the operations any more.
        self.side = None;
        self.grants.clear();
        for (slot, place) in (0..=u16::MAX).zip(&mut self.operations) {
            if let Some(Operation { sequence, address, .. }) = place.take() {
                self.ended.push_back(Ended { slot, sequence, refused: Some(address) });
            }
        }
    }

    /// Whether [`Reaching::report`] has something to tell.
    pub(super) fn has_news(&self) -> bool {
        !self.ended.is_empty()
    }

    /// Tells what has ended; returns how many were done.
    pub(super) fn report(&mut self, sink: &mut dyn Sink) -> usize {
        let mut done = 0;
        while let Some(Ended { slot, sequence, refused }) = self.ended.pop_front() {
            done += usize::from(refused.is_none());
            sink.reached(slot, sequence, refused);
        }
        done
    }

    /// When this returns, the device touches no memory for operations any more. Nobody hears of them.
    pub(super) fn stop(&mut self) {
        self.side = None;
        self.grants.clear();
        self.operations.clear();
        self.ended.clear();
    }
}
