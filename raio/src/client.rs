//! A connection for blocking calls: files are opened on it, names looked up and changed.

use crate::engine::{Engine, Entry, Operation, Outcome, StatTarget};
use crate::open_options::{parse_uri, path_bytes};
use crate::proto::{Attributes, Op, ServerInfo};
use crate::{ClientOptions, Error, Result};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Names in one directory that a listing takes at most: each costs about 100 bytes here.
const ENTRIES_MAX: usize = 10_000_000;

/// A connection to a server. Clones share it; calls of several threads take turns, so threads that want to work at the
/// same time connect each for itself.
///
/// ```no_run
/// # fn main() -> raio::Result<()> {
/// let client = raio::Client::connect("raio://127.0.0.1:5555")?;
/// for entry in client.list("/data")? {
///     println!("{:>12} {}", entry.size, String::from_utf8_lossy(&entry.name));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    engine: Mutex<Engine>,
    uri: Arc<str>,
}

impl Client {
    /// Connects to the server of a uri, with the default options.
    ///
    /// # Errors
    /// As [`Engine::connect`].
    pub fn connect(uri: &str) -> Result<Client> {
        Client::connect_with(&parse_uri(uri)?, &ClientOptions::default())
    }

    /// Connects to the server of a uri.
    ///
    /// # Errors
    /// As [`Engine::connect`].
    pub fn connect_with(uri: &libxio::Uri, options: &ClientOptions) -> Result<Client> {
        let engine = Engine::connect(uri, options)?;
        let uri = Arc::clone(engine.uri());
        Ok(Client { shared: Arc::new(Shared { engine: Mutex::new(engine), uri }) })
    }

    /// Where it is connected to.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.shared.uri
    }

    /// The transport in use, and why it was chosen, in a sentence.
    #[must_use]
    pub fn transport(&self) -> (&'static str, String) {
        let engine = self.shared.engine.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (name, why) = engine.transport();
        (name, why.to_owned())
    }

    /// Looks a path up.
    ///
    /// # Errors
    /// [`Error::Operation`] with the server's reason, [`Error::Lost`].
    pub fn stat(&self, path: impl AsRef<Path>) -> Result<Attributes> {
        let path = path.as_ref();
        match self.call(path, Operation::Stat(StatTarget::Path(path_bytes(path))))? {
            Outcome::Attributes(attributes) => Ok(*attributes),
            _ => Err(Outcome::unexpected(Op::Stat)),
        }
    }

    /// The names in a directory, in the server's order.
    ///
    /// # Errors
    /// [`Error::Operation`] with the server's reason, [`Error::Lost`], [`Error::Limit`] for a directory that never ends.
    pub fn list(&self, path: impl AsRef<Path>) -> Result<Vec<Entry>> {
        let path = path.as_ref();
        let mut all = Vec::new();
        let mut cookie = 0;
        loop {
            let Outcome::Entries { entries, cookie: next, more } =
                self.call(path, Operation::List { path: path_bytes(path), cookie })?
            else {
                return Err(Outcome::unexpected(Op::List));
            };
            let stuck = entries.is_empty() || next == cookie;
            all.extend(entries);
            if !more {
                return Ok(all);
            }
            if stuck || all.len() > ENTRIES_MAX {
                return Err(Error::Limit {
                    what: "number of names in the directory",
                    value: all.len() as u64,
                    limit: ENTRIES_MAX as u64,
                });
            }
            cookie = next;
        }
    }

    /// Removes a file's name.
    ///
    /// # Errors
    /// [`Error::Operation`] with the server's reason, [`Error::Lost`].
    pub fn unlink(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        self.call(path, Operation::Unlink { path: path_bytes(path), directory: false }).map(drop)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`Error::Operation`] with the server's reason, [`Error::Lost`].
    pub fn remove_directory(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        self.call(path, Operation::Unlink { path: path_bytes(path), directory: true }).map(drop)
    }

    /// Gives a file another name in the same export; one that exists is replaced unless `no_replace`.
    ///
    /// # Errors
    /// [`Error::Operation`] with the server's reason, [`Error::Lost`].
    pub fn rename(&self, from: impl AsRef<Path>, to: impl AsRef<Path>, no_replace: bool) -> Result<()> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let operation = Operation::Rename { from: path_bytes(from), to: path_bytes(to), no_replace };
        self.call(from, operation).map(drop)
    }

    /// What the server says about itself.
    ///
    /// # Errors
    /// [`Error::Operation`] with the server's reason, [`Error::Lost`].
    pub fn info(&self) -> Result<ServerInfo> {
        match self.engine().call(Operation::Info)? {
            Outcome::Info(info) => Ok(*info),
            _ => Err(Outcome::unexpected(Op::Info)),
        }
    }

    /// Time for a command to the server's worker and back.
    ///
    /// # Errors
    /// As [`Client::info`].
    pub fn ping(&self) -> Result<Duration> {
        let start = Instant::now();
        self.info()?;
        Ok(start.elapsed())
    }

    /// The engine, for the length of one call.
    pub(crate) fn engine(&self) -> MutexGuard<'_, Engine> {
        // A panic in a call has severed the connection, so there is no half-done state to fear.
        self.shared.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self, path: &Path, operation: Operation) -> Result<Outcome> {
        self.engine().call(operation).map_err(|error| error.with_path(&display(path)))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.engine.get_mut().unwrap_or_else(PoisonError::into_inner).say_goodbye();
    }
}

/// A path for messages.
pub(crate) fn display(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}
