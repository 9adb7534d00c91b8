//! A client's session: what its connections share.

use crate::wire::SessionId;
use crate::{Error, Result, Uri};
use std::sync::{Arc, Mutex, PoisonError};

/// The long-lived dialogue with one remote resource. Clone it (it is `Send` and `Sync`) to open connections from several
/// threads, one per context as a rule: the first connection makes the session at the server, later ones join it. When
/// the last connection has closed, the session is over; the next connection makes a new one.
#[derive(Debug, Clone)]
pub struct Session {
    inner: Arc<SessionShared>,
}

#[derive(Debug)]
struct SessionShared {
    uri: Uri,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the server called it, from the first welcome on.
    identity: Option<Identity>,
    /// Connections open or being opened.
    connections: u32,
}

/// A session as the server knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub session: SessionId,
    pub key: [u8; 16],
}

impl Session {
    /// A session with the resource of a uri. Nothing is sent before its first connection is opened.
    #[must_use]
    pub fn new(uri: Uri) -> Session {
        Session { inner: Arc::new(SessionShared { uri, state: Mutex::default() }) }
    }

    /// Its uri.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        &self.inner.uri
    }

    /// The server's name for it, once a connection is established.
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        self.state().identity.map(|identity| identity.session)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection begins: what its hello has to name.
    pub(crate) fn begin_connection(&self) -> Result<Option<Identity>> {
        let mut state = self.state();
        if state.connections > 0 && state.identity.is_none() {
            return Err(Error::Unsupported(
                "the session's first connection is still being set up: wait for it before opening another",
            ));
        }
        state.connections += 1;
        Ok(state.identity)
    }

    pub(crate) fn established(&self, identity: Identity) {
        self.state().identity = Some(identity);
    }

    pub(crate) fn end_connection(&self) {
        let mut state = self.state();
        state.connections = state.connections.saturating_sub(1);
        if state.connections == 0 {
            state.identity = None;
        }
    }
}
