//! A peer of a few lines over a plain socket, which says what it likes, and a context that has to find out.

use libxio::wire::{
    FEATURE_CRC, FrameFlags, FrameHead, FrameKind, FrameLimits, Goodbye, Hello, Limits, LoopKind, SessionId,
    Welcome,
};
use libxio::{
    AcceptOptions, Connection, Context, ContextOptions, Error, Event, Server, ServerOptions, Session,
};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// No test takes longer.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// A context, and a peer that speaks raw bytes.
pub struct Scene {
    pub context: Context,
    /// The context's end of the connection, once there is one.
    pub connection: Option<Connection>,
    pub events: Vec<Event>,
    pub socket: TcpStream,
    /// What the peer has read and not taken apart.
    received: Vec<u8>,
    pub crc: bool,
    /// Frames have checksums in any case.
    handshake: bool,
    _server: Option<Server>,
}

pub fn limits() -> Limits {
    ContextOptions::default().limits
}

pub fn hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        features: 0,
        loop_kind: LoopKind::Own,
        session: SessionId::default(),
        session_key: [0; 16],
        connection: 0,
        limits: limits(),
        resource: "/".to_owned(),
        private_data: Vec::new(),
    }
}

pub fn welcome() -> Welcome {
    Welcome {
        version: 1,
        features: 0,
        loop_kind: LoopKind::Own,
        incarnation: 1,
        session: SessionId([1; 16]),
        session_key: [2; 16],
        connection: 1,
        limits: limits(),
        private_data: Vec::new(),
    }
}

pub fn frame(kind: FrameKind) -> FrameHead {
    FrameHead::new(kind)
}

/// A request, or an answer to one, with these numbers.
pub fn numbered(kind: FrameKind, slot: u16, sequence: u32) -> FrameHead {
    FrameHead { slot, sequence, ..FrameHead::new(kind) }
}

fn options(change: impl FnOnce(&mut ContextOptions)) -> ContextOptions {
    let mut options = ContextOptions { polling_timeout: Duration::ZERO, ..ContextOptions::default() };
    change(&mut options);
    options
}

impl Scene {
    /// The peer is a client that has said nothing yet.
    pub fn silent(change: impl FnOnce(&mut ContextOptions)) -> Scene {
        let mut context = Context::new(options(change)).unwrap();
        let server =
            context.listen(&"tcp://127.0.0.1:0/".parse().unwrap(), ServerOptions::default()).unwrap();
        let uri = context.local_uri(server).unwrap();
        let socket = TcpStream::connect((uri.host(), uri.port())).unwrap();
        Scene::over(context, socket, Some(server))
    }

    fn over(context: Context, socket: TcpStream, server: Option<Server>) -> Scene {
        socket.set_nonblocking(true).unwrap();
        let (events, received) = (Vec::new(), Vec::new());
        Scene {
            context,
            connection: None,
            events,
            socket,
            received,
            crc: false,
            handshake: true,
            _server: server,
        }
    }

    /// The peer is a client whose connection is accepted.
    pub fn client() -> Scene {
        Scene::client_with(&hello(), |_| {})
    }

    /// The same with another hello and options of the context.
    pub fn client_with(hello: &Hello, change: impl FnOnce(&mut ContextOptions)) -> Scene {
        let mut scene = Scene::silent(change);
        scene.say(frame(FrameKind::Hello), &hello.encode(), b"");
        let Event::ConnectionRequest(request) = scene.event() else { panic!() };
        let connection = scene.context.accept(request, AcceptOptions::new()).unwrap();
        scene.connection = Some(connection);
        let (head, body, _) = scene.hear();
        assert_eq!(head.kind, FrameKind::Welcome);
        scene.handshake = false;
        scene.crc = Welcome::decode(&body).unwrap().features & FEATURE_CRC != 0;
        scene
    }

    /// The peer is a server that has read the hello and says nothing.
    pub fn server() -> Scene {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut context = Context::new(options(|_| {})).unwrap();
        let uri = format!("tcp://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let connection = context.connect(&Session::new(uri), Default::default()).unwrap();
        let (socket, _) = listener.accept().unwrap();
        let mut scene = Scene::over(context, socket, None);
        scene.connection = Some(connection);
        assert_eq!(scene.hear().0.kind, FrameKind::Hello);
        scene
    }

    pub fn turn(&mut self) {
        self.context.wait(Some(Duration::ZERO)).unwrap();
        while let Some(event) = self.context.next_event() {
            self.events.push(event);
        }
    }

    /// Turns until there is what is looked for.
    #[track_caller]
    fn until<T>(&mut self, what: &str, mut look: impl FnMut(&mut Scene) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            self.turn();
            assert!(start.elapsed() < TIME_LIMIT, "waited in vain for {what}: {:?}", self.events);
        }
    }

    /// The context's next event.
    #[track_caller]
    pub fn event(&mut self) -> Event {
        self.until("an event", |scene| (!scene.events.is_empty()).then(|| scene.events.remove(0)))
    }

    /// The peer sends bytes.
    pub fn say_bytes(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.socket.write(bytes) {
                Ok(sent) => bytes = &bytes[sent..],
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => self.turn(),
                // The context has closed the connection, as it should.
                Err(_) => return,
            }
        }
    }

    /// The bytes of a frame; lengths are filled in unless they are set.
    pub fn bytes_of(&self, mut head: FrameHead, header: &[u8], data: &[u8]) -> Vec<u8> {
        if head.header_length == 0 {
            head.header_length = header.len() as u32;
        }
        if head.data_length == 0 {
            head.data_length = data.len() as u32;
        }
        if self.crc && !data.is_empty() && head.data_crc == 0 {
            head.data_crc = libxio::wire::Checksum::of(data);
        }
        let mut bytes = head.encode(header, self.crc).to_vec();
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(data);
        bytes
    }

    /// The peer sends a frame.
    pub fn say(&mut self, head: FrameHead, header: &[u8], data: &[u8]) {
        let bytes = self.bytes_of(head, header, data);
        self.say_bytes(&bytes);
    }

    /// The peer sends a frame with bytes of its head changed.
    pub fn say_changed(&mut self, head: FrameHead, header: &[u8], at: usize, to: &[u8]) {
        let mut bytes = self.bytes_of(head, header, b"");
        bytes[at..at + to.len()].copy_from_slice(to);
        self.say_bytes(&bytes);
    }

    /// The next frame that the peer hears.
    #[track_caller]
    pub fn hear(&mut self) -> (FrameHead, Vec<u8>, Vec<u8>) {
        let limits = FrameLimits {
            header_bytes_max: u32::MAX,
            data_bytes_max: u32::MAX,
            immediate_bytes_max: u32::MAX,
            slots: u16::MAX,
            own_slots: u16::MAX,
            extension_bytes_max: 0,
            crc: self.crc || self.handshake,
        };
        self.until("a frame", |scene| {
            let mut bytes = [0; 65_536];
            if let Ok(count) = scene.socket.read(&mut bytes) {
                scene.received.extend_from_slice(&bytes[..count]);
            }
            let (head, rest) = scene.received.split_first_chunk()?;
            let head = FrameHead::decode(head, &limits).expect("the context keeps to the protocol");
            let (header, rest) = rest.split_at_checked(head.header_length as usize)?;
            let rest = rest.get(usize::from(head.data_padding)..)?;
            let (data, rest) = rest.split_at_checked(head.data_in_frame() as usize)?;
            let found = (head, header.to_vec(), data.to_vec());
            scene.received = rest.to_vec();
            Some(found)
        })
    }

    /// The context has found the rule broken: its connection ends with it, the peer is told the number, and nothing is
    /// left.
    #[track_caller]
    pub fn expect(mut self, code: u32) {
        // What the application holds it still holds.
        let mut held = Vec::new();
        let found = loop {
            match self.event() {
                Event::Closed { reason: Error::Protocol { violation, .. }, .. } => break violation,
                Event::Closed { reason, .. } => panic!("closed, but by {reason}"),
                other => held.push(other),
            }
        };
        assert_eq!(found.code(), code, "{found}");
        self.expect_goodbye(code, &found.to_string());
        assert_eq!(self.context.statistics().snapshot().protocol_violations, 1);
        drop(held);
        self.expect_nothing_left();
    }

    /// A link without a connection is closed with this number.
    #[track_caller]
    pub fn expect_refused(mut self, code: u32) {
        self.expect_goodbye(code, "");
        assert_eq!(self.context.statistics().snapshot().handshakes_failed, 1);
        self.expect_nothing_left();
    }

    #[track_caller]
    fn expect_goodbye(&mut self, code: u32, text: &str) {
        let goodbye = loop {
            let (head, body, _) = self.hear();
            if head.kind == FrameKind::Goodbye {
                break Goodbye::decode(&body).unwrap();
            }
        };
        assert_eq!(goodbye.code, code, "{}", goodbye.text);
        assert!(goodbye.text.contains(text), "{}", goodbye.text);
        self.until("the end of the stream", |scene| {
            let mut bytes = [0; 100];
            matches!(scene.socket.read(&mut bytes), Ok(0)).then_some(())
        });
    }

    #[track_caller]
    fn expect_nothing_left(&mut self) {
        self.events.clear();
        self.turn();
        let now = self.context.statistics().snapshot();
        let gauges = [
            now.connections,
            now.requests_running,
            now.requests_outstanding,
            now.one_way_unacknowledged,
            now.one_way_held,
            now.waiting_for_grant,
        ];
        assert_eq!((gauges, self.context.pool().bytes_in_use()), ([0; 6], 0), "{now:?}");
    }
}

/// The flags of a frame, set.
pub fn flagged(head: FrameHead, flags: FrameFlags) -> FrameHead {
    FrameHead { flags, ..head }
}
