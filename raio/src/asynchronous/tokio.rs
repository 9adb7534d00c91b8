//! tokio as the reactor.

use super::{AsyncFile, Reactor};
use crate::{OpenOptions, Result};
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

impl Reactor for AsyncFd<OwnedFd> {
    fn drive(&self, context: &mut Context<'_>, turn: &mut dyn FnMut() -> bool) -> io::Result<()> {
        while let Poll::Ready(guard) = self.poll_read_ready(context) {
            let mut guard = guard?;
            if !turn() {
                guard.clear_ready();
            }
        }
        Ok(())
    }
}

impl AsyncFile {
    /// Connects to the server of a uri and opens the file that it names. Looking up a host's name may block for a moment;
    /// nothing else does.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    pub async fn open(uri: &str, options: &OpenOptions) -> Result<AsyncFile> {
        AsyncFile::open_with(uri, options, watch).await
    }
}

#[expect(unsafe_code, reason = "tokio's registration of a descriptor is unsafe")]
fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` stays open, and gives the same descriptor, until the `AsyncFd` that owns it is dropped, which
    // ends the registration first.
    let registered = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
    registered.map_err(io::Error::from)
}
