//! A link's part in one-sided operations that the device of the side that asks does alone: what is exposed, what is
//! reached, and the notes about it.

use super::super::cm::CmId;
use super::super::endpoint::Endpoint;
use super::super::exposing::Exposing;
use super::super::message::{MESSAGE_HEAD_BYTES, MessageHead, MessageKind};
use super::super::notes::{NOTE_BYTES, Note};
use super::super::reaching::Reaching;
use super::super::side_queue;
use super::{RdmaLink, errno};
use crate::transport::{LinkError, Reach};
use crate::wire::Violation;
use crate::{Access, Buffer};
use std::collections::VecDeque;
use std::io;

/// The parts of a link that a note changes.
pub(super) struct Parts<'a> {
    pub id: &'a CmId,
    pub endpoint: &'a Endpoint,
    pub exposing: &'a mut Exposing,
    pub reaching: &'a mut Reaching,
    pub notes: &'a mut VecDeque<Note>,
}

impl Parts<'_> {
    /// A note of the peer.
    pub(super) fn take_note(self, note: Note) -> Result<(), Violation> {
        let Parts { id, endpoint, exposing, reaching, notes } = self;
        let queues = (id.queue_pair(), endpoint.completions());
        match note {
            Note::Open { epoch, end } => reaching.open(epoch, end, endpoint.domain(), queues, notes),
            Note::Grant { epoch, grant } => {
                reaching.grant(epoch, grant);
                Ok(())
            }
            Note::Withdraw { number } => {
                reaching.withdraw(number);
                Ok(())
            }
            Note::Ready { epoch, end } => exposing.ready(epoch, end, queues.0, notes),
            Note::Broken { epoch } => exposing.broken(epoch, queues.1, notes),
        }
    }
}

impl RdmaLink {
    /// Whether this end is able and willing to speak in notes.
    pub(super) fn offers_notes(&self) -> bool {
        let device = self.endpoint.as_ref().map(|endpoint| endpoint.domain().device);
        self.shared.options.one_sided && device.is_some_and(side_queue::is_possible)
    }

    pub(super) fn expose_memory(&mut self, number: u32, memory: &Buffer, access: Access, key: &[u8; 16]) {
        if !self.has_notes || !self.is_open() {
            return;
        }
        let Some(endpoint) = &self.endpoint else { return };
        let link = (&**endpoint.domain(), endpoint.completions());
        self.exposing.expose(number, memory, access, key, link, &mut self.notes);
        self.post_notes();
    }

    pub(super) fn revoke_memory(&mut self, number: u32) {
        if !self.exposing.revoke(number, &mut self.notes) {
            self.die(LinkError::Failed(libc::EIO));
        }
        self.post_notes();
    }

    pub(super) fn start_reach(&mut self, reach: &Reach<'_>) -> bool {
        let Some(endpoint) = self.endpoint.as_ref().filter(|_| self.dead.is_none()) else { return false };
        // Registering is worth as much here as for a request.
        let limits = (self.shared.options.register_min as usize, endpoint.transfer_max);
        self.reaching.start(reach, endpoint.domain(), &mut self.keys, limits)
    }

    /// Posts the operations that were begun.
    pub(super) fn ring_reaches(&mut self) -> Result<(), LinkError> {
        let posts = self.reaching.ring().map_err(|cause| LinkError::Failed(errno(&cause)))?;
        if let Some(endpoint) = self.endpoint.as_mut().filter(|_| posts > 0) {
            endpoint.counters.posts += posts;
            endpoint.counters.doorbells += 1;
        }
        Ok(())
    }

    /// Sends the notes that wait, as far as credits reach; the others go when some have come.
    pub(super) fn post_notes(&mut self) {
        if self.notes.is_empty() || !self.is_open() {
            return;
        }
        if let Err(cause) = self.try_post_notes() {
            self.die(LinkError::Failed(errno(&cause)));
        }
    }

    fn try_post_notes(&mut self) -> io::Result<()> {
        let (Some(endpoint), Some(credits)) = (&mut self.endpoint, &mut self.credits) else { return Ok(()) };
        while credits.available() > 0 && endpoint.room() > 0 {
            let Some(note) = self.notes.front() else { break };
            let Some(memory) = endpoint.stage(MESSAGE_HEAD_BYTES + NOTE_BYTES) else { break };
            let head = MessageHead { kind: MessageKind::Note, credit: credits.send() };
            memory[..MESSAGE_HEAD_BYTES].copy_from_slice(&head.encode());
            memory[MESSAGE_HEAD_BYTES..].copy_from_slice(&note.encode());
            endpoint.chain_send(&[], false);
            self.notes.pop_front();
        }
        endpoint.ring(&self.id)
    }
}
