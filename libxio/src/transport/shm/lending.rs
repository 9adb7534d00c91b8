//! Regions across the link: which of ours the server knows by which number, and which memory of the client's a number
//! stands for.

use super::message::{Message, send, sends};
use crate::mem::{Amount, PeerHold, PeerMemory};
use crate::transport::NotTaken;
use crate::wire::{PlacedPiece, Violation};
use crate::{Buffer, Region};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

/// Times that something was not lent for want of room before the server is asked for more again.
const ASK_AGAIN: u32 = 4096;
/// What is asked for beyond the need, so that it is not asked for piece by piece.
const ASK_BEYOND: Amount = Amount { regions: 16, bytes: 64 << 20 };
/// Looks at the socket between two looks for regions that are gone.
const LOOKS_FOR_GONE: u32 = 4;

/// The client's side: its regions that the server has mapped.
#[derive(Debug, Default)]
pub(super) struct Lender {
    /// By the memfd's own number.
    known: Vec<Known>,
    /// The next number on the link; numbers are not given twice, so that the server never takes an old region for a new
    /// one whose message it has not read yet.
    next: u32,
    /// What the server has mapped, as far as it has said: the regions that are known, and those that were withdrawn and are
    /// not unmapped.
    counted: Amount,
    /// Since the link began.
    withdrawn: Amount,
    /// Of what was withdrawn, as the server has said.
    unmapped: Amount,
    /// What the server takes, once it has said so.
    limits: Option<Amount>,
    /// The server was asked for other limits, and has not answered.
    asked: Option<Asked>,
    /// More was asked for: times that something has still to be refused before it is asked for again.
    patience: u32,
    /// That was not given: from now on no more is asked for than is needed.
    refused: bool,
    /// Times that something was not lent because the server has yet to unmap what was withdrawn.
    waited: u32,
    /// At the socket, since the last look for regions that are gone.
    looks: u32,
}

#[derive(Debug, Clone, Copy)]
enum Asked {
    More,
    Less,
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
    #[inline]
    pub(super) fn knows_limits(&self) -> bool {
        self.limits.is_some()
    }

    /// The server takes this much.
    pub(super) fn limit(&mut self, limits: Amount) {
        let raised = self.limits.replace(limits) != Some(limits);
        let Some(Asked::More) = self.asked.take() else { return };
        if raised {
            (self.patience, self.refused) = (0, false);
        } else if !self.refused {
            (self.patience, self.refused) = (0, true);
            let Amount { regions, bytes } = limits;
            tracing::warn!(
                regions,
                bytes,
                "the server has no room to map more of this process's memory: what lies beyond is copied"
            );
        }
    }

    /// The server has unmapped so much of what was withdrawn, since the link began. What it then grants far beyond need is
    /// given back.
    ///
    /// # Errors
    /// It is less than before, or more than was withdrawn.
    pub(super) fn unmapped(&mut self, total: Amount, socket: BorrowedFd<'_>) -> Result<(), Violation> {
        if !total.holds(self.unmapped) || !self.withdrawn.holds(total) {
            return Err(Violation::BadSideMessage(
                "more is unmapped than was withdrawn, or less than before",
            ));
        }
        self.counted = self.counted.minus(total.minus(self.unmapped));
        (self.unmapped, self.waited) = (total, 0);
        let enough = self.counted.plus(ASK_BEYOND);
        if let (Some(limits), None) = (self.limits, self.asked)
            && !enough.plus(enough).holds(limits)
        {
            let wanted = limits.min(enough);
            if send(socket, Message::Limits { regions: wanted.regions, bytes: wanted.bytes }, None).is_ok() {
                // In force at once: the server reads it before it reads of any region that is handed over later.
                (self.limits, self.asked, self.refused) = (Some(wanted), Some(Asked::Less), false);
            }
        }
        Ok(())
    }

    /// At a look at the socket: now and then looks for regions that are gone, which the server need not keep; whether it was
    /// told of some.
    pub(super) fn looks(&mut self, socket: BorrowedFd<'_>) -> bool {
        self.looks += 1;
        if self.looks < LOOKS_FOR_GONE {
            return false;
        }
        self.looks = 0;
        self.withdraw_dead(socket)
    }

    /// Where the server finds a buffer. A region that it does not know is handed over first; `None` where that can't be.
    /// `asks` is set where the server was asked for room, which it has to be told.
    pub(super) fn lend(
        &mut self,
        buffer: &Buffer,
        socket: BorrowedFd<'_>,
        peer: u32,
        asks: &mut bool,
    ) -> Option<PlacedPiece> {
        let (region, offset) = buffer.place_in_region()?;
        let memfd = region.memfd_number_for_lending(offset, buffer.len())?;
        let number = match self.known.binary_search_by_key(&memfd, |known| known.memfd) {
            Ok(at) => self.known[at].number,
            Err(at) => self.hand_over(at, region, memfd, socket, peer, asks)?,
        };
        // A list holds at most u32::MAX bytes.
        Some(PlacedPiece { region: number, length: buffer.len() as u32, offset: offset as u64 })
    }

    #[cold]
    fn hand_over(
        &mut self,
        mut at: usize,
        region: &Region,
        memfd_number: u64,
        socket: BorrowedFd<'_>,
        peer: u32,
        asks: &mut bool,
    ) -> Option<u32> {
        let limits = self.limits?;
        let (memfd, length) = region.memfd_for(memfd_number, peer)?;
        let length = length as u64;
        let withdrew = self.withdraw_dead(socket);
        if withdrew {
            at = self.known.partition_point(|known| known.memfd < memfd_number);
        }
        let more = Amount::new(1, length);
        let needed = self.counted.plus(more);
        if !limits.holds(needed) {
            let going = self.withdrawn.minus(self.unmapped);
            if limits.holds(needed.minus(going)) && self.waited < ASK_AGAIN {
                // There is room once the server has read of what was withdrawn, unless it still uses that.
                self.waited += 1;
                *asks = withdrew;
            } else {
                *asks = self.ask(limits, needed, socket) || withdrew;
            }
            return None;
        }
        let number = self.next;
        let next = number.checked_add(1)?;
        // Refused for now (the peer has not read for long, or no descriptor can be sent): the data travels instead.
        send(socket, Message::Region { number, length }, Some(memfd.as_fd())).ok()?;
        self.next = next;
        self.counted = needed;
        self.known.insert(at, Known { memfd: memfd_number, number, length, alive: Arc::downgrade(&memfd) });
        Some(number)
    }

    /// Asks the server for room, unless it was asked lately; whether it was.
    fn ask(&mut self, limits: Amount, needed: Amount, socket: BorrowedFd<'_>) -> bool {
        if self.patience > 0 || self.asked.is_some() {
            self.patience = self.patience.saturating_sub(1);
            return false;
        }
        self.patience = ASK_AGAIN;
        let beyond = if self.refused { Amount::default() } else { ASK_BEYOND };
        let Amount { regions, bytes } = needed.plus(beyond).max(limits);
        let asks = send(socket, Message::Limits { regions, bytes }, None).is_ok();
        self.asked = asks.then_some(Asked::More);
        asks
    }

    /// Takes back the numbers of memfds that are gone; true if there were some.
    fn withdraw_dead(&mut self, socket: BorrowedFd<'_>) -> bool {
        let before = self.known.len();
        self.known.retain(|known| {
            let Known { number, length, .. } = *known;
            let gone =
                known.alive.strong_count() == 0 && send(socket, Message::Withdraw { number }, None).is_ok();
            if gone {
                self.withdrawn = self.withdrawn.plus(Amount::new(1, length));
            }
            !gone
        });
        self.known.len() != before
    }
}

/// The server's side: the client's regions, mapped here.
#[derive(Debug)]
pub(super) struct Borrower {
    /// By their number on the link, which only grows.
    regions: Vec<(u32, Arc<PeerMemory>)>,
    /// Numbers below this one were given.
    next: u32,
    /// That were withdrawn.
    withdrawn: u32,
    /// What the client was told of.
    unmapped: Amount,
}

impl Borrower {
    pub(super) fn new() -> Borrower {
        Borrower { regions: Vec::new(), next: 0, withdrawn: 0, unmapped: Amount::default() }
    }

    /// Tells the client what was unmapped since it was last told; whether it was told something. What the client has no room
    /// to hear is said at another time.
    ///
    /// # Errors
    /// The socket's own.
    pub(super) fn tell_unmapped(&mut self, hold: &PeerHold) -> io::Result<bool> {
        if self.unmapped.regions == self.withdrawn {
            return Ok(false);
        }
        let unmapped = hold.account().unmapped();
        let Amount { regions, bytes } = unmapped;
        if unmapped == self.unmapped || !sends(hold.socket(), Message::Unmapped { regions, bytes })? {
            return Ok(false);
        }
        self.unmapped = unmapped;
        Ok(true)
    }

    /// A region was handed over.
    ///
    /// # Errors
    /// The number was given before, it is more than the client was told it may, with what it has withdrawn and operations
    /// still use, or it is not what it has to be: a [`Violation`]. [`NotTaken`] where this process can map no more.
    pub(super) fn take(
        &mut self,
        number: u32,
        length: u64,
        memfd: &OwnedFd,
        hold: &Arc<PeerHold>,
    ) -> io::Result<()> {
        let wrong = |why| Err(io::Error::other(Violation::BadSideMessage(why)));
        if number < self.next || number == u32::MAX {
            return wrong("the region's number was given before");
        }
        let memory = match PeerMemory::map(memfd.as_fd(), length as usize, Arc::clone(hold)) {
            Ok(memory) => memory,
            Err(cause) if cause.raw_os_error() == Some(libc::ENOBUFS) => {
                return wrong("more memory than the limits say, with what was withdrawn and is still in use");
            }
            Err(cause) if cause.raw_os_error() == Some(libc::ENOMEM) => {
                return Err(io::Error::other(NotTaken(libc::ENOMEM)));
            }
            Err(_) => return wrong("not a sealed memfd of the length that it says"),
        };
        self.next = number + 1;
        self.regions.push((number, memory));
        Ok(())
    }

    #[inline]
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
        self.regions.remove(at);
        self.withdrawn += 1;
        Ok(())
    }

    #[inline]
    pub(super) fn knows(&self, number: u32) -> bool {
        self.position(number).is_some()
    }

    /// The memory at this place.
    ///
    /// # Errors
    /// There is no such region, or the range leaves it.
    #[inline]
    pub(super) fn reach(&self, piece: PlacedPiece) -> Result<Buffer, Violation> {
        let PlacedPiece { region, length, offset } = piece;
        let at = self.position(region).ok_or(Violation::BadPlacement("its region is not known"))?;
        self.regions[at].1.slice(offset, length).ok_or(Violation::BadPlacement("it leaves its region"))
    }
}
