//! An acceptor and its workers: a link is placed with the worker that owns its connection, threads of one client share a
//! session, and what dies frees its place.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use conformance::watchdog;
use libxio::{
    AcceptOptions, ConnectionOptions, Context, ContextHandle, ContextOptions, Error, Event, Landing,
    OutgoingRequest, OutgoingResponse, PinnedContext, RejectReason, ServerOptions, Session, Uri,
};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// An acceptor with pinned workers that answer with their number.
struct Farm {
    uri: Uri,
    acceptor: ContextHandle,
    workers: Vec<ContextHandle>,
    threads: Vec<JoinHandle<()>>,
}

fn work(number: u64, say: &mpsc::Sender<ContextHandle>) {
    let mut worker = PinnedContext::new(ContextOptions::default()).unwrap();
    say.send(worker.handle()).unwrap();
    worker
        .run(|worker, event| match event {
            Event::ConnectionRequest(request) => {
                if request.resource() == "/forbidden" {
                    worker.reject(request, RejectReason::NotPermitted, b"no").unwrap();
                    return;
                }
                let private_data = number.to_le_bytes().to_vec();
                worker.accept(request, AcceptOptions { private_data, limits: None }).unwrap();
            }
            Event::Request(mut request) => {
                let header = number.to_le_bytes();
                let data = request.take_data();
                worker.respond(request, OutgoingResponse { header: &header, data }).unwrap();
            }
            _ => {}
        })
        .unwrap();
}

impl Farm {
    fn start(workers: u64, mut options: ServerOptions) -> Farm {
        watchdog();
        let mut threads = Vec::new();
        let mut handles = Vec::new();
        for number in 0..workers {
            let (say, said) = mpsc::channel();
            threads.push(thread::spawn(move || work(number, &say)));
            handles.push(said.recv().unwrap());
        }
        options.workers = handles.clone();
        let (say, said) = mpsc::channel();
        threads.push(thread::spawn(move || {
            let mut acceptor = PinnedContext::new(ContextOptions::default()).unwrap();
            let listening = acceptor.listen(&"tcp://127.0.0.1:0/".parse().unwrap(), options).unwrap();
            say.send((acceptor.local_uri(listening).unwrap(), acceptor.handle())).unwrap();
            acceptor.run(|_, event| panic!("an acceptor has no events of its own: {event:?}")).unwrap();
        }));
        let (uri, acceptor) = said.recv().unwrap();
        Farm { uri, acceptor, workers: handles, threads }
    }

    fn connections(&self) -> Vec<u64> {
        self.workers.iter().map(|worker| worker.statistics().snapshot().connections).collect()
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.acceptor.stop();
        for worker in &self.workers {
            worker.stop();
        }
        for thread in self.threads.drain(..) {
            assert!(thread.join().is_ok() || thread::panicking(), "a thread of the server has panicked");
        }
    }
}

fn next(context: &mut Context) -> Event {
    loop {
        if let Some(event) = context.next_event() {
            return event;
        }
        context.wait(Some(LONG)).unwrap();
    }
}

fn connect(context: &mut Context, session: &Session) -> (libxio::Connection, u64) {
    let connection = context.connect(session, ConnectionOptions::default()).unwrap();
    match next(context) {
        Event::Connected { private_data, .. } => {
            (connection, u64::from_le_bytes(private_data.try_into().unwrap()))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn connections_are_spread_over_the_workers_and_stay_there() {
    let farm = Farm::start(3, ServerOptions::default());
    let mut client = Context::new(ContextOptions::default()).unwrap();
    let session = Session::new(farm.uri.clone());
    let placed: Vec<_> = (0..6).map(|_| connect(&mut client, &session)).collect();
    let mut workers: Vec<_> = placed.iter().map(|(_, worker)| *worker).collect();
    workers.sort_unstable();
    assert_eq!(workers, [0, 0, 1, 1, 2, 2]);
    assert_eq!(farm.connections(), [2, 2, 2]);
    for round in 0..50 {
        for (connection, worker) in &placed {
            client.request(*connection, OutgoingRequest::new(b"who?", round)).unwrap();
            let Event::Response { outcome, .. } = next(&mut client) else { panic!() };
            assert_eq!(&outcome.unwrap().header[..], worker.to_le_bytes());
        }
    }
    // Those of one worker leave, and their places are taken first.
    for (connection, worker) in &placed {
        if *worker == 1 {
            client.close(*connection).unwrap();
            assert!(matches!(next(&mut client), Event::Closed { reason: Error::ClosedLocally, .. }));
        }
    }
    let start = std::time::Instant::now();
    while farm.connections() != [2, 0, 2] {
        assert!(start.elapsed() < LONG);
        thread::sleep(Duration::from_millis(1));
    }
    for _ in 0..2 {
        assert_eq!(connect(&mut client, &session).1, 1);
    }
}

#[test]
fn threads_of_one_client_share_its_session() {
    let farm = Farm::start(2, ServerOptions::default());
    let session = Session::new(farm.uri.clone());
    let mut first = Context::new(ContextOptions::default()).unwrap();
    connect(&mut first, &session);
    let threads: Vec<_> = (0..4_u64)
        .map(|number| {
            let session = session.clone();
            thread::spawn(move || {
                let mut client = Context::new(ContextOptions::default()).unwrap();
                let (connection, worker) = connect(&mut client, &session);
                for round in 0..500_u64 {
                    let data = vec![(number * 31 + round) as u8; 3000];
                    let request = OutgoingRequest {
                        data: data.clone().into(),
                        landing: Landing::Pool(3000),
                        ..OutgoingRequest::new(b"", round)
                    };
                    client.request(connection, request).unwrap();
                    let Event::Response { token, outcome, .. } = next(&mut client) else { panic!() };
                    let reply = outcome.unwrap();
                    assert_eq!((token, &reply.header[..]), (round, &worker.to_le_bytes()[..]));
                    assert!(reply.data.to_vec() == data);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(session.id().is_some());
}

#[test]
fn a_worker_may_reject() {
    let farm = Farm::start(1, ServerOptions::default());
    let mut client = Context::new(ContextOptions::default()).unwrap();
    client.connect(&Session::new(farm.uri.with_resource("/forbidden")), Default::default()).unwrap();
    let Event::Closed { reason: Error::Rejected { reason, private_data, .. }, .. } = next(&mut client) else {
        panic!()
    };
    assert_eq!((reason, &private_data[..]), (RejectReason::NotPermitted, &b"no"[..]));
}

#[test]
fn above_its_connections_a_server_is_busy_until_one_leaves() {
    let farm = Farm::start(2, ServerOptions { connections_max: 2, ..ServerOptions::default() });
    let session = Session::new(farm.uri.clone());
    let mut client = Context::new(ContextOptions::default()).unwrap();
    let (first, _) = connect(&mut client, &session);
    connect(&mut client, &session);
    let busy = |client: &mut Context| {
        client.connect(&session, ConnectionOptions::default()).unwrap();
        match next(client) {
            Event::Closed { reason: Error::Rejected { reason, .. }, .. } => reason == RejectReason::Busy,
            Event::Connected { .. } => false,
            other => panic!("{other:?}"),
        }
    };
    assert!(busy(&mut client));
    client.abort(first).unwrap();
    assert!(matches!(next(&mut client), Event::Closed { reason: Error::ClosedLocally, .. }));
    let start = std::time::Instant::now();
    while busy(&mut client) {
        assert!(start.elapsed() < LONG, "the place is never given back");
    }
}

#[test]
fn a_worker_that_is_gone_costs_its_connections_and_no_others() {
    let farm = Farm::start(2, ServerOptions::default());
    let session = Session::new(farm.uri.clone());
    let mut client = Context::new(ContextOptions::default()).unwrap();
    let placed: Vec<_> = (0..2).map(|_| connect(&mut client, &session)).collect();
    let (lost, worker) = placed[0];
    farm.workers[worker as usize].stop();
    let Event::Closed { connection, reason } = next(&mut client) else { panic!() };
    assert_eq!(connection, lost);
    assert!(matches!(reason, Error::ConnectionLost { .. } | Error::Closed(_)), "{reason}");
    client.request(placed[1].0, OutgoingRequest::new(b"", 1)).unwrap();
    assert!(matches!(next(&mut client), Event::Response { outcome: Ok(_), .. }));
}
