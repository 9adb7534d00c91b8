//! The responding side of the model.

use super::frames::{Frame, data_of, frame_of, header_of, take_apart, take_apart_head};
use super::{Outcome, Partial, Running, World};
use crate::session::Admission;
use crate::wire::{
    FAILED_NO_ROOM, FAILED_NOT_KEPT, FAILED_UNANSWERED, FrameFlags, FrameHead, FrameKind, Violation,
};

impl World<'_> {
    pub(super) fn deliver_up(&mut self) {
        let found = match self.partial.take() {
            Some(partial) => self.take_whole(partial),
            None => match self.up.pop_front() {
                Some(frame) => self.take_head(frame),
                None => Ok(()),
            },
        };
        if found.is_err() {
            self.seen.refused += 1;
            return self.lose_link("corrupt at the server");
        }
        if self.receive_grant.is_due() {
            self.seen.credits += 1;
            self.respond(FrameHead::new(FrameKind::Credit), &[], &[]);
        }
    }

    /// The head of a request is there; sometimes it is admitted already.
    fn take_head(&mut self, frame: Frame) -> Result<(), Violation> {
        let found = take_apart_head(&frame.bytes, &self.limits);
        let Ok((head, _)) = found else {
            assert!(frame.corrupt, "{found:?}");
            return found.map(|_| ());
        };
        self.receive_grant.receive(head.data_length.into()).unwrap();
        let mut admitted = false;
        if self.random.one_in(2) {
            let idempotent = head.flags.contains(FrameFlags::IDEMPOTENT);
            let admission = self.responder.admit(head.slot, head.sequence, idempotent).unwrap();
            admitted = admission == Admission::Execute;
        }
        self.partial = Some(Partial { frame, admitted });
        Ok(())
    }

    /// All of a request is there.
    fn take_whole(&mut self, partial: Partial) -> Result<(), Violation> {
        let Partial { frame, admitted } = partial;
        let (head, header, data) = match take_apart(&frame.bytes, &self.limits) {
            Ok(found) => found,
            Err(violation) => {
                assert!(frame.corrupt, "{violation}");
                // Losing the link withdraws it.
                self.partial = Some(Partial { frame, admitted });
                return Err(violation);
            }
        };
        assert!(!frame.corrupt, "what was changed is refused");
        let id = u64::from_le_bytes(header[..8].try_into().unwrap()) as usize;
        assert_eq!(data, data_of(id, data.len()));
        let (slot, sequence) = (head.slot, head.sequence);
        let idempotent = head.flags.contains(FrameFlags::IDEMPOTENT);
        let admission =
            if admitted { Admission::Execute } else { self.responder.admit(slot, sequence, idempotent)? };
        let again = match admission {
            Admission::Execute => None,
            Admission::Running => {
                let running =
                    self.running.iter_mut().find(|one| (one.slot, one.sequence) == (slot, sequence));
                running.unwrap().link = self.link;
                self.seen.still_running += 1;
                self.receive_grant.release(head.data_length.into());
                return Ok(());
            }
            Admission::Replay { header, data } => {
                self.seen.replays += 1;
                Some(Outcome::Answer { header: header.to_vec(), data: data.to_vec() })
            }
            Admission::ReplayFailure { reason } => {
                self.seen.failures_replayed += 1;
                Some(Outcome::Failure(reason))
            }
        };
        if let Some(outcome) = again {
            self.tell(|| format!("replays {id}"));
            self.receive_grant.release(head.data_length.into());
            self.send_outcome(slot, sequence, &outcome, FrameFlags::REPLAYED);
            return Ok(());
        }
        let truth = &mut self.truths[id];
        truth.executions += 1;
        self.seen.executed_again += u32::from(truth.executions > 1);
        assert!(truth.executions == 1 || truth.idempotent, "request {id} is executed once");
        let data = (self.link, u64::from(head.data_length));
        let room = head.room as usize;
        self.running.push(Running { slot, sequence, id, room, link: self.link, data });
        self.tell(|| format!("executes {id}"));
        Ok(())
    }

    /// The application answers one of the requests that run.
    pub(super) fn complete(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let chosen = self.random.up_to(self.running.len() - 1);
        let Running { slot, sequence, id, room, link, data: (data_link, unreleased) } =
            self.running.swap_remove(chosen);
        let header = header_of(id, self.truths[id].executions);
        let data = data_of(id + 1, self.random.up_to(self.replay_bytes_max));
        let outcome = if self.random.one_in(10) {
            Outcome::Failure(FAILED_UNANSWERED)
        } else if data.len() > room {
            Outcome::Failure(FAILED_NO_ROOM)
        } else if !self.responder.may_complete(slot, header.len() + data.len()) {
            assert!(!self.truths[id].idempotent);
            Outcome::Failure(FAILED_NOT_KEPT)
        } else {
            Outcome::Answer { header, data }
        };
        assert!(match &outcome {
            Outcome::Failure(reason) => self.responder.fail(slot, sequence, *reason),
            Outcome::Answer { header, data } => {
                let copy = |space: &mut [u8]| space.copy_from_slice(data);
                self.responder.complete(slot, sequence, header, data.len(), copy)
            }
        });
        self.tell(|| format!("answers {id}, for link {link}"));
        // The answer tells of the room that its request's data took, or the data is held for longer.
        let (before, after) = if self.random.one_in(2) { (unreleased, 0) } else { (0, unreleased) };
        let releases = data_link == self.link;
        if releases {
            self.receive_grant.release(before);
        }
        if link == self.link {
            self.send_outcome(slot, sequence, &outcome, FrameFlags::default());
        }
        if releases {
            self.receive_grant.release(after);
        }
        self.truths[id].outcomes.push(outcome);
        if self.receive_grant.is_due() {
            self.seen.credits += 1;
            self.respond(FrameHead::new(FrameKind::Credit), &[], &[]);
        }
    }

    /// The application is done with a request's data before it answers.
    pub(super) fn release_early(&mut self) {
        let link = self.link;
        if let Some(running) = self.running.first_mut().filter(|running| running.data.0 == link) {
            self.receive_grant.release(running.data.1);
            running.data.1 = 0;
        }
    }

    fn send_outcome(&mut self, slot: u16, sequence: u32, outcome: &Outcome, flags: FrameFlags) {
        let head = FrameHead { slot, sequence, flags, ..FrameHead::new(FrameKind::Response) };
        match outcome {
            Outcome::Answer { header, data } => self.respond(head, header, data),
            Outcome::Failure(reason) => {
                let flags = flags.with(FrameFlags::FAILED);
                self.respond(FrameHead { flags, room: *reason, ..head }, &[], &[]);
            }
        }
    }

    fn respond(&mut self, head: FrameHead, header: &[u8], data: &[u8]) {
        let head = FrameHead { bytes_granted: self.receive_grant.announce(), ..head };
        self.down.push_back(frame_of(head, header, data, self.limits.crc));
    }
}
