//! The requesting side's slots.
//!
//! A request takes a slot and the slot's next sequence number, and keeps both, over as many links as it takes, until its
//! answer has come. The lowest free slot is taken, so that the tables of both sides stay small and warm.

use super::next_sequence;
use super::slot_set::SlotSet;
use crate::sys::prefetch_bytes;
use crate::wire::Violation;

/// How a response relates to the requests outstanding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It answers the request in its slot.
    Current,
    /// It answers one that was answered before (over another link): drop it.
    Stale,
}

/// Slots with an entry per outstanding request. After warm-up a request allocates nothing.
#[derive(Debug)]
pub struct Requester<T> {
    /// Every slot ever used: at most `slots_max`.
    slots: Vec<Slot<T>>,
    /// Those of them without an entry.
    free: SlotSet,
    slots_max: u16,
    outstanding: u32,
    /// Requests begun so far: their order in time.
    begun: u64,
}

#[derive(Debug)]
struct Slot<T> {
    /// Of the request in this slot, or of the last one when there is none; 0 before the first.
    sequence: u32,
    /// Whether the sequence has begun again from 1, so that every number has been in use.
    wrapped: bool,
    /// The value of `begun` for the request in this slot.
    order: u64,
    entry: Option<T>,
}

impl<T> Slot<T> {
    #[inline]
    fn advance(&mut self) {
        let next = next_sequence(self.sequence);
        self.wrapped |= next < self.sequence;
        self.sequence = next;
    }

    /// Whether a request with this number was begun before (or is) the slot's last one. After the numbers have wrapped,
    /// the half of them behind the last one counts as before it (serial numbers, RFC 1982).
    #[inline]
    fn was_begun(&self, sequence: u32) -> bool {
        match sequence {
            0 => false,
            _ if self.wrapped => self.sequence.wrapping_sub(sequence) < 1 << 31,
            _ => sequence <= self.sequence,
        }
    }
}

impl<T> Requester<T> {
    /// Asks for the memory of the slot that is used first.
    pub(crate) fn prefetch(&self) {
        prefetch_bytes(self.slots.as_ptr().cast(), size_of::<Slot<T>>());
    }

    /// A table that grows up to `slots`.
    #[must_use]
    pub fn new(slots: u16) -> Self {
        Requester { slots: Vec::new(), free: SlotSet::default(), slots_max: slots, outstanding: 0, begun: 0 }
    }

    /// How many more requests can begin.
    #[must_use]
    #[inline]
    pub fn free_slots(&self) -> u32 {
        u32::from(self.slots_max) - self.outstanding
    }

    /// Requests outstanding.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.outstanding
    }

    /// Takes the lowest free slot; gives the entry back when there is none. Sequence numbers of a slot count up from 1.
    ///
    /// # Errors
    /// The entry, when all slots are in use.
    pub fn begin(&mut self, entry: T) -> Result<(u16, u32), T> {
        let Some(number) = self.take_slot() else { return Err(entry) };
        Ok(self.fill(number, |_| entry))
    }

    /// As [`Requester::begin`], with an entry that is made in its place, by `make` from its sequence number.
    #[inline]
    pub fn begin_with(&mut self, make: impl FnOnce(u32) -> T) -> Option<(u16, u32)> {
        let number = self.take_slot()?;
        Some(self.fill(number, make))
    }

    #[inline]
    fn take_slot(&mut self) -> Option<u16> {
        self.free.take_lowest().or_else(|| self.grow())
    }

    #[inline]
    fn fill(&mut self, number: u16, make: impl FnOnce(u32) -> T) -> (u16, u32) {
        self.begun += 1;
        self.outstanding += 1;
        let slot = &mut self.slots[usize::from(number)];
        slot.advance();
        slot.order = self.begun;
        // Asserted, so that there is nothing to be dropped.
        assert!(slot.entry.is_none(), "a free slot has no entry");
        slot.entry = Some(make(slot.sequence));
        (number, slot.sequence)
    }

    /// Adds a slot at the end, not yet free.
    #[cold]
    fn grow(&mut self) -> Option<u16> {
        let number = u16::try_from(self.slots.len()).ok().filter(|&number| number < self.slots_max)?;
        self.slots.push(Slot { sequence: 0, wrapped: false, order: 0, entry: None });
        self.free.reserve(number);
        Some(number)
    }

    /// Makes all slots, each as if its last request had had this number.
    #[cfg(test)]
    pub(super) fn start_at(&mut self, sequence: u32) {
        while let Some(number) = self.grow() {
            self.slots[usize::from(number)].sequence = sequence;
            self.free.insert(number);
        }
    }

    /// The entry in a slot.
    #[inline]
    pub fn get_mut(&mut self, slot: u16) -> Option<&mut T> {
        self.slots.get_mut(usize::from(slot))?.entry.as_mut()
    }

    /// Checks the numbers of a response.
    ///
    /// # Errors
    /// A slot without a request, or a sequence that was never sent.
    #[inline]
    pub fn check(&self, slot: u16, sequence: u32) -> Result<Answer, Violation> {
        match self.slots.get(usize::from(slot)) {
            Some(found) if found.entry.is_some() && found.sequence == sequence => Ok(Answer::Current),
            Some(found) if found.was_begun(sequence) => Ok(Answer::Stale),
            _ => Err(Violation::ResponseWithoutRequest { slot, sequence }),
        }
    }

    /// Ends the request in a slot and frees it.
    #[inline]
    pub fn finish(&mut self, slot: u16) -> Option<T> {
        let entry = self.slots.get_mut(usize::from(slot))?.entry.take()?;
        self.outstanding -= 1;
        self.free.insert(slot);
        Some(entry)
    }

    /// As [`Requester::finish`], where what is left of the entry is of no interest.
    #[inline]
    pub fn end(&mut self, slot: u16) {
        if let Some(found) = self.slots.get_mut(usize::from(slot))
            && found.entry.is_some()
        {
            found.entry = None;
            self.outstanding -= 1;
            self.free.insert(slot);
        }
    }

    /// Whether a request with these numbers is outstanding.
    #[must_use]
    #[inline]
    pub fn is_current(&self, slot: u16, sequence: u32) -> bool {
        self.slots
            .get(usize::from(slot))
            .is_some_and(|found| found.entry.is_some() && found.sequence == sequence)
    }

    /// Ends a request that was never sent: its number is used again, since the responder expects it next.
    pub fn take_back(&mut self, slot: u16) -> Option<T> {
        let entry = self.finish(slot)?;
        let found = self.slots.get_mut(usize::from(slot))?;
        found.sequence = match (found.sequence, found.wrapped) {
            (1, true) => u32::MAX,
            (sequence, _) => sequence - 1,
        };
        Some(entry)
    }

    /// The outstanding requests in the order of their slots.
    pub fn entries_mut(&mut self) -> impl Iterator<Item = (u16, &mut T)> {
        (0..=u16::MAX).zip(&mut self.slots).filter_map(|(number, slot)| Some((number, slot.entry.as_mut()?)))
    }

    /// The outstanding requests, oldest first: (slot, sequence, entry), for sending again over another link.
    pub fn unanswered(&mut self) -> Vec<(u16, u32, &mut T)> {
        let mut found: Vec<_> = (0..=u16::MAX)
            .zip(&mut self.slots)
            .filter_map(|(number, slot)| {
                let (order, sequence) = (slot.order, slot.sequence);
                slot.entry.as_mut().map(|entry| (order, (number, sequence, entry)))
            })
            .collect();
        found.sort_unstable_by_key(|(order, _)| *order);
        found.into_iter().map(|(_, request)| request).collect()
    }

    /// Ends all outstanding requests, oldest first.
    pub fn drain(&mut self) -> Vec<T> {
        let numbers: Vec<u16> = self.unanswered().into_iter().map(|(number, _, _)| number).collect();
        numbers.into_iter().filter_map(|number| self.finish(number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_slot_is_taken_and_its_sequence_counts_up() {
        let mut requester = Requester::new(3);
        assert_eq!(requester.begin('a'), Ok((0, 1)));
        assert_eq!(requester.begin('b'), Ok((1, 1)));
        assert_eq!(requester.begin('c'), Ok((2, 1)));
        assert_eq!((requester.free_slots(), requester.outstanding()), (0, 3));
        assert_eq!(requester.begin('d'), Err('d'));
        assert_eq!(requester.finish(1), Some('b'));
        assert_eq!(requester.finish(1), None);
        assert_eq!(requester.finish(0), Some('a'));
        assert_eq!(requester.begin('e'), Ok((0, 2)));
        assert_eq!(requester.begin('f'), Ok((1, 2)));
        assert_eq!(requester.get_mut(1), Some(&mut 'f'));
        assert_eq!(requester.get_mut(3), None);
        assert_eq!(requester.drain(), ['c', 'e', 'f']);
        assert_eq!((requester.free_slots(), requester.outstanding()), (3, 0));
    }

    #[test]
    fn no_slots_means_no_requests() {
        let mut requester = Requester::new(0);
        assert_eq!(requester.begin(()), Err(()));
        assert_eq!(requester.free_slots(), 0);
    }

    #[test]
    fn all_slots_can_be_outstanding_at_once() {
        let mut requester = Requester::new(u16::MAX);
        for number in 0..u16::MAX {
            assert_eq!(requester.begin(number), Ok((number, 1)));
        }
        assert!(requester.begin(0).is_err());
        assert_eq!(requester.drain().len(), usize::from(u16::MAX));
    }

    #[test]
    fn a_request_that_was_never_sent_leaves_its_number_to_the_next() {
        let mut requester = Requester::new(1);
        for start in [0, 5, u32::MAX] {
            requester.start_at(start);
            if let Some(slot) = requester.slots.first_mut() {
                slot.sequence = start;
            }
            let (slot, sequence) = requester.begin('a').unwrap();
            assert!(requester.is_current(slot, sequence));
            assert_eq!(requester.take_back(slot), Some('a'));
            assert_eq!(requester.take_back(slot), None);
            assert!(!requester.is_current(slot, sequence));
            assert_eq!(requester.begin('b'), Ok((slot, sequence)));
            assert_eq!(requester.entries_mut().collect::<Vec<_>>(), [(0, &mut 'b')]);
            requester.finish(slot);
        }
    }

    #[test]
    fn responses_are_current_stale_or_wrong() {
        let mut requester = Requester::new(4);
        let wrong = |slot, sequence| Err(Violation::ResponseWithoutRequest { slot, sequence });
        assert_eq!(requester.check(0, 1), wrong(0, 1));
        requester.begin(()).unwrap();
        assert_eq!(requester.check(0, 1), Ok(Answer::Current));
        assert_eq!(requester.check(0, 0), wrong(0, 0));
        assert_eq!(requester.check(0, 2), wrong(0, 2));
        assert_eq!(requester.check(1, 1), wrong(1, 1));
        requester.finish(0);
        assert_eq!(requester.check(0, 1), Ok(Answer::Stale));
        assert_eq!(requester.check(0, 2), wrong(0, 2));
        requester.begin(()).unwrap();
        assert_eq!(requester.check(0, 1), Ok(Answer::Stale));
        assert_eq!(requester.check(0, 2), Ok(Answer::Current));
        assert_eq!(requester.check(0, u32::MAX), wrong(0, u32::MAX));
    }

    #[test]
    fn sequences_wrap_past_zero() {
        let mut requester = Requester::new(1);
        requester.begin(()).unwrap();
        requester.finish(0);
        requester.slots[0].sequence = u32::MAX - 1;
        assert_eq!(requester.begin(()), Ok((0, u32::MAX)));
        requester.finish(0);
        assert_eq!(requester.begin(()), Ok((0, 1)));
        assert_eq!(requester.check(0, 1), Ok(Answer::Current));
        assert_eq!(requester.check(0, u32::MAX), Ok(Answer::Stale));
        assert!(requester.check(0, 2).is_err());
        assert!(requester.check(0, 0).is_err());
    }

    #[test]
    fn what_is_unanswered_comes_oldest_first() {
        let mut requester = Requester::new(3);
        for entry in ["a", "b", "c"] {
            requester.begin(entry).unwrap();
        }
        requester.finish(0);
        requester.begin("d").unwrap();
        let found: Vec<_> = requester.unanswered().into_iter().map(|(s, q, e)| (s, q, *e)).collect();
        assert_eq!(found, [(1, 1, "b"), (2, 1, "c"), (0, 2, "d")]);
        assert_eq!(requester.outstanding(), 3);
    }
}
