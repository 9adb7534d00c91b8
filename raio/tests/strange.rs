//! Servers that speak the messages but break the file protocol: the client gives them up, and says why.

#![allow(clippy::unwrap_used, reason = "a test")]

mod fake;

use fake::{Fake, Made, greeting, made};
use libxio::{Landing, RejectReason};
use raio::asynchronous::AsyncFile;
use raio::engine::{Engine, Operation, Outcome};
use raio::proto::{Answer, Attributes, Handle, OpenFlags, Request};
use raio::{Client, ClientOptions, Error, OpenOptions, Queue};
use std::time::Duration;

fn opened() -> Made {
    made(
        Answer::Opened(
            Handle(7),
            Attributes { size: 1 << 20, io_bytes_max: 1 << 20, ..Attributes::default() },
        ),
        b"",
    )
}

fn queue(fake: &Fake) -> Queue {
    Queue::open(&format!("{}x", fake.uri), OpenOptions::new().read(true).write(true), 16).unwrap()
}

#[test]
fn a_server_of_another_protocol_is_incompatible() {
    for welcome in [b"".to_vec(), b"HTTP/1.1 200 OK and a lot more bytes".to_vec()] {
        let fake = Fake::start(Ok(welcome), |_, _| None);
        let error = Client::connect(&fake.uri).unwrap_err();
        assert!(matches!(error, Error::Incompatible { .. }), "{error}");
        assert_eq!(error.errno(), libc::EPROTONOSUPPORT);
    }
}

#[test]
fn a_rejection_says_what_the_server_said() {
    let fake = Fake::start(Err(RejectReason::NotPermitted), |_, _| None);
    let error = Client::connect(&fake.uri).unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
    assert_eq!(error.errno(), libc::EACCES);
    assert!(error.to_string().contains("come back tomorrow"), "{error}");
}

#[test]
fn answers_that_can_not_be_right_end_the_connection_and_every_request() {
    let lies: [fn() -> Made; 5] = [
        // No status at all.
        || Some((vec![1, 2, 3], Vec::new())),
        // A negative errno.
        || Some(([&(-1_i32).to_le_bytes()[..], &[0; 28]].concat(), Vec::new())),
        // More bytes than came.
        || made(Answer::Moved(100), &[0; 99]),
        // An answer to something else.
        || made(Answer::Found(Attributes::default()), b""),
        // Reserved bytes set.
        || Some((vec![0xff; 32], Vec::new())),
    ];
    for lie in lies {
        let fake = Fake::start(greeting(), move |request, _| match request {
            Request::Open { .. } => opened(),
            Request::Read { offset: 0, .. } => lie(),
            _ => None,
        });
        let mut queue = queue(&fake);
        for token in (0..8).rev() {
            queue.submit_read(token * 512, 512, token).unwrap();
        }
        assert_eq!(queue.wait(8, Some(Duration::from_secs(20))).unwrap(), 8);
        while let Some(completion) = queue.next() {
            let error = completion.result.unwrap_err();
            // A request dropped by the server is answered as such, perhaps before the lie.
            assert!(matches!(error.errno(), libc::ECONNRESET | libc::EIO), "{error}");
        }
        assert!(matches!(queue.lost(), Some(Error::Protocol { .. })), "{:?}", queue.lost());
    }
}

#[test]
fn a_request_without_an_answer_is_an_error_of_its_own() {
    let fake = Fake::start(greeting(), |request, _| match request {
        Request::Open { .. } => opened(),
        Request::Flush { .. } => None,
        _ => made(Answer::DONE, b""),
    });
    let mut queue = queue(&fake);
    queue.submit_flush(false, 1).unwrap();
    queue.wait(1, None).unwrap();
    assert_eq!(queue.next().unwrap().result.unwrap_err().errno(), libc::EIO);
    queue.truncate(5).unwrap();
}

#[test]
fn noatime_refused_is_asked_for_again_without() {
    let fake = Fake::start(greeting(), |request, _| match request {
        Request::Open { flags, .. } if flags.contains(OpenFlags::NO_ATIME) => {
            made(Answer::Failed(libc::EPERM), b"")
        }
        Request::Open { path: b"/owned", .. } => made(Answer::Failed(libc::EPERM), b""),
        Request::Open { .. } => opened(),
        _ => made(Answer::DONE, b""),
    });
    let client = Client::connect(&fake.uri).unwrap();
    let mut options = OpenOptions::new();
    options.read(true).no_atime(true);
    assert_eq!(options.open_on(&client, "/x").unwrap().attributes().size, 1 << 20);
    assert_eq!(
        options.open_on(&client, "/owned").unwrap_err().errno(),
        libc::EPERM,
        "refused for another reason"
    );
}

#[test]
fn a_list_that_never_ends_is_given_up() {
    let fake = Fake::start(greeting(), |request, _| match request {
        Request::List { cookie, .. } => made(Answer::Listed { cookie: cookie.max(1), more: true }, b""),
        _ => None,
    });
    let error = Client::connect(&fake.uri).unwrap().list("/x").unwrap_err();
    assert!(matches!(error, Error::Limit { .. }), "{error}");
}

#[test]
fn names_that_lead_elsewhere_are_not_believed() {
    let fake = Fake::start(greeting(), |request, _| match request {
        Request::List { .. } => {
            let mut data = vec![0; 24];
            data[4] = 4;
            data.extend_from_slice(b"../x");
            made(Answer::Listed { cookie: 0, more: false }, &data)
        }
        _ => None,
    });
    let error = Client::connect(&fake.uri).unwrap().list("/x").unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error}");
}

#[test]
fn what_is_asked_before_the_connection_stands_is_answered_after() {
    let fake = Fake::start(greeting(), |request, data| match request {
        Request::Open { .. } => opened(),
        Request::Write { length, .. } if data.len() == length as usize => made(Answer::Moved(length), b""),
        _ => made(Answer::Failed(libc::EINVAL), b""),
    });
    let mut engine = Engine::begin(&fake.uri.parse().unwrap(), &ClientOptions::default()).unwrap();
    let handle = Handle(7);
    let write = |length| Operation::Write { handle, offset: 0, data: vec![1; length].into(), durable: false };
    engine.submit(write(1000), 1).unwrap();
    // Above the limit of the server, which is not known yet.
    engine.submit(write(2 << 20), 2).unwrap();
    engine.submit(Operation::Read { handle, offset: 0, length: 1, landing: Landing::Pool(1) }, 3).unwrap();
    engine.poll_for(3, Some(Duration::from_secs(20))).unwrap();
    let mut results: Vec<_> =
        std::iter::from_fn(|| engine.next()).map(|end| (end.token, end.result)).collect();
    results.sort_by_key(|(token, _)| *token);
    assert!(matches!(results[0].1, Ok(Outcome::Written { bytes: 1000 })), "{results:?}");
    assert!(matches!(results[1].1, Err(Error::Limit { .. })), "{results:?}");
    assert!(matches!(results[2].1, Err(Error::Operation { errno: libc::EINVAL, .. })), "{results:?}");
    assert_eq!(results.len(), 3);
}

/// An executor of a few lines: the async face needs no more than this from any.
mod executor {
    use raio::asynchronous::Reactor;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::os::fd::OwnedFd;
    use std::sync::mpsc::{Sender, channel};
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll, Wake, Waker};

    /// A thread waits on the descriptor, once for each waker that it is sent.
    pub struct Waiter {
        fd: Arc<OwnedFd>,
        wakers: Mutex<Sender<Waker>>,
    }

    fn readable(fd: &OwnedFd, timeout: Option<&Timespec>) -> bool {
        poll(&mut [PollFd::new(fd, PollFlags::IN)], timeout).unwrap() > 0
    }

    impl Waiter {
        pub fn new(fd: OwnedFd) -> std::io::Result<Waiter> {
            let fd = Arc::new(fd);
            let (sender, receiver) = channel::<Waker>();
            let watched = Arc::clone(&fd);
            std::thread::spawn(move || {
                for waker in receiver {
                    readable(&watched, None);
                    waker.wake();
                }
            });
            Ok(Waiter { fd, wakers: Mutex::new(sender) })
        }
    }

    impl Reactor for Waiter {
        fn drive(&self, context: &mut Context<'_>, turn: &mut dyn FnMut() -> bool) -> std::io::Result<()> {
            while readable(&self.fd, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) && turn() {}
            self.wakers.lock().unwrap().send(context.waker().clone()).map_err(std::io::Error::other)
        }
    }

    struct Unpark(std::thread::Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    pub fn block_on<T>(future: impl Future<Output = T>) -> T {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut future = std::pin::pin!(future);
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return value;
            }
            std::thread::park();
        }
    }
}

#[test]
fn any_executor_will_do() {
    let fake = Fake::start(greeting(), |request, _| match request {
        Request::Open { .. } => opened(),
        Request::Read { length, .. } => made(Answer::Moved(length), &vec![5; length as usize]),
        _ => made(Answer::DONE, b""),
    });
    executor::block_on(async {
        let uri = format!("{}x", fake.uri);
        let file =
            AsyncFile::open_with(&uri, OpenOptions::new().read(true), executor::Waiter::new).await.unwrap();
        for length in [1, 512, 100_000] {
            assert_eq!(file.read_at(0, length).await.unwrap().to_vec(), vec![5; length as usize]);
        }
        file.close().await.unwrap();
    });
}
