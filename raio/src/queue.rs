//! A file with many requests in flight: submission and completion, in the caller's thread.

use crate::client::display;
use crate::engine::{Completion, Engine, Operation, Outcome};
use crate::open_options::parse_uri;
use crate::proto::{Attributes, Handle, Op};
use crate::{Error, OpenOptions, Result};
use libxio::{Buffer, Landing, Pool, Sgl};
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// An open remote file and up to `depth` requests on it: the way to high rates.
///
/// Requests complete in any order; a request counts against the depth until its completion is taken. Dropped with
/// requests in flight, it cuts the connection.
///
/// ```no_run
/// # fn main() -> raio::Result<()> {
/// use raio::{OpenOptions, Queue};
/// let mut queue = Queue::open("raio://127.0.0.1:5555/data/big.img", OpenOptions::new().read(true), 32)?;
/// let blocks = queue.attributes().size / 4096;
/// let (mut next, mut done) = (0, 0);
/// while done < blocks {
///     while next < blocks && queue.room() > 0 {
///         queue.submit_read(next * 4096, 4096, next)?;
///         next += 1;
///     }
///     queue.wait(1, None)?;
///     while let Some(completion) = queue.next() {
///         let data = completion.result?.into_data();
///         println!("block {}: {} bytes", completion.token, data.len());
///         done += 1;
///     }
/// }
/// queue.close()
/// # }
/// ```
#[derive(Debug)]
pub struct Queue {
    engine: Engine,
    handle: Handle,
    attributes: Attributes,
    path: Arc<str>,
    depth: usize,
    /// Requests submitted whose completion was not taken; at most `depth`.
    used: usize,
}

impl Queue {
    /// Connects to the server of a uri, opens its file, and takes up to `depth` requests (at least 1).
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn open(uri: &str, options: &OpenOptions, depth: usize) -> Result<Queue> {
        let uri = parse_uri(uri)?;
        let path = Path::new(uri.resource());
        let mut engine = Engine::connect(&uri, options.client_options())?;
        let path_text = display(path);
        match engine.call(options.operation(path)).map_err(|error| error.with_path(&path_text))? {
            Outcome::Opened { handle, attributes } => Ok(Queue {
                engine,
                handle,
                attributes: *attributes,
                path: path_text,
                depth: depth.max(1),
                used: 0,
            }),
            _ => Err(Outcome::unexpected(Op::Open)),
        }
    }

    /// Reads into a buffer of the library, which comes with the completion.
    ///
    /// # Errors
    /// It was not taken: [`Error::QueueFull`], [`Error::Limit`], [`Error::Invalid`], or what the connection was lost with.
    pub fn submit_read(&mut self, offset: u64, length: u32, token: u64) -> Result<()> {
        let landing = Landing::Pool(length);
        self.submit(Operation::Read { handle: self.handle, offset, length, landing }, token)
    }

    /// Reads into memory of the caller's choice, from [`Queue::buffer`] for example: as much as it holds.
    ///
    /// # Errors
    /// As [`Queue::submit_read`].
    pub fn submit_read_into(&mut self, offset: u64, memory: impl Into<Sgl>, token: u64) -> Result<()> {
        let memory = memory.into();
        // A list holds at most `u32::MAX` bytes.
        let length = memory.len() as u32;
        let landing = Landing::Place(memory);
        self.submit(Operation::Read { handle: self.handle, offset, length, landing }, token)
    }

    /// Writes.
    ///
    /// # Errors
    /// As [`Queue::submit_read`].
    pub fn submit_write(&mut self, offset: u64, data: impl Into<Sgl>, token: u64) -> Result<()> {
        self.submit(
            Operation::Write { handle: self.handle, offset, data: data.into(), durable: false },
            token,
        )
    }

    /// Writes; the data are on stable storage when it completes.
    ///
    /// # Errors
    /// As [`Queue::submit_read`].
    pub fn submit_write_durable(&mut self, offset: u64, data: impl Into<Sgl>, token: u64) -> Result<()> {
        self.submit(Operation::Write { handle: self.handle, offset, data: data.into(), durable: true }, token)
    }

    /// Puts every write that has completed on stable storage.
    ///
    /// # Errors
    /// As [`Queue::submit_read`].
    pub fn submit_flush(&mut self, data_only: bool, token: u64) -> Result<()> {
        self.submit(Operation::Flush { handle: self.handle, data_only }, token)
    }

    /// Gives the storage of a range back.
    ///
    /// # Errors
    /// As [`Queue::submit_read`].
    pub fn submit_discard(&mut self, offset: u64, length: u64, token: u64) -> Result<()> {
        self.submit(Operation::Discard { handle: self.handle, offset, length }, token)
    }

    /// Puts what was submitted on its way, without waiting for anything. [`Queue::wait`] does so too.
    ///
    /// # Errors
    /// [`Error::Local`] where this machine's ring fails.
    pub fn flush(&mut self) -> Result<()> {
        self.engine.flush()
    }

    /// Waits until `count` completions are ready, or all that are outstanding, or the time is over (`None`: no limit,
    /// zero: doesn't wait). Says how many are ready. Over TCP the last few requests that were submitted may not have gone
    /// when there are completions: they go with those that come next, or by [`Queue::flush`].
    ///
    /// # Errors
    /// [`Error::Local`] where this machine's ring fails. A lost connection shows in the completions.
    pub fn wait(&mut self, count: usize, timeout: Option<Duration>) -> Result<usize> {
        self.engine.poll_for(count, timeout)
    }

    /// The next completion.
    #[expect(clippy::should_implement_trait, reason = "not the end of anything when it is None")]
    pub fn next(&mut self) -> Option<Completion> {
        let mut completion = self.engine.next()?;
        self.used -= 1;
        if completion.result.is_err() {
            completion.result = completion.result.map_err(|error| error.with_path(&self.path));
        }
        Some(completion)
    }

    /// How many more requests can be submitted now.
    #[must_use]
    pub fn room(&self) -> usize {
        self.depth - self.used
    }

    /// The greatest number of requests at a time.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// A buffer that data can land in, or be sent from, in the cheapest way. Its content is whatever its last user left.
    ///
    /// # Errors
    /// [`Error::Local`] at the limit of [`ClientOptions::pool_bytes_max`](crate::ClientOptions::pool_bytes_max).
    pub fn buffer(&self, length: usize) -> Result<Buffer> {
        self.engine.pool().take(length).map_err(Error::Local)
    }

    /// Where buffers come from; it can be cloned and used from other threads.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        self.engine.pool()
    }

    /// Attributes as they were when the file was opened.
    #[must_use]
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// Greatest length of one request in bytes.
    #[must_use]
    pub fn io_bytes_max(&self) -> u32 {
        self.attributes.io_bytes_max.min(self.engine.limits().io_bytes_max)
    }

    /// The path at the server.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Why the connection is gone; `None` while it is not.
    #[must_use]
    pub fn lost(&self) -> Option<&Error> {
        self.engine.lost()
    }

    /// A descriptor that is readable when there is something to do, after [`Queue::wait`] with a timeout of zero
    /// returned 0.
    ///
    /// # Errors
    /// [`Error::Local`] where the system has no descriptor left.
    pub fn poll_fd(&mut self) -> Result<RawFd> {
        self.engine.poll_fd()
    }

    /// Sets the size in bytes, at once; what is new reads as zeros.
    ///
    /// # Errors
    /// [`Error::Operation`] with the server's reason, [`Error::Lost`].
    pub fn truncate(&mut self, size: u64) -> Result<()> {
        self.call(Operation::Truncate { handle: self.handle, size })
    }

    /// Closes the file and says goodbye to the server. What is outstanding is given up.
    ///
    /// # Errors
    /// [`Error::Operation`] where the server met an error at last, [`Error::Lost`].
    pub fn close(mut self) -> Result<()> {
        let closed = self.call(Operation::Close { handle: self.handle });
        self.engine.close();
        closed
    }

    fn call(&mut self, operation: Operation) -> Result<()> {
        self.engine.call(operation).map(drop).map_err(|error| error.with_path(&self.path))
    }

    fn submit(&mut self, operation: Operation, token: u64) -> Result<()> {
        if self.used >= self.depth {
            return Err(Error::QueueFull { depth: self.depth });
        }
        self.engine.submit(operation, token).map_err(|error| error.with_path(&self.path))?;
        self.used += 1;
        Ok(())
    }
}
