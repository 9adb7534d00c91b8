//! A client's session: what its connections share.

use super::handle::Post;
use super::{Connection, Context};
use crate::Uri;
use crate::reactor::Outbox;
use crate::wire::SessionId;
use std::sync::{Arc, Mutex, PoisonError};

/// The long-lived dialogue with one remote resource. Clone it (it is `Send` and `Sync`) to open connections from several
/// threads, one per context as a rule: the first connection makes the session at the server, others join it (and wait
/// for the first while it is being set up). When
/// the last connection has closed, the session is over; the next connection makes a new one.
///
/// ```
/// use libxio::{ConnectionOptions, Context, ContextOptions, Error, Event, Session};
///
/// # fn main() -> libxio::Result<()> {
/// // Nobody listens there, which the connection says when it ends.
/// let session = Session::new("tcp://127.0.0.1:1/data".parse()?);
/// let mut context = Context::new(ContextOptions::default())?;
/// context.connect(&session, ConnectionOptions::default())?;
/// while context.wait(None)? == 0 {}
/// let Some(Event::Closed { reason, .. }) = context.next_event() else { panic!("it is over") };
/// assert!(matches!(reason, Error::ConnectFailed { .. }));
/// assert_eq!(session.id(), None);
/// # Ok(())
/// # }
/// ```
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
    /// Where a redirect has led.
    moved_to: Option<Uri>,
    /// Connections open or being opened, without those that wait.
    connections: u32,
    /// Connections begun so far.
    opened: u64,
    /// Connections that wait until the first one has made the session, and their contexts.
    waiting: Vec<(Outbox<Post>, Connection)>,
}

/// What a session is made of; see [`Session::statistics`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStatistics {
    /// Now: connections open or being opened, over all contexts.
    pub connections: u32,
    /// Now: connections that wait until the first one has made the session.
    pub waiting: u32,
    /// Connections begun so far, failed ones among them.
    pub connections_begun: u64,
    /// Whether a server has redirected it.
    pub redirected: bool,
}

/// A session as the server knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub session: SessionId,
    pub key: [u8; 16],
}

/// How a connection may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning {
    /// It makes the session.
    First,
    /// It joins the session.
    Join(Identity),
    /// The first connection is being set up: its context will be told.
    Wait,
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

    /// Where its connections go: its uri, unless a server has redirected it.
    #[must_use]
    pub fn address(&self) -> Uri {
        self.state().moved_to.clone().unwrap_or_else(|| self.inner.uri.clone())
    }

    /// The server's name for it, once a connection is established.
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        self.state().identity.map(|identity| identity.session)
    }

    /// What it is made of now. What flows is counted by connection and context.
    #[must_use]
    pub fn statistics(&self) -> SessionStatistics {
        let state = self.state();
        SessionStatistics {
            connections: state.connections,
            waiting: state.waiting.len() as u32, // one for each connect of this process
            connections_begun: state.opened,
            redirected: state.moved_to.is_some(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection begins, or has to wait for the first one.
    pub(crate) fn begin_connection(&self, context: &Outbox<Post>, connection: Connection) -> Beginning {
        let mut state = self.state();
        match state.identity {
            Some(identity) => {
                state.connections += 1;
                state.opened += 1;
                Beginning::Join(identity)
            }
            None if state.connections > 0 => {
                state.waiting.push((context.clone(), connection));
                Beginning::Wait
            }
            None => {
                state.connections = 1;
                state.opened += 1;
                Beginning::First
            }
        }
    }

    /// Whether a redirect may be followed: only by the connection that makes the session.
    pub(crate) fn redirect(&self, uri: &Uri) -> bool {
        let mut state = self.state();
        let first = state.identity.is_none();
        if first {
            state.moved_to = Some(uri.clone());
        }
        first
    }

    pub(crate) fn established(&self, identity: Identity) {
        let waiting = {
            let mut state = self.state();
            state.identity = Some(identity);
            std::mem::take(&mut state.waiting)
        };
        wake(waiting);
    }

    pub(crate) fn end_connection(&self) {
        let waiting = {
            let mut state = self.state();
            state.connections = state.connections.saturating_sub(1);
            if state.connections > 0 {
                return;
            }
            state.identity = None;
            state.moved_to = None;
            std::mem::take(&mut state.waiting)
        };
        wake(waiting);
    }
}

/// Connections that waited begin again, each in its context. One whose context takes no post ends by its time limit.
fn wake(waiting: Vec<(Outbox<Post>, Connection)>) {
    for (context, connection) in waiting {
        let begin = Box::new(move |context: &mut Context| context.begin_waiting(connection));
        if let Err(error) = context.post(Post::Run(begin)) {
            tracing::debug!(%error, "a connection that waited for its session is gone");
        }
    }
}
