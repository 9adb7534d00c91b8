//! Connections from the client's side: connect, wait for the session, follow redirects.

use super::Context;
use super::connection::{ConnectionState, NO_LINK, Phase, Side};
use super::handles::Connection;
use super::links::{LinkEntry, Role};
use super::options::ConnectionOptions;
use super::options::{check_limits, check_private_data};
use super::session::{Beginning, Identity, Session};
use crate::reactor::Key;
use crate::transport::OutgoingFrame;
use crate::wire::{
    FEATURE_CRC, FEATURE_PLACEMENT, FrameHead, FrameKind, Hello, RejectReason, SessionId, VERSION,
    VERSION_MIN, Violation,
};
use crate::{Error, Result, Sgl, Uri};

/// Redirects that a connection follows one after another; servers that send each other's clients around are found so.
const REDIRECTS_MAX: u8 = 4;

impl Context {
    /// Starts to open a connection of a session; ends in [`Event::Connected`](crate::Event::Connected) or
    /// [`Event::Closed`](crate::Event::Closed). The first connection of a session makes it; another one that is begun
    /// in the meantime, on any thread, waits and then joins. Looking the host's name up may block.
    ///
    /// # Errors
    /// What is known at once: a bad uri, an unknown transport or host, limits out of range.
    pub fn connect(&mut self, session: &Session, options: ConnectionOptions) -> Result<Connection> {
        check_private_data(&options.private_data)?;
        let limits = options.limits.unwrap_or(self.options.limits);
        check_limits(&limits)?;
        let uri = concrete(options.via.clone().unwrap_or_else(|| session.address()));
        self.transport(uri.scheme())?;
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION,
            // Those of the link.
            features: 0,
            loop_kind: self.options.loop_kind,
            session: SessionId::default(),
            session_key: [0; 16],
            connection: 0,
            limits,
            resource: uri.resource().to_owned(),
            private_data: options.private_data,
        };
        hello.validate().map_err(|violation| Error::Protocol { peer: "this side".into(), violation })?;
        self.look_at_clock();
        let phase = Phase::Connecting { deadline: self.now + self.options.connect_timeout };
        let side = Side::Waiting(session.clone());
        let mut state = ConnectionState::new(NO_LINK, phase, uri.to_string(), limits, side, self.now);
        state.crc = self.options.crc;
        state.via = options.via;
        state.hello = Some(Box::new(hello));
        let key = self.connections.insert(state);
        let handle = Connection::new(self.number, key);
        if let Some(state) = self.connections.get_mut(key) {
            state.handle = handle;
        }
        if let Err(error) = self.begin_connection(key) {
            self.connections.remove(key);
            return Err(error);
        }
        self.statistics.connections.add(1);
        self.statistics.connections_opened.add(1);
        Ok(handle)
    }

    /// The first connection of the session is made, or has failed: this one may go on.
    pub(super) fn begin_waiting(&mut self, connection: Connection) {
        let Some(key) = connection.key(self.number) else { return };
        if let Err(error) = self.begin_connection(key) {
            self.lose(key, error);
        }
    }

    fn begin_connection(&mut self, key: Key) -> Result<()> {
        let Some(state) = self.connections.get_mut(key) else { return Ok(()) };
        let Side::Waiting(session) = &state.side else { return Ok(()) };
        let session = session.clone();
        let identity = match session.begin_connection(&self.outbox, state.handle) {
            Beginning::First => None,
            Beginning::Join(identity) => Some(identity),
            Beginning::Wait => return Ok(()),
        };
        let uri = state.via.clone().unwrap_or_else(|| session.address());
        // From here on `side` gives the session's count back.
        state.side = Side::Client(session);
        self.open_link(key, uri, identity)
    }

    /// Makes a link to the uri and says hello on it.
    fn open_link(&mut self, key: Key, uri: Uri, identity: Option<Identity>) -> Result<()> {
        let uri = concrete(uri);
        let mut link = self.transport(uri.scheme())?.connect(&uri)?;
        let Some(state) = self.connections.get_mut(key) else { return Ok(()) };
        link.peer().clone_into(&mut state.peer);
        let Some(hello) = &mut state.hello else { return Ok(()) };
        hello.session = identity.map(|identity| identity.session).unwrap_or_default();
        hello.session_key = identity.map(|identity| identity.key).unwrap_or_default();
        uri.resource().clone_into(&mut hello.resource);
        hello.features = if self.options.crc { FEATURE_CRC } else { 0 };
        if link.shares_memory() {
            hello.features |= FEATURE_PLACEMENT;
        }
        hello.validate().map_err(|violation| Error::Protocol { peer: "this side".into(), violation })?;
        let hello_frame = FrameHead::new(FrameKind::Hello);
        link.send(&mut OutgoingFrame::new(hello_frame, &hello.encode(), Sgl::new()));
        let link = self.links.insert(LinkEntry::new(link, Role::Connection(key), self.now));
        state.link = link;
        self.touch_link(link);
        Ok(())
    }

    /// The server says that the resource is elsewhere.
    pub(super) fn follow_redirect(&mut self, key: Key, uri: &str, private_data: Vec<u8>) {
        let Some(state) = self.connections.get_mut(key) else { return };
        let peer = state.peer.clone();
        let Ok(uri) = uri.parse::<Uri>() else {
            let violation = Violation::BadRedirect;
            self.lose(key, Error::Protocol { peer, violation });
            return;
        };
        let Side::Client(session) = &state.side else { return };
        let session = session.clone();
        if state.redirects >= REDIRECTS_MAX || !session.redirect(&uri) {
            self.lose(key, Error::Rejected { peer, reason: RejectReason::Redirected, private_data });
            return;
        }
        state.redirects += 1;
        let old = std::mem::replace(&mut state.link, NO_LINK);
        self.drop_link(old);
        self.statistics.redirects_followed.add(1);
        tracing::debug!(peer, %uri, "redirected");
        if let Err(error) = self.open_link(key, uri, None) {
            self.lose(key, error);
        }
    }
}

/// The best transport that both ends have; with one built in, the choice is made.
fn concrete(uri: Uri) -> Uri {
    if uri.scheme() == "raio" { uri.with_scheme("tcp") } else { uri }
}
