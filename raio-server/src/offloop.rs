//! A few threads for calls that may wait for a disk or another machine: open, stat, list, rename and the like.
//!
//! Reads, writes, flushes and discards go through a worker's ring. What is here has no operation in the ring, or is a
//! series of calls (an open looks the name up, then asks for attributes and limits), and would stall every client of a
//! worker on a slow file system. The threads are shared by all workers and made when they are first needed. What
//! waits for them is bounded, since each client may only have a few calls here at a time.
//!
//! A call that hangs (a network file system whose server is gone) keeps its thread. So the calls of one export are begun only
//! while it has fewer of the threads than are left: the first that hangs keeps half of them, the next one half of the rest.

use crossbeam_channel::{Receiver, Sender, unbounded};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Most threads, and so most calls at a time.
const THREADS_MAX: usize = 16;

type Job = Box<dyn FnOnce() + Send>;

/// Whose a call is: an export's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group(u32);

impl Group {
    /// Another one than all others.
    pub(crate) fn new() -> Group {
        static NUMBERS: AtomicU32 = AtomicU32::new(0);
        Group(NUMBERS.fetch_add(1, Ordering::Relaxed))
    }
}

/// The threads' inbox. They end when the last clone is dropped; calls that have not begun then never do.
#[derive(Clone)]
pub(crate) struct OffLoop {
    inner: Arc<Inner>,
}

struct Inner {
    sender: Sender<(Group, Job)>,
    receiver: Receiver<(Group, Job)>,
    state: Mutex<State>,
}

/// Locked when a call comes and when it ends.
#[derive(Default)]
struct State {
    threads: usize,
    /// Calls begun and not ended, of all groups; at most [`THREADS_MAX`].
    running: usize,
    /// Groups with calls.
    lines: VecDeque<Line>,
}

/// The calls of one group.
struct Line {
    group: Group,
    running: usize,
    waiting: VecDeque<Job>,
}

impl OffLoop {
    pub(crate) fn new() -> OffLoop {
        let (sender, receiver) = unbounded();
        OffLoop { inner: Arc::new(Inner { sender, receiver, state: Mutex::default() }) }
    }

    /// Runs a job of a group on one of the threads, in its turn.
    pub(crate) fn run(&self, group: Group, job: impl FnOnce() + Send + 'static) {
        self.inner.state().push(group, Box::new(job));
        self.begin_all();
    }

    /// Begins what may run.
    fn begin_all(&self) {
        loop {
            let mut state = self.inner.state();
            let Some((group, job)) = state.begin() else { return };
            if state.running > state.threads && !self.add_thread(&mut state) && state.threads == 0 {
                drop(state);
                // Better a stalled loop than a call that never ends.
                job();
                self.inner.state().end(group);
                continue;
            }
            // The receiver is kept here, so the channel is open.
            let _ = self.inner.sender.send((group, job));
        }
    }

    /// False where the system refuses a thread.
    fn add_thread(&self, state: &mut State) -> bool {
        let (receiver, inner) = (self.inner.receiver.clone(), Arc::downgrade(&self.inner));
        let body = move || {
            for (group, job) in receiver {
                // Whoever waits for the job has its end told by what the job holds.
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    tracing::error!("a call off the loop has panicked; this is a fault of the server");
                }
                let Some(inner) = Weak::upgrade(&inner) else { return };
                inner.state().end(group);
                OffLoop { inner }.begin_all();
            }
        };
        let name = format!("raio-files-{}", state.threads);
        if let Err(cause) = std::thread::Builder::new().name(name).spawn(body) {
            tracing::error!(%cause, "can't start a thread for file calls");
            return false;
        }
        state.threads += 1;
        true
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push(&mut self, group: Group, job: Job) {
        match self.lines.iter_mut().find(|line| line.group == group) {
            Some(line) => line.waiting.push_back(job),
            None => self.lines.push_back(Line { group, running: 0, waiting: VecDeque::from([job]) }),
        }
    }

    /// The next job that may run, counted as running; the groups have their turns.
    fn begin(&mut self) -> Option<(Group, Job)> {
        let free = THREADS_MAX - self.running;
        let at = self.lines.iter().position(|line| !line.waiting.is_empty() && line.running < free)?;
        let mut line = self.lines.remove(at)?;
        let job = line.waiting.pop_front()?;
        line.running += 1;
        self.running += 1;
        let group = line.group;
        self.lines.push_back(line);
        Some((group, job))
    }

    fn end(&mut self, group: Group) {
        self.running -= 1;
        if let Some(line) = self.lines.iter_mut().find(|line| line.group == group) {
            line.running -= 1;
        }
        self.lines.retain(|line| line.running > 0 || !line.waiting.is_empty());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;
    use std::time::Duration;

    const LONG: Duration = Duration::from_secs(20);

    /// Calls that hang until what is returned is dropped; each says so when it has begun.
    fn hang(off_loop: &OffLoop, group: Group, count: usize) -> (Sender<()>, Receiver<()>) {
        let (release, released) = unbounded::<()>();
        let (began, begun) = unbounded();
        for _ in 0..count {
            let (released, began) = (released.clone(), began.clone());
            off_loop.run(group, move || {
                began.send(()).unwrap();
                let _ = released.recv();
            });
        }
        (release, begun)
    }

    #[test]
    fn an_export_that_hangs_leaves_threads_to_others() {
        let off_loop = OffLoop::new();
        let groups = [(); 4].map(|()| Group::new());
        let mut hanging = Vec::new();
        for (group, threads) in groups.into_iter().zip([8, 4, 2, 1]) {
            let (release, begun) = hang(&off_loop, group, 40);
            for _ in 0..threads {
                begun.recv_timeout(LONG).unwrap();
            }
            assert!(begun.is_empty(), "no more than half of what was left");
            hanging.push((release, begun, threads));
            // Somebody else's calls run, one after the other.
            let (done, is_done) = unbounded();
            let other = Group::new();
            for number in 0..20 {
                let done = done.clone();
                off_loop.run(other, move || done.send(number).unwrap());
            }
            let mut numbers: Vec<_> = (0..20).map(|_| is_done.recv_timeout(LONG).unwrap()).collect();
            numbers.sort_unstable();
            assert!(numbers.into_iter().eq(0..20));
        }
        // What comes back to life is served to its end.
        for (release, begun, threads) in hanging {
            drop(release);
            for _ in threads..40 {
                begun.recv_timeout(LONG).unwrap();
            }
        }
        assert!(off_loop.inner.state().threads <= THREADS_MAX);
    }

    #[test]
    fn a_job_that_panics_keeps_no_thread() {
        let off_loop = OffLoop::new();
        let group = Group::new();
        let (done, is_done) = unbounded();
        for number in 0..50 {
            let done = done.clone();
            off_loop.run(group, move || {
                done.send(number).unwrap();
                assert!(number % 2 == 0, "a panic that a test makes");
            });
        }
        for _ in 0..50 {
            is_done.recv_timeout(LONG).unwrap();
        }
    }
}
