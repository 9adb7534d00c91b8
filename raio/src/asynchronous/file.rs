//! A remote file whose operations are futures.

use super::hub::Hub;
use super::{MakeReactor, Reactor};
use crate::borrow;
use crate::client::display;
use crate::engine::{Completion, Engine, Operation, Outcome, StatTarget};
use crate::open_options::parse_uri;
use crate::proto::{Attributes, Handle, Op};
use crate::{Error, OpenOptions, Result};
use libxio::{Buffer, Landing, Sgl};
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// An open remote file; share it between tasks by reference or in an [`Arc`]. See the [module](super).
#[derive(Debug)]
pub struct AsyncFile {
    shared: Shared,
    handle: Handle,
    attributes: Attributes,
    path: Arc<str>,
}

/// What the futures of one file share.
struct Shared {
    reactor: Box<dyn Reactor>,
    engine: Mutex<Engine>,
    hub: Arc<Hub>,
    /// Wakes every task that waits on the hub.
    waker: Waker,
}

impl AsyncFile {
    /// Connects to the server of a uri and opens the file that it names, watched by the reactor of the caller's executor.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub async fn open_with(uri: &str, options: &OpenOptions, reactor: impl MakeReactor) -> Result<AsyncFile> {
        let uri = parse_uri(uri)?;
        let path = Path::new(uri.resource());
        let mut engine = Engine::begin(&uri, options.client_options())?;
        let fd = borrow::duplicate_poll_fd(&mut engine)?;
        let failed =
            |cause| Error::Local(libxio::Error::system("watching a connection's descriptor", &cause));
        let reactor = Box::new(reactor.make(fd).map_err(failed)?);
        let hub = Hub::new();
        let waker = Waker::from(Arc::clone(&hub));
        let shared = Shared { reactor, engine: Mutex::new(engine), hub, waker };
        let path_text = display(path);
        let opened = shared.run(options.operation(path)).await;
        match opened.map_err(|error| error.with_path(&path_text))? {
            Outcome::Opened { handle, attributes } => {
                Ok(AsyncFile { shared, handle, attributes: *attributes, path: path_text })
            }
            _ => Err(Outcome::unexpected(Op::Open)),
        }
    }

    /// Reads up to `length` bytes at an offset into buffers of the library; fewer come only at the end of the file.
    ///
    /// # Errors
    /// [`Error::Operation`] with the server's reason, [`Error::Limit`] above [`AsyncFile::io_bytes_max`], [`Error::Lost`].
    pub async fn read_at(&self, offset: u64, length: u32) -> Result<Sgl> {
        let landing = Landing::Pool(length);
        let outcome = self.run(Operation::Read { handle: self.handle, offset, length, landing }).await?;
        Ok(outcome.into_data())
    }

    /// Reads into memory of the caller's choice, as much as it holds; it comes back cut to what was read.
    ///
    /// # Errors
    /// As [`AsyncFile::read_at`].
    pub async fn read_into(&self, offset: u64, memory: impl Into<Sgl>) -> Result<Sgl> {
        let memory = memory.into();
        // A list holds at most `u32::MAX` bytes.
        let length = memory.len() as u32;
        let landing = Landing::Place(memory);
        let outcome = self.run(Operation::Read { handle: self.handle, offset, length, landing }).await?;
        Ok(outcome.into_data())
    }

    /// Writes at an offset; says how many bytes were written.
    ///
    /// # Errors
    /// As [`AsyncFile::read_at`].
    pub async fn write_at(&self, offset: u64, data: impl Into<Sgl>) -> Result<usize> {
        let data = data.into();
        let operation = Operation::Write { handle: self.handle, offset, data, durable: false };
        Ok(self.run(operation).await?.bytes())
    }

    /// Puts everything written on stable storage.
    ///
    /// # Errors
    /// [`Error::Operation`] with the server's reason, [`Error::Lost`].
    pub async fn flush(&self) -> Result<()> {
        self.run(Operation::Flush { handle: self.handle, data_only: false }).await.map(drop)
    }

    /// Gives the storage of a range back; it reads as zeros.
    ///
    /// # Errors
    /// As [`AsyncFile::flush`].
    pub async fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.run(Operation::Discard { handle: self.handle, offset, length }).await.map(drop)
    }

    /// Sets the size in bytes; what is new reads as zeros.
    ///
    /// # Errors
    /// As [`AsyncFile::flush`].
    pub async fn truncate(&self, size: u64) -> Result<()> {
        self.run(Operation::Truncate { handle: self.handle, size }).await.map(drop)
    }

    /// Attributes now.
    ///
    /// # Errors
    /// As [`AsyncFile::flush`].
    pub async fn stat(&self) -> Result<Attributes> {
        match self.run(Operation::Stat(StatTarget::Handle(self.handle))).await? {
            Outcome::Attributes(attributes) => Ok(*attributes),
            _ => Err(Outcome::unexpected(Op::Stat)),
        }
    }

    /// Closes it and says whether that went well. Dropping it closes it too.
    ///
    /// # Errors
    /// As [`AsyncFile::flush`].
    pub async fn close(self) -> Result<()> {
        self.run(Operation::Close { handle: self.handle }).await.map(drop)
    }

    /// Attributes as they were when it was opened.
    #[must_use]
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// Greatest length of one read or write in bytes.
    #[must_use]
    pub fn io_bytes_max(&self) -> u32 {
        self.attributes.io_bytes_max.min(self.shared.engine().limits().io_bytes_max)
    }

    /// The path at the server.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A buffer that data can land in, or be sent from, in the cheapest way. Its content is whatever its last user left.
    ///
    /// # Errors
    /// [`Error::Local`] at the limit of [`ClientOptions::pool_bytes_max`](crate::ClientOptions::pool_bytes_max).
    pub fn buffer(&self, length: usize) -> Result<Buffer> {
        self.shared.engine().pool().take(length).map_err(Error::Local)
    }

    async fn run(&self, operation: Operation) -> Result<Outcome> {
        self.shared.run(operation).await.map_err(|error| error.with_path(&self.path))
    }
}

impl Shared {
    fn engine(&self) -> MutexGuard<'_, Engine> {
        // The engine is whole at every moment; a panic elsewhere does not change that.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, operation: Operation) -> Result<Outcome> {
        let index = self.hub.insert();
        if let Err(error) = self.engine().submit(operation, index as u64) {
            self.hub.remove(index);
            return Err(error);
        }
        InFlight { shared: self, index, begun: false, taken: false }.await
    }

    /// Runs the loop once and hands completions out; false when there was nothing to do.
    fn turn(&self) -> bool {
        let mut engine = self.engine();
        // A ring that fails has ended everything outstanding: the next look finds the completions.
        let ready = engine.poll(Some(Duration::ZERO)).unwrap_or(1);
        while let Some(Completion { token, result }) = engine.next() {
            // Tokens are the hub's numbers.
            self.hub.complete(token as usize, result);
        }
        ready > 0
    }

    /// Runs the loop until there is nothing to do, and sees to it that the tasks are woken when there is.
    fn drive(&self) -> Result<()> {
        while self.turn() {}
        let mut context = Context::from_waker(&self.waker);
        let failed = |cause| Error::Local(libxio::Error::system("waiting for a connection", &cause));
        self.reactor.drive(&mut context, &mut || self.turn()).map_err(failed)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.engine().leave();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("engine", &self.engine).finish_non_exhaustive()
    }
}

/// Waits for one operation.
struct InFlight<'a> {
    shared: &'a Shared,
    index: usize,
    /// It was polled before.
    begun: bool,
    /// The result was taken.
    taken: bool,
}

impl Future for InFlight<'_> {
    type Output = Result<Outcome>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Outcome>> {
        // Note whom to wake before the loop runs: another task may be the one that finds the completion.
        if let Some(result) = self.shared.hub.take(self.index, context.waker()) {
            self.taken = true;
            return Poll::Ready(result);
        }
        if !self.begun {
            // Let the other tasks that are ready submit theirs first: one turn of the loop sends them all.
            self.begun = true;
            self.shared.hub.set_work();
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if !self.shared.hub.take_work() {
            return Poll::Pending;
        }
        if let Err(error) = self.shared.drive() {
            // The others would wait for ever: let each of them meet the error.
            self.shared.waker.wake_by_ref();
            return Poll::Ready(Err(error));
        }
        match self.shared.hub.take(self.index, context.waker()) {
            Some(result) => {
                self.taken = true;
                Poll::Ready(result)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if !self.taken {
            self.shared.hub.abandon(self.index);
        }
    }
}
