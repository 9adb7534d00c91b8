//! A session: one connection, at most one open file and one context on it.

use crate::context::{DEPTH_MAX, IoContext, OpenFile};
use crate::errno::Errno;
use crate::fork::{self, Descriptors};
use crate::notifier::Notifier;
use crate::state::{self, Place};
use crate::watcher::{Signal, Watcher};
use libxio::Uri;
use raio::engine::{Engine, Operation, Outcome, StatTarget};
use raio::proto::{Attributes, OpenFlags};
use raio::{ClientOptions, Error};
use std::ffi::c_int;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// Permission bits of files that are created, less the server's umask.
const CREATE_MODE: u32 = 0o666;

/// Time that `raio_destroy` gives requests on their way to end; then the connection is cut.
const DESTROY_PATIENCE: Duration = Duration::from_secs(5);

/// The greatest part is a multiple of this, so that O_DIRECT takes the parts that follow.
const PART_STEP: u32 = 4096;

/// Everything of one session.
#[derive(Debug)]
pub(crate) struct Session {
    handle: c_int,
    /// Number of its place.
    place: usize,
    engine: Engine,
    descriptors: Descriptors,
    file: Option<OpenFile>,
    context: Option<IoContext>,
    watcher: Option<Watcher>,
}

impl Session {
    /// Connects.
    pub(crate) fn start(uri: &Uri) -> Result<Session, Errno> {
        let options = ClientOptions::from_env();
        let begin = || Ok(Engine::begin(uri, &options)?);
        let (mut engine, mut descriptors) = fork::make(begin, |engine| engine.descriptors().collect())?;
        // The messaging layer keeps the time limit; this one is for a fault there.
        let outcome = engine.poll(Some(options.connect_timeout + Duration::from_secs(1)));
        // It may have moved to another transport.
        descriptors.renew(engine.descriptors());
        let failure = match (engine.lost(), outcome) {
            (Some(error), _) => Some(error.clone()),
            (None, Err(error)) => Some(error),
            (None, Ok(_)) if !engine.is_connected() => {
                let peer = uri.to_string();
                let silent_ms = u64::try_from(options.connect_timeout.as_millis()).unwrap_or(u64::MAX);
                let cause = libxio::Error::TimedOut { peer, silent_ms };
                Some(Error::Connect { uri: Arc::clone(engine.uri()), cause })
            }
            (None, Ok(_)) => None,
        };
        if let Some(error) = failure {
            descriptors.close_with(engine);
            return Err(error.into());
        }
        Ok(Session { handle: -1, place: 0, engine, descriptors, file: None, context: None, watcher: None })
    }

    /// The session with its handle and place.
    pub(crate) fn named(self, handle: c_int, place: usize) -> Session {
        Session { handle, place, ..self }
    }

    pub(crate) fn handle(&self) -> c_int {
        self.handle
    }

    /// Ends it: nothing of it is touched afterwards. Requests on their way are cut off, without them a goodbye is said.
    pub(crate) fn stop(self) {
        let Session { mut engine, descriptors, context, watcher, .. } = self;
        drop(watcher);
        if context.as_ref().is_some_and(|context| context.running() > 0) {
            engine.sever();
        }
        engine.say_goodbye();
        // The notifier waits on the ring: it goes first.
        drop(context);
        descriptors.close_with(engine);
    }

    /// A call has panicked in here: nothing that follows counts.
    pub(crate) fn sever(&mut self) {
        self.engine.sever();
    }

    // ---- the file ----

    pub(crate) fn open(&mut self, path: &[u8], flags: c_int) -> Result<(), Errno> {
        if self.file.is_some() {
            return Err(Errno::BUSY);
        }
        let flags = OpenFlags::from_os(flags).map_err(|reason| Errno(reason.errno()))?;
        let open = Operation::Open { path: path.to_vec(), flags, mode: CREATE_MODE };
        match self.engine.call(open)? {
            Outcome::Opened { handle, attributes } => {
                let limit = self.engine.limits().io_bytes_max;
                let own =
                    if attributes.io_bytes_max == 0 { limit } else { attributes.io_bytes_max.min(limit) };
                let part_max = if own > PART_STEP { own / PART_STEP * PART_STEP } else { own };
                self.file = Some(OpenFile { handle, part_max });
                Ok(())
            }
            _ => Err(Errno(libc::EPROTO)),
        }
    }

    pub(crate) fn close(&mut self) -> Result<(), Errno> {
        let file = self.file.take();
        if self.engine.lost().is_some() {
            return Ok(());
        }
        let file = file.ok_or(Errno::HANDLE)?;
        self.engine.call(Operation::Close { handle: file.handle })?;
        Ok(())
    }

    /// Attributes of the open file.
    pub(crate) fn stat(&mut self) -> Result<Attributes, Errno> {
        let target = StatTarget::Handle(self.file()?.handle);
        self.attributes(target)
    }

    /// Attributes of a path.
    pub(crate) fn stat_path(&mut self, path: &[u8]) -> Result<Attributes, Errno> {
        self.attributes(StatTarget::Path(path.to_vec()))
    }

    fn attributes(&mut self, target: StatTarget) -> Result<Attributes, Errno> {
        match self.engine.call(Operation::Stat(target))? {
            Outcome::Attributes(attributes) => Ok(*attributes),
            _ => Err(Errno(libc::EPROTO)),
        }
    }

    /// Does something that has nothing to tell.
    pub(crate) fn call(&mut self, operation: Operation) -> Result<(), Errno> {
        self.engine.call(operation)?;
        Ok(())
    }

    /// The open file.
    pub(crate) fn file(&self) -> Result<OpenFile, Errno> {
        self.file.ok_or(Errno::HANDLE)
    }

    // ---- the context ----

    pub(crate) fn setup(&mut self, place: &Place, depth: c_int) -> Result<u64, Errno> {
        let depth = usize::try_from(depth).ok().filter(|depth| (1..=DEPTH_MAX).contains(depth));
        let depth = depth.ok_or(Errno::INVALID)?;
        if self.context.is_some() {
            return Err(Errno::BUSY);
        }
        let token = state::new_context_token(self.place);
        self.context = Some(IoContext::new(token, depth));
        place.set_context(token);
        Ok(token)
    }

    /// The parts that calls on the context with this token work on.
    pub(crate) fn context(
        &mut self,
        token: u64,
    ) -> Result<(&mut IoContext, &mut Engine, Option<OpenFile>), Errno> {
        match &mut self.context {
            Some(context) if context.token == token => Ok((context, &mut self.engine, self.file)),
            _ => Err(Errno::INVALID),
        }
    }

    pub(crate) fn destroy(&mut self, place: &Place, token: u64) -> Result<(), Errno> {
        self.context(token)?;
        place.set_context(0);
        if let Some(mut context) = self.context.take() {
            context.end(&mut self.engine, DESTROY_PATIENCE);
        }
        Ok(())
    }

    /// The descriptor to wait on.
    pub(crate) fn poll_fd(&mut self, token: u64) -> Result<RawFd, Errno> {
        let (context, engine, _) = self.context(token)?;
        if context.notifier.is_none() {
            let ring = engine.poll_fd()?;
            // SAFETY: the engine owns the descriptor and is borrowed.
            let ring = unsafe { BorrowedFd::borrow_raw(ring) };
            context.notifier = Some(Notifier::new(ring)?);
        }
        context.notifier.as_ref().map(Notifier::fd).ok_or(Errno::INVALID)
    }

    // ---- who waits outside ----

    /// To be called at the end of every call that may have run the loop: leaves everything so that whoever waits on a
    /// descriptor is woken. Gives the watcher's bell, to be rung without the session's lock, where it has work.
    pub(crate) fn settle(&mut self, place: &'static Place) -> Option<Arc<Signal>> {
        let context = self.context.as_mut()?;
        if context.notifier.is_some() {
            let ready = run_dry(context, &mut self.engine, self.file);
            if let Some(notifier) = &mut context.notifier {
                notifier.set(ready);
            }
        }
        if context.watched() == 0 {
            return None;
        }
        if self.watcher.is_none() {
            let started = self
                .engine
                .poll_fd()
                .map_err(Errno::from)
                .and_then(|ring| Watcher::start(place, self.handle, ring));
            match started {
                Ok(watcher) => self.watcher = Some(watcher),
                Err(errno) => {
                    tracing::warn!(errno = errno.0, "no watcher: eventfds are written in calls only")
                }
            }
        }
        self.watcher.as_ref().map(Watcher::signal)
    }

    /// The watcher's turn; says whether it is to come back when the ring's descriptor is readable.
    pub(crate) fn watch(&mut self) -> bool {
        let Some(context) = self.context.as_mut().filter(|context| context.watched() > 0) else {
            return false;
        };
        let ready = run_dry(context, &mut self.engine, self.file);
        if let Some(notifier) = &mut context.notifier {
            notifier.set(ready);
        }
        context.watched() > 0 && self.engine.lost().is_none()
    }
}

/// Takes up all that has come, until the ring is armed for what comes next. Says whether the caller has something to
/// reap, if only the news that the server is lost.
fn run_dry(context: &mut IoContext, engine: &mut Engine, file: Option<OpenFile>) -> bool {
    loop {
        context.collect(engine, file);
        // What was taken up may have made room for more; a lost connection has nothing to poll.
        let more = engine.lost().is_none() && engine.poll(Some(Duration::ZERO)).is_ok_and(|ended| ended > 0);
        if !more {
            context.collect(engine, file);
            return context.has_ready() || engine.lost().is_some();
        }
    }
}
