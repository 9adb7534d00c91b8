//! Two contexts, driven in turn from one thread, over any transport: what the conformance suite stands on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "every test file uses its own part")]

use libxio::transport::{Faults, SimNetwork};
use libxio::{
    AcceptOptions, Connection, ConnectionOptions, Context, ContextOptions, Event, OutgoingRequest,
    OutgoingResponse, Request, ServerOptions, Session, Uri,
};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A transport under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Sim { seed: u64, faults: Faults },
    Tcp,
}

/// Every transport that the suite runs on.
pub const KINDS: [Kind; 2] = [Kind::Sim { seed: 1, faults: Faults::NONE }, Kind::Tcp];

/// A client's and a server's context.
pub struct Pair {
    pub client: Context,
    pub server: Context,
    pub uri: Uri,
    pub network: Option<SimNetwork>,
    pub client_events: Vec<Event>,
    pub server_events: Vec<Event>,
    pub listening: libxio::Server,
}

impl Pair {
    pub fn new(kind: Kind) -> Pair {
        Pair::with(kind, |_| {}, |_| {}, ServerOptions::default())
    }

    pub fn with(
        kind: Kind,
        client: impl FnOnce(&mut ContextOptions),
        server: impl FnOnce(&mut ContextOptions),
        server_options: ServerOptions,
    ) -> Pair {
        let network = match kind {
            Kind::Sim { seed, faults } => Some(SimNetwork::new(seed, faults)),
            Kind::Tcp => None,
        };
        let options = || {
            let mut options = ContextOptions { polling_timeout: Duration::ZERO, ..ContextOptions::default() };
            if let Some(network) = &network {
                options.clock = network.clock();
                options.transports.push(Arc::new(network.clone()));
            }
            options
        };
        let (mut client_options, mut other_options) = (options(), options());
        client(&mut client_options);
        server(&mut other_options);
        let client = Context::new(client_options).unwrap();
        let mut server = Context::new(other_options).unwrap();
        let address = if network.is_some() { "sim://server:0/" } else { "tcp://127.0.0.1:0/" };
        let listening = server.listen(&address.parse().unwrap(), server_options).unwrap();
        let uri = server.local_uri(listening).unwrap();
        Pair { client, server, uri, network, client_events: vec![], server_events: vec![], listening }
    }

    /// One turn of each side.
    pub fn step(&mut self) {
        self.client.wait(Some(Duration::ZERO)).unwrap();
        while let Some(event) = self.client.next_event() {
            self.client_events.push(event);
        }
        self.server.wait(Some(Duration::ZERO)).unwrap();
        while let Some(event) = self.server.next_event() {
            self.server_events.push(event);
        }
        if let Some(network) = &self.network {
            network.advance(Duration::from_micros(20));
        }
    }

    /// Turns until the condition holds; panics when it never does.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Pair) -> bool) {
        let start = Instant::now();
        let mut turns = 0_u64;
        while !condition(self) {
            self.step();
            turns += 1;
            let over = if self.network.is_some() {
                turns > 2_000_000
            } else {
                start.elapsed() > Duration::from_secs(20)
            };
            assert!(
                !over,
                "waited in vain for: {what}; client {:?}, server {:?}",
                self.client_events, self.server_events
            );
        }
    }

    /// Opens a connection that the server accepts with its usual options; both handles.
    pub fn connect(&mut self) -> (Connection, Connection) {
        self.connect_session(&Session::new(self.uri.clone()), AcceptOptions::new())
    }

    pub fn connect_session(&mut self, session: &Session, options: AcceptOptions) -> (Connection, Connection) {
        let client = self.client.connect(session, ConnectionOptions::default()).unwrap();
        let request = loop {
            self.until("a connection request", |pair| !pair.server_events.is_empty());
            if let Event::ConnectionRequest(request) = self.server_events.remove(0) {
                break request;
            }
        };
        let server = self.server.accept(request, options).unwrap();
        self.until("the acceptance", |pair| !pair.client_events.is_empty());
        match self.client_events.remove(0) {
            Event::Connected { connection, .. } if connection == client => {}
            other => panic!("not connected but {other:?}"),
        }
        (client, server)
    }

    /// The next request at the server.
    pub fn request(&mut self) -> Request {
        self.until("a request", |pair| !pair.server_events.is_empty());
        match self.server_events.remove(0) {
            Event::Request(request) => request,
            other => panic!("not a request but {other:?}"),
        }
    }

    /// The next event at the client.
    pub fn client_event(&mut self) -> Event {
        self.until("an event at the client", |pair| !pair.client_events.is_empty());
        self.client_events.remove(0)
    }

    /// The next event at the server.
    pub fn server_event(&mut self) -> Event {
        self.until("an event at the server", |pair| !pair.server_events.is_empty());
        self.server_events.remove(0)
    }

    /// A request, answered with its own header and data; the reply.
    pub fn echo(&mut self, connection: Connection, request: OutgoingRequest<'_>) -> libxio::Reply {
        self.client.request(connection, request).unwrap();
        let mut request = self.request();
        let header = request.header().to_vec();
        let data = request.take_data();
        self.server.respond(request, OutgoingResponse { header: &header, data }).unwrap();
        match self.client_event() {
            Event::Response { outcome, .. } => outcome.unwrap(),
            other => panic!("not a response but {other:?}"),
        }
    }
}
