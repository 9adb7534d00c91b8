//! What a child made by fork(2) has to close: it inherits a context's descriptors, and a connection whose descriptor
//! is open in two processes does not end when one of them does.

use super::Context;
use std::os::fd::{AsRawFd, RawFd};

impl Context {
    /// The descriptors that this context has open for itself: its ring, its doorbell, its timer, and those of its
    /// links. A child made by fork closes them, and does nothing else with its copy of the context: no call, no drop.
    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let ring = self.ring.as_ref().map(|ring| ring.fd());
        let links = self.links.iter().filter_map(|entry| entry.link.readiness());
        let own = [Some(self.waker.doorbell().as_raw_fd()), self.near_timer.fd()];
        ring.into_iter().chain(own.into_iter().flatten()).chain(links)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConnectionOptions, ContextOptions, ServerOptions, Session};

    #[test]
    fn ring_doorbell_timer_and_links_are_named() {
        let mut server = Context::new(ContextOptions::default()).unwrap();
        let listening =
            server.listen(&"tcp://127.0.0.1:0/".parse().unwrap(), ServerOptions::default()).unwrap();
        let uri = server.local_uri(listening).unwrap();
        let mut context = Context::new(ContextOptions::default()).unwrap();
        assert_eq!(context.descriptors().count(), 3);
        context.connect(&Session::new(uri), ConnectionOptions::default()).unwrap();
        let mut descriptors: Vec<_> = context.descriptors().collect();
        descriptors.sort_unstable();
        descriptors.dedup();
        assert_eq!(descriptors.len(), 4);
    }
}
