//! From an operation to a request on its way, with the local queue between.

use super::{Engine, Owner, Pending, QUEUED_MAX, State, pool_bytes};
use crate::operation::Operation;
use crate::proto::{Op, OpenFlags, Request};
use crate::{Error, Result};
use libxio::{Landing, OutgoingRequest, Sgl};
use std::sync::Arc;

impl Engine {
    /// Checks an operation, and sends it or queues it.
    #[inline]
    pub(super) fn start(&mut self, operation: Operation, owner: Owner) -> Result<()> {
        if let State::Lost(error) = &self.state {
            return Err(error.clone());
        }
        self.check(&operation)?;
        if !self.queued.is_empty() {
            self.send_queued();
        }
        if self.queued.is_empty() && self.can_send(&operation) {
            self.send(operation, owner);
            return Ok(());
        }
        self.wait_for_slot(operation, owner)
    }

    #[cold]
    fn wait_for_slot(&mut self, operation: Operation, owner: Owner) -> Result<()> {
        if self.queued.len() >= QUEUED_MAX {
            return Err(Error::QueueFull { depth: QUEUED_MAX });
        }
        self.queued.push_back((owner, operation));
        Ok(())
    }

    /// Refuses what the server would refuse, and what has no room to land in.
    #[inline]
    pub(super) fn check(&self, operation: &Operation) -> Result<()> {
        let op = operation.op();
        operation.request().check().map_err(|reason| Error::Invalid { op, reason })?;
        let limit = |what, value, limit: u32| {
            if value > u64::from(limit) {
                Err(Error::Limit { what, value, limit: limit.into() })
            } else {
                Ok(())
            }
        };
        match operation {
            Operation::Read { length, landing, .. } => {
                limit("length of a read in bytes", u64::from(*length), self.limits.io_bytes_max)?;
                let room = u32::try_from(landing.room()).unwrap_or(u32::MAX);
                limit("length of a read into smaller memory, in bytes,", u64::from(*length), room)
            }
            Operation::Write { data, .. } => {
                limit("length of a write in bytes", data.len() as u64, self.limits.io_bytes_max)
            }
            _ => Ok(()),
        }
    }

    /// Whether there is a slot, and pool memory for the answer.
    #[inline]
    pub(super) fn can_send(&self, operation: &Operation) -> bool {
        matches!(self.state, State::Connected)
            && self.context.free_slots(self.connection).is_ok_and(|free| free > 0)
            && self.promised.fits(operation.pool_bytes(), self.context.pool())
    }

    /// Sends from the queue as far as possible, in order.
    pub(super) fn send_queued(&mut self) {
        while self.queued.front().is_some_and(|(_, operation)| self.can_send(operation)) {
            if let Some((owner, operation)) = self.queued.pop_front() {
                self.send(operation, owner);
            }
        }
    }

    /// Sends an operation that was checked, on a slot that is free. If that fails it has ended.
    #[inline]
    pub(super) fn send(&mut self, operation: Operation, owner: Owner) {
        match operation {
            Operation::Read { handle, offset, length, landing } => {
                let header = Request::Read { handle, offset, length }.fixed();
                // The answer of a read of nothing carries nothing.
                let landing = if landing.room() == 0 { Landing::None } else { landing };
                let promised = pool_bytes(&landing);
                let pending = Pending { owner, op: Op::Read, promised, again: None };
                self.send_request(pending, &header, Sgl::new(), landing);
            }
            Operation::Write { handle, offset, data, durable } => {
                // A list holds at most `u32::MAX` bytes.
                let length = data.len() as u32;
                let header = Request::Write { handle, offset, length, durable }.fixed();
                let pending = Pending { owner, op: Op::Write, promised: 0, again: None };
                self.send_request(pending, &header, data, Landing::None);
            }
            other => self.send_other(other, owner),
        }
    }

    /// Sends an operation that moves no data of a file.
    fn send_other(&mut self, operation: Operation, owner: Owner) {
        let op = operation.op();
        let mut header = std::mem::take(&mut self.scratch);
        // `start` has checked it.
        operation.request().write(&mut header);
        let again = without_noatime(&operation);
        let (data, landing) = operation.into_memory();
        let pending = Pending { owner, op, promised: pool_bytes(&landing), again };
        self.send_request(pending, &header, data, landing);
        self.scratch = header;
    }

    #[inline]
    fn send_request(&mut self, pending: Pending, header: &[u8], data: Sgl, landing: Landing) {
        let Pending { owner, op, promised, .. } = pending;
        self.promised.add(promised);
        let index = self.pending.insert(pending);
        let idempotent = op.is_idempotent();
        let request = OutgoingRequest { header, data, landing, token: index as u64, idempotent };
        let id = match self.context.request(self.connection, request) {
            Ok(id) => id,
            Err(cause) => return self.not_sent(index, promised, owner, cause),
        };
        if promised > 0 && self.context.has_landing(self.connection, id) {
            // By shared memory the server writes at once: the memory is taken, and no longer only promised.
            self.promised.subtract(promised);
            if let Some(pending) = self.pending.get_mut(index) {
                pending.promised = 0;
            }
        }
    }

    #[cold]
    fn not_sent(&mut self, index: usize, promised: usize, owner: Owner, cause: libxio::Error) {
        self.pending.remove(index);
        self.promised.subtract(promised);
        let error = match cause {
            cause @ (libxio::Error::LimitExceeded { .. } | libxio::Error::PoolExhausted { .. }) => {
                Error::Local(cause)
            }
            cause => Error::Lost { uri: Arc::clone(&self.uri), cause },
        };
        self.end(owner, Err(error));
    }
}

/// The same open without O_NOATIME, if it asks for that.
fn without_noatime(operation: &Operation) -> Option<Box<Operation>> {
    match operation {
        Operation::Open { path, flags, mode } if flags.contains(OpenFlags::NO_ATIME) => {
            let flags = flags.without(OpenFlags::NO_ATIME);
            Some(Box::new(Operation::Open { path: path.clone(), flags, mode: *mode }))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ClientOptions;
    use crate::proto::{Greeting, Handle};
    use libxio::{AcceptOptions, Context, ContextOptions, Event, ServerOptions, Uri};
    use std::time::{Duration, Instant};

    /// Memory that an answer lands in counts once, also when memory of earlier requests is given back by the same call,
    /// which by shared memory may send what was queued.
    #[test]
    fn memory_counts_once_though_a_send_gives_some_back() {
        const SIZE: usize = 16 << 10;
        let directory = tempfile::tempdir().unwrap();
        let uri: Uri = format!("shm://{}", directory.path().join("socket").display()).parse().unwrap();
        let mut server = Context::new(ContextOptions::default()).unwrap();
        server.listen(&uri, ServerOptions::default()).unwrap();
        let uri = format!("shm:///?socket={}", directory.path().join("socket").display()).parse().unwrap();
        let options = ClientOptions { pool_bytes_max: 4 * SIZE, ..ClientOptions::default() };
        let mut engine = Engine::begin(&uri, &options).unwrap();
        let start = Instant::now();
        // Both never sleep: then what is queued is sent early.
        while !engine.is_connected() {
            assert!(start.elapsed() < Duration::from_secs(20));
            engine.poll(Some(Duration::ZERO)).unwrap();
            server.wait(Some(Duration::ZERO)).unwrap();
            if let Some(Event::ConnectionRequest(request)) = server.next_event() {
                let mut accepted = AcceptOptions::new();
                accepted.private_data =
                    Greeting::reply(&Greeting::client(), 1 << 20).unwrap().encode().to_vec();
                server.accept(request, accepted).unwrap();
            }
        }
        // The first goes at once, as nothing else is on its way; the others wait for a fourth.
        for token in 0..4 {
            // Buffers that share their pages are not lent: what is in them is copied when it is sent.
            let mut data = Sgl::new();
            for _ in 0..16 {
                data.push(engine.pool().take(512).unwrap()).unwrap();
            }
            let handle = Handle(1);
            engine.submit(Operation::Write { handle, offset: 0, data, durable: false }, token).unwrap();
        }
        assert_eq!(engine.pool().bytes_in_use(), 3 * 16 * 512);
        for token in 1..=4 {
            let (handle, length) = (Handle(1), SIZE as u32);
            let landing = Landing::Pool(length);
            engine.submit(Operation::Read { handle, offset: 0, length, landing }, 3 + token).unwrap();
            assert!(engine.queued.is_empty(), "there is memory for read {token}");
            assert_eq!(engine.pool().bytes_in_use(), token as usize * SIZE);
        }
    }

    #[test]
    fn an_open_without_noatime_is_the_same_otherwise() {
        let flags = OpenFlags::READ.with(OpenFlags::NO_ATIME);
        let open = Operation::Open { path: b"/x".to_vec(), flags, mode: 0o600 };
        let again = without_noatime(&open).unwrap();
        assert!(matches!(*again, Operation::Open { flags: OpenFlags::READ, mode: 0o600, .. }), "{again:?}");
        assert!(without_noatime(&again).is_none());
    }
}
