//! Regions across the link: which of ours the server knows by which number, and which memory of the client's a number
//! stands for.

use super::SharedMemoryOptions;
use super::message::{Message, send};
use crate::mem::{PeerHold, PeerMemory};
use crate::wire::{PlacedPiece, Violation};
use crate::{Buffer, Region};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

/// The client's side: its regions that the server has mapped.
#[derive(Debug, Default)]
pub(super) struct Lender {
    /// By the memfd's own number.
    known: Vec<Known>,
    /// The next number on the link; numbers are not given twice, so that the server never takes an old region for a new
    /// one whose message it has not read yet.
    next: u32,
    bytes: u64,
    /// What the server takes, once it has said so.
    limits: Option<SharedMemoryOptions>,
}

#[derive(Debug)]
struct Known {
    memfd: u64,
    number: u32,
    length: u64,
    /// Gone with its region, or with the last page that lies in it.
    alive: Weak<OwnedFd>,
}

impl Lender {
    /// Whether the server has said what it takes; nothing is lent before.
    pub(super) fn knows_limits(&self) -> bool {
        self.limits.is_some()
    }

    /// The server takes this much.
    pub(super) fn limit(&mut self, limits: SharedMemoryOptions) {
        self.limits = Some(limits);
    }

    /// Where the server finds a buffer. A region that it does not know is handed over first; `None` where that can't be.
    pub(super) fn lend(&mut self, buffer: &Buffer, socket: BorrowedFd<'_>, peer: u32) -> Option<PlacedPiece> {
        let (region, offset) = buffer.place_in_region()?;
        let memfd = region.memfd_number(offset, buffer.len())?;
        let number = match self.known.binary_search_by_key(&memfd, |known| known.memfd) {
            Ok(at) => self.known[at].number,
            Err(at) => self.hand_over(at, region, memfd, socket, peer)?,
        };
        // A list holds at most u32::MAX bytes.
        Some(PlacedPiece { region: number, length: buffer.len() as u32, offset: offset as u64 })
    }

    fn hand_over(
        &mut self,
        mut at: usize,
        region: &Region,
        memfd_number: u64,
        socket: BorrowedFd<'_>,
        peer: u32,
    ) -> Option<u32> {
        let limits = self.limits?;
        let (memfd, length) = region.memfd_for(memfd_number, peer)?;
        let length = length as u64;
        if self.withdraw_dead(socket) {
            at = self.known.partition_point(|known| known.memfd < memfd_number);
        }
        if self.known.len() >= limits.regions_max as usize {
            return None;
        }
        let number = self.next;
        let next = number.checked_add(1)?;
        if self.bytes.saturating_add(length) > limits.region_bytes_max {
            return None;
        }
        // Refused for now (the peer has not read for long, or no descriptor can be sent): the data travels instead.
        send(socket, Message::Region { number, length }, Some(memfd.as_fd())).ok()?;
        self.next = next;
        self.bytes += length;
        self.known.insert(at, Known { memfd: memfd_number, number, length, alive: Arc::downgrade(&memfd) });
        Some(number)
    }

    /// Takes back the numbers of memfds that are gone; true if there were some.
    fn withdraw_dead(&mut self, socket: BorrowedFd<'_>) -> bool {
        let before = self.known.len();
        self.known.retain(|known| {
            let Known { number, length, .. } = *known;
            let gone =
                known.alive.strong_count() == 0 && send(socket, Message::Withdraw { number }, None).is_ok();
            if gone {
                self.bytes -= length;
            }
            !gone
        });
        self.known.len() != before
    }
}

/// The server's side: the client's regions, mapped here.
#[derive(Debug)]
pub(super) struct Borrower {
    limits: SharedMemoryOptions,
    /// By their number on the link, which only grows.
    regions: Vec<(u32, Arc<PeerMemory>)>,
    /// Numbers below this one were given.
    next: u32,
    bytes: u64,
}

impl Borrower {
    pub(super) fn new(limits: SharedMemoryOptions) -> Borrower {
        Borrower { limits, regions: Vec::new(), next: 0, bytes: 0 }
    }

    /// A region was handed over.
    ///
    /// # Errors
    /// The number was given before, there are too many or too much memory, or it is not what it has to be.
    pub(super) fn take(
        &mut self,
        number: u32,
        length: u64,
        memfd: &OwnedFd,
        hold: &Arc<PeerHold>,
    ) -> Result<(), Violation> {
        let wrong = |why| Err(Violation::BadSideMessage(why));
        if self.regions.len() >= self.limits.regions_max as usize {
            return wrong("too many regions");
        }
        if self.bytes.checked_add(length).is_none_or(|bytes| bytes > self.limits.region_bytes_max) {
            return wrong("too much memory");
        }
        if number < self.next || number == u32::MAX {
            return wrong("the region's number was given before");
        }
        let Ok(memory) = PeerMemory::map(memfd.as_fd(), length as usize, Arc::clone(hold)) else {
            return wrong("not a sealed memfd of the length that it says");
        };
        self.next = number + 1;
        self.bytes += length;
        self.regions.push((number, memory));
        Ok(())
    }

    fn position(&self, number: u32) -> Option<usize> {
        self.regions.binary_search_by_key(&number, |(number, _)| *number).ok()
    }

    /// A region will not be named any more; operations in flight keep it until they end.
    ///
    /// # Errors
    /// There is no such region.
    pub(super) fn give_back(&mut self, number: u32) -> Result<(), Violation> {
        let at = self
            .position(number)
            .ok_or(Violation::BadSideMessage("a region is withdrawn that is not known"))?;
        let (_, memory) = self.regions.remove(at);
        self.bytes -= memory.len() as u64;
        Ok(())
    }

    pub(super) fn knows(&self, number: u32) -> bool {
        self.position(number).is_some()
    }

    /// The memory at this place.
    ///
    /// # Errors
    /// There is no such region, or the range leaves it.
    pub(super) fn reach(&self, piece: PlacedPiece) -> Result<Buffer, Violation> {
        let PlacedPiece { region, length, offset } = piece;
        let at = self.position(region).ok_or(Violation::BadPlacement("its region is not known"))?;
        self.regions[at].1.slice(offset, length).ok_or(Violation::BadPlacement("it leaves its region"))
    }
}
