//! Which links are attended to: hot ones are received from every turn, the others wait in the ring, and those with something
//! to send have their turn at its end.
//!
//! A link goes from the ring to the hot ones when its poll fires, or when something is sent on it, since an answer may be
//! near. It goes back when the context sleeps. Among many it goes back when it has brought nothing for a while, or, if it is
//! one that brings something now and then, as soon as it has brought it: looking once more would be a system call in vain
//! for each message, while the poll tells at once of what came meanwhile.

use super::Context;
use super::links::{Flushing, LinkEntry, Role, is_read};
use crate::reactor::{Key, Ticket, TicketKind};
use crate::sys::prefetch;
use crate::transport::{Armed, WakeWord};
use std::collections::VecDeque;
use std::time::Duration;

/// Events that may wait before links are left alone until the application has taken them.
const EVENTS_HIGH_WATER: usize = 4096;
/// Links polled each turn without regard to when they last brought something.
const HOT_LINKS_FREE: usize = 16;
/// Links that bring something in one turn; the others have the next. So what is asked on a link is answered while what
/// belongs to it, in the kernel too, is still in the caches.
const BRINGING_LINKS_MAX: usize = 16;
/// How long a link stays hot without bringing anything. Among many, one whose poll waited longer than that is put back
/// into the ring at once.
const HOT_TIME: Duration = Duration::from_micros(200);
/// Links are many when there are more than [`HOT_LINKS_FREE`], and more polls than that have fired in such a time.
const CROWD_TIME_NS: u64 = 1_000_000;
/// A link whose poll waited that long before it fired is not looked at once more before a sleep: a poll that fires at once
/// costs more than the look.
const WAITED_TIME: Duration = Duration::from_micros(20);

/// What a context about to sleep has to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Awaited {
    /// The ring wakes it.
    Ring,
    /// Something has to be polled: the sleep is a short one.
    Time,
    /// Something is there.
    Nothing,
}

impl LinkEntry {
    /// From now on it is received from every turn.
    #[inline]
    fn heat(&mut self, key: Key, hot: &mut VecDeque<Key>) {
        if !self.hot {
            self.hot = true;
            hot.push_back(key);
        }
    }

    /// It has its turn to send at the end of this one.
    #[inline]
    fn mark_dirty(&mut self, key: Key, dirty: &mut Vec<Key>) {
        if !self.dirty {
            self.dirty = true;
            dirty.push(key);
        }
    }

    /// Whether the ring will tell when there is something to receive, whatever else is done with the link.
    fn is_watched(&self) -> bool {
        self.armed.is_some_and(|(_, events)| events & libc::POLLIN != 0) && self.link.is_told_by_descriptor()
    }

    /// Whether the next poll will probably wait for so long.
    fn will_wait(&self, time: Duration) -> bool {
        self.waited >= time
            && !self.has_news
            && !self.stalled
            && !self.blocked
            && self.link.is_told_by_descriptor()
    }
}

impl Context {
    /// A link has something to send, or something is expected from it: attend to it every turn.
    #[inline]
    pub(super) fn touch_link(&mut self, key: Key) {
        let Some(entry) = self.links.get_mut(key) else { return };
        entry.last_active = self.now;
        let is_told = self.is_crowded && entry.waited >= HOT_TIME && entry.is_watched();
        if !is_told {
            entry.heat(key, &mut self.hot);
        }
        entry.mark_dirty(key, &mut self.dirty);
    }

    /// A message was queued on a link: it goes at the end of the turn, or, where that costs nothing, with a few others, so
    /// that the peer begins while this side goes on. It goes now if no other is in sight (`is_last`): the peer waits for it.
    #[inline]
    pub(super) fn message_queued(&mut self, key: Key, is_last: bool) {
        let Some(entry) = self.links.get_mut(key) else { return };
        // A link that is not polled may have to be, for what is left.
        if entry.hot && !entry.blocked && entry.link.is_flushed_early(is_last) {
            entry.last_active = self.now;
            self.flush_link(key, Flushing::Early);
        }
        self.touch_link(key);
    }

    /// A poll in the ring has fired.
    pub(super) fn link_ready(&mut self, index: u32, stamp: u32) {
        let Some(key) = self.links.key_at(index) else { return };
        let Some(entry) = self.links.get_mut(key) else { return };
        if entry.armed.is_none_or(|(armed, _)| armed != stamp) {
            return;
        }
        entry.armed = None;
        entry.link.descriptor_is_ready();
        self.rouse_link(key);
    }

    /// A wait on a link's word has ended, so or so.
    pub(super) fn word_ready(&mut self, index: u32, stamp: u32, result: i32) {
        let Some(key) = self.links.key_at(index) else { return };
        let Some(entry) = self.links.get_mut(key) else { return };
        if entry.word != Some(stamp) {
            return;
        }
        entry.word = None;
        // Woken; rung before it waited; the thread that armed it has ended. Else memory that can't be reached.
        entry.word_failed = !matches!(-result, 0 | libc::EAGAIN | libc::EINTR | libc::ECANCELED);
        self.rouse_link(key);
    }

    /// The ring has told of a link.
    fn rouse_link(&mut self, key: Key) {
        let Some(entry) = self.links.get_mut(key) else { return };
        entry.has_news = true;
        self.crowd += 1;
        entry.waited = self.now.saturating_duration_since(entry.armed_at);
        entry.last_active = self.now;
        if entry.blocked {
            entry.mark_dirty(key, &mut self.dirty);
        }
        entry.heat(key, &mut self.hot);
    }

    /// Takes what the hot links have brought, those first that have waited longest. Before a sleep (`sleeps`), those that
    /// will probably bring nothing are left to the ring.
    pub(super) fn receive_hot(&mut self, sleeps: bool) {
        let few = self.hot.len() <= HOT_LINKS_FREE;
        self.look_at_crowd();
        let mut brought = 0;
        for _ in 0..self.hot.len() {
            if self.events.len() >= EVENTS_HIGH_WATER || brought >= BRINGING_LINKS_MAX {
                break;
            }
            let Some(key) = self.hot.pop_front() else { break };
            if !few {
                self.prefetch_next();
            }
            if sleeps && self.links.get(key).is_some_and(|entry| entry.will_wait(WAITED_TIME)) {
                self.hot.push_back(key);
                continue;
            }
            if let Some(entry) = self.links.get_mut(key) {
                entry.has_news = false;
            }
            let came = self.receive_link(key);
            brought += usize::from(came);
            // If it has died, `drop_link` has left the list to us.
            let Some(entry) = self.links.get_mut(key) else { continue };
            let stays = if self.is_crowded && came && entry.will_wait(HOT_TIME) {
                false
            } else {
                came || few
                    || entry.stalled
                    || entry.link.readiness().is_none()
                    || self.now.saturating_duration_since(entry.last_active) < HOT_TIME
            };
            if stays || self.arm_link(key) {
                self.hot.push_back(key);
            } else if let Some(entry) = self.links.get_mut(key) {
                entry.hot = false;
            }
        }
    }

    /// Asks for the memory of the links that come next, which has left the caches where they are many. In three steps: where
    /// something lies is read only from what was asked for a step before.
    fn prefetch_next(&self) {
        let entry = |place: usize| self.hot.get(place).and_then(|key| self.links.get(*key));
        if let Some(key) = self.hot.get(2) {
            self.links.prefetch(*key);
        }
        if let Some(next) = entry(1) {
            prefetch(&*next.link);
            if let Role::Connection(connection) = &next.role {
                self.connections.prefetch(*connection);
            }
        }
        if let Some(next) = entry(0) {
            next.link.prefetch();
            if let Role::Connection(connection) = &next.role
                && let Some(state) = self.connections.get(*connection)
            {
                state.requester.prefetch();
                state.responder.prefetch();
            }
        }
    }

    /// Whether many links are active: by how many polls have fired lately. A few links that answer at once make as many.
    fn look_at_crowd(&mut self) {
        if self.now_ns.saturating_sub(self.crowd_since_ns) >= CROWD_TIME_NS {
            self.crowd_since_ns = self.now_ns;
            let has_many = self.links.len() > HOT_LINKS_FREE;
            self.is_crowded = std::mem::take(&mut self.crowd) > HOT_LINKS_FREE && has_many;
        }
    }

    /// A link is polled every turn from now on.
    pub(super) fn heat_link(&mut self, key: Key) {
        if let Some(entry) = self.links.get_mut(key) {
            entry.heat(key, &mut self.hot);
        }
    }

    /// Puts a link's descriptor into the ring, for reading where something is expected, and for writing if it is blocked.
    /// True if there is something to do at once instead.
    pub(super) fn arm_link(&mut self, key: Key) -> bool {
        let Some(entry) = self.links.get_mut(key) else { return false };
        let Some(ring) = &mut self.ring else { return false };
        let Some(fd) = entry.link.readiness() else { return false };
        // What nobody takes must not wake us, again and again.
        let reads = match &entry.role {
            Role::Handshake { .. } => true,
            Role::Offered { .. } | Role::Closing { .. } => false,
            Role::Connection(connection) => {
                self.connections.get(*connection).is_some_and(|state| is_read(state, entry.link.as_ref()))
            }
        };
        let events = match entry.link.arm(reads, entry.blocked) {
            Armed::Wait(events) => events,
            Armed::Ready => return true,
        };
        // A connection's link stays where it is; a wait that outlives its link's stay here would take the next one's bell.
        if ring.waits_on_words()
            && events != 0
            && !entry.word_failed
            && matches!(entry.role, Role::Connection(_))
            && let Some(WakeWord { address, value }) = entry.link.wake_word()
            // One that is there already, and was not woken, is good for this sleep too.
            && entry.word.is_none()
        {
            let stamp = self.stamps.next();
            entry.word = Some(stamp);
            ring.wait_on_word(address, value, Ticket { kind: TicketKind::Word, stamp, index: key.index });
        }
        if let Some((stamp, armed)) = entry.armed {
            if armed == events {
                return false;
            }
            entry.armed = None;
            ring.cancel_poll(Ticket { kind: TicketKind::Link, stamp, index: key.index });
        }
        if events == 0 {
            return false;
        }
        let stamp = self.stamps.next();
        entry.armed = Some((stamp, events));
        entry.armed_at = self.now;
        ring.poll(fd, events, Ticket { kind: TicketKind::Link, stamp, index: key.index });
        false
    }

    /// Before sleeping: everything hot goes into the ring, but for links that have to be polled, or have something to do
    /// already.
    pub(super) fn arm_hot(&mut self) -> Awaited {
        let mut awaited = Awaited::Ring;
        for _ in 0..self.hot.len() {
            let Some(key) = self.hot.pop_front() else { break };
            let Some(entry) = self.links.get_mut(key) else { continue };
            if entry.stalled || entry.link.readiness().is_none() {
                awaited = awaited.max(Awaited::Time);
                self.hot.push_back(key);
            } else if self.arm_link(key) {
                awaited = Awaited::Nothing;
                self.hot.push_back(key);
            } else if let Some(entry) = self.links.get_mut(key) {
                entry.hot = false;
            }
        }
        awaited
    }

    /// Takes a poll back. The ring holds the descriptor's file until then, so that a socket closed meanwhile would stay
    /// open: the cancel is submitted at once.
    pub(super) fn disarm(&mut self, stamp: Option<u32>, index: u32, kind: TicketKind) {
        if let (Some(stamp), Some(ring)) = (stamp, &mut self.ring) {
            let ticket = Ticket { kind, stamp, index };
            match kind {
                TicketKind::Word => ring.cancel(ticket),
                _ => ring.cancel_poll(ticket),
            }
            // What is left in the queue goes with the next turn.
            let _ = ring.submit();
        }
    }
}
