//! The responding side's slots: exactly once by sequence and replay, after the sessions of NFSv4.1 (RFC 8881, 2.10.6).
//!
//! A slot knows the last sequence number, whether that request runs, and, unless the request was idempotent, its answer.
//! The next number is a new request; the last number again is the same request over another link; anything else is a
//! broken rule. A request is admitted when all of it has arrived, or withdrawn when its data never came.

use super::next_sequence;
use crate::sys::prefetch_bytes;
use crate::wire::Violation;

/// What to do with a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission<'a> {
    /// New: execute it (also an idempotent one that was answered before, without a kept answer).
    Execute,
    /// It runs already: answer over the link that it came by now.
    Running,
    /// It was answered: send this again (header and data as they were given to [`Responder::complete`]).
    Replay {
        /// The header.
        header: &'a [u8],
        /// The data.
        data: &'a [u8],
    },
    /// It failed: send that again, with the reason given to [`Responder::fail`].
    ReplayFailure {
        /// One of `wire::FAILED_*`.
        reason: u32,
    },
}

/// What has become of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It runs.
    Running,
    /// It was answered.
    Answered,
    /// It is not the slot's last one.
    Unknown,
}

/// Slots of a peer's requests. An idempotent request allocates nothing, others nothing after warm-up.
#[derive(Debug)]
pub struct Responder {
    /// Every slot up to the highest ever used: at most `slots_max`.
    slots: Vec<Slot>,
    slots_max: u16,
    replay_bytes_max: u32,
    running: u32,
}

#[derive(Debug, Default)]
struct Slot {
    /// Of the last request; 0 before the first.
    sequence: u32,
    state: State,
    /// Whether the last request was idempotent.
    idempotent: bool,
    /// In state `Kept`: the answer's header, then its data. Its memory is used again for later answers.
    kept: Vec<u8>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The last request was answered, and what it was is not known any more (or there was none).
    #[default]
    Forgotten,
    /// The last request runs.
    Running,
    /// It was answered and may be executed again.
    Repeatable,
    /// It was answered with what is in `kept`, of which this many bytes are the header.
    Kept { header_length: usize },
    /// It failed.
    Failed { reason: u32 },
}

impl Responder {
    /// Asks for the memory of the slot that is used first.
    pub(crate) fn prefetch(&self) {
        prefetch_bytes(self.slots.as_ptr().cast(), size_of::<Slot>());
    }

    /// A table that grows up to `slots`, keeping answers up to `replay_bytes_max` (header and data together).
    #[must_use]
    pub fn new(slots: u16, replay_bytes_max: u32) -> Self {
        Responder { slots: Vec::new(), slots_max: slots, replay_bytes_max, running: 0 }
    }

    /// Judges a request by its numbers.
    ///
    /// # Errors
    /// A slot out of range, or a sequence that is neither the last nor the one after it; a new request in a slot whose
    /// last one still runs.
    #[inline]
    pub fn admit(&mut self, slot: u16, sequence: u32, idempotent: bool) -> Result<Admission<'_>, Violation> {
        if slot >= self.slots_max {
            return Err(Violation::SlotOutOfRange { slot, slots: self.slots_max });
        }
        if sequence == 0 {
            return Err(Violation::ZeroSequence { slot });
        }
        let index = usize::from(slot);
        let (last, state) =
            self.slots.get(index).map_or((0, State::Forgotten), |found| (found.sequence, found.state));
        if sequence == next_sequence(last) {
            if state == State::Running {
                return Err(Violation::SlotBusy { slot, sequence });
            }
        } else if sequence != last || state == State::Forgotten {
            return Err(Violation::SequenceOutOfOrder { slot, sequence, last });
        }
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, Slot::default);
        }

        let found = &mut self.slots[index];
        if sequence != last {
            found.sequence = sequence;
            found.idempotent = idempotent;
        } else if found.idempotent != idempotent {
            return Err(Violation::ResendDiffers { slot, sequence });
        } else {
            match found.state {
                State::Running => return Ok(Admission::Running),
                State::Kept { header_length } => {
                    let (header, data) = found.kept.split_at(header_length);
                    return Ok(Admission::Replay { header, data });
                }
                State::Failed { reason } => return Ok(Admission::ReplayFailure { reason }),
                State::Repeatable | State::Forgotten => {}
            }
        }
        found.state = State::Running;
        self.running += 1;
        Ok(Admission::Execute)
    }

    /// What has become of a request.
    #[must_use]
    pub fn standing(&self, slot: u16, sequence: u32) -> Standing {
        match self.slots.get(usize::from(slot)) {
            Some(found) if found.sequence == sequence && sequence != 0 => match found.state {
                State::Running => Standing::Running,
                State::Forgotten => Standing::Unknown,
                State::Repeatable | State::Kept { .. } | State::Failed { .. } => Standing::Answered,
            },
            _ => Standing::Unknown,
        }
    }

    /// Takes back an admission: the request's data never fully arrived and nothing was executed, so when it is sent
    /// again it is new. Returns false for a slot where that sequence does not run.
    pub fn withdraw(&mut self, slot: u16, sequence: u32) -> bool {
        let Some(found) = self.running_mut(slot, sequence) else {
            return false;
        };
        // The number before it: 1 is taken back to 0, as if the slot were new. That is right after a wrap as well,
        // because the number after 0 and after u32::MAX is 1.
        found.sequence = sequence - 1;
        found.state = State::Forgotten;
        self.running -= 1;
        true
    }

    /// Whether an answer of this size may be given to the request in this slot (a request that is not idempotent needs
    /// an answer that can be kept).
    #[must_use]
    #[inline]
    pub fn may_complete(&self, slot: u16, length: usize) -> bool {
        self.slots
            .get(usize::from(slot))
            .is_some_and(|found| found.state == State::Running && (found.idempotent || self.can_keep(length)))
    }

    #[inline]
    fn can_keep(&self, length: usize) -> bool {
        u32::try_from(length).is_ok_and(|length| length <= self.replay_bytes_max)
    }

    /// The answer was given. It is kept if the request is not idempotent. `data` yields the data's bytes into a buffer.
    /// Returns false, and changes nothing, for a slot where that sequence does not run, or for an answer that has to be
    /// kept and is too long for it (see [`Responder::may_complete`]).
    #[inline]
    pub fn complete(
        &mut self,
        slot: u16,
        sequence: u32,
        header: &[u8],
        data_length: usize,
        data: impl FnOnce(&mut [u8]),
    ) -> bool {
        if !self.may_complete(slot, header.len().saturating_add(data_length)) {
            return false;
        }
        let Some(found) = self.running_mut(slot, sequence) else {
            return false;
        };
        found.state = if found.idempotent {
            State::Repeatable
        } else {
            found.kept.clear();
            found.kept.extend_from_slice(header);
            found.kept.resize(header.len() + data_length, 0);
            data(&mut found.kept[header.len()..]);
            State::Kept { header_length: header.len() }
        };
        self.running -= 1;
        true
    }

    /// There is no answer, only a reason (one of `wire::FAILED_*`). It is kept if the request is not idempotent, which
    /// may have been executed. Returns false for a slot where that sequence does not run.
    pub fn fail(&mut self, slot: u16, sequence: u32, reason: u32) -> bool {
        let Some(found) = self.running_mut(slot, sequence) else {
            return false;
        };
        found.state = if found.idempotent { State::Repeatable } else { State::Failed { reason } };
        self.running -= 1;
        true
    }

    #[inline]
    fn running_mut(&mut self, slot: u16, sequence: u32) -> Option<&mut Slot> {
        self.slots
            .get_mut(usize::from(slot))
            .filter(|found| found.state == State::Running && found.sequence == sequence)
    }

    /// Makes all slots, each as if its last request had had this number.
    #[cfg(test)]
    pub(super) fn start_at(&mut self, sequence: u32) {
        self.slots.resize_with(self.slots_max.into(), || Slot { sequence, ..Slot::default() });
    }

    /// Requests that run.
    #[must_use]
    pub fn running(&self) -> u32 {
        self.running
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(responder: &mut Responder, slot: u16, sequence: u32, header: &[u8], data: &[u8]) -> bool {
        responder.complete(slot, sequence, header, data.len(), |space| space.copy_from_slice(data))
    }

    #[test]
    fn a_request_that_is_not_idempotent_runs_once_and_its_answer_is_kept() {
        let mut responder = Responder::new(2, 8);
        assert_eq!(responder.admit(1, 1, false), Ok(Admission::Execute));
        assert_eq!(responder.admit(1, 1, false), Ok(Admission::Running));
        assert_eq!(responder.running(), 1);
        assert!(answer(&mut responder, 1, 1, b"head", b"data"));
        assert_eq!(responder.running(), 0);
        let replay = Ok(Admission::Replay { header: b"head", data: b"data" });
        assert_eq!(responder.admit(1, 1, false), replay);
        assert_eq!(responder.admit(1, 1, false), replay);
        assert_eq!(responder.admit(1, 2, false), Ok(Admission::Execute));
        assert!(answer(&mut responder, 1, 2, b"", b""));
        assert_eq!(responder.admit(1, 2, false), Ok(Admission::Replay { header: b"", data: b"" }));
    }

    #[test]
    fn an_idempotent_request_runs_again_and_its_answer_is_never_looked_at() {
        let mut responder = Responder::new(1, 0);
        for _ in 0..3 {
            assert_eq!(responder.admit(0, 1, true), Ok(Admission::Execute));
            assert!(responder.complete(0, 1, &[7; 100], 1 << 30, |_| panic!("not kept")));
        }
        assert_eq!(responder.slots[0].kept.capacity(), 0);
    }

    #[test]
    fn an_answer_too_long_to_keep_is_refused_and_can_still_fail() {
        let mut responder = Responder::new(1, 4);
        assert_eq!(responder.admit(0, 1, false), Ok(Admission::Execute));
        assert!(responder.may_complete(0, 4));
        assert!(!responder.may_complete(0, 5));
        assert!(!responder.may_complete(0, usize::MAX));
        assert!(!answer(&mut responder, 0, 1, b"abc", b"de"));
        assert_eq!(responder.running(), 1);
        assert!(responder.fail(0, 1, 7));
        assert!(!responder.fail(0, 1, 7));
        assert_eq!(responder.admit(0, 1, false), Ok(Admission::ReplayFailure { reason: 7 }));
        assert_eq!(responder.running(), 0);
    }

    #[test]
    fn numbers_out_of_order_are_refused_and_change_nothing() {
        let mut responder = Responder::new(2, 64);
        let out_of_order = |sequence, last| Err(Violation::SequenceOutOfOrder { slot: 0, sequence, last });
        assert_eq!(responder.admit(2, 1, true), Err(Violation::SlotOutOfRange { slot: 2, slots: 2 }));
        assert_eq!(responder.admit(0, 0, true), Err(Violation::ZeroSequence { slot: 0 }));
        assert_eq!(responder.admit(0, 2, true), out_of_order(2, 0));
        assert!(responder.slots.is_empty(), "a wrong number allocates nothing");
        assert_eq!(responder.admit(0, 1, true), Ok(Admission::Execute));
        assert_eq!(responder.admit(0, 2, true), Err(Violation::SlotBusy { slot: 0, sequence: 2 }));
        assert_eq!(responder.admit(0, 1, false), Err(Violation::ResendDiffers { slot: 0, sequence: 1 }));
        assert!(answer(&mut responder, 0, 1, b"", b""));
        assert_eq!(responder.admit(0, 3, true), out_of_order(3, 1));
        assert_eq!(responder.admit(0, u32::MAX, true), out_of_order(u32::MAX, 1));
        assert_eq!(responder.admit(0, 2, true), Ok(Admission::Execute));
        assert_eq!(responder.admit(0, 1, true), out_of_order(1, 2));
        assert!(!answer(&mut responder, 0, 1, b"", b""), "that one was answered");
        assert!(!answer(&mut responder, 1, 1, b"", b""));
        assert_eq!(responder.running(), 1);
        assert_eq!(responder.standing(0, 2), Standing::Running);
        assert!(responder.fail(0, 2, 1));
        assert_eq!(responder.standing(0, 2), Standing::Answered);
        for (slot, sequence) in [(0, 1), (0, 3), (0, 0), (1, 1), (7, 1)] {
            assert_eq!(responder.standing(slot, sequence), Standing::Unknown);
        }
    }

    #[test]
    fn a_withdrawn_request_is_new_when_it_comes_again() {
        let mut responder = Responder::new(1, 64);
        assert_eq!(responder.admit(0, 1, false), Ok(Admission::Execute));
        assert!(responder.withdraw(0, 1));
        assert!(!responder.withdraw(0, 1));
        assert_eq!(responder.running(), 0);
        assert_eq!(responder.admit(0, 1, false), Ok(Admission::Execute));
        assert!(answer(&mut responder, 0, 1, b"x", b""));
        assert_eq!(responder.admit(0, 2, false), Ok(Admission::Execute));
        assert!(responder.withdraw(0, 2));
        // The requester had its answer to 1, or it could not have sent 2.
        assert!(responder.admit(0, 1, false).is_err());
        assert_eq!(responder.admit(0, 2, true), Ok(Admission::Execute));
    }

    #[test]
    fn sequences_wrap_past_zero() {
        let mut responder = Responder::new(1, 64);
        assert_eq!(responder.admit(0, 1, true), Ok(Admission::Execute));
        assert!(answer(&mut responder, 0, 1, b"", b""));
        responder.slots[0].sequence = u32::MAX;
        assert_eq!(responder.admit(0, 1, false), Ok(Admission::Execute));
        assert!(responder.withdraw(0, 1));
        assert_eq!(responder.admit(0, 1, false), Ok(Admission::Execute));
    }

    #[test]
    fn memory_of_kept_answers_is_used_again() {
        let mut responder = Responder::new(1, 64);
        let mut seen = None;
        for sequence in 1..100 {
            assert_eq!(responder.admit(0, sequence, false), Ok(Admission::Execute));
            assert!(answer(&mut responder, 0, sequence, &[1; 24], &[2; 40]));
            let memory = responder.slots[0].kept.as_ptr();
            assert_eq!(*seen.get_or_insert(memory), memory);
        }
    }
}
