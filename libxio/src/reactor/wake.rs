//! The way in from other threads: a bounded inbox, and an eventfd that is written only while the context sleeps.
//!
//! The sleeper sets `asleep`, then looks at the inbox once more; a poster puts its post in, then looks at `asleep`.
//! Both sides use sequentially consistent order, so at least one of them sees the other (Dekker's argument).

use crate::{Error, Result};
use crossbeam_channel::{Receiver, Sender, TrySendError};
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Posts that may wait in a context's inbox.
pub(crate) const POSTS_MAX: usize = 16_384;

/// Shared by a context and its handles.
#[derive(Debug)]
pub(crate) struct Waker {
    doorbell: OwnedFd,
    asleep: AtomicBool,
    /// The loop shall end once what was posted before has run. A flag, so that it needs no room in the inbox.
    stop: AtomicBool,
}

impl Waker {
    pub(crate) fn new() -> Result<Arc<Waker>> {
        let doorbell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| Error::system("making an eventfd", &errno.into()))?;
        Ok(Arc::new(Waker { doorbell, asleep: AtomicBool::new(false), stop: AtomicBool::new(false) }))
    }

    /// The context is about to sleep; it has to look at its inbox once more.
    pub(crate) fn arm(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The context is awake: no need to ring.
    pub(crate) fn disarm(&self) {
        if self.asleep.load(Ordering::Relaxed) {
            self.asleep.store(false, Ordering::SeqCst);
        }
    }

    /// Rings if the context sleeps. Call it after the post is in.
    pub(crate) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.swap(false, Ordering::SeqCst) {
            // It can fail only by a full counter, which rings as well.
            let _ = rustix::io::write(&self.doorbell, &1_u64.to_ne_bytes());
        }
    }

    /// Asks for the end of the loop.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether the end was asked for; what was posted before that is in the inbox.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// The end was taken notice of.
    pub(crate) fn stop_taken(&self) {
        self.stop.store(false, Ordering::Relaxed);
    }

    /// Takes the ring back.
    pub(crate) fn drain(&self) {
        let mut count = [0; 8];
        // WouldBlock: somebody else took it, which is fine.
        let _ = rustix::io::read(&self.doorbell, &mut count);
    }

    pub(crate) fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }
}

/// The sending end of an inbox.
#[derive(Debug)]
pub(crate) struct Outbox<T> {
    sender: Sender<T>,
    waker: Arc<Waker>,
}

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Outbox { sender: self.sender.clone(), waker: Arc::clone(&self.waker) }
    }
}

impl<T> Outbox<T> {
    pub(crate) fn post(&self, post: T) -> Result<()> {
        match self.sender.try_send(post) {
            Ok(()) => {
                self.waker.wake();
                Ok(())
            }
            Err(TrySendError::Full(_)) => Err(Error::InboxFull(POSTS_MAX)),
            Err(TrySendError::Disconnected(_)) => Err(Error::StaleHandle("context")),
        }
    }

    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    pub(crate) fn stop(&self) {
        self.waker.stop();
    }
}

/// An inbox and the end that other threads hold.
pub(crate) fn inbox<T>(waker: &Arc<Waker>) -> (Receiver<T>, Outbox<T>) {
    let (sender, receiver) = crossbeam_channel::bounded(POSTS_MAX);
    (receiver, Outbox { sender, waker: Arc::clone(waker) })
}
