//! A movable context between threads. The kernel cancels what a thread has put into a ring when that thread exits, so a
//! context that moves on has to put it in again; nobody may notice.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use conformance::watchdog;
use libxio::{
    AcceptOptions, ConnectionOptions, Context, ContextOptions, Event, FileOp, Interest, OutgoingRequest,
    OutgoingResponse, ServerOptions, Session,
};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

fn sleeper() -> Context {
    Context::new(ContextOptions { polling_timeout: Duration::ZERO, ..Default::default() }).unwrap()
}

/// Runs a step in a thread of its own, which has exited when this returns.
fn elsewhere<T: Send + 'static>(step: impl FnOnce() -> T + Send + 'static) -> T {
    thread::spawn(step).join().unwrap()
}

fn next(context: &mut Context) -> Event {
    loop {
        if let Some(event) = context.next_event() {
            return event;
        }
        context.wait(Some(LONG)).unwrap();
    }
}

/// Answers every request with its own header until it is stopped.
fn echo_server() -> (libxio::Uri, libxio::ContextHandle, thread::JoinHandle<libxio::Result<()>>) {
    let mut server = sleeper();
    let listening = server.listen(&"tcp://127.0.0.1:0/".parse().unwrap(), ServerOptions::default()).unwrap();
    let (uri, handle) = (server.local_uri(listening).unwrap(), server.handle());
    let thread = thread::spawn(move || {
        server.run(|server, event| match event {
            Event::ConnectionRequest(request) => {
                server.accept(request, AcceptOptions::new()).unwrap();
            }
            Event::Request(request) => {
                let header = request.header().to_vec();
                server.respond(request, OutgoingResponse { header: &header, ..Default::default() }).unwrap();
            }
            _ => {}
        })
    });
    (uri, handle, thread)
}

#[test]
fn links_armed_by_a_thread_that_has_exited_are_armed_again() {
    watchdog();
    let (uri, stop, server) = echo_server();
    let (context, connection) = elsewhere(move || {
        let mut context = sleeper();
        let connection = context.connect(&Session::new(uri), ConnectionOptions::default()).unwrap();
        assert!(matches!(next(&mut context), Event::Connected { .. }));
        // Falls asleep, so that everything is armed by this thread.
        assert_eq!(context.wait(Some(Duration::from_millis(5))).unwrap(), 0);
        (context, connection)
    });
    let mut context = context;
    for round in 0..10_u64 {
        context = elsewhere(move || {
            let mut context = context;
            context.request(connection, OutgoingRequest::new(&round.to_le_bytes(), round)).unwrap();
            let Event::Response { token, outcome, .. } = next(&mut context) else { panic!() };
            assert_eq!(token, round);
            assert_eq!(&outcome.unwrap().header[..], round.to_le_bytes());
            assert_eq!(context.wait(Some(Duration::from_millis(2))).unwrap(), 0);
            context
        });
    }
    stop.stop();
    server.join().unwrap().unwrap();
    // The server's going is noticed as well.
    assert!(matches!(next(&mut context), Event::Closed { .. }));
}

#[test]
fn a_listener_and_its_clients_survive_the_threads_that_drove_them() {
    watchdog();
    let (mut server, uri) = elsewhere(|| {
        let mut server = sleeper();
        let listening =
            server.listen(&"tcp://127.0.0.1:0/".parse().unwrap(), ServerOptions::default()).unwrap();
        assert_eq!(server.wait(Some(Duration::from_millis(5))).unwrap(), 0);
        let uri = server.local_uri(listening).unwrap();
        (server, uri)
    });
    let client = thread::spawn(move || {
        let mut client = sleeper();
        client.connect(&Session::new(uri), ConnectionOptions::default()).unwrap();
        assert!(matches!(next(&mut client), Event::Connected { .. }));
    });
    let Event::ConnectionRequest(request) = next(&mut server) else { panic!() };
    server.accept(request, AcceptOptions::new()).unwrap();
    server.flush().unwrap();
    client.join().unwrap();
    assert!(matches!(next(&mut server), Event::Closed { .. }));
}

#[test]
fn descriptors_timers_posts_and_file_operations_survive_their_thread() {
    watchdog();
    let (near, mut far) = UnixStream::pair().unwrap();
    let (pipe, mut filler) = UnixStream::pair().unwrap();
    let (near_fd, pipe_fd) = (near.as_raw_fd(), pipe.as_raw_fd());
    let mut context = elsewhere(move || {
        let mut context = sleeper();
        context.add_fd(near_fd, Interest::READ, 1).unwrap();
        let buffer = context.pool().take(4).unwrap();
        context.submit(FileOp::Read { fd: pipe_fd, offset: 0, buffer }, 2).unwrap();
        context.set_timer(Duration::from_millis(50), 3).unwrap();
        assert_eq!(context.wait(Some(Duration::from_millis(5))).unwrap(), 0);
        context
    });
    // Nothing is told that has not happened.
    assert!(matches!(next(&mut context), Event::Timer { token: 3, .. }));
    assert_eq!(context.wait(Some(Duration::from_millis(5))).unwrap(), 0);
    far.write_all(b"x").unwrap();
    assert!(matches!(next(&mut context), Event::FdReady { token: 1, ready: Interest::READ, .. }));
    filler.write_all(b"four").unwrap();
    let Event::Completed(done) = next(&mut context) else { panic!() };
    assert_eq!((done.token, done.result), (2, Ok(4)));
    assert_eq!(done.data.to_vec(), b"four");
    let handle = context.handle();
    let poster = thread::spawn(move || {
        thread::sleep(Duration::from_millis(10));
        handle.post_message(4, Box::new(())).unwrap();
    });
    assert!(matches!(next(&mut context), Event::Message { token: 4, .. }));
    poster.join().unwrap();
}

#[test]
fn the_descriptor_for_outer_loops_shows_what_happens_while_the_arming_thread_computes() {
    watchdog();
    let (near, mut far) = UnixStream::pair().unwrap();
    let (give, take) = mpsc::channel::<Context>();
    let (done, is_done) = mpsc::channel::<()>();
    let arming = thread::spawn(move || {
        let mut context = sleeper();
        context.poll_fd().unwrap();
        context.add_fd(near.as_raw_fd(), Interest::READ, 1).unwrap();
        assert_eq!(context.wait(Some(Duration::ZERO)).unwrap(), 0);
        give.send(context).unwrap();
        // Stays in its own code, without a system call.
        while is_done.try_recv() == Err(mpsc::TryRecvError::Empty) {
            std::hint::spin_loop();
        }
        drop(near);
    });
    let mut context = take.recv().unwrap();
    thread::sleep(Duration::from_millis(20));
    far.write_all(b"x").unwrap();
    let mut entry = libc::pollfd { fd: context.poll_fd().unwrap(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, which lives through the call.
    let shown = unsafe { libc::poll(&mut entry, 1, 20_000) };
    done.send(()).unwrap();
    assert_eq!(shown, 1, "the descriptor stays quiet");
    assert!(matches!(next(&mut context), Event::FdReady { token: 1, .. }));
    arming.join().unwrap();
}
