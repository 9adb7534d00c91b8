//! What a connection makes of the peer's frames: events for the application, and frames in answer.

use super::arrived::{Arrived, MessageId};
use super::connection::ConnectionSink;
use super::event::{Event, Landing, Reply, Request};
use super::handles::RequestId;
use super::message::{CancelOutcome, Incoming, OneWay, Receipt};
use super::outgoing::{Cancel, HeldFrame};
use crate::session::{Admission, Answer, Standing};
use crate::transport::SentFrame;
use crate::wire::{
    CANCEL_DONE, CANCEL_NOT_FOUND, CANCEL_TOO_LATE, FAILED_CANCELLED, FAILED_NO_REGION, FAILED_NO_ROOM,
    FAILED_NOT_KEPT, FAILED_NOT_PERMITTED, FAILED_OUT_OF_BOUNDS, FrameFlags, FrameHead, FrameKind,
    READY_NOT_WANTED, RECEIPT_ACCEPTED, Violation,
};
use crate::{Error, HeaderBytes, Sgl};

impl ConnectionSink<'_> {
    #[inline]
    pub(super) fn request(
        &mut self,
        head: &FrameHead,
        header: &[u8],
        data: Sgl,
        landing: Sgl,
    ) -> Result<(), Violation> {
        self.statistics.requests_received.add(1);
        self.state.counts.requests_received += 1;
        let idempotent = head.flags.contains(FrameFlags::IDEMPOTENT);
        match self.state.responder.admit(head.slot, head.sequence, idempotent)? {
            Admission::Execute => self.execute(head, header, data, landing),
            Admission::Running => self.state.receiving.release(u64::from(head.data_in_frame())),
            Admission::Replay { header, data } => {
                let (header, data) = (HeaderBytes::from_slice(header), Sgl::from(data.to_vec()));
                self.replay(head, None, header, data);
            }
            Admission::ReplayFailure { reason } => {
                self.replay(head, Some(reason), HeaderBytes::new(), Sgl::new());
            }
        }
        Ok(())
    }

    /// A request that was answered before gets the same answer.
    #[cold]
    fn replay(&mut self, head: &FrameHead, failed: Option<u32>, header: HeaderBytes, data: Sgl) {
        self.state.receiving.release(u64::from(head.data_in_frame()));
        let id = RequestId { slot: head.slot, sequence: head.sequence };
        let mut answer = self.state.frame_for(FrameKind::Response, id);
        answer.flags = FrameFlags::REPLAYED;
        if let Some(reason) = failed {
            answer.flags = answer.flags.with(FrameFlags::FAILED);
            answer.room = reason;
        }
        self.replies.push(HeldFrame::new(answer, header, data));
    }

    /// A new request goes to the application.
    #[inline]
    fn execute(&mut self, head: &FrameHead, header: &[u8], data: Sgl, landing: Sgl) {
        self.statistics.requests_running.add(1);
        let id = RequestId { slot: head.slot, sequence: head.sequence };
        let mut record = self.record(MessageId::Request(id), head, header);
        record.data = data;
        record.landing = landing;
        self.events.push_back(if record.announced {
            Event::Incoming(Incoming { record })
        } else {
            Event::Request(Request { record })
        });
    }

    #[inline]
    fn record(&mut self, message: MessageId, head: &FrameHead, header: &[u8]) -> Box<Arrived> {
        self.records.take(self.state.handle, message, head, header, self.now_ns)
    }

    #[inline]
    pub(super) fn one_way(&mut self, head: &FrameHead, header: &[u8], data: Sgl) -> Result<(), Violation> {
        let sequence = head.sequence;
        self.state.one_way_in.receive(sequence)?;
        self.state.one_way_held += 1;
        self.statistics.one_way_received.add(1);
        self.state.counts.one_way_received += 1;
        self.statistics.one_way_held.add(1);
        let mut record = self.record(MessageId::OneWay { sequence }, head, header);
        record.data = data;
        self.events.push_back(if record.announced {
            Event::Incoming(Incoming { record })
        } else {
            Event::OneWay(OneWay { record })
        });
        Ok(())
    }

    /// The data of an announced message has arrived where the application said.
    pub(super) fn data(&mut self, head: &FrameHead, data: Sgl) -> Result<(), Violation> {
        let found = self.state.transfer_of(head)?;
        let mut record = self.state.transfers.swap_remove(found).record;
        let (length, announced) = (head.data_length, record.data_length);
        if length != announced {
            return Err(Violation::DataLengthDiffers { length, announced });
        }
        record.data = data;
        record.announced = false;
        record.arrived_ns = self.now_ns;
        record.arm();
        self.events.push_back(match record.message {
            MessageId::Request(_) => Event::Request(Request { record }),
            MessageId::OneWay { .. } => Event::OneWay(OneWay { record }),
        });
        Ok(())
    }

    /// The peer has a place for data that was announced.
    pub(super) fn ready(&mut self, head: &FrameHead) -> Result<(), Violation> {
        let &FrameHead { slot, sequence, .. } = head;
        let one_way = head.flags.contains(FrameFlags::ONE_WAY);
        let unexpected = Err(Violation::ReadyNotExpected { slot, sequence });
        let state = &mut *self.state;
        let (announced, notify) = if one_way {
            let Some(entry) = state.one_way_out.get_mut(sequence) else { return unexpected };
            (entry.announced.take(), &mut entry.notify)
        } else {
            if state.requester.check(slot, sequence) != Ok(Answer::Current) {
                return unexpected;
            }
            let Some(entry) = state.requester.get_mut(slot) else { return unexpected };
            entry.sent = !entry.announced;
            let kept = std::mem::take(&mut entry.announced).then(|| std::mem::take(&mut entry.kept));
            (kept, &mut entry.notify)
        };
        let Some(data) = announced else { return unexpected };
        let notify = notify.take();
        if one_way && head.room == READY_NOT_WANTED {
            if let Some(token) = notify {
                self.events.push_back(Event::Sent { connection: state.handle, token, outcome: Ok(data) });
            }
            return Ok(());
        }
        let mut frame = HeldFrame::new(state.frame(FrameKind::Data), HeaderBytes::new(), data);
        (frame.head.slot, frame.head.sequence) = (slot, sequence);
        if one_way {
            frame.head.flags = FrameFlags::ONE_WAY;
        }
        if let Some(token) = notify {
            state.notices.push_back((SentFrame::from(&frame.head), token));
        }
        self.replies.push(frame);
        Ok(())
    }

    pub(super) fn receipt(&mut self, head: &FrameHead) -> Result<(), Violation> {
        let &FrameHead { slot, sequence, .. } = head;
        let state = &mut *self.state;
        let (due, token) = if head.flags.contains(FrameFlags::ONE_WAY) {
            match state.one_way_out.get_mut(sequence) {
                Some(entry) => (std::mem::take(&mut entry.receipt_due), entry.token),
                None => (false, 0),
            }
        } else if state.requester.is_current(slot, sequence) {
            match state.requester.get_mut(slot) {
                // An application that has given the request up does not hear of it again.
                Some(entry) if entry.expired => return Ok(()),
                Some(entry) => (std::mem::take(&mut entry.receipt_due), entry.token),
                None => (false, 0),
            }
        } else {
            (false, 0)
        };
        if !due {
            return Err(Violation::ReceiptNotExpected { slot, sequence });
        }
        let receipt = if head.room == RECEIPT_ACCEPTED { Receipt::Accepted } else { Receipt::Rejected };
        self.events.push_back(Event::Receipt { connection: state.handle, token, outcome: Ok(receipt) });
        Ok(())
    }

    /// The peer has released one-way messages.
    pub(super) fn acknowledged(&mut self, sequence: u32) -> Result<(), Violation> {
        let state = &mut *self.state;
        let before = state.one_way_out.unacknowledged();
        let found = state.one_way_out.acknowledge(sequence, |sequence, entry| {
            if entry.receipt_due { Err(Violation::ReceiptMissing { sequence }) } else { Ok(()) }
        });
        let ended = before - state.one_way_out.unacknowledged();
        self.statistics.one_way_unacknowledged.subtract(u64::from(ended));
        found?;
        if ended > 0 && std::mem::take(&mut state.send_blocked) {
            self.events.push_back(Event::SendReady { connection: state.handle });
        }
        Ok(())
    }

    /// The peer does not want an answer any more.
    pub(super) fn cancel(&mut self, head: &FrameHead) -> Result<(), Violation> {
        let id = RequestId { slot: head.slot, sequence: head.sequence };
        let outcome = match self.state.responder.standing(id.slot, id.sequence) {
            Standing::Answered => CANCEL_TOO_LATE,
            Standing::Unknown => CANCEL_NOT_FOUND,
            Standing::Running if self.take_unseen(id) => {
                self.state.responder.fail(id.slot, id.sequence, FAILED_CANCELLED);
                self.statistics.requests_running.subtract(1);
                CANCEL_DONE
            }
            Standing::Running => {
                if !self.state.cancels_asked.contains(&id) {
                    self.state.cancels_asked.push(id);
                    self.events.push_back(Event::Cancel { connection: self.state.handle, id });
                }
                return Ok(());
            }
        };
        let result = FrameHead { room: outcome, ..self.state.frame_for(FrameKind::CancelResult, id) };
        self.reply_control(result)?;
        if outcome == CANCEL_DONE {
            let mut response = self.state.frame_for(FrameKind::Response, id);
            (response.flags, response.room) = (FrameFlags::FAILED, FAILED_CANCELLED);
            self.reply(response);
        }
        Ok(())
    }

    /// Takes a request back that the application has not seen yet.
    fn take_unseen(&mut self, id: RequestId) -> bool {
        let connection = self.state.handle;
        let of =
            |record: &Arrived| record.connection == connection && record.message == MessageId::Request(id);
        let found = self.events.iter().position(|event| match event {
            Event::Request(Request { record }) | Event::Incoming(Incoming { record }) => of(record),
            _ => false,
        });
        match found.and_then(|found| self.events.remove(found)) {
            Some(Event::Request(Request { record }) | Event::Incoming(Incoming { record })) => {
                self.state.receiving.release(u64::from(record.granted));
                self.records.give_back(record);
                true
            }
            _ => false,
        }
    }

    pub(super) fn cancel_result(&mut self, head: &FrameHead) -> Result<(), Violation> {
        let &FrameHead { slot, sequence, .. } = head;
        let unexpected = Err(Violation::CancelResultNotExpected { slot, sequence });
        match self.state.requester.check(slot, sequence) {
            Ok(Answer::Current) => {}
            // Its response came first.
            Ok(Answer::Stale) => return Ok(()),
            Err(_) => return unexpected,
        }
        let Some(entry) = self.state.requester.get_mut(slot) else { return unexpected };
        let asked = match entry.cancel {
            Cancel::Asked => true,
            Cancel::Silent => false,
            Cancel::None | Cancel::Answered => return unexpected,
        };
        entry.cancel = Cancel::Answered;
        if asked {
            let outcome = match head.room {
                CANCEL_DONE => CancelOutcome::Cancelled,
                CANCEL_TOO_LATE => CancelOutcome::TooLate,
                _ => CancelOutcome::NotFound,
            };
            self.events.push_back(Event::CancelEnded {
                connection: self.state.handle,
                id: RequestId { slot, sequence },
                token: entry.token,
                outcome: Ok(outcome),
            });
        }
        Ok(())
    }

    #[inline]
    pub(super) fn response(&mut self, head: &FrameHead, header: &[u8], data: Sgl) -> Result<(), Violation> {
        let &FrameHead { slot, sequence, .. } = head;
        if self.state.requester.check(slot, sequence)? == Answer::Stale {
            return Ok(());
        }
        let Some(entry) = self.state.requester.get_mut(slot) else { return Ok(()) };
        if !entry.sent {
            return Err(Violation::ResponseBeforeSent { slot });
        }
        let keeps_landing = head.data_length == 0 && matches!(entry.landing, Landing::Place(_));
        if head.flags.contains(FrameFlags::FAILED) || keeps_landing || entry.is_special() {
            self.special_response(head, header, data);
            return Ok(());
        }
        // Nearly all: an answer, its data in its place, that nobody but the application waits for.
        let (token, begun_ns, id) = (entry.token, entry.begun_ns, entry.id(slot));
        self.state.requester.end(slot);
        self.statistics.requests_outstanding.subtract(1);
        self.statistics.request_latency.record(self.now_ns.saturating_sub(begun_ns));
        let outcome = Ok(Reply { header: HeaderBytes::from_slice(header), data });
        self.events.push_back(Event::Response { connection: self.state.handle, id, token, outcome });
        Ok(())
    }

    /// The answer to a request about which there is more to say than that.
    #[inline(never)]
    fn special_response(&mut self, head: &FrameHead, header: &[u8], mut data: Sgl) {
        let Some(entry) = self.state.requester.finish(head.slot) else { return };
        self.statistics.requests_outstanding.subtract(1);
        let connection = self.state.handle;
        let id = entry.id(head.slot);
        let failed = head.flags.contains(FrameFlags::FAILED).then_some(head.room);
        if entry.cancel == Cancel::Asked {
            let outcome = match failed {
                Some(FAILED_CANCELLED) => CancelOutcome::Cancelled,
                _ => CancelOutcome::TooLate,
            };
            let token = entry.token;
            self.events.push_back(Event::CancelEnded { connection, id, token, outcome: Ok(outcome) });
        }
        if let Some(token) = entry.notify
            && (entry.announced || entry.data_lent)
        {
            // Its data was never asked for, or the peer has read it until now.
            self.events.push_back(Event::Sent { connection, token, outcome: Ok(entry.kept) });
        }
        if head.data_length == 0
            && let Landing::Place(list) = entry.landing
        {
            // The landing memory goes back to its owner, cut to nothing.
            data = list;
            if !entry.expired {
                data.truncate(0);
            }
        }
        if entry.expired {
            if entry.named {
                self.events.push_back(Event::Released { connection, token: entry.token, memory: data });
            }
            return;
        }
        self.statistics.request_latency.record(self.now_ns.saturating_sub(entry.begun_ns));
        let outcome = match (failed, entry.failure) {
            (Some(reason), _) => Err(failure(reason, entry.room)),
            (None, Some(failure)) => Err(*failure),
            (None, None) => Ok(Reply { header: HeaderBytes::from_slice(header), data }),
        };
        self.events.push_back(Event::Response { connection, id, token: entry.token, outcome });
    }
}

/// What the reason of a failed response means to the application.
fn failure(reason: u32, room: u32) -> Error {
    match reason {
        FAILED_NO_ROOM => Error::NoRoom { length: u64::from(room) + 1, room: u64::from(room) },
        FAILED_NOT_KEPT => Error::Unsupported(
            "the response was too long to be kept, which a request that is not idempotent needs",
        ),
        FAILED_CANCELLED => Error::Cancelled,
        FAILED_NO_REGION => Error::NotExposed,
        FAILED_OUT_OF_BOUNDS => Error::OutOfBounds,
        FAILED_NOT_PERMITTED => Error::NotPermitted,
        _ => Error::Unanswered,
    }
}
