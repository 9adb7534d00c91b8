//! Ten thousand connections to one server, from one client context: all are made, asked, left idle, and closed. The
//! server is a process of its own, since both ends together need more descriptors than many systems allow to one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use libxio::{
    AcceptOptions, ConnectionOptions, Context, ContextOptions, Event, Interest, OutgoingRequest,
    OutgoingResponse, ServerOptions, Session, Uri,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CONNECTIONS: usize = 10_000;
/// Connections being set up at a time: below the listener's backlog.
const SETTING_UP_MAX: usize = 256;
/// Everything together takes a few seconds on one core.
const TIME_LIMIT: Duration = Duration::from_secs(240);
/// What the server has to close when its clients have gone.
const CLOSING_TIME: Duration = Duration::from_secs(30);

/// Descriptors for an end of each connection, and some.
fn raise_descriptor_limit() {
    let wanted = CONNECTIONS as u64 + 500;
    let Rlimit { maximum, current } = getrlimit(Resource::Nofile);
    let possible = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    assert_eq!(possible, wanted, "the limit of descriptors is too low for this test: see ulimit -Hn");
    if current.is_some_and(|current| current < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).unwrap();
    }
}

fn options() -> ContextOptions {
    let mut options = ContextOptions {
        keepalive: Duration::from_secs(120),
        connect_timeout: Duration::from_secs(120),
        ..ContextOptions::default()
    };
    options.limits.slots = 4;
    options.limits.peer_slots = 4;
    options
}

/// One client context with all its connections.
struct Client {
    context: Context,
    open: HashSet<libxio::Connection>,
    answers: Vec<[u64; 3]>,
    closed: usize,
    started: Instant,
}

impl Client {
    /// Takes turns until the condition holds.
    fn until(&mut self, what: &str, done: impl Fn(&Client) -> bool) {
        while !done(self) {
            self.context.wait(Some(Duration::from_millis(100))).unwrap();
            while let Some(event) = self.context.next_event() {
                match event {
                    Event::Connected { connection, .. } => assert!(self.open.insert(connection)),
                    Event::Response { outcome, .. } => {
                        let header = outcome.unwrap().header;
                        let number = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap());
                        self.answers.push([number(0), number(8), number(16)]);
                    }
                    Event::Closed { connection, reason } => {
                        assert!(self.open.remove(&connection), "not connected: {reason}");
                        self.closed += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(self.started.elapsed() < TIME_LIMIT, "{what}: {} open", self.open.len());
        }
        if !what.is_empty() {
            println!("{what}: {} open, after {} ms", self.open.len(), self.started.elapsed().as_millis());
        }
    }
}

/// The other half of the test below: serves until its standard input ends.
#[test]
#[ignore = "it is started by the test of ten thousand connections"]
fn serve_until_the_input_ends() {
    if std::env::var_os("XIO_MANY_CONNECTIONS").is_none() {
        return;
    }
    raise_descriptor_limit();
    let mut server = Context::new(options()).unwrap();
    let listening = server.listen(&"tcp://127.0.0.1:0/".parse().unwrap(), ServerOptions::default()).unwrap();
    println!("\nlistening {}", server.local_uri(listening).unwrap());
    server.add_fd(0, Interest::READ, 0).unwrap();
    server
        .run(|context, event| match event {
            Event::ConnectionRequest(request) => {
                context.accept(request, AcceptOptions::new()).unwrap();
            }
            // How much it has to do, and how many connections there are.
            Event::Request(request) => {
                let now = context.statistics().snapshot();
                let receives = now.link_receives + now.link_receives_empty;
                let header = [now.turns, receives, now.connections].map(u64::to_le_bytes).concat();
                context.respond(request, OutgoingResponse { header: &header, ..Default::default() }).unwrap();
            }
            Event::Closed { .. } => {}
            Event::FdReady { .. } => context.stop(),
            other => panic!("{other:?}"),
        })
        .unwrap();
    // It may still be closing the last ones.
    let start = Instant::now();
    while server.statistics().snapshot().connections > 0 && start.elapsed() < CLOSING_TIME {
        server.wait(Some(Duration::from_millis(10))).unwrap();
        while server.next_event().is_some() {}
    }
    let left = server.statistics().snapshot();
    assert_eq!((left.connections, left.requests_running), (0, 0));
    assert_eq!(server.pool().bytes_in_use(), 0);
}

#[test]
fn ten_thousand_connections_to_one_server() {
    raise_descriptor_limit();
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "serve_until_the_input_ends", "--ignored", "--nocapture"])
        .env("XIO_MANY_CONNECTIONS", "server")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Read to the end: the server's last words need somebody who listens.
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map_while(Result::ok);
    let uri = lines.find_map(|line| Some(line.strip_prefix("listening ")?.to_owned()));
    let uri: Uri = uri.expect("the server says where it listens").parse().unwrap();

    let context = Context::new(options()).unwrap();
    let (open, started) = (HashSet::new(), Instant::now());
    let mut client = Client { context, open, answers: Vec::new(), closed: 0, started };
    let mut begun = 0;
    while begun < CONNECTIONS {
        let now = (CONNECTIONS - begun).min(SETTING_UP_MAX);
        for _ in 0..now {
            client.context.connect(&Session::new(uri.clone()), ConnectionOptions::default()).unwrap();
        }
        begun += now;
        client.until("connected", |client| client.open.len() == begun);
    }
    for connection in client.open.clone() {
        client.context.request(connection, OutgoingRequest::new(b"there?", 1)).unwrap();
    }
    client.until("each was asked", |client| client.answers.len() == CONNECTIONS);
    assert!(client.answers.iter().all(|[.., connections]| *connections == CONNECTIONS as u64));

    // With all of them idle, one is as quick as ever: nothing polls the others.
    let one = *client.open.iter().next().unwrap();
    std::thread::sleep(Duration::from_millis(200));
    client.answers.clear();
    for round in 1..=1000 {
        client.context.request(one, OutgoingRequest::new(b"there?", 1)).unwrap();
        client.until("", |client| client.answers.len() == round);
    }
    let ([turns, receives, _], [turns_now, receives_now, _]) = (client.answers[0], client.answers[999]);
    let (turns, receives) = (turns_now - turns, receives_now - receives);
    assert!(receives <= 40 * turns, "{receives} receives in {turns} turns: idle links are polled");

    for connection in client.open.clone() {
        client.context.close(connection).unwrap();
    }
    client.until("closed", |client| client.closed == CONNECTIONS);
    let left = client.context.statistics().snapshot();
    assert_eq!((left.connections, left.requests_outstanding), (0, 0));
    assert_eq!(client.context.pool().bytes_in_use(), 0);
    drop(server.stdin.take());
    let last_words: Vec<_> = lines.collect();
    assert!(server.wait().unwrap().success(), "something is left at the server: {last_words:#?}");
}
