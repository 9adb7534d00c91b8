//! A context by itself: timers, foreign descriptors, file operations, other threads, and somebody else's loop.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use conformance::watchdog;
use libxio::{
    Buffer, Completion, Context, ContextOptions, Error, Event, FileOp, Interest, PinnedContext, Region, Sgl,
};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything here takes, on the busiest machine.
const LONG: Duration = Duration::from_secs(60);

fn sleeper() -> Context {
    Context::new(ContextOptions { polling_timeout: Duration::ZERO, ..Default::default() }).unwrap()
}

/// The next event; the watchdog ends a wait in vain.
fn next(context: &mut Context) -> Event {
    loop {
        if let Some(event) = context.next_event() {
            return event;
        }
        context.wait(Some(LONG)).unwrap();
    }
}

fn completion(context: &mut Context) -> Completion {
    match next(context) {
        Event::Completed(completion) => completion,
        other => panic!("not a completion but {other:?}"),
    }
}

/// Whether a descriptor becomes readable within the time.
fn readable(fd: RawFd, time: Duration) -> bool {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now()).as_millis() as i32;
        // SAFETY: one entry, which lives through the call.
        match unsafe { libc::poll(&mut entry, 1, left) } {
            // Interrupted, which is what the ring's own work looks like from here.
            -1 => {}
            count => return count == 1,
        }
    }
}

#[test]
fn a_context_may_move_but_not_be_shared() {
    fn is_send<T: Send>() {}
    is_send::<Context>();
    is_send::<libxio::ContextHandle>();
    is_send::<Event>();
    fn is_sync<T: Sync>() {}
    is_sync::<libxio::ContextHandle>();
    is_sync::<libxio::Session>();
    is_sync::<Region>();
    is_sync::<libxio::Pool>();
}

#[test]
fn timers_fire_in_order_and_not_before_their_time() {
    watchdog();
    let mut context = sleeper();
    let start = Instant::now();
    context.set_timer(Duration::from_millis(40), 2).unwrap();
    context.set_timer(Duration::from_millis(20), 1).unwrap();
    let taken_back = context.set_timer(Duration::from_millis(30), 9).unwrap();
    assert!(context.cancel_timer(taken_back));
    assert!(!context.cancel_timer(taken_back));
    for expected in [1, 2] {
        let Event::Timer { token, .. } = next(&mut context) else { panic!("not a timer") };
        assert_eq!(token, expected);
        assert!(start.elapsed() >= Duration::from_millis(20 * token));
    }
    assert!(matches!(
        context.set_timer(Duration::from_secs(1 << 40), 0),
        Err(Error::LimitExceeded { what: "timer in seconds", .. })
    ));
}

#[test]
fn a_wait_ends_with_its_time() {
    watchdog();
    let mut context = sleeper();
    let start = Instant::now();
    assert_eq!(context.wait(Some(Duration::from_millis(30))).unwrap(), 0);
    assert!(start.elapsed() >= Duration::from_millis(30));
    assert_eq!(context.wait(Some(Duration::ZERO)).unwrap(), 0);
}

#[test]
fn foreign_descriptors_are_told_of_once_until_they_are_armed_again() {
    watchdog();
    let mut context = sleeper();
    let (mut near, mut far) = UnixStream::pair().unwrap();
    let id = context.add_fd(near.as_raw_fd(), Interest::READ, 5).unwrap();
    assert_eq!(context.wait(Some(Duration::from_millis(5))).unwrap(), 0);
    far.write_all(b"abc").unwrap();
    let Event::FdReady { id: ready_id, token: 5, ready: Interest::READ } = next(&mut context) else {
        panic!()
    };
    assert_eq!(ready_id, id);
    // It stays readable, and quiet.
    assert_eq!(context.wait(Some(Duration::from_millis(5))).unwrap(), 0);
    context.modify_fd(id, Interest::BOTH).unwrap();
    let Event::FdReady { ready: Interest::BOTH, .. } = next(&mut context) else { panic!() };
    near.read_exact(&mut [0; 3]).unwrap();
    context.modify_fd(id, Interest::READ).unwrap();
    drop(far);
    let Event::FdReady { ready, .. } = next(&mut context) else { panic!() };
    assert!(ready.readable, "a hang-up shows as readable");
    // Ready again, but removed before anybody looked.
    context.modify_fd(id, Interest::READ).unwrap();
    context.flush().unwrap();
    context.remove_fd(id).unwrap();
    assert_eq!(context.wait(Some(Duration::from_millis(5))).unwrap(), 0);
    assert!(matches!(context.modify_fd(id, Interest::READ), Err(Error::StaleHandle("descriptor"))));
    // A bad descriptor is ready for the application's own call to tell why.
    context.add_fd(1_000_000, Interest::READ, 6).unwrap();
    assert!(matches!(next(&mut context), Event::FdReady { token: 6, ready: Interest::BOTH, .. }));
}

#[test]
fn files_are_read_written_and_synced_on_the_ring() {
    watchdog();
    for pinned in [false, true] {
        let options = ContextOptions { polling_timeout: Duration::ZERO, ..Default::default() };
        let (mut movable, mut stays);
        let context: &mut Context = if pinned {
            stays = PinnedContext::new(options).unwrap();
            &mut stays
        } else {
            movable = Context::new(options).unwrap();
            &mut movable
        };
        let file = tempfile::tempfile().unwrap();
        let fd = file.as_raw_fd();
        let mut pieces = Sgl::new();
        for part in ["gathered ", "from ", "", "pieces"] {
            pieces.push(Buffer::from_vec(part.as_bytes().to_vec())).unwrap();
        }
        let op = context.submit(FileOp::Write { fd, offset: 3, data: pieces, durable: false }, 1).unwrap();
        let done = completion(context);
        assert_eq!((done.id, done.token, done.result), (op, 1, Ok(20)));
        assert_eq!(done.data.to_vec(), b"gathered from pieces", "the memory comes back");
        context
            .submit(FileOp::Write { fd, offset: 0, data: b"abc".to_vec().into(), durable: false }, 2)
            .unwrap();
        assert_eq!(completion(context).result, Ok(3));
        context.submit(FileOp::Sync { fd, data_only: true }, 3).unwrap();
        assert_eq!(completion(context).result, Ok(0));
        let buffer = context.pool().take(100).unwrap();
        context.submit(FileOp::Read { fd, offset: 0, buffer }, 4).unwrap();
        let mut done = completion(context);
        assert_eq!(done.result, Ok(23), "short at the end of the file");
        done.data.truncate(23);
        assert_eq!(done.data.to_vec(), b"abcgathered from pieces");
        let allocate = FileOp::Allocate { fd, mode: 0, offset: 0, length: 8192 };
        context.submit(allocate, 5).unwrap();
        // Not every file system can do it; then it says so.
        assert!(matches!(completion(context).result, Ok(0) | Err(libc::EOPNOTSUPP)));
        let buffer = context.pool().take(1).unwrap();
        context.submit(FileOp::Read { fd: -1, offset: 0, buffer }, 6).unwrap();
        assert_eq!(completion(context).result, Err(libc::EBADF));
        drop(done);
        assert_eq!(context.pool().bytes_in_use(), 0);
        assert_eq!(context.statistics().snapshot().operations_outstanding, 0);
    }
}

#[test]
fn many_more_operations_than_the_ring_has_entries() {
    watchdog();
    let mut context = Context::new(ContextOptions { ring_entries: 4, ..Default::default() }).unwrap();
    let file = tempfile::tempfile().unwrap();
    let fd = file.as_raw_fd();
    for token in 0..1000_u64 {
        let data = token.to_le_bytes().to_vec().into();
        context.submit(FileOp::Write { fd, offset: token * 8, data, durable: false }, token).unwrap();
    }
    let mut seen = vec![false; 1000];
    for _ in 0..1000 {
        let done = completion(&mut context);
        assert_eq!(done.result, Ok(8));
        assert!(!std::mem::replace(&mut seen[done.token as usize], true));
    }
    assert_eq!(file.metadata().unwrap().len(), 8000);
}

#[test]
fn nothing_is_read_into_memory_that_is_for_sending_only() {
    let mut context = sleeper();
    let file = File::open("/dev/zero").unwrap();
    let buffer = Buffer::from_static(b"read-only");
    let refused = context.submit(FileOp::Read { fd: file.as_raw_fd(), offset: 0, buffer }, 1);
    assert!(matches!(refused, Err(Error::Unsupported(_))), "{refused:?}");
}

#[test]
fn pool_memory_is_aligned_for_direct_io() {
    watchdog();
    let mut context = sleeper();
    let (file, path) = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap().into_parts();
    file.set_len(1 << 20).unwrap();
    drop(file);
    use std::os::unix::fs::OpenOptionsExt;
    let open = std::fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path);
    let Ok(file) = open else {
        eprintln!("no O_DIRECT on this file system: not tested");
        return;
    };
    let fd = file.as_raw_fd();
    for length in [4096, 8192, 65_536, 1 << 20] {
        let mut list = context.pool().take_list(length).unwrap();
        list.scatter(0, &vec![length as u8 | 1; length]);
        context.submit(FileOp::Write { fd, offset: 0, data: list, durable: false }, 0).unwrap();
        assert_eq!(completion(&mut context).result, Ok(length as u32));
        let buffer = context.pool().take(length).unwrap();
        context.submit(FileOp::Read { fd, offset: 0, buffer }, 0).unwrap();
        let done = completion(&mut context);
        assert_eq!(done.result, Ok(length as u32));
        assert!(done.data.to_vec().iter().all(|byte| *byte == length as u8 | 1));
    }
}

#[test]
fn a_context_that_is_dropped_ends_its_operations() {
    watchdog();
    let (near, _far) = UnixStream::pair().unwrap();
    let mut context = sleeper();
    let buffer = context.pool().take(10).unwrap();
    let pool = context.pool().clone();
    // Nothing ever comes.
    context.submit(FileOp::Read { fd: near.as_raw_fd(), offset: 0, buffer }, 1).unwrap();
    context.flush().unwrap();
    assert_eq!(context.wait(Some(Duration::from_millis(5))).unwrap(), 0);
    drop(context);
    assert_eq!(pool.bytes_in_use(), 0);
}

#[test]
fn other_threads_reach_a_sleeping_context_in_the_order_in_which_they_post() {
    watchdog();
    const EACH: u64 = 2000;
    let mut context = sleeper();
    let threads: Vec<_> = (0..3_u64)
        .map(|thread| {
            let handle = context.handle();
            thread::spawn(move || {
                for number in 0..EACH {
                    let mut payload = Box::new(number) as Box<dyn std::any::Any + Send>;
                    loop {
                        match handle.post_message(thread, payload) {
                            Ok(()) => break,
                            Err(Error::InboxFull(_)) => thread::yield_now(),
                            Err(other) => panic!("{other}"),
                        }
                        payload = Box::new(number);
                    }
                    if number % 100 == 0 {
                        // Let it fall asleep now and then.
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            })
        })
        .collect();
    let mut expected = [0; 3];
    while expected.iter().sum::<u64>() < 3 * EACH {
        let Event::Message { token, payload } = next(&mut context) else { panic!() };
        let place = &mut expected[token as usize];
        assert_eq!(*payload.downcast::<u64>().unwrap(), *place);
        *place += 1;
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_closure_runs_in_the_context_and_stop_ends_run_after_what_was_posted_before() {
    watchdog();
    let mut context = sleeper();
    let handle = context.handle();
    let (say, said) = mpsc::channel();
    let thread = thread::spawn(move || context.run(|_, event| panic!("{event:?}")).map(|()| context));
    let here = thread::current().id();
    for number in 0..10_u32 {
        let say = say.clone();
        handle.post(move |_| say.send((number, thread::current().id())).unwrap()).unwrap();
    }
    handle.stop();
    let mut context = thread.join().unwrap().unwrap();
    let said: Vec<_> = said.try_iter().collect();
    assert_eq!(said.iter().map(|(number, _)| *number).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    assert!(said.iter().all(|(_, thread)| *thread != here));
    // It runs again, and stops again, also from inside.
    context.set_timer(Duration::ZERO, 1).unwrap();
    context.run(|context, _| context.stop()).unwrap();
    drop(context);
    assert!(matches!(handle.post(|_| ()), Err(Error::StaleHandle("context"))));
    handle.stop();
    handle.wake();
}

#[test]
fn stop_returns_at_once_though_nobody_drives_the_context_and_its_inbox_is_full() {
    watchdog();
    let mut context = sleeper();
    let handle = context.handle();
    let posted = (0..).take_while(|_| handle.post(|_| ()).is_ok()).count();
    assert!(posted > 1000, "the inbox is bounded, but not small");
    handle.stop();
    context.run(|_, event| panic!("{event:?}")).unwrap();
    assert!(handle.post(|_| ()).is_ok(), "what was posted before has run");
}

#[test]
fn a_loop_of_its_own_sees_the_stop() {
    watchdog();
    let mut context = sleeper();
    let handle = context.handle();
    let thread = thread::spawn(move || {
        while !context.stopped() {
            context.wait(None).unwrap();
            while context.next_event().is_some() {}
        }
        assert!(!context.stopped(), "it was taken");
    });
    handle.stop();
    thread.join().unwrap();
}

#[test]
fn somebody_elses_loop_learns_of_everything_by_the_descriptor() {
    watchdog();
    let mut context = sleeper();
    let fd = context.poll_fd().unwrap();
    let settle = |context: &mut Context| while context.wait(Some(Duration::ZERO)).unwrap() > 0 {};
    let expect = |context: &mut Context| {
        let end = Instant::now() + LONG;
        loop {
            if let Some(event) = context.next_event() {
                return event;
            }
            if context.wait(Some(Duration::ZERO)).unwrap() == 0 {
                assert!(readable(fd, LONG), "nothing shows at the descriptor");
                assert!(Instant::now() < end);
            }
        }
    };
    settle(&mut context);
    assert!(!readable(fd, Duration::from_millis(5)), "quiet while there is nothing to do");

    // A timer, set while the outer loop would already sleep, needs one more wait; then it shows.
    context.set_timer(Duration::from_millis(10), 1).unwrap();
    assert!(matches!(expect(&mut context), Event::Timer { token: 1, .. }));
    // Another thread.
    settle(&mut context);
    let handle = context.handle();
    let thread = thread::spawn(move || {
        thread::sleep(Duration::from_millis(10));
        handle.post_message(2, Box::new(())).unwrap();
    });
    assert!(matches!(expect(&mut context), Event::Message { token: 2, .. }));
    thread.join().unwrap();
    // A descriptor.
    let (near, mut far) = UnixStream::pair().unwrap();
    context.add_fd(near.as_raw_fd(), Interest::READ, 3).unwrap();
    settle(&mut context);
    far.write_all(b"x").unwrap();
    assert!(matches!(expect(&mut context), Event::FdReady { token: 3, .. }));
    // A file operation.
    let buffer = context.pool().take(1).unwrap();
    context.submit(FileOp::Read { fd: near.as_raw_fd(), offset: 0, buffer }, 4).unwrap();
    assert!(matches!(expect(&mut context), Event::Completed(Completion { token: 4, result: Ok(1), .. })));
    // A post that comes while everything is being armed is not lost: many rounds, any moment.
    let handle = context.handle();
    let thread = thread::spawn(move || {
        for round in 0..2000 {
            while handle.post_message(round, Box::new(())).is_err() {
                thread::yield_now();
            }
            if round % 3 == 0 {
                thread::yield_now();
            }
        }
    });
    for round in 0..2000 {
        assert!(matches!(expect(&mut context), Event::Message { token, .. } if token == round));
    }
    thread.join().unwrap();
}

#[test]
fn a_pinned_context_on_another_thread_is_an_error_and_not_a_hang() {
    watchdog();
    let mut pinned = PinnedContext::new(ContextOptions::default()).unwrap();
    let fresh = Context::new(ContextOptions::default()).unwrap();
    // Nobody should do this; it has to be told all the same.
    let mut stolen = std::mem::replace(&mut *pinned, fresh);
    thread::spawn(move || {
        assert!(matches!(stolen.wait(Some(Duration::from_millis(50))), Err(Error::Unsupported(_))));
    })
    .join()
    .unwrap();
}
