//! How a link comes to be: addresses tried one after another, and what the connection manager says of it.

use super::super::cm::{CmEvent, CmEventKind, CmId, ConnectParameters};
use super::super::credit::Credits;
use super::super::domain::{Identity, MESSAGE_BYTES};
use super::super::endpoint::Endpoint;
use super::super::events::{DeviceWatch, Health, take_edges};
use super::super::message::{BadGreeting, Greeting};
use super::{ACK_TIMEOUT_EXPONENT, Phase, READS_MAX, RESOLVE_TIME, RETRY_COUNT, RdmaLink, errno, failure_of};
use crate::transport::LinkError;
use rustix::event::epoll::{self, EventFlags};
use rustix::time as timerfd;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

impl RdmaLink {
    /// Tries the next address; without one, fails with this errno value.
    pub(super) fn resolve_next(&mut self, mut failure: i32) -> io::Result<()> {
        while let Some(address) = self.untried.pop_front() {
            let started = CmId::new().and_then(|id| {
                id.resolve_address(self.source, address, RESOLVE_TIME)?;
                Ok(id)
            });
            match started {
                Ok(id) => {
                    self.id = id;
                    self.phase = Phase::Resolving;
                    return self.wait_for(self.id.fd());
                }
                Err(cause) => failure = cause.raw_os_error().unwrap_or(libc::EIO),
            }
        }
        Err(io::Error::from_raw_os_error(failure))
    }

    /// Makes the queue pair, once the device is known.
    pub(super) fn open(&mut self, identity: Identity) -> io::Result<()> {
        let device = self.id.device().ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
        let port = self.id.port();
        let domain = self.shared.domains.get(device, port, identity, &self.shared.options)?;
        let watch = DeviceWatch::new(device, port);
        let endpoint = Endpoint::new(&self.id, domain)?;
        let completions = endpoint.completion_fd();
        self.endpoint = Some(endpoint);
        if let Some(bell) = watch.bell() {
            self.wait_on(bell, EventFlags::IN | EventFlags::ET)?;
        }
        self.watch = Some(watch);
        self.wait_for(Some(completions))?;
        self.wait_for(Some(device.async_fd()))
    }

    pub(super) fn greeting(&self) -> Greeting {
        let credits = self.endpoint.as_ref().map_or(0, |endpoint| endpoint.window);
        Greeting { credits, message_bytes: MESSAGE_BYTES as u32, notes: self.offers_notes() }
    }

    /// The peer has said what it takes.
    pub(super) fn greeted(&mut self, greeting: Greeting) {
        let window = self.endpoint.as_ref().map_or(0, |endpoint| endpoint.window);
        self.credits = Some(Credits::new(window, greeting.credits));
        self.message_bytes = MESSAGE_BYTES.min(greeting.message_bytes as usize);
        self.has_notes = greeting.notes && self.offers_notes();
    }

    /// The route is known: connect.
    pub(super) fn start_connecting(&mut self) -> io::Result<()> {
        let server =
            self.id.peer_address().ok_or_else(|| io::Error::from_raw_os_error(libc::EADDRNOTAVAIL))?;
        self.id.set_ack_timeout(ACK_TIMEOUT_EXPONENT);
        self.open(Identity::Server(server.ip()))?;
        let own = self.greeting().encode();
        let limits = self.endpoint.as_ref().map(|endpoint| endpoint.domain().limits);
        self.id.connect(&ConnectParameters {
            private_data: &own,
            initiator_depth: limits.map_or(0, |limits| limits.reads_started_max.min(READS_MAX)),
            responder_resources: limits.map_or(0, |limits| limits.reads_served_max.min(READS_MAX)),
            retry_count: RETRY_COUNT,
        })?;
        self.phase = Phase::Connecting;
        Ok(())
    }

    /// Takes what rdma_cm and the device have to say.
    pub(super) fn check_events(&mut self) {
        loop {
            match self.id.next_event() {
                Ok(Some(event)) => self.cm_event(&event),
                Ok(None) => break,
                Err(cause) => {
                    self.die(LinkError::Failed(errno(&cause)));
                    break;
                }
            }
        }
        // Before what was noted is looked at: what is noted later rings again.
        if self.watch.as_mut().is_some_and(DeviceWatch::has_rung)
            && let Err(cause) = take_edges(&self.descriptors)
        {
            self.die(LinkError::Failed(errno(&cause)));
        }
        let grace = self.shared.options.port_down_grace;
        let health = self.watch.as_ref().map_or(Health::Sound, |watch| watch.check(grace));
        let heeded = match health {
            Health::Sound => self.set_alarm(None),
            Health::Down { left } => self.set_alarm(Some(left)),
            Health::Lost(errno) => {
                self.die(LinkError::Failed(errno));
                Ok(())
            }
        };
        if let Err(cause) = heeded {
            self.die(LinkError::Failed(errno(&cause)));
        }
    }

    /// Makes the link's descriptor readable in so much time, or not at all, for a link that sleeps meanwhile.
    fn set_alarm(&mut self, left: Option<Duration>) -> io::Result<()> {
        match (&self.alarm, left) {
            (None, None) => return Ok(()),
            (Some(_), _) => {}
            (None, Some(_)) => {
                let flags = timerfd::TimerfdFlags::CLOEXEC | timerfd::TimerfdFlags::NONBLOCK;
                let alarm = timerfd::timerfd_create(timerfd::TimerfdClockId::Monotonic, flags)?;
                self.wait_for(Some(alarm.as_raw_fd()))?;
                self.alarm = Some(alarm);
            }
        }
        let Some(alarm) = &self.alarm else { return Ok(()) };
        let zero = timerfd::Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = left.map_or(zero, |left| {
            let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
            timerfd::Timespec { tv_sec: seconds, tv_nsec: left.subsec_nanos().max(1).into() }
        });
        // Setting it takes back that it has gone off.
        let timer = timerfd::Itimerspec { it_interval: zero, it_value: value };
        timerfd::timerfd_settime(alarm, timerfd::TimerfdTimerFlags::empty(), &timer)?;
        if left.is_none() {
            // Closing it takes it out of the others.
            self.alarm = None;
        }
        Ok(())
    }

    pub(super) fn cm_event(&mut self, event: &CmEvent) {
        let done = match (event.kind, self.phase) {
            (CmEventKind::AddressResolved, Phase::Resolving) => {
                self.phase = Phase::Routing;
                self.id.resolve_route(RESOLVE_TIME)
            }
            (CmEventKind::RouteResolved, Phase::Routing) => self.start_connecting(),
            (CmEventKind::Established, Phase::Connecting) => match Greeting::decode(&event.private_data) {
                Ok(greeting) => {
                    self.greeted(greeting);
                    self.phase = Phase::Established;
                    self.untried.clear();
                    Ok(())
                }
                Err(_) => Err(io::Error::from_raw_os_error(libc::EPROTO)),
            },
            (CmEventKind::Established, Phase::Accepting) => {
                self.phase = Phase::Established;
                Ok(())
            }
            (CmEventKind::AddressError | CmEventKind::RouteError, _) => {
                self.try_next(failure_of(event.status, libc::EHOSTUNREACH))
            }
            (CmEventKind::Unreachable | CmEventKind::ConnectError, _) => {
                self.try_next(failure_of(event.status, libc::ETIMEDOUT))
            }
            (CmEventKind::Rejected, _) => {
                let errno = match Greeting::decode(&event.private_data) {
                    Err(BadGreeting::Version(_)) => libc::EPROTONOSUPPORT,
                    _ => libc::ECONNREFUSED,
                };
                self.try_next(errno)
            }
            (CmEventKind::Disconnected, _) => {
                self.die(LinkError::Ended);
                Ok(())
            }
            (CmEventKind::DeviceRemoved, _) => {
                if let Some(watch) = &self.watch {
                    watch.removed();
                }
                self.die(LinkError::Failed(libc::ENODEV));
                Ok(())
            }
            (CmEventKind::AddressChanged, _) => {
                self.die(LinkError::Failed(libc::ENETRESET));
                Ok(())
            }
            _ => Ok(()),
        };
        if let Err(cause) = done {
            self.die(LinkError::Failed(errno(&cause)));
        }
    }

    /// This address did not work: the next one, where the host has more.
    pub(super) fn try_next(&mut self, errno: i32) -> io::Result<()> {
        if let Some(endpoint) = self.endpoint.take() {
            endpoint.stop(&self.id, Vec::new());
        }
        let watch = self.watch.take();
        if let Some(bell) = watch.as_ref().and_then(DeviceWatch::bell) {
            // Nobody listens to it any more.
            let _ = epoll::delete(&self.descriptors, bell);
        }
        let outcome = self.resolve_next(errno);
        // The identifier before was of its device.
        drop(watch);
        outcome
    }
}
