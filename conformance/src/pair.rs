//! Two contexts, driven in turn from one thread, over any transport.

use libxio::transport::{Faults, SimNetwork, Transport};
use libxio::{
    AcceptOptions, Connection, ConnectionOptions, Context, ContextOptions, Event, OutgoingRequest,
    OutgoingResponse, Request, ServerOptions, Session, Uri,
};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A transport under test: where servers listen, and what contexts need to know of it.
#[derive(Debug, Clone)]
pub struct Fabric {
    /// Where a server listens; a port of 0, or a name of its own.
    pub listen: Uri,
    /// Where a second server listens; the same where a port of 0 makes the difference.
    pub listen_other: Uri,
    /// What is not built in.
    pub transports: Vec<Arc<dyn Transport>>,
    /// The simulated network with its virtual time.
    pub network: Option<SimNetwork>,
    /// Lives as long as the test: a folder for sockets, say.
    pub keep: Option<Arc<dyn Any + Send + Sync>>,
}

impl Fabric {
    /// The transport that is built in under this uri.
    ///
    /// # Panics
    /// When it is no uri.
    #[must_use]
    pub fn built_in(listen: &str) -> Fabric {
        let listen: Uri = listen.parse().expect("the suite is given a uri");
        let listen_other = listen.clone();
        Fabric { listen, listen_other, transports: Vec::new(), network: None, keep: None }
    }

    /// A simulated network.
    #[must_use]
    pub fn sim(seed: u64, faults: Faults) -> Fabric {
        let network = SimNetwork::new(seed, faults);
        Fabric {
            transports: vec![Arc::new(network.clone())],
            network: Some(network),
            ..Fabric::built_in("sim://server:0/")
        }
    }

    /// Shared memory, at a socket of its own in the folder for temporary files; the listener removes it.
    #[must_use]
    pub fn shm() -> Fabric {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let place = || {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("libxio-{}-{number}.sock", std::process::id()));
            format!("shm://{}", path.display())
        };
        let listen_other = place().parse().expect("a path of this form makes a uri");
        Fabric { listen_other, ..Fabric::built_in(&place()) }
    }

    /// Options of a context on it, without polling, so that contexts driven in turn don't wait for each other.
    #[must_use]
    pub fn context_options(&self) -> ContextOptions {
        let mut options = ContextOptions { polling_timeout: Duration::ZERO, ..ContextOptions::default() };
        options.transports.extend(self.transports.iter().cloned());
        if let Some(network) = &self.network {
            options.clock = network.clock();
        }
        options
    }
}

/// A client's and a server's context.
#[derive(Debug)]
pub struct Pair {
    /// The connecting side.
    pub client: Context,
    /// The listening side.
    pub server: Context,
    /// Where the server listens.
    pub uri: Uri,
    /// The simulated network, if it is one.
    pub network: Option<SimNetwork>,
    /// Events of the client that no test has looked at yet.
    pub client_events: Vec<Event>,
    /// Events of the server that no test has looked at yet.
    pub server_events: Vec<Event>,
    /// The server's handle.
    pub listening: libxio::Server,
    /// What it was made on, for further contexts and servers.
    pub fabric: Fabric,
}

impl Pair {
    /// A pair with the default options.
    #[must_use]
    pub fn new(fabric: Fabric) -> Pair {
        Pair::with(fabric, |_| {}, |_| {}, ServerOptions::default())
    }

    /// A pair with options changed as given.
    #[must_use]
    pub fn with(
        fabric: Fabric,
        client: impl FnOnce(&mut ContextOptions),
        server: impl FnOnce(&mut ContextOptions),
        server_options: ServerOptions,
    ) -> Pair {
        let (mut client_options, mut other_options) = (fabric.context_options(), fabric.context_options());
        client(&mut client_options);
        server(&mut other_options);
        let client = Context::new(client_options).unwrap();
        let mut server = Context::new(other_options).unwrap();
        let listening = server.listen(&fabric.listen, server_options).unwrap();
        let uri = server.local_uri(listening).unwrap();
        let network = fabric.network.clone();
        let (client_events, server_events) = (vec![], vec![]);
        Pair { client, server, uri, network, client_events, server_events, listening, fabric }
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

    /// As [`Pair::connect`], as one more connection of a session.
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
    #[track_caller]
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

    /// Closes the client's connection (its only one), and sees that nothing is left on either side.
    #[track_caller]
    pub fn finish(&mut self, connection: Connection) {
        self.client.close(connection).unwrap();
        let closed = |events: &[Event]| events.iter().any(|event| matches!(event, Event::Closed { .. }));
        self.until("the end of both sides", |pair| {
            closed(&pair.client_events) && closed(&pair.server_events)
        });
        self.assert_nothing_left();
    }

    /// Some turns, in which something that must not happen would.
    pub fn settle(&mut self) {
        for _ in 0..500 {
            self.step();
        }
    }

    /// Neither side holds anything: no connections, messages, memory.
    #[track_caller]
    pub fn assert_nothing_left(&mut self) {
        self.client_events.clear();
        self.server_events.clear();
        self.settle();
        for (side, context) in [("client", &self.client), ("server", &self.server)] {
            let now = context.statistics().snapshot();
            let gauges = [
                now.connections,
                now.requests_running,
                now.requests_outstanding,
                now.one_way_unacknowledged,
                now.one_way_held,
                now.waiting_for_grant,
            ];
            assert_eq!(gauges, [0; 6], "left at the {side}: {now:?}");
            assert_eq!(context.pool().bytes_in_use(), 0, "memory left at the {side}");
        }
    }
}

/// Ends the whole test program when a test takes too long: what could hang is seen, and never waited for.
pub fn watchdog() {
    const LONGEST: Duration = Duration::from_secs(90);
    std::thread::spawn(|| {
        std::thread::sleep(LONGEST);
        eprintln!("the test hangs: it was given {LONGEST:?}");
        std::process::abort();
    });
}
