//! Hello world with threads on both sides: the server has an acceptor and two workers; three client threads share a
//! session, with a connection each, and the server spreads them over its workers.
//!
//! ```console
//! $ cargo run -p examples --bin hello_world_mt
//! client 0: hello from worker 0
//! client 1: hello from worker 1
//! client 2: hello from worker 0
//! ```

use libxio::{
    AcceptOptions, ConnectionOptions, Context, ContextOptions, Event, OutgoingRequest, OutgoingResponse,
    PinnedContext, ServerOptions, Session,
};
use std::sync::{Barrier, mpsc};

const WORKERS: usize = 2;
const CLIENTS: usize = 3;

fn main() -> libxio::Result<()> {
    // A worker's context is pinned: it stays on the thread that made it, and its handle goes to the acceptor.
    let (handles, ready) = mpsc::channel();
    let workers: Vec<_> = (0..WORKERS)
        .map(|number| {
            let handles = handles.clone();
            std::thread::spawn(move || -> libxio::Result<()> {
                let mut context = PinnedContext::new(ContextOptions::default())?;
                handles.send(context.handle()).expect("main waits for it");
                context.run(|context, event| work(context, event, number))
            })
        })
        .collect();
    let handles: Vec<_> = ready.iter().take(WORKERS).collect();

    let mut acceptor = Context::new(ContextOptions::default())?;
    let options = ServerOptions { workers: handles.clone(), ..ServerOptions::default() };
    let server = acceptor.listen(&"tcp://127.0.0.1:0/".parse()?, options)?;
    let session = Session::new(acceptor.local_uri(server)?);
    let stop = acceptor.handle();
    let accepting = std::thread::spawn(move || acceptor.run(|_, _| {}));

    let all = Barrier::new(CLIENTS);
    let greetings: Vec<libxio::Result<String>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| greet(&session, &all))).collect();
        clients.into_iter().map(|client| client.join().expect("clients do not panic")).collect()
    });
    // Which thread reaches which worker is chance; how many do is not.
    let mut greetings: Vec<String> = greetings.into_iter().collect::<libxio::Result<_>>()?;
    greetings.sort();
    for (number, greeting) in greetings.iter().enumerate() {
        println!("client {number}: {greeting}");
    }
    handles.iter().for_each(libxio::ContextHandle::stop);
    stop.stop();
    for thread in workers.into_iter().chain([accepting]) {
        thread.join().expect("the server does not panic")?;
    }
    Ok(())
}

fn work(context: &mut Context, event: Event, number: usize) {
    // A client that left before its answer is no fault of ours.
    let _ = match event {
        Event::ConnectionRequest(request) => context.accept(request, AcceptOptions::new()).map(|_| ()),
        Event::Request(request) => {
            let greeting = format!("hello from worker {number}");
            context.respond(request, OutgoingResponse { header: greeting.as_bytes(), ..Default::default() })
        }
        _ => Ok(()),
    };
}

fn greet(session: &Session, all: &Barrier) -> libxio::Result<String> {
    let mut context = Context::new(ContextOptions::default())?;
    let connection = context.connect(session, ConnectionOptions::default())?;
    loop {
        context.wait(None)?;
        match context.next_event() {
            Some(Event::Connected { .. }) => {
                // All are connected before the first one leaves: so they are spread.
                all.wait();
                context.request(connection, OutgoingRequest::new(b"", 0))?;
            }
            Some(Event::Response { outcome, .. }) => {
                return Ok(String::from_utf8_lossy(&outcome?.header).into_owned());
            }
            Some(Event::Closed { reason, .. }) => return Err(reason),
            _ => {}
        }
    }
}
