//! The application's own file operations and foreign descriptors, on the context's ring.

use super::Context;
use super::event::{Completion, Event, FileOp, Interest};
use super::handles::{FdId, OpId, TimerId};
use crate::mem::RawEntries;
use crate::reactor::{Key, Ticket, TicketKind, WritePlace};
use crate::{Error, Result, Sgl};
use std::os::fd::RawFd;
use std::thread::{self, ThreadId};
use std::time::Duration;

const NO_RING: Error = Error::Unsupported("a context on virtual time has no ring for this");

/// A file operation in the ring.
#[derive(Debug)]
pub(super) struct PendingOp {
    token: u64,
    kind: Kind,
    /// The thread that put it into the ring: the kernel cancels it when that exits, and it is put in again.
    thread: ThreadId,
    /// Told apart from a late completion of an earlier operation in the same place.
    stamp: u32,
    /// The memory that the kernel reads or writes, where it is until the completion.
    data: Sgl,
    /// The entries of a vectored write, where they are until the completion.
    entries: RawEntries,
    /// Place of the memory among the ring's fixed buffers.
    fixed: Option<u16>,
}

/// A foreign descriptor.
#[derive(Debug)]
pub(super) struct ForeignFd {
    fd: RawFd,
    token: u64,
    interest: Interest,
    /// Stamp of the poll in the ring.
    armed: Option<u32>,
}

impl Context {
    /// Starts a file operation on the context's ring; it ends in [`Event::Completed`], and the memory comes back with it.
    /// The descriptor has to stay open until then.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on virtual time, and for a read into a static buffer.
    pub fn submit(&mut self, op: FileOp, token: u64) -> Result<OpId> {
        self.submit_op(op, token, false)
    }

    /// As [`Context::submit`], for a file that is open with O_DIRECT: where the operation is long and its memory is a
    /// peer's (on shared memory), that is pinned once it has been used so again and again, within
    /// [`ContextOptions::pinned_bytes_max`](crate::ContextOptions::pinned_bytes_max), which saves doing it for each
    /// operation.
    ///
    /// # Errors
    /// As [`Context::submit`].
    pub fn submit_direct(&mut self, op: FileOp, token: u64) -> Result<OpId> {
        self.submit_op(op, token, true)
    }

    fn submit_op(&mut self, op: FileOp, token: u64, direct: bool) -> Result<OpId> {
        if self.ring.is_none() {
            return Err(NO_RING);
        }
        let (data, kind) = split_op(op);
        if matches!(kind, Kind::Read { .. }) && !data.is_writable() {
            return Err(Error::Unsupported("a static buffer can't be read into"));
        }
        let entries = match (&kind, data.pieces().len()) {
            (Kind::Write { .. }, count) if count > 1 => data.raw_entries(),
            _ => RawEntries::default(),
        };
        let fixed = match data.pieces() {
            [buffer] if direct => self.fixed_place(buffer),
            _ => None,
        };
        let thread = thread::current().id();
        let key = self.ops.insert(PendingOp { token, kind, thread, stamp: 0, data, entries, fixed });
        self.start_op(key);
        self.statistics.operations_outstanding.add(1);
        Ok(OpId::new(self.number, key))
    }

    /// Puts an operation into the ring.
    fn start_op(&mut self, key: Key) {
        let (Some(pending), Some(ring)) = (self.ops.get_mut(key), &mut self.ring) else { return };
        pending.stamp = self.stamps.next();
        let ticket = Ticket { kind: TicketKind::File, stamp: pending.stamp, index: key.index };
        let fixed = pending.fixed;
        match pending.kind {
            Kind::Read { fd, offset } => ring.read(fd, &pending.data, offset, fixed, ticket),
            Kind::Write { fd, offset, durable } => {
                let to = WritePlace { fd, offset, durable };
                if pending.entries.is_empty() {
                    ring.write(to, &pending.data, fixed, ticket);
                } else {
                    ring.write_vectored(to, &pending.entries, ticket);
                }
            }
            Kind::Sync { fd, data_only } => ring.sync(fd, data_only, ticket),
            Kind::Allocate { fd, mode, offset, length } => ring.allocate(fd, mode, offset, length, ticket),
        }
    }

    /// Asks for the end of all operations, for good.
    pub(super) fn cancel_operations(&mut self) {
        let here = thread::current().id();
        for key in self.ops.keys() {
            if let (Some(pending), Some(ring)) = (self.ops.get_mut(key), &mut self.ring) {
                pending.thread = here;
                ring.cancel(Ticket { kind: TicketKind::File, stamp: pending.stamp, index: key.index });
            }
        }
    }

    pub(super) fn op_completed(&mut self, index: u32, stamp: u32, result: i32) {
        let Some(key) = self.ops.key_at(index) else { return };
        let Some(pending) = self.ops.get_mut(key).filter(|pending| pending.stamp == stamp) else { return };
        if result == -libc::ECANCELED {
            let here = thread::current().id();
            if pending.thread != here {
                pending.thread = here;
                return self.start_op(key);
            }
        }
        let Some(pending) = self.ops.remove(key) else { return };
        self.statistics.operations_outstanding.subtract(1);
        let result = u32::try_from(result).map_err(|_| result.saturating_neg());
        let id = OpId::new(self.number, key);
        self.events.push_back(Event::Completed(Completion {
            id,
            token: pending.token,
            result,
            data: pending.data,
        }));
    }

    /// Watches a descriptor of the application for one readiness, which arrives as [`Event::FdReady`];
    /// [`Context::modify_fd`] arms it again. The descriptor stays the application's, open until it is removed.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on virtual time.
    pub fn add_fd(&mut self, fd: RawFd, interest: Interest, token: u64) -> Result<FdId> {
        if self.ring.is_none() {
            return Err(NO_RING);
        }
        let key = self.fds.insert(ForeignFd { fd, token, interest, armed: None });
        self.arm_fd(key);
        Ok(FdId::new(self.number, key))
    }

    /// Arms a descriptor (again), for the same readiness or another.
    ///
    /// # Errors
    /// [`Error::StaleHandle`].
    pub fn modify_fd(&mut self, id: FdId, interest: Interest) -> Result<()> {
        let key = self.fd_key(id)?;
        self.disarm_fd(key);
        if let Some(entry) = self.fds.get_mut(key) {
            entry.interest = interest;
        }
        self.arm_fd(key);
        Ok(())
    }

    /// Forgets a descriptor. No event of it comes after this has returned, other than one that is queued already.
    ///
    /// # Errors
    /// [`Error::StaleHandle`].
    pub fn remove_fd(&mut self, id: FdId) -> Result<()> {
        let key = self.fd_key(id)?;
        self.disarm_fd(key);
        self.fds.remove(key);
        self.events.retain(|event| !matches!(event, Event::FdReady { id: queued, .. } if *queued == id));
        Ok(())
    }

    fn fd_key(&self, id: FdId) -> Result<Key> {
        let key = id.key(self.number).filter(|key| self.fds.get(*key).is_some());
        key.ok_or(Error::StaleHandle("descriptor"))
    }

    fn arm_fd(&mut self, key: Key) {
        let (Some(entry), Some(ring)) = (self.fds.get_mut(key), &mut self.ring) else { return };
        let mut events = 0;
        if entry.interest.readable {
            events |= libc::POLLIN;
        }
        if entry.interest.writable {
            events |= libc::POLLOUT;
        }
        let stamp = self.stamps.next();
        entry.armed = Some(stamp);
        ring.poll(entry.fd, events, Ticket { kind: TicketKind::Descriptor, stamp, index: key.index });
    }

    fn disarm_fd(&mut self, key: Key) {
        let stamp = self.fds.get_mut(key).and_then(|entry| entry.armed.take());
        self.disarm(stamp, key.index, TicketKind::Descriptor);
    }

    pub(super) fn fd_ready(&mut self, index: u32, stamp: u32, result: i32) {
        let Some(key) = self.fds.key_at(index) else { return };
        let Some(entry) = self.fds.get_mut(key).filter(|entry| entry.armed == Some(stamp)) else { return };
        entry.armed = None;
        if result == -libc::ECANCELED {
            // Not by us, who forget the stamp: the thread that armed it has exited.
            return self.arm_fd(key);
        }
        // A failed poll (a closed descriptor) shows as ready: the application's own call will tell it why.
        let trouble = result < 0 || result & i32::from(libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0;
        let ready = Interest {
            readable: trouble || result & i32::from(libc::POLLIN) != 0,
            writable: trouble || result & i32::from(libc::POLLOUT) != 0,
        };
        let token = entry.token;
        self.events.push_back(Event::FdReady { id: FdId::new(self.number, key), token, ready });
    }

    /// Sets a timer that fires once, as [`Event::Timer`].
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] beyond a year.
    pub fn set_timer(&mut self, after: Duration, token: u64) -> Result<TimerId> {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
        if after > YEAR {
            let (what, value, limit) = ("timer in seconds", after.as_secs(), YEAR.as_secs());
            return Err(Error::LimitExceeded { what, value, limit });
        }
        let key = self.timers.set(self.options.clock.now() + after, token);
        Ok(TimerId::new(self.number, key))
    }

    /// Takes a timer back; false when it fired already, or is not of this context.
    pub fn cancel_timer(&mut self, id: TimerId) -> bool {
        id.key(self.number).is_some_and(|key| self.timers.cancel(key))
    }
}

/// A file operation without its memory.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Read { fd: RawFd, offset: u64 },
    Write { fd: RawFd, offset: u64, durable: bool },
    Sync { fd: RawFd, data_only: bool },
    Allocate { fd: RawFd, mode: i32, offset: u64, length: u64 },
}

fn split_op(op: FileOp) -> (Sgl, Kind) {
    match op {
        FileOp::Read { fd, offset, buffer } => (Sgl::from(buffer), Kind::Read { fd, offset }),
        FileOp::Write { fd, offset, data, durable } => (data, Kind::Write { fd, offset, durable }),
        FileOp::Sync { fd, data_only } => (Sgl::new(), Kind::Sync { fd, data_only }),
        FileOp::Allocate { fd, mode, offset, length } => {
            (Sgl::new(), Kind::Allocate { fd, mode, offset, length })
        }
    }
}
