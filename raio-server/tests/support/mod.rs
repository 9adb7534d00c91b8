//! What the integration tests share: a server in this process, a client that speaks the bytes of the protocol, and a
//! watchdog.
#![allow(dead_code, clippy::unwrap_used, reason = "each test program uses a part of it")]

use libxio::{
    Connection, ConnectionOptions, Context, ContextOptions, Event, Landing, OutgoingRequest, Session, Sgl,
};
use raio::proto::{Answer, Greeting, Handle, Op, OpenFlags, Request};
use raio_server::{Config, CountersSnapshot, ExportConfig, Running, parse_listen};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A server in this process with one worker, and the exports `data` (a directory) and `ro` (the same, read-only).
pub struct Server {
    running: Option<Running>,
    pub directory: TempDir,
    pub address: String,
}

impl Server {
    pub fn start() -> Server {
        Server::with(|_| {})
    }

    /// With exports or settings of the test's own.
    pub fn with(change: impl FnOnce(&mut Config)) -> Server {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let exports = [format!("data={path}"), format!("ro={path}:ro"), "null=null:1G".to_owned()];
        let mut config = Config {
            listen: vec![parse_listen("tcp://127.0.0.1:0").unwrap()],
            exports: exports.iter().map(|text| ExportConfig::parse(text).unwrap()).collect(),
            threads: 1,
            ..Config::default()
        };
        change(&mut config);
        let running = raio_server::start(config).unwrap();
        let uri = &running.uris()[0];
        let address = format!("{}:{}", uri.host(), uri.port());
        Server { running: Some(running), directory, address }
    }

    pub fn running(&self) -> &Running {
        self.running.as_ref().unwrap()
    }

    pub fn counters(&self) -> CountersSnapshot {
        self.running().counters()
    }

    /// Stops the server in good order.
    pub fn stop(&mut self) {
        self.running.take().unwrap().stop();
    }

    pub fn uri(&self, path: &str) -> String {
        format!("tcp://{}{path}", self.address)
    }

    /// A file of the `data` export, on disk.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a file of the `data` export with bytes that differ everywhere.
    pub fn file(&self, name: &str, length: usize) -> Vec<u8> {
        let bytes = noise(length);
        std::fs::write(self.path(name), &bytes).unwrap();
        bytes
    }

    /// Waits until the counters are as they should be; the watchdog is the limit.
    pub fn wait_for(&self, what: &str, is_so: impl Fn(&CountersSnapshot) -> bool) {
        let start = Instant::now();
        while !is_so(&self.counters()) {
            assert!(start.elapsed() < Duration::from_secs(30), "{what}: {:?}", self.counters());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Nothing is held for anybody.
    pub fn wait_until_clean(&self) {
        self.wait_for("nothing is left behind", |now| {
            now.connections == 0 && now.open_files == 0 && now.requests_running == 0 && now.memory_bytes == 0
        });
    }

    /// A client that only wants to be served.
    pub fn serves(&self) {
        let name = "served";
        let bytes = self.file(name, 10_000);
        let file = raio::File::open(&self.uri(&format!("/data/{name}"))).unwrap();
        let mut back = vec![0; bytes.len()];
        file.read_exact_at(&mut back, 0).unwrap();
        assert!(back == bytes);
        file.close().unwrap();
    }
}

/// Bytes that differ everywhere.
pub fn noise(length: usize) -> Vec<u8> {
    let mut word = 0x1234_5678_9abc_def1_u64;
    let next = |_| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        (word >> 32) as u8
    };
    (0..length).map(next).collect()
}

/// A client that sends whatever bytes the test likes as commands.
pub struct Raw {
    pub context: Context,
    pub connection: Connection,
}

/// A request of [`Raw`]: header, data, room for the answer's data.
pub type Bytes<'a> = (&'a [u8], &'a [u8], u32);

impl Raw {
    pub fn connect(server: &Server) -> Raw {
        Raw::connect_with(server, "/", Greeting::client().encode().to_vec()).unwrap()
    }

    pub fn connect_with(server: &Server, resource: &str, greeting: Vec<u8>) -> libxio::Result<Raw> {
        let mut context = Context::new(ContextOptions::default()).unwrap();
        let session = Session::new(server.uri(resource).parse().unwrap());
        let options = ConnectionOptions { private_data: greeting, ..ConnectionOptions::default() };
        let connection = context.connect(&session, options).unwrap();
        loop {
            context.wait(None).unwrap();
            match context.next_event() {
                Some(Event::Connected { .. }) => return Ok(Raw { context, connection }),
                Some(Event::Closed { reason, .. }) => return Err(reason),
                _ => {}
            }
        }
    }

    /// Queues a request.
    pub fn send(&mut self, (header, data, room): Bytes<'_>, token: u64) -> libxio::Result<()> {
        let data = if data.is_empty() { Sgl::new() } else { Sgl::from(data.to_vec()) };
        let landing = if room > 0 { Landing::Pool(room) } else { Landing::None };
        let request = OutgoingRequest { data, landing, ..OutgoingRequest::new(header, token) };
        self.context.request(self.connection, request).map(|_| ())
    }

    /// The next answer: its token, header and data.
    pub fn answer(&mut self) -> libxio::Result<(u64, Vec<u8>, Vec<u8>)> {
        loop {
            match self.context.next_event() {
                Some(Event::Response { token, outcome, .. }) => {
                    let reply = outcome?;
                    return Ok((token, reply.header.to_vec(), reply.data.to_vec()));
                }
                Some(Event::Closed { reason, .. }) => return Err(reason),
                Some(_) => {}
                None => {
                    self.context.wait(None)?;
                }
            }
        }
    }

    /// Sends bytes as a command; returns the errno of the answer.
    pub fn errno(&mut self, header: &[u8], data: &[u8], room: u32) -> i32 {
        self.send((header, data, room), 0).unwrap();
        let (_, header, _) = self.answer().unwrap();
        i32::from_le_bytes(header[..4].try_into().unwrap())
    }

    /// Sends a command; returns the answer.
    pub fn command(&mut self, request: &Request<'_>, room: u32) -> Answer {
        let mut header = Vec::new();
        request.encode(&mut header).unwrap();
        self.send((&header, b"", room), 0).unwrap();
        let (_, header, data) = self.answer().unwrap();
        Answer::decode(request.op(), &header, data.len()).unwrap()
    }

    pub fn open(&mut self, path: &str, flags: OpenFlags) -> Handle {
        match self.command(&Request::Open { path: path.as_bytes(), flags, mode: 0 }, 0) {
            Answer::Opened(handle, _) => handle,
            other => panic!("{path}: {other:?}"),
        }
    }
}

/// The bytes of a command, which the test may change.
pub fn bytes_of(request: &Request<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    request.encode(&mut bytes).unwrap();
    bytes
}

/// Every command, of a file that is open by `handle`.
pub fn every_command(handle: Handle) -> Vec<Request<'static>> {
    let all = vec![
        Request::Open { path: b"/data/x", flags: OpenFlags::READ, mode: 0 },
        Request::Close { handle },
        Request::Read { handle, offset: 0, length: 10 },
        Request::Flush { handle, data_only: false },
        Request::Discard { handle, offset: 0, length: 1 },
        Request::Truncate { handle, size: 1 },
        Request::Stat(raio::proto::Target::Handle(handle)),
        Request::List { path: b"/data", cookie: 0 },
        Request::Unlink { path: b"/data/x", directory: false },
        Request::Rename { from: b"/data/x", to: b"/data/y", no_replace: false },
        Request::Info,
    ];
    // Write comes with data.
    assert_eq!(all.len() + 1, Op::ALL.len());
    all
}

/// Ends the whole process, with a word, if the test takes longer.
pub struct Watchdog(#[allow(dead_code, reason = "held for its drop")] mpsc::Sender<()>);

/// The usual limit: the longest test takes a few seconds.
pub fn minute() -> Watchdog {
    let (sender, receiver) = mpsc::channel();
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    std::thread::spawn(move || {
        if receiver.recv_timeout(Duration::from_secs(100)) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("{name} hangs");
            std::process::abort();
        }
    });
    Watchdog(sender)
}
