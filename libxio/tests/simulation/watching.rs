//! What the two applications are told, against what the model knows.

use crate::acting::{content, token_of};
use crate::model::{Block, Kind};
use crate::{BLOCK_BYTES, BLOCKS, End, Run};
use libxio::{AcceptOptions, CancelOutcome, Error, Event, Reply};

impl Run {
    pub fn watch(&mut self, side: usize, event: Event) {
        match event {
            Event::ConnectionRequest(request) => {
                // It may be gone by now. An older connection of the same client may not have ended here yet.
                if let Ok(connection) = self.pair.server.accept(request, AcceptOptions::new()) {
                    self.ends[1] = End { connection: Some(connection), open: true, ..End::default() };
                    self.expose_anew(1);
                }
            }
            Event::Connected { connection, .. } => {
                assert_eq!(self.ends[0].connection, Some(connection));
                self.ends[0].open = true;
                self.expose_anew(0);
            }
            Event::Closed { connection, reason } => self.closed(side, connection, &reason),
            Event::Request(request) => {
                let token = token_of(request.header());
                let length = self.arrived(side, token, Kind::Request, request.more());
                assert!(request.data().to_vec() == content(token, length), "data of {token} changed");
                self.ends[side].requests.push(request);
            }
            Event::OneWay(message) => {
                let token = token_of(message.header());
                let length = self.arrived(side, token, Kind::OneWay, message.more());
                assert!(message.data().to_vec() == content(token, length), "data of {token} changed");
                self.model.tally.one_way += 1;
                self.ends[side].messages.push(message);
            }
            Event::Incoming(incoming) => {
                let token = token_of(incoming.header());
                self.model.see(side, token, true);
                assert_eq!(incoming.data_length() as usize, self.model.get(token).data_length);
                self.ends[side].incoming.push(incoming);
            }
            Event::Response { token, outcome, .. } => self.responded(side, token, outcome),
            Event::Receipt { token, outcome, .. } => {
                let known = self.model.get(token);
                assert!(known.wants_receipt && known.receipts == 0 && known.responses == 0, "{known:?}");
                known.receipts = 1;
                if let Ok(receipt) = outcome {
                    assert_eq!(known.receipt_given, Some(receipt), "{token}: {known:?}");
                    self.model.tally.receipts += 1;
                }
            }
            Event::Sent { token, outcome, .. } => {
                let known = self.model.get(token);
                assert!(known.wants_notice && known.notices == 0, "{token}: {known:?}");
                known.notices = 1;
                if let Ok(memory) = outcome {
                    assert!(memory.to_vec() == content(token, known.data_length));
                    self.model.tally.notices += 1;
                }
            }
            Event::CancelEnded { token, outcome, .. } => {
                let known = self.model.get(token);
                known.cancels_ended += 1;
                assert_eq!((known.cancels_ended, known.cancels_asked), (1, 1), "{token}: {known:?}");
                match outcome {
                    Ok(CancelOutcome::Cancelled) => self.model.tally.cancelled += 1,
                    Ok(CancelOutcome::TooLate) => self.model.tally.too_late += 1,
                    Ok(CancelOutcome::NotFound) => panic!("{token} is known"),
                    Err(_) => {}
                }
            }
            Event::Released { token, .. } => {
                let known = self.model.get(token);
                assert!(known.late && known.named_landing && known.released == 0, "{token}: {known:?}");
                known.released = 1;
                self.model.tally.landings_released += 1;
            }
            Event::SendReady { .. } => self.model.tally.send_ready += 1,
            // The application answers as ever.
            Event::Cancel { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    fn closed(&mut self, side: usize, connection: libxio::Connection, reason: &Error) {
        if self.ends[side].connection != Some(connection) {
            assert_eq!(side, 1, "the client was told twice of a connection's end: {reason}");
            return;
        }
        self.model.tally.lost += 1;
        let end = &mut self.ends[side];
        (end.connection, end.open, end.exposed) = (None, false, None);
    }

    /// A message with its data is there; its data's length. One that was announced was seen before.
    fn arrived(&mut self, side: usize, token: u64, kind: Kind, _more: bool) -> usize {
        let known = self.model.get(token);
        assert_eq!(known.kind, kind);
        let (length, announced) = (known.data_length, known.data_length > crate::IMMEDIATE_BYTES as usize);
        if announced {
            assert!(known.seen && !known.abandoned, "{token} came without its announcement");
        } else {
            self.model.see(side, token, false);
        }
        length
    }

    fn responded(&mut self, side: usize, token: u64, outcome: libxio::Result<Reply>) {
        let known = self.model.get(token);
        assert_eq!(known.responses, 0, "{token} ended twice");
        known.responses = 1;
        let (kind, length, seen) = (known.kind, known.data_length, known.seen);
        match outcome {
            Ok(reply) if kind == Kind::Request => {
                assert!(seen && !known.abandoned, "{token}: {known:?}");
                self.model.tally.answered += 1;
                assert_eq!(&reply.header[..], token.to_le_bytes(), "the answer of another request");
                let data = reply.data.to_vec();
                assert!(data.is_empty() || data == content(token, length), "data of {token} changed");
            }
            Ok(reply) => {
                self.model.tally.remote_done += 1;
                self.reached(side, token, Some(&reply.data.to_vec()));
            }
            Err(Error::DeadlineExceeded(_)) => {
                assert!(known.timeout, "{token}: {known:?}");
                known.late = true;
                self.model.tally.late += 1;
            }
            Err(Error::Cancelled) => {
                assert!(known.cancels_asked == 1 || known.abandoned, "{token}: {known:?}");
            }
            Err(Error::Unanswered) => {
                assert!(known.abandoned, "{token}: {known:?}");
                self.model.tally.executed_unanswered += 1;
            }
            Err(Error::NotExposed) if kind != Kind::Request => {
                self.model.tally.remote_refused += 1;
                self.reached(side, token, None);
            }
            // The connection was lost.
            Err(_) if kind != Kind::Request => self.reached(side, token, None),
            Err(_) => {}
        }
    }

    /// A one-sided operation has ended; with what was read.
    fn reached(&mut self, side: usize, token: u64, data: Option<&[u8]>) {
        let other = 1 - side;
        let block = (token % BLOCKS) as usize;
        let kind = self.model.get(token).kind;
        let begun = self.model.begun();
        let holds = &mut self.model.blocks[other][block];
        match (kind, data) {
            (Kind::RemoteWrite, Some(_)) if *holds == Block::Busy => *holds = Block::Holds(token),
            (Kind::RemoteWrite, None) if *holds == Block::Busy => *holds = Block::Unknown,
            // Each byte that was read is zero, or what some write has put there; a write may overtake the answer.
            (Kind::RemoteRead, Some(data)) => {
                let writes = (0..begun).filter(|one| one % BLOCKS == token % BLOCKS);
                let written: Vec<_> = writes.map(|one| content(one, BLOCK_BYTES)).collect();
                for (at, byte) in data.iter().enumerate() {
                    let known = *byte == 0 || written.iter().any(|content| content[at] == *byte);
                    assert!(known, "block {block} holds what nobody wrote: {data:?}");
                }
            }
            _ => {}
        }
    }
}
