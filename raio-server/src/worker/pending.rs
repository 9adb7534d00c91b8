//! Requests that were begun and have not ended: in the ring, or off the loop. Places are used again, so that once warm
//! nothing is allocated.

use super::ClientId;
use super::client::Opened;
use crate::backend::Command;
use crate::offloop::Group;
use libxio::{Connection, Request};

/// A request in progress.
pub(super) struct Pending {
    pub client: ClientId,
    /// Tells whether `client` is still the same.
    pub connection: Connection,
    pub request: Request,
    /// Bytes that count as being read.
    pub bytes: u64,
    pub work: Work,
}

/// What a request in progress does.
pub(super) enum Work {
    /// A command of an open file.
    File(Opened, Command),
    /// An open.
    Open {
        /// The export is read-only.
        read_only: bool,
        /// Of the export's calls off the loop.
        calls: Group,
    },
    /// Another call off the loop.
    Call,
}

/// All of them.
pub(super) struct Table {
    places: Vec<Option<Pending>>,
    vacant: Vec<usize>,
}

impl Table {
    pub(super) fn new() -> Table {
        Table { places: Vec::new(), vacant: Vec::new() }
    }

    /// Its token, for the ring and for calls off the loop.
    pub(super) fn insert(&mut self, pending: Pending) -> u64 {
        if let Some(index) = self.vacant.pop() {
            self.places[index] = Some(pending);
            return index as u64;
        }
        self.places.push(Some(pending));
        self.places.len() as u64 - 1
    }

    /// Takes it out. Each token is heard of once, so it is there.
    pub(super) fn remove(&mut self, token: u64) -> Option<Pending> {
        let index = usize::try_from(token).ok()?;
        let pending = self.places.get_mut(index)?.take()?;
        self.vacant.push(index);
        Some(pending)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.len() == self.vacant.len()
    }
}
