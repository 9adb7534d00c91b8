//! The async face: futures that run the connection's loop inside the task that polls them, in any executor.
//!
//! No helper thread: whichever task is polled runs the loop for all, and tasks sleep on the connection's descriptor, which
//! a [`Reactor`] watches. With the cargo feature `tokio` that is tokio's own, and [`AsyncFile::open`] needs nothing
//! else; for other executors implement [`Reactor`] in a dozen lines and use [`AsyncFile::open_with`].
//!
//! Many futures may be alive on one file. Dropping one is safe at any time: memory is owned by the operation, which the
//! server may still carry out.
//!
//! ```no_run
//! # #[cfg(feature = "tokio")]
//! # async fn example() -> raio::Result<()> {
//! use raio::{OpenOptions, asynchronous::AsyncFile};
//! let file = AsyncFile::open("raio://127.0.0.1:5555/data/big.img", OpenOptions::new().read(true)).await?;
//! let (head, tail) = tokio::join!(file.read_at(0, 4096), file.read_at(1 << 20, 4096));
//! println!("{} and {} bytes", head?.len(), tail?.len());
//! file.close().await
//! # }
//! ```

mod file;
mod hub;
#[cfg(feature = "tokio")]
mod tokio;

pub use file::AsyncFile;

use std::io;
use std::os::fd::OwnedFd;
use std::task::Context;

/// Watches a connection's descriptor for an executor.
pub trait Reactor: Send + Sync + 'static {
    /// Calls `turn` while the descriptor may be readable, until `turn` says that nothing is left to do (false). Then
    /// sees to it that the task of `context` is woken when the descriptor becomes readable, and returns.
    ///
    /// Only the last `context` of all calls has to be woken, and it stays the same.
    ///
    /// # Errors
    /// Those of the executor's own reactor; the operation fails with them.
    fn drive(&self, context: &mut Context<'_>, turn: &mut dyn FnMut() -> bool) -> io::Result<()>;
}

/// Makes the [`Reactor`] for a descriptor.
pub trait MakeReactor {
    /// What it makes.
    type Reactor: Reactor;

    /// Begins to watch.
    ///
    /// # Errors
    /// Those of the executor's own reactor; opening the file fails with them.
    fn make(self, fd: OwnedFd) -> io::Result<Self::Reactor>;
}

impl<R: Reactor, F: FnOnce(OwnedFd) -> io::Result<R>> MakeReactor for F {
    type Reactor = R;

    fn make(self, fd: OwnedFd) -> io::Result<R> {
        self(fd)
    }
}
