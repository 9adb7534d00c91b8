//! A well-behaved server on shared memory, for peers that are not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "every test file uses its own part")]

use crate::raw::{End, LONG, Shared, limits, request};
use conformance::{Fabric, watchdog};
use libxio::wire::FrameKind;
use libxio::{
    AcceptOptions, Context, ContextOptions, Event, OutgoingResponse, ServerOptions, StatisticsSnapshot,
};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A server in its own thread: it answers with the request's data where there is some, else with 4 KiB that it has
/// written to where the answer shall go.
pub struct Server {
    pub path: String,
    handle: libxio::ContextHandle,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start() -> Server {
        Server::at(Fabric::shm().listen.resource())
    }

    /// At a path, which may have `?allow=` behind it.
    pub fn at(path: &str) -> Server {
        watchdog();
        let mut server = Context::new(ContextOptions::default()).unwrap();
        server.listen(&format!("shm://{path}").parse().unwrap(), ServerOptions::default()).unwrap();
        let handle = server.handle();
        let thread = std::thread::spawn(move || {
            server
                .run(|server, event| match event {
                    Event::ConnectionRequest(request) => {
                        // It may be gone already.
                        let _ = server.accept(request, AcceptOptions::new());
                    }
                    Event::Request(mut request) => {
                        let mut data = request.take_data();
                        data.truncate(request.room() as usize);
                        if data.is_empty() && request.room() > 0 {
                            let length = request.room().min(4096) as usize;
                            let mut buffer = server.response_buffer(&request, length).unwrap();
                            buffer.copy_from(0, &vec![b'a'; length]);
                            data = buffer.into();
                        }
                        let _ = server.respond(request, OutgoingResponse { header: b"answer", data });
                    }
                    _ => {}
                })
                .unwrap();
        });
        let path = path.split('?').next().unwrap_or_default().to_owned();
        Server { path, handle, thread: Some(thread) }
    }

    pub fn counters(&self) -> StatisticsSnapshot {
        self.handle.statistics().snapshot()
    }

    pub fn until(&self, what: &str, condition: impl Fn(&StatisticsSnapshot) -> bool) {
        let start = Instant::now();
        while !condition(&self.counters()) {
            assert!(start.elapsed() < LONG, "waited in vain for {what}: {:?}", self.counters());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A guest with a region of 64 KiB under number 0.
    pub fn guest(&self) -> (End, Shared) {
        let mut guest = End::client(&self.path);
        guest.greet();
        let region = Shared::new(65_536);
        guest.hand_over(0, &region);
        (guest, region)
    }

    /// Somebody well-behaved is still served.
    pub fn serves(&self) {
        let (mut guest, region) = self.guest();
        guest.write(&request(0, 1, (0, 4096), &[], &[(0, 4096, 8192)]));
        let (head, _) = guest.read_frame(&limits()).expect("an answer");
        assert_eq!((head.kind, head.data_length), (FrameKind::Response, 4096));
        assert!(region.read(8192, 4096).iter().all(|byte| *byte == b'a'));
        assert!(region.read(12_288, 4096).iter().all(|byte| *byte == 0), "written beyond the landing");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.stop();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking(), "the server has panicked");
    }
}
