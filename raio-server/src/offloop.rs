//! A few threads for calls that may wait for a disk or another machine: open, stat, list, rename and the like.
//!
//! Reads, writes, flushes and discards go through a worker's ring. What is here has no operation in the ring, or is a
//! series of calls (an open looks the name up, then asks for attributes and limits), and would stall every client of a
//! worker on a slow file system. The threads are shared by all workers and made when they are first needed. What
//! waits for them is bounded, since each client may only have a few calls here at a time.

use crossbeam_channel::{Receiver, Sender, unbounded};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most threads: calls that hang (a network file system whose server is gone) each take one.
const THREADS_MAX: usize = 16;

type Job = Box<dyn FnOnce() + Send>;

/// The threads' inbox. They end when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct OffLoop {
    sender: Sender<Job>,
    receiver: Receiver<Job>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    threads: AtomicUsize,
    /// Jobs queued or running.
    jobs: AtomicUsize,
}

impl OffLoop {
    pub(crate) fn new() -> OffLoop {
        let (sender, receiver) = unbounded();
        OffLoop { sender, receiver, shared: Arc::default() }
    }

    /// Runs a job on one of the threads.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let jobs = self.shared.jobs.fetch_add(1, Ordering::AcqRel) + 1;
        let threads = self.shared.threads.load(Ordering::Acquire);
        if jobs > threads && threads < THREADS_MAX && !self.add_thread(threads) && threads == 0 {
            // Better a stalled loop than a call that never ends.
            job();
            self.shared.jobs.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        // The receiver is kept here, so the channel is open.
        let _ = self.sender.send(Box::new(job));
    }

    /// False where the system refuses a thread.
    fn add_thread(&self, seen: usize) -> bool {
        let claimed =
            self.shared.threads.compare_exchange(seen, seen + 1, Ordering::AcqRel, Ordering::Acquire);
        if claimed.is_err() {
            // Another worker is making one.
            return true;
        }
        let (receiver, shared) = (self.receiver.clone(), Arc::clone(&self.shared));
        let body = move || {
            for job in receiver {
                // Whoever waits for the job has its end told by what the job holds.
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    tracing::error!("a call off the loop has panicked; this is a fault of the server");
                }
                shared.jobs.fetch_sub(1, Ordering::AcqRel);
            }
        };
        let name = format!("raio-files-{seen}");
        if let Err(cause) = std::thread::Builder::new().name(name).spawn(body) {
            self.shared.threads.fetch_sub(1, Ordering::AcqRel);
            tracing::error!(%cause, "can't start a thread for file calls");
            return false;
        }
        true
    }
}
