//! What the two applications do of their own accord.

use crate::model::{Block, Kind, Known};
use crate::{BLOCK_BYTES, BLOCKS, IMMEDIATE_BYTES, MESSAGES, Run, Weather};
use libxio::{
    Access, Buffer, Error, Landing, OutgoingOneWay, OutgoingRequest, OutgoingResponse, Receipt, Region,
    RequestId, SendOptions, Sgl,
};
use std::time::Duration;

/// The data of a message.
pub fn content(token: u64, length: usize) -> Vec<u8> {
    (0..length).map(|at| (token as u8).wrapping_mul(17).wrapping_add(at as u8)).collect()
}

/// The token of a message by its header.
pub fn token_of(header: &[u8]) -> u64 {
    u64::from_le_bytes(header.try_into().expect("eight bytes"))
}

/// Takes one of them.
fn take<T>(run: &Run, list: impl Fn(&Run) -> usize, from: impl FnOnce(usize) -> T) -> Option<T> {
    let count = list(run);
    (count > 0).then(|| from(run.random(count as u64) as usize))
}

impl Run {
    pub fn act(&mut self, side: usize) {
        if self.ends[side].open && self.model.begun() < MESSAGES {
            match self.random(12) {
                0 | 1 => self.ask(side),
                2 | 3 => self.tell(side),
                4 => self.reach(side),
                5 if self.weather != Weather::Calm && self.random(40) == 0 => self.end_connection(side),
                6 if self.random(4) == 0 => self.expose_anew(side),
                _ => {}
            }
        }
        match self.random(6) {
            0 | 1 => self.answer_one(side),
            2 => self.release_one(side),
            3 => self.assign_one(side),
            _ => {}
        }
    }

    fn options(&self) -> SendOptions {
        let token = self.model.begun();
        SendOptions {
            receipt: self.random(3) == 0,
            notify: (self.random(3) == 0).then_some(token),
            more: self.random(2) == 0,
            timeout: None,
        }
    }

    fn data_length(&self) -> usize {
        let lengths = [0, 1, 100, 4096, 8192, 8193, 20_000, 65_536];
        lengths[self.random(lengths.len() as u64) as usize]
    }

    fn note(&mut self, kind: Kind, data_length: usize, options: SendOptions) -> u64 {
        let token = self.model.begun();
        let mut known = Known::new(kind, data_length, self.connections);
        known.wants_receipt = options.receipt;
        known.wants_notice = options.notify.is_some();
        known.timeout = options.timeout.is_some();
        self.model.begin(token, known);
        token
    }

    fn ask(&mut self, side: usize) {
        let token = self.model.begun();
        let data_length = self.data_length();
        let idempotent = self.random(2) == 0;
        let room = if idempotent { data_length } else { 0 };
        let named = self.random(2) == 0;
        let landing = if named { Landing::Place(vec![0; room].into()) } else { Landing::Pool(room as u32) };
        let header = token.to_le_bytes();
        let data = content(token, data_length).into();
        let request = OutgoingRequest { data, landing, idempotent, ..OutgoingRequest::new(&header, token) };
        let timeout = (self.random(4) == 0).then(|| Duration::from_micros(200 + self.random(8000)));
        let options = SendOptions { timeout, ..self.options() };
        let connection = self.ends[side].connection.expect("it is open");
        match self.context(side).request_with(connection, request, options) {
            Ok(id) => {
                self.note(Kind::Request, data_length, options);
                self.model.get(token).named_landing = named;
                if self.random(4) == 0 {
                    self.cancel(side, token, id);
                }
            }
            Err(Error::SlotsExhausted(_) | Error::StaleHandle(_)) => {}
            Err(other) => panic!("request refused: {other}"),
        }
    }

    fn cancel(&mut self, side: usize, token: u64, id: RequestId) {
        let connection = self.ends[side].connection.expect("it is open");
        if self.random(2) == 0 {
            // It may get a little way.
            self.context(side).flush().unwrap();
        }
        // The flush may have found the connection lost.
        if self.context(side).cancel(connection, id).is_ok() {
            self.model.get(token).cancels_asked = 1;
        }
    }

    fn tell(&mut self, side: usize) {
        let token = self.model.begun();
        let data_length = self.data_length();
        let options = self.options();
        let header = token.to_le_bytes();
        let data = content(token, data_length).into();
        let connection = self.ends[side].connection.expect("it is open");
        let message = OutgoingOneWay { header: &header, data, token, options };
        match self.context(side).send(connection, message) {
            Ok(()) => {
                self.note(Kind::OneWay, data_length, options);
            }
            Err(Error::OneWayExhausted(_) | Error::StaleHandle(_)) => {}
            Err(other) => panic!("message refused: {other}"),
        }
    }

    /// Reads or writes a block of the other side's memory.
    fn reach(&mut self, side: usize) {
        let other = 1 - side;
        let Some((_, remote)) = self.ends[other].exposed.as_ref().filter(|_| self.ends[other].open) else {
            return;
        };
        let remote = *remote;
        let token = self.model.begun();
        let block = token % BLOCKS;
        if self.model.blocks[other][block as usize] == Block::Busy {
            return;
        }
        let write = self.random(2) == 0;
        let connection = self.ends[side].connection.expect("it is open");
        let (offset, none) = (block * BLOCK_BYTES as u64, SendOptions::default());
        let begun = if write {
            let data = content(token, BLOCK_BYTES).into();
            self.context(side).remote_write(connection, &remote, offset, data, token, none)
        } else {
            let landing = Landing::Place(vec![0; BLOCK_BYTES].into());
            self.context(side).remote_read(connection, &remote, offset, landing, token, none)
        };
        match begun {
            Ok(_) if write => {
                self.note(Kind::RemoteWrite, BLOCK_BYTES, none);
                self.model.blocks[other][block as usize] = Block::Busy;
            }
            Ok(_) => {
                self.note(Kind::RemoteRead, BLOCK_BYTES, none);
            }
            Err(Error::SlotsExhausted(_) | Error::StaleHandle(_)) => {}
            Err(other) => panic!("remote operation refused: {other}"),
        }
    }

    /// Revokes the exposed memory, or exposes fresh memory.
    pub fn expose_anew(&mut self, side: usize) {
        let Some(connection) = self.ends[side].connection else { return };
        if let Some((_, old)) = self.ends[side].exposed {
            if self.random(2) == 0 {
                // It may be revoked already.
                let _ = self.context(side).revoke(connection, &old);
            }
            // The other side goes on with the old description for a while in half of the cases.
            if self.random(2) == 0 {
                return;
            }
            self.ends[side].exposed = None;
        }
        let region = Region::allocate(BLOCKS as usize * BLOCK_BYTES, false).unwrap();
        let length = region.len();
        // The connection may be lost already, which the next event tells.
        let exposed = self.context(side).expose(connection, &region, 0, length, Access::READ_WRITE);
        let Ok(remote) = exposed else { return };
        self.model.blocks[side] = Default::default();
        self.ends[side].exposed = Some((region, remote));
    }

    fn end_connection(&mut self, side: usize) {
        let connection = self.ends[side].connection.expect("it is open");
        if self.random(2) == 0 {
            let _ = self.context(side).close(connection);
        } else {
            let _ = self.context(side).abort(connection);
        }
        self.ends[side].open = false;
    }

    fn answer_one(&mut self, side: usize) {
        let count = self.ends[side].requests.len();
        let Some(which) = take(self, |_| count, |which| which) else { return };
        let mut request = self.ends[side].requests.swap_remove(which);
        let token = token_of(request.header());
        if request.wants_receipt() && self.random(2) == 0 {
            let receipt = if self.random(2) == 0 { Receipt::Accepted } else { Receipt::Rejected };
            // Its connection may be gone.
            if self.context(side).give_receipt(&mut request, receipt).is_ok() {
                self.model.get(token).receipt_given = Some(receipt);
            }
        }
        match self.random(8) {
            0 => {
                self.model.get(token).abandoned = true;
                let _ = self.context(side).abandon(request);
            }
            1 => {
                self.model.get(token).abandoned = true;
                drop(request);
            }
            _ => {
                let header = request.header().to_vec();
                let mut data = request.take_data();
                data.truncate(request.room() as usize);
                let _ = self.context(side).respond(request, OutgoingResponse { header: &header, data });
            }
        }
    }

    fn release_one(&mut self, side: usize) {
        let count = self.ends[side].messages.len();
        let Some(which) = take(self, |_| count, |which| which) else { return };
        let message = self.ends[side].messages.swap_remove(which);
        let known = self.model.get(token_of(message.header()));
        if self.network.random(4) == 0 {
            known.receipt_given = Some(Receipt::Rejected);
            drop(message);
        } else {
            known.receipt_given = Some(Receipt::Accepted);
            let _ = self.context(side).release(message, Receipt::Accepted);
        }
    }

    fn assign_one(&mut self, side: usize) {
        let count = self.ends[side].incoming.len();
        let Some(which) = take(self, |_| count, |which| which) else { return };
        let incoming = self.ends[side].incoming.swap_remove(which);
        assert!(incoming.data_length() > IMMEDIATE_BYTES);
        if self.random(5) == 0 {
            let known = self.model.get(token_of(incoming.header()));
            known.abandoned = true;
            known.receipt_given = Some(Receipt::Rejected);
            return;
        }
        // In pieces of our own.
        let mut memory = Sgl::new();
        let mut left = incoming.data_length() as usize;
        while left > 0 {
            let piece = left.min(10_000);
            memory.push(Buffer::from_vec(vec![0; piece])).unwrap();
            left -= piece;
        }
        let _ = self.context(side).assign(incoming, memory);
    }
}
