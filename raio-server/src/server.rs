//! A running server: its acceptor, its workers, and how it stops.

use crate::counters::{Counters, CountersSnapshot};
use crate::exports::Exports;
use crate::offloop::{Group, OffLoop};
use crate::worker::{self, Mail, Setup, WorkerHandle};
use crate::{Config, Error, ExportConfig, Result};
use libxio::transport::SharedMemoryOptions;
use libxio::{Context, ContextHandle, ContextOptions, ServerOptions, Uri};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time beyond the end of patience for a worker to say its goodbyes.
const FAREWELL_TIME: Duration = Duration::from_secs(2);

/// Time for an address to become free.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(1);

/// What the workers of a server share; looked at when somebody asks for the server's info.
pub(crate) struct Shared {
    pub started: Instant,
    /// Addresses that clients on this host are told of, once the server listens.
    portals: OnceLock<Vec<String>>,
    counters: Vec<Arc<Counters>>,
}

impl Shared {
    /// The sums over all workers.
    pub(crate) fn counters(&self) -> CountersSnapshot {
        let mut sum = CountersSnapshot::default();
        for counters in &self.counters {
            counters.add_to(&mut sum);
        }
        sum
    }

    /// Where clients on this host reach it by shared memory.
    pub(crate) fn portals(&self) -> impl Iterator<Item = &str> {
        self.portals.get().into_iter().flatten().map(String::as_str)
    }

    pub(crate) fn workers(&self) -> usize {
        self.counters.len()
    }
}

/// A running server. Dropped, it stops as by [`Running::stop`].
pub struct Running {
    uris: Vec<Uri>,
    shared: Arc<Shared>,
    exports: Mutex<Arc<Exports>>,
    drain_timeout: Duration,
    /// Empty once the server was stopped.
    acceptor: Option<(ContextHandle, JoinHandle<()>)>,
    workers: Vec<WorkerHandle>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("uris", &self.uris).finish_non_exhaustive()
    }
}

/// Starts a server. When this returns it accepts connections.
///
/// # Errors
/// What is wrong with the configuration, an export, an address or this machine.
pub fn start(config: Config) -> Result<Running> {
    config.check()?;
    let exports = Arc::new(Exports::open(&config.exports)?);
    let threads = match (config.threads, config.cpus.len()) {
        (0, 0) => std::thread::available_parallelism().map_or(1, usize::from),
        (0, cpus) => cpus,
        (threads, _) => threads,
    };
    // Listening comes first, so that an address in use is told before threads are made.
    let mut acceptor = Context::new(acceptor_options(&config))
        .map_err(|cause| Error::Thread { thread: "raio-accept".to_owned(), cause })?;
    let config = Arc::new(config);
    let shared = Arc::new(Shared {
        started: Instant::now(),
        portals: OnceLock::new(),
        counters: (0..threads).map(|_| Arc::default()).collect(),
    });
    let (off_loop, unmapping) = (OffLoop::new(), Group::new());
    let mut running = Running {
        uris: Vec::new(),
        shared: Arc::clone(&shared),
        exports: Mutex::new(Arc::clone(&exports)),
        drain_timeout: config.drain_timeout,
        acceptor: None,
        workers: Vec::new(),
    };
    for number in 0..threads {
        running.workers.push(worker::start(Setup {
            number,
            config: Arc::clone(&config),
            shared: Arc::clone(&shared),
            counters: Arc::clone(&shared.counters[number]),
            exports: Arc::clone(&exports),
            off_loop: off_loop.clone(),
            unmapping,
            cpu: (!config.cpus.is_empty()).then(|| config.cpus[number % config.cpus.len()]),
        })?);
    }
    let mut options = ServerOptions {
        workers: running.workers.iter().map(WorkerHandle::context).collect(),
        handshakes_max: config.handshakes_max,
        handshake_timeout: config.handshake_timeout,
        connections_max: config.connections_max,
        join: None,
    };
    for socket in &config.sockets {
        let failed = |cause| Error::Listen { uri: "a socket of the service manager".to_owned(), cause };
        let own = socket.try_clone().map_err(|cause| Error::Inherited { cause })?;
        let server = acceptor.listen_with(own, options.clone()).map_err(failed)?;
        running.uris.push(acceptor.local_uri(server).map_err(failed)?);
        options.join.get_or_insert(server);
    }
    for uri in &config.listen {
        let failed = |cause| Error::Listen { uri: uri.to_string(), cause };
        let server = listen(&mut acceptor, uri, &options).map_err(failed)?;
        running.uris.push(acceptor.local_uri(server).map_err(failed)?);
        // All addresses share their sessions: a client may come in by one and go on by another.
        options.join.get_or_insert(server);
    }
    let portals = running.uris.iter().filter(|uri| uri.scheme() == "shm").map(Uri::to_string).collect();
    // Set once, here.
    let _ = shared.portals.set(portals);
    let handle = acceptor.handle();
    let body = move || {
        // Hellos are read and handed to the workers inside; there are no events.
        if let Err(error) = acceptor.run(|_, _| {}) {
            tracing::error!(%error, "the acceptor has failed; no new connections");
        }
    };
    let thread = std::thread::Builder::new().name("raio-accept".to_owned()).spawn(body).map_err(|cause| {
        let cause = libxio::Error::system("making a thread", &cause);
        Error::Thread { thread: "raio-accept".to_owned(), cause }
    })?;
    running.acceptor = Some((handle, thread));
    for export in exports.describe() {
        tracing::info!("export {export}");
    }
    Ok(running)
}

/// Listens. An address may still be in use for a moment after a server was killed: the kernel ends rings, and lets go of
/// what they watch, after the process is gone.
fn listen(acceptor: &mut Context, uri: &Uri, options: &ServerOptions) -> libxio::Result<libxio::Server> {
    let deadline = Instant::now() + ADDRESS_PATIENCE;
    loop {
        match acceptor.listen(uri, options.clone()) {
            Err(error) if error.errno() == libc::EADDRINUSE && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            outcome => return outcome,
        }
    }
}

impl Running {
    /// Where the server listens, ports filled in.
    #[must_use]
    pub fn uris(&self) -> &[Uri] {
        &self.uris
    }

    /// What the server has counted.
    #[must_use]
    pub fn counters(&self) -> CountersSnapshot {
        self.shared.counters()
    }

    /// Serves other exports from now on. Files that are open stay open, memory exports that stay keep their content.
    ///
    /// # Errors
    /// What is wrong with an export; the present ones stay then.
    pub fn set_exports(&self, exports: &[ExportConfig]) -> Result<()> {
        let mut present = self.exports.lock().unwrap_or_else(PoisonError::into_inner);
        let mut exports = Exports::open(exports)?;
        exports.keep_from(&present);
        let exports = Arc::new(exports);
        for worker in &self.workers {
            worker.post(Mail::Exports(Arc::clone(&exports)));
        }
        for export in exports.describe() {
            tracing::info!("export {export}");
        }
        *present = exports;
        Ok(())
    }

    /// Stops: no more connections and requests are taken, what is in progress is answered (for at most
    /// [`Config::drain_timeout`]), then clients get an orderly goodbye.
    pub fn stop(mut self) {
        self.shut_down();
    }

    fn shut_down(&mut self) {
        if let Some((handle, thread)) = self.acceptor.take() {
            handle.stop();
            // It panicked: its words are out already.
            let _ = thread.join();
        }
        let deadline = Instant::now() + self.drain_timeout;
        for worker in &self.workers {
            worker.post(Mail::Drain(deadline));
        }
        for worker in self.workers.drain(..) {
            // A worker in a system call that never returns is left behind.
            while !worker.thread.is_finished() && Instant::now() < deadline + FAREWELL_TIME {
                std::thread::sleep(Duration::from_millis(1));
            }
            if worker.thread.is_finished() {
                let _ = worker.thread.join();
            } else {
                tracing::error!("a worker does not end; it is left behind");
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Links come in by the acceptor's context, which gives them their limits.
fn acceptor_options(config: &Config) -> ContextOptions {
    let (region_bytes_max, total_bytes_max) = (config.shared_bytes_max, config.shared_total_bytes_max);
    ContextOptions {
        polling_timeout: Duration::ZERO,
        shared_memory: SharedMemoryOptions {
            region_bytes_max,
            total_bytes_max,
            ..SharedMemoryOptions::default()
        },
        ..ContextOptions::default()
    }
}
