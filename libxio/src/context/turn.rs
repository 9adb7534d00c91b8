//! The loop: a turn runs what is ready, polls the hot links, and submits; `wait` takes turns until there is an event,
//! polling for the spin budget, then sleeping in the ring.

use super::Context;
use super::attention::Awaited;
use super::connection::Phase;
use super::event::Event;
use super::handle::Post;
use super::handles::TimerId;
use super::links::{Flushing, Role};
use crate::reactor::{Ticket, TicketKind};
use crate::session::{Keepalive, KeepaliveAction};
use crate::transport::OutgoingFrame;
use crate::wire::{FrameKind, LoopKind};
use crate::{Error, Result};
use std::time::{Duration, Instant};

/// Posts taken per turn, so that a busy poster does not starve the links.
const POSTS_PER_TURN: usize = 256;
/// Looks at memory between two polling turns, shared by the links.
const LOOKS: usize = 96;
/// Before every so many looks the processor pauses, and looks at what else there may be in memory. A pause is as long as
/// ten looks, and what comes meanwhile is seen after it.
const LOOKS_AT_A_TIME: usize = 16;
/// A wait that begins so soon after a turn looks at memory first: an answer is taken without a whole turn, while other
/// sources wait no longer than this.
const TURN_REST_NS: u64 = 10_000;
/// An application that comes back so soon after a turn goes on as soon with what this one brings: about what a sleep and a
/// wake cost.
const PROMPT_NS: u64 = 100_000;
/// Longest sleep while some link can only be polled, or waits for memory.
const POLL_INTERVAL: Duration = Duration::from_millis(1);
/// Bounds of the time between two looks at deadlines.
const SWEEP_MIN: Duration = Duration::from_millis(5);
const SWEEP_MAX: Duration = Duration::from_millis(500);
/// With less than one of so many parts of the pool free, memory is scarce.
const SCARCE_PARTS: usize = 4;
/// Time that a context being dropped gives its file operations to end.
const OPERATIONS_END_TIME: Duration = Duration::from_secs(5);

impl Context {
    /// Runs turns until there is an event or the time is over, and returns the number of events ready. `None` waits
    /// without limit. With zero it takes one turn, and, for a context driven from outside (see [`Context::poll_fd`]),
    /// leaves everything armed.
    ///
    /// What was queued is sent. Of messages over TCP that fill more than a packet (64 KiB), a rest of less than half of one may
    /// still wait when this returns with events: it goes with what the application, if it has come back at once lately, sends
    /// next. The next wait sends it in any case, [`Context::flush`] now: for who goes away with messages on their way.
    ///
    /// # Errors
    /// The ring fails, or a pinned context is used by another thread.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<usize> {
        self.waker.disarm();
        if !self.events.is_empty() {
            self.flush()?;
            return Ok(self.events.len());
        }
        // Begins at its front again: the same few lines of cache, however long the queue has room to be.
        self.events.clear();
        // The peer need not wait for our clock.
        let rests_wait =
            self.is_prompt && timeout != Some(Duration::ZERO) && !self.stopping && self.spin.polls();
        self.flush_dirty(if rests_wait { Flushing::Packets } else { Flushing::All });
        let started = self.options.clock.now();
        self.set_now(started);
        self.is_prompt = self.now_ns.saturating_sub(self.turned_ns) < PROMPT_NS;
        self.resume_keepalive();
        let outcome = self.wait_from(started, timeout);
        self.pause_keepalive();
        outcome
    }

    fn wait_from(&mut self, started: Instant, timeout: Option<Duration>) -> Result<usize> {
        let deadline = timeout.and_then(|timeout| started.checked_add(timeout));
        // Who does not wait does not poll either, and takes no probe from those who do.
        let spin_ns = if timeout == Some(Duration::ZERO) { 0 } else { self.spin.next_ns() };
        let started_ns = self.now_ns;
        // The first turn comes just after the last receive. Once for each sleep: who never comes to sleep looks at all.
        let mut sleeps =
            spin_ns == 0 && timeout != Some(Duration::ZERO) && std::mem::take(&mut self.has_slept);
        // The last turn was a moment ago: whoever answers at once is heard without another one.
        if spin_ns > 0
            && timeout != Some(Duration::ZERO)
            && !self.stopping
            && started_ns.saturating_sub(self.turned_ns) < TURN_REST_NS
            && self.look_out()
        {
            self.receive_hot(false);
        }
        loop {
            if !self.events.is_empty() || self.stopping {
                break;
            }
            self.turn(sleeps)?;
            if !self.events.is_empty() || self.stopping {
                break;
            }
            let looked = !std::mem::take(&mut sleeps);
            if self.ring.is_none() || timeout == Some(Duration::ZERO) {
                if self.driven_outside {
                    self.arm_for_outside()?;
                }
                return Ok(self.events.len());
            }
            if deadline.is_some_and(|deadline| self.now >= deadline) {
                if looked {
                    break;
                }
                continue;
            }
            if self.now_ns.saturating_sub(started_ns) < spin_ns {
                // The rest of a turn was done a moment ago: what has come need not wait for it.
                if self.look_out() {
                    self.receive_hot(false);
                } else if !self.ops.is_empty() {
                    // The kernel may do them by threads of its own, which this one would keep from the processor.
                    std::thread::yield_now();
                }
                continue;
            }
            self.sleep(deadline)?;
        }
        if let Some(ring) = &self.ring {
            self.statistics.ring_enters.set(ring.enters());
        }
        let waited_ns = self.now_ns.saturating_sub(started_ns);
        let won = waited_ns < spin_ns && !self.events.is_empty();
        self.spin.waited(waited_ns, spin_ns, won);
        if won {
            self.statistics.spins_won.add(1);
        }
        Ok(self.events.len())
    }

    /// Between two polling turns: looks for what can be seen in memory, each time a small part of a turn. About a
    /// microsecond in all, so that a turn's other sources wait no longer than by a system call. True if a link has
    /// something.
    fn look_out(&mut self) -> bool {
        let looks = LOOKS / self.hot.len().max(1);
        for look in 0..looks {
            let mut is_visible = true;
            for key in &self.hot {
                match self.links.get(*key).map(|entry| entry.link.has_arrived()) {
                    Some(Some(false)) => {}
                    Some(Some(true)) => return true,
                    // It takes a system call to see: that is for a turn.
                    Some(None) | None => is_visible = false,
                }
            }
            if !is_visible {
                return false;
            }
            if look % LOOKS_AT_A_TIME != 0 {
                continue;
            }
            if !self.dirty.is_empty() || self.has_posts() {
                return false;
            }
            if self.ring.as_mut().is_some_and(|ring| ring.has_completions()) {
                return false;
            }
            if look > 0 {
                std::hint::spin_loop();
            }
        }
        false
    }

    /// The next event, if there is one.
    #[inline]
    pub fn next_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front();
        // Whatever the application does next may take its time.
        self.now_is_fresh &= event.is_some();
        event
    }

    /// What [`Context::next_event`] returns next, so far: to get ready for it.
    #[inline]
    #[must_use]
    pub fn peek_event(&self) -> Option<&Event> {
        self.events.front()
    }

    /// Calls the handler for each event, until [`Context::stop`], or [`ContextHandle::stop`](crate::ContextHandle::stop).
    ///
    /// # Errors
    /// As [`Context::wait`].
    pub fn run(&mut self, mut handler: impl FnMut(&mut Context, Event)) -> Result<()> {
        loop {
            if std::mem::take(&mut self.stopping) {
                return self.flush();
            }
            match self.next_event() {
                Some(event) => handler(self, event),
                None => {
                    self.wait(None)?;
                }
            }
        }
    }

    /// Ends [`Context::run`] after the present event.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Whether a stop was asked for, here or by a [`ContextHandle`](crate::ContextHandle), since the last time this was
    /// asked: for loops of one's own. Until it is asked, every `wait` returns at once.
    pub fn stopped(&mut self) -> bool {
        std::mem::take(&mut self.stopping)
    }

    /// Hands everything queued to the transports and the ring, without blocking. `wait` does the same.
    ///
    /// # Errors
    /// The ring fails.
    pub fn flush(&mut self) -> Result<()> {
        self.flush_dirty(Flushing::All);
        match &mut self.ring {
            Some(ring) => ring.submit(),
            None => Ok(()),
        }
    }

    /// A turn; `sleeps` if a sleep follows unless it brings something.
    fn turn(&mut self, sleeps: bool) -> Result<()> {
        self.statistics.turns.add(1);
        self.turned_ns = self.now_ns;
        self.take_posts();
        self.answer_dropped();
        self.unpin_released();
        self.take_completions();
        self.accept_ready();
        self.receive_hot(sleeps);
        // Who has events goes on with them at once, by the clock of the last look: one is 20 to 50 ns.
        if self.events.is_empty() {
            self.look_at_clock();
        }
        self.expire();
        let all_goes = self.events.is_empty() || self.stopping;
        self.flush_dirty(if all_goes { Flushing::All } else { Flushing::Others });
        if let Some(ring) = &mut self.ring
            && ring.has_submissions()
        {
            ring.submit()?;
        }
        Ok(())
    }

    pub(super) fn look_at_clock(&mut self) {
        self.set_now(self.options.clock.now());
    }

    fn set_now(&mut self, now: Instant) {
        self.now = now;
        self.now_is_fresh = true;
        // Enough for 584 years.
        self.now_ns = now.saturating_duration_since(self.made).as_nanos() as u64;
    }

    fn take_posts(&mut self) {
        let stopping = self.waker.is_stopping();
        // Taking from an empty queue is a memory fence, each turn.
        if self.inbox.is_empty() && !stopping {
            return;
        }
        for _ in 0..POSTS_PER_TURN {
            match self.inbox.try_recv() {
                Ok(Post::Run(closure)) => closure(self),
                Ok(Post::Message { token, payload }) => {
                    self.events.push_back(Event::Message { token, payload })
                }
                Ok(Post::Adopt(adoption)) => self.adopt(*adoption),
                // The context holds a sender itself, so it is only ever empty.
                Err(_) => {
                    if stopping {
                        self.waker.stop_taken();
                        self.stopping = true;
                    }
                    break;
                }
            }
        }
    }

    /// Whether something came from elsewhere since the last turn.
    fn has_posts(&self) -> bool {
        !self.inbox.is_empty()
            || !self.records.dropped.queue.is_empty()
            || self.fixed.has_released()
            || self.waker.is_stopping()
    }

    fn take_completions(&mut self) {
        let Some(ring) = &mut self.ring else { return };
        if !ring.has_completions() {
            return;
        }
        while let Some((ticket, result)) = self.ring.as_mut().and_then(|ring| ring.next_completion()) {
            let Ticket { kind, stamp, index } = ticket;
            match kind {
                TicketKind::Link => self.link_ready(index, stamp),
                TicketKind::Listener => self.listener_ready(index, stamp),
                TicketKind::Descriptor => self.fd_ready(index, stamp, result),
                TicketKind::File => self.op_completed(index, stamp, result),
                TicketKind::Wake => {
                    if self.waker_armed == Some(stamp) {
                        self.waker_armed = None;
                        self.waker.drain();
                    }
                }
                TicketKind::Timeout => {
                    if self.outside_timeout.is_some_and(|(armed, _)| armed == stamp) {
                        self.outside_timeout = None;
                    }
                }
                TicketKind::Word => self.word_ready(index, stamp, result),
                TicketKind::Ignored => {}
            }
        }
    }

    fn listener_ready(&mut self, index: u32, stamp: u32) {
        if let Some(key) = self.servers.key_at(index)
            && let Some(server) = self.servers.get_mut(key)
            && server.armed == Some(stamp)
        {
            server.armed = None;
            server.ready = true;
        }
    }

    /// Timers, and now and then every deadline.
    fn expire(&mut self) {
        while let Some((key, token)) = self.timers.expire(self.now) {
            self.events.push_back(Event::Timer { id: TimerId::new(self.number, key), token });
        }
        if self.next_expiry.is_some_and(|at| at <= self.now) {
            self.expire_requests();
        }
        if self.now >= self.next_sweep {
            let since = self.now.saturating_duration_since(std::mem::replace(&mut self.last_sweep, self.now));
            self.next_sweep = self.now + self.sweep_interval();
            self.sweep_links();
            self.sweep_connections();
            self.sweep_arrivals(since);
            for server in self.servers.iter_mut() {
                server.ready |= server.armed.is_none();
            }
        }
    }

    fn sweep_interval(&self) -> Duration {
        let mut shortest = SWEEP_MAX * 10;
        for time in [self.options.keepalive, self.options.connect_timeout] {
            if !time.is_zero() {
                shortest = shortest.min(time);
            }
        }
        for server in self.servers.iter() {
            shortest = shortest.min(server.options.handshake_timeout);
        }
        (shortest / 10).clamp(SWEEP_MIN, SWEEP_MAX)
    }

    fn sweep_links(&mut self) {
        for index in 0..self.links.index_end() {
            let Some(key) = self.links.key_at(index) else { continue };
            let Some(entry) = self.links.get(key) else { continue };
            match entry.role {
                Role::Handshake { deadline, .. } if deadline <= self.now => {
                    self.handshake_failed(key, "it did not say hello in time");
                }
                Role::Offered { deadline, .. } if deadline <= self.now => {
                    self.refuse_link(key, crate::RejectReason::Busy, &[]);
                }
                Role::Closing { deadline } if deadline <= self.now => self.drop_link(key),
                _ => {}
            }
        }
    }

    fn sweep_connections(&mut self) {
        for index in 0..self.connections.index_end() {
            let Some(key) = self.connections.key_at(index) else { continue };
            let Some(state) = self.connections.get_mut(key) else { continue };
            let link = state.link;
            match state.phase {
                Phase::Connecting { deadline } => {
                    if deadline <= self.now {
                        let silent_ms = millis(self.options.connect_timeout);
                        let reason = Error::TimedOut { peer: state.peer.clone(), silent_ms };
                        self.lose(key, reason);
                    }
                }
                Phase::Closing { deadline } => {
                    if deadline <= self.now {
                        self.lose(key, Error::ClosedLocally);
                    }
                }
                // The peer may have said much; this side has no memory to hear it.
                Phase::Open if self.links.get(link).is_some_and(|entry| entry.stalled) => {
                    state.keepalive.heard(self.now);
                }
                Phase::Open => match state.keepalive.poll(self.now) {
                    KeepaliveAction::Wait(_) => {}
                    KeepaliveAction::Ping => {
                        let head = state.frame(FrameKind::Ping);
                        self.send_frame(link, OutgoingFrame::bare(head));
                    }
                    // What has arrived is taken before the verdict: the link is polled in the coming turns, and the
                    // next sweep judges.
                    KeepaliveAction::Dead(_) if !state.suspected => {
                        state.suspected = true;
                        self.touch_link(link);
                        self.heat_link(link);
                    }
                    KeepaliveAction::Dead(silence) => {
                        let reason = Error::TimedOut { peer: state.peer.clone(), silent_ms: millis(silence) };
                        self.lose(key, reason);
                    }
                },
            }
        }
    }

    /// Gives up peers that hold memory with data which they began to send and do not go on with.
    fn sweep_arrivals(&mut self, since: Duration) {
        let (used, most) = (self.pool.bytes_in_use(), self.pool.bytes_max());
        let mut lease = self.options.lease;
        if used >= most - most / SCARCE_PARTS && !self.options.keepalive.is_zero() {
            lease = lease.min(self.options.keepalive);
        }
        for index in 0..self.connections.index_end() {
            let Some(key) = self.connections.key_at(index) else { continue };
            let Some(state) = self.connections.get_mut(key) else { continue };
            let Some(arrival) = &mut state.arrival else { continue };
            if let Some(lasted) = arrival.look(since, lease) {
                let (peer, length) = (state.peer.clone(), arrival.length());
                tracing::warn!(peer, length, "a peer does not go on with data that it began to send");
                self.lose(key, Error::Stalled { peer, length, waited_ms: millis(lasted) });
            }
        }
    }

    /// The loop runs again: silence counts from here. Most times the caller was away for so short that no connection
    /// has to know of it.
    fn resume_keepalive(&mut self) {
        let Some(left) = self.left_at.take() else { return };
        let limit = self.options.keepalive;
        if limit.is_zero() || self.now.saturating_duration_since(left) < Keepalive::absence_min(limit) {
            return;
        }
        for state in self.connections.iter_mut() {
            state.keepalive.pause(left);
            state.keepalive.resume(self.now);
        }
    }

    fn pause_keepalive(&mut self) {
        if self.options.loop_kind == LoopKind::Caller {
            self.left_at = Some(self.now);
        }
    }

    /// When this context has something to do by the clock.
    fn next_deadline(&mut self) -> Option<Instant> {
        let timer = self.timers.next();
        let busy = !self.links.is_empty() || !self.servers.is_empty() || !self.connections.is_empty();
        let sweep = busy.then_some(self.next_sweep);
        timer.into_iter().chain(sweep).chain(self.next_expiry).min()
    }

    /// Sleeps in the ring until something happens, with everything armed.
    fn sleep(&mut self, deadline: Option<Instant>) -> Result<()> {
        let awaited = self.arm_everything();
        self.waker.arm();
        if awaited == Awaited::Nothing || self.has_posts() {
            self.waker.disarm();
            return Ok(());
        }
        let wake_at = self.next_deadline().into_iter().chain(deadline).min();
        let mut time = wake_at.map(|at| at.saturating_duration_since(self.options.clock.now()));
        if awaited == Awaited::Time {
            time = Some(time.map_or(POLL_INTERVAL, |time| time.min(POLL_INTERVAL)));
        }
        self.statistics.sleeps.add(1);
        self.has_slept = true;
        let outcome = match &mut self.ring {
            Some(ring) => {
                self.near_timer.before_sleep(self.now_ns);
                ring.wait(time)
            }
            None => Ok(()),
        };
        self.waker.disarm();
        self.look_at_clock();
        outcome
    }

    /// Puts into the ring whatever can wake us.
    fn arm_everything(&mut self) -> Awaited {
        let mut awaited = self.arm_hot();
        if self.sends_at_once() {
            awaited = Awaited::Nothing;
        }
        if self.servers.iter().any(|server| server.ready) {
            awaited = awaited.max(Awaited::Time);
        }
        let Some(ring) = &mut self.ring else { return Awaited::Time };
        if self.waker_armed.is_none() {
            use std::os::fd::AsRawFd;
            let stamp = self.stamps.next();
            self.waker_armed = Some(stamp);
            let doorbell = self.waker.doorbell().as_raw_fd();
            ring.poll(doorbell, libc::POLLIN, Ticket { kind: TicketKind::Wake, stamp, index: 0 });
        }
        awaited
    }

    /// Leaves the context so that its descriptor becomes readable when there is something to do.
    fn arm_for_outside(&mut self) -> Result<()> {
        let awaited = self.arm_everything();
        let mut wake_at = self.next_deadline();
        if awaited == Awaited::Time {
            let soon = self.now + POLL_INTERVAL;
            wake_at = Some(wake_at.map_or(soon, |at| at.min(soon)));
        }
        if self.outside_timeout.map(|(_, at)| at) != wake_at {
            if let (Some((stamp, _)), Some(ring)) = (self.outside_timeout.take(), &mut self.ring) {
                ring.cancel_timeout(Ticket { kind: TicketKind::Timeout, stamp, index: 0 });
                ring.submit()?;
            }
            if let (Some(at), Some(ring)) = (wake_at, &mut self.ring) {
                let stamp = self.stamps.next();
                let time = at.saturating_duration_since(self.now);
                ring.timeout(time, Ticket { kind: TicketKind::Timeout, stamp, index: 0 });
                self.outside_timeout = Some((stamp, at));
            }
        }
        self.waker.arm();
        if awaited == Awaited::Nothing || self.has_posts() {
            // Ring our own bell: the outer loop comes straight back.
            self.waker.wake();
        }
        match &mut self.ring {
            Some(ring) => ring.submit(),
            None => Ok(()),
        }
    }

    /// Cancels file operations and waits for their end, for a bounded time.
    pub(super) fn end_operations(&mut self) {
        if self.ops.is_empty() {
            return;
        }
        let deadline = Instant::now() + OPERATIONS_END_TIME;
        self.cancel_operations();
        while !self.ops.is_empty() && Instant::now() < deadline {
            if let Some(ring) = &mut self.ring
                && ring.wait(Some(Duration::from_millis(50))).is_err()
            {
                break;
            }
            self.take_completions();
        }
        if !self.ops.is_empty() {
            tracing::error!(
                operations = self.ops.len(),
                "file operations do not end: their memory is left to them"
            );
            std::mem::forget(std::mem::replace(&mut self.ops, crate::reactor::Slab::new()));
        }
    }
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
