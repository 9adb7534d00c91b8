//! The descriptor of `raio_poll_fd`: readable when there may be something to reap.
//!
//! The ring's own descriptor says that the network has brought something, but completions that a call has taken up
//! already would be missed. So an epoll descriptor stands for two: the ring, and a bell that is rung as long as
//! completions wait.

use crate::errno::Errno;
use crate::fork::PrivateFd;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

#[derive(Debug)]
pub(crate) struct Notifier {
    epoll: PrivateFd,
    bell: PrivateFd,
    rung: bool,
}

impl Notifier {
    /// `ring` stays open as long as the notifier.
    pub(crate) fn new(ring: BorrowedFd<'_>) -> Result<Notifier, Errno> {
        let epoll = PrivateFd::make(|| epoll::create(CreateFlags::CLOEXEC))?;
        let bell = PrivateFd::make(|| eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK))?;
        for source in [ring, bell.as_fd()] {
            epoll::add(&epoll, source, EventData::new_u64(0), EventFlags::IN)?;
        }
        Ok(Notifier { epoll, bell, rung: false })
    }

    /// The descriptor to wait on.
    pub(crate) fn fd(&self) -> RawFd {
        self.epoll.as_fd().as_raw_fd()
    }

    /// Rings the bell, or takes that back.
    pub(crate) fn set(&mut self, ring: bool) {
        if ring == self.rung {
            return;
        }
        self.rung = ring;
        let mut count = 1_u64.to_ne_bytes();
        // The counter is 0 before and 1 after, or the reverse: neither call blocks.
        let _ = if ring {
            rustix::io::write(&self.bell, &count)
        } else {
            rustix::io::read(&self.bell, &mut count)
        };
    }
}
