//! Memory that one side lends to the other for a request: its data, which the responder fetches by RDMA READ, and the
//! landing of the response's data, which the responder fills by RDMA WRITE before it sends the response.
//!
//! A place is said as in shared memory ([`PlacedPiece`]): here `region` is the remote key and `offset` the address.

use super::RdmaOptions;
use super::endpoint::{Endpoint, Remote};
use super::registration::KeyCache;
use super::verbs::MemoryRegion;
use crate::transport::Lent;
use crate::wire::{Extension, ExtensionBytes, ExtensionWriter, FrameKind, PlacedPiece, Violation};
use crate::{Buffer, Sgl};
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::io;

/// Registrations made for requests that are not sent yet: they wait for the byte grant, or were taken back.
const UNCLAIMED_MAX: usize = 256;

/// Registrations made for one operation.
pub(super) type Registrations = SmallVec<[MemoryRegion; 1]>;

/// What this side has lent, by the slot of the request.
#[derive(Debug, Default)]
pub(super) struct Lending {
    /// Registrations for requests that are not sent yet, oldest first.
    unclaimed: VecDeque<MemoryRegion>,
    /// Some of them were dropped before their requests were sent.
    has_evicted: bool,
    slots: Vec<LentSlot>,
}

#[derive(Debug, Default)]
struct LentSlot {
    /// The request's sequence number.
    sequence: u32,
    /// Bytes of the landing; 0 where none was lent.
    landing: usize,
    registrations: Registrations,
}

impl LentSlot {
    fn knows(&self, key: u32) -> bool {
        self.registrations.iter().any(|once| once.remote_key() == key)
    }
}

impl Lending {
    /// Lends what is worth it and can be registered.
    pub(super) fn lend(
        &mut self,
        endpoint: &Endpoint,
        keys: &mut KeyCache,
        options: &RdmaOptions,
        data: &Sgl,
        landing: Option<&Sgl>,
    ) -> Lent {
        if !endpoint.domain().registrations().expose() {
            return Lent::default();
        }
        let mut writer = ExtensionWriter::new();
        let min = options.send_data_max as usize;
        let unclaimed = &mut self.unclaimed;
        let mut place = |buffer: &Buffer| {
            let found = keys.find(buffer, endpoint.domain().registrations());
            let key = match found {
                Some(keys) if keys.remote != 0 => keys.remote,
                _ if buffer.len() < options.register_min as usize => return None,
                _ => {
                    // SAFETY: what is lent stays as it is until the response has come or the link is fenced, and the
                    // registration goes before that is told.
                    let once = unsafe { endpoint.domain().registrations().once(buffer) }?;
                    let key = once.remote_key();
                    unclaimed.push_back(once);
                    key
                }
            };
            // A buffer is shorter than 4 GiB.
            Some(PlacedPiece { region: key, length: buffer.len() as u32, offset: buffer.as_ptr() as u64 })
        };
        let lent_data = data.len() > min
            && data.pieces().iter().all(|piece| place(piece).is_some_and(|place| writer.push_data(place)));
        if !lent_data {
            writer.clear();
        }
        let landing = landing.filter(|landing| landing.len() > min);
        let lent_landing = landing.is_some_and(|landing| {
            landing.pieces().iter().all(|piece| place(piece).is_some_and(|place| writer.push_landing(place)))
        });
        if !lent_landing {
            writer.clear_landing();
        }
        // Those of requests that were never sent fall out here; a request that is sent later is registered anew.
        while self.unclaimed.len() > UNCLAIMED_MAX {
            self.unclaimed.pop_front();
            self.has_evicted = true;
        }
        Lent { extension: writer.finish(), data: lent_data, landing: lent_landing }
    }

    /// A request is sent, with what was lent for it in its extension.
    ///
    /// # Errors
    /// Memory that was lent can't be registered anew.
    pub(super) fn attach(
        &mut self,
        slot: u16,
        sequence: u32,
        extension: &mut ExtensionBytes,
        endpoint: Option<(&Endpoint, &mut KeyCache)>,
    ) -> io::Result<()> {
        let mut lent = LentSlot { sequence, ..LentSlot::default() };
        if !extension.is_empty()
            && let Ok(found) = Extension::decode(FrameKind::Request, extension)
        {
            let (data, landing): (Pieces, Pieces) = (found.data().collect(), found.landing().collect());
            // Room is a u32.
            lent.landing = length_of(&landing) as usize;
            let plain = self.unclaimed.is_empty() && !self.has_evicted;
            let Some((endpoint, keys)) = endpoint.filter(|_| !plain) else {
                self.put(slot, lent);
                return Ok(());
            };
            let mut writer = ExtensionWriter::new();
            for (piece, is_landing) in
                data.iter().map(|piece| (piece, false)).chain(landing.iter().map(|piece| (piece, true)))
            {
                let mut piece = *piece;
                if let Some(at) = self.unclaimed.iter().position(|once| once.remote_key() == piece.region) {
                    lent.registrations.extend(self.unclaimed.remove(at));
                } else if self.has_evicted && !keys.knows(piece.region) && !lent.knows(piece.region) {
                    // SAFETY: what is lent stays as it is until the response has come or the link is fenced, and the
                    // registration goes before that is told.
                    let once = unsafe { endpoint.domain().registrations().again(piece) }?;
                    piece.region = once.remote_key();
                    lent.registrations.push(once);
                }
                let _ = if is_landing { writer.push_landing(piece) } else { writer.push_data(piece) };
            }
            *extension = writer.finish();
        }
        self.put(slot, lent);
        Ok(())
    }

    fn put(&mut self, slot: u16, lent: LentSlot) {
        let slot = usize::from(slot);
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, LentSlot::default);
        }
        self.slots[slot] = lent;
    }

    /// The response has come: what was lent is taken back. Checks that data of this length was wanted in place.
    pub(super) fn end(&mut self, slot: u16, sequence: u32, placed: Option<u32>) -> Result<(), Violation> {
        let found = self.slots.get_mut(usize::from(slot)).filter(|lent| lent.sequence == sequence);
        let lent = found.map(std::mem::take).unwrap_or_default();
        match placed {
            Some(length) if length as usize > lent.landing => {
                Err(Violation::BadPlacement("data was put where none was wanted"))
            }
            _ => Ok(()),
        }
    }
}

/// Where the peer wants responses, by the slot of its request.
#[derive(Debug, Default)]
pub(super) struct Landings(Vec<Pieces>);

/// Places in the peer's memory, in order.
pub(super) type Pieces = SmallVec<[PlacedPiece; 2]>;

impl Landings {
    pub(super) fn put(&mut self, slot: u16, pieces: Pieces) {
        let slot = usize::from(slot);
        if self.0.len() <= slot {
            if pieces.is_empty() {
                return;
            }
            self.0.resize_with(slot + 1, Pieces::new);
        }
        self.0[slot] = pieces;
    }

    pub(super) fn take(&mut self, slot: u16) -> Pieces {
        self.0.get_mut(usize::from(slot)).map(std::mem::take).unwrap_or_default()
    }
}

/// Bytes of these pieces.
pub(super) fn length_of(pieces: &[PlacedPiece]) -> u64 {
    pieces.iter().map(|piece| u64::from(piece.length)).sum()
}

/// The place `offset` bytes into these pieces, and how many bytes of one piece follow there.
pub(super) fn remote_at(pieces: &[PlacedPiece], offset: usize) -> Option<(Remote, usize)> {
    let mut skip = offset as u64;
    for piece in pieces {
        let length = u64::from(piece.length);
        if skip < length {
            let remote = Remote { address: piece.offset.wrapping_add(skip), key: piece.region };
            // Below 4 GiB.
            return Some((remote, (length - skip) as usize));
        }
        skip -= length;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_find_their_piece() {
        let piece = |region, length, offset| PlacedPiece { region, length, offset };
        let pieces = [piece(1, 10, 1000), piece(2, 0, 5), piece(3, 5, 2000)];
        assert_eq!(length_of(&pieces), 15);
        let at = |offset| remote_at(&pieces, offset).map(|(remote, left)| (remote.key, remote.address, left));
        assert_eq!(at(0), Some((1, 1000, 10)));
        assert_eq!(at(9), Some((1, 1009, 1)));
        assert_eq!(at(10), Some((3, 2000, 5)));
        assert_eq!(at(14), Some((3, 2004, 1)));
        assert_eq!(at(15), None);
    }

    #[test]
    fn landings_are_taken_once() {
        let mut landings = Landings::default();
        landings.put(3, Pieces::from_slice(&[PlacedPiece { region: 1, length: 2, offset: 3 }]));
        assert_eq!(landings.take(3).len(), 1);
        assert!(landings.take(3).is_empty() && landings.take(9).is_empty());
    }

    #[test]
    fn data_in_place_has_to_be_wanted() {
        let mut lending = Lending::default();
        assert!(lending.end(0, 1, Some(1)).is_err());
        let lent = |sequence, landing| LentSlot { sequence, landing, registrations: Registrations::new() };
        lending.slots.push(lent(7, 100));
        assert!(lending.end(0, 7, Some(101)).is_err());
        lending.slots[0] = lent(8, 100);
        assert!(lending.end(0, 7, Some(1)).is_err(), "an answer to the request before");
        assert_eq!(lending.end(0, 7, None), Ok(()));
        assert_eq!(lending.end(0, 8, Some(100)), Ok(()));
        assert!(lending.end(0, 8, Some(1)).is_err(), "it is taken back");
    }
}
