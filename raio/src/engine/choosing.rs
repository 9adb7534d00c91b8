//! Which transport a `raio:` uri stands for. The connection begins by TCP; a server on the same host names its socket for
//! shared memory in its greeting. The client joins its session there: only the server that it talks to knows the
//! session, which is the proof that the socket is that server's. When it is welcome, the first connection is closed.

use super::{Engine, State};
use crate::Transport;
use crate::proto::{Greeting, decode_portals};
use libxio::{Connection, ConnectionOptions, Session, Uri};

/// What was chosen, and what is on the way.
#[derive(Debug)]
pub(super) struct Choice {
    wanted: Transport,
    /// The transport in use.
    scheme: &'static str,
    why: String,
    session: Option<Session>,
    /// The first connection, with the server's greeting on it, while the second is on its way.
    first: Option<(Connection, Vec<u8>)>,
    /// The choice is made.
    settled: bool,
}

impl Choice {
    /// Where to connect to first.
    pub(super) fn begin(uri: &Uri, wanted: Transport) -> (Uri, Choice) {
        let choice = |scheme, why: &str, settled| Choice {
            wanted,
            scheme,
            why: why.to_owned(),
            session: None,
            first: None,
            settled,
        };
        match uri.scheme() {
            "raio" if wanted == Transport::Tcp => {
                (uri.with_scheme("tcp"), choice("tcp", "the options ask for it", true))
            }
            "raio" => (uri.with_scheme("tcp"), choice("tcp", "nothing better was found", false)),
            "shm" => (uri.clone(), choice("shm", "the uri asks for it", true)),
            "tcp" => (uri.clone(), choice("tcp", "the uri asks for it", true)),
            _ => (uri.clone(), choice("other", "the uri asks for it", true)),
        }
    }

    pub(super) fn with_session(self, session: Session) -> Choice {
        Choice { session: Some(session), ..self }
    }

    pub(super) fn described(&self) -> (&'static str, &str) {
        (self.scheme, &self.why)
    }
}

impl Engine {
    /// The server has accepted a connection: true if the choice is not made yet, and this connection has to wait.
    pub(super) fn move_to_shared_memory(&mut self, private_data: &[u8]) -> bool {
        if let Some((first, _)) = self.choice.first.take() {
            self.choice.scheme = "shm";
            self.choice.why =
                "the server is on this host, and has shown that it knows the session".to_owned();
            // The server lets go of the way that is not used.
            let _ = self.context.close(first);
            return false;
        }
        if std::mem::replace(&mut self.choice.settled, true) {
            return false;
        }
        match self.join_by_shared_memory(private_data) {
            Ok(second) => {
                let first = std::mem::replace(&mut self.connection, second);
                self.choice.first = Some((first, private_data.to_vec()));
                true
            }
            Err(why) if self.choice.wanted == Transport::Shm => {
                self.lose(libxio::Error::Unsupported(why));
                true
            }
            Err(why) => {
                why.clone_into(&mut self.choice.why);
                false
            }
        }
    }

    fn join_by_shared_memory(&mut self, private_data: &[u8]) -> Result<Connection, &'static str> {
        if !self.context.peer_is_local(self.connection).unwrap_or(false) {
            return Err("the server is on another host, or in another network namespace");
        }
        let uris = decode_portals(private_data);
        let via = uris.iter().filter_map(|uri| uri.parse::<Uri>().ok()).find(|uri| uri.scheme() == "shm");
        let via = via.ok_or("the server offers no shared memory")?;
        let session = self.choice.session.clone().ok_or("the session is gone")?;
        let options = ConnectionOptions {
            private_data: Greeting::client().encode().to_vec(),
            via: Some(via.with_resource(crate::proto::RESOURCE)),
            ..ConnectionOptions::default()
        };
        self.context.connect(&session, options).map_err(|error| {
            tracing::debug!(%error, %via, "no shared memory");
            "the server's socket for shared memory can't be reached"
        })
    }

    /// The second connection could not be made: true if the first one does.
    pub(super) fn stay_where_it_is(&mut self, reason: &libxio::Error) -> bool {
        if !matches!(self.state, State::Connecting) || self.choice.wanted == Transport::Shm {
            return false;
        }
        let Some((first, private_data)) = self.choice.first.take() else { return false };
        tracing::debug!(%reason, "no shared memory");
        self.connection = first;
        self.choice.why = format!("by shared memory: {reason}");
        self.connected(&private_data);
        true
    }
}
