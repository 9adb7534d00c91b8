//! From an operation to a request on its way, with the local queue between.

use super::{Engine, Owner, Pending, QUEUED_MAX, State, pool_bytes};
use crate::operation::Operation;
use crate::proto::OpenFlags;
use crate::{Error, Result};
use libxio::{Landing, OutgoingRequest};
use std::sync::Arc;

impl Engine {
    /// Checks an operation, and sends it or queues it.
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
        if self.queued.len() >= QUEUED_MAX {
            return Err(Error::QueueFull { depth: QUEUED_MAX });
        }
        self.queued.push_back((owner, operation));
        Ok(())
    }

    /// Refuses what the server would refuse, and what has no room to land in.
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
    pub(super) fn send(&mut self, operation: Operation, owner: Owner) {
        let op = operation.op();
        // `start` has checked it.
        operation.request().write(&mut self.scratch);
        let again = without_noatime(&operation);
        let (data, landing) = operation.into_memory();
        // The answer of a read of nothing carries nothing.
        let landing = if landing.room() == 0 { Landing::None } else { landing };
        let promised = pool_bytes(&landing);
        self.promised.add(promised);
        let index = self.pending.insert(Pending { owner, op, promised, again });
        let request = OutgoingRequest {
            header: &self.scratch,
            data,
            landing,
            token: index as u64,
            idempotent: op.is_idempotent(),
        };
        let before = self.context.pool().bytes_in_use();
        let sent = self.context.request(self.connection, request);
        if promised > 0 && sent.is_ok() && self.context.pool().bytes_in_use() > before {
            // By shared memory the server writes at once: the memory is taken, and no longer only promised.
            self.promised.subtract(promised);
            if let Some(pending) = self.pending.get_mut(index) {
                pending.promised = 0;
            }
        }
        if let Err(cause) = sent {
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

    #[test]
    fn an_open_without_noatime_is_the_same_otherwise() {
        let flags = OpenFlags::READ.with(OpenFlags::NO_ATIME);
        let open = Operation::Open { path: b"/x".to_vec(), flags, mode: 0o600 };
        let again = without_noatime(&open).unwrap();
        assert!(matches!(*again, Operation::Open { flags: OpenFlags::READ, mode: 0o600, .. }), "{again:?}");
        assert!(without_noatime(&again).is_none());
    }
}
