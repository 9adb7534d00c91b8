//! How a file is opened, in the manner of [`std::fs::OpenOptions`].

use crate::proto::OpenFlags;
use crate::{Client, ClientOptions, Error, File, Operation, Result};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Options for opening a remote file.
///
/// ```no_run
/// # fn main() -> raio::Result<()> {
/// let file = raio::OpenOptions::new()
///     .read(true)
///     .write(true)
///     .create(true)
///     .open("raio://127.0.0.1:5555/data/big.img")?;
/// file.write_all_at(b"hello", 0)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct OpenOptions {
    flags: OpenFlags,
    mode: u32,
    client: ClientOptions,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenOptions {
    /// Nothing set: name at least one of `read` and `write`.
    #[must_use]
    pub fn new() -> OpenOptions {
        OpenOptions { flags: OpenFlags::default(), mode: 0o666, client: ClientOptions::default() }
    }

    fn set(&mut self, flag: OpenFlags, on: bool) -> &mut Self {
        self.flags = if on { self.flags.with(flag) } else { self.flags.without(flag) };
        self
    }

    /// The file will be read.
    pub fn read(&mut self, on: bool) -> &mut Self {
        self.set(OpenFlags::READ, on)
    }

    /// The file will be written.
    pub fn write(&mut self, on: bool) -> &mut Self {
        self.set(OpenFlags::WRITE, on)
    }

    /// Create it if it does not exist.
    pub fn create(&mut self, on: bool) -> &mut Self {
        self.set(OpenFlags::CREATE, on)
    }

    /// Create it, and fail if it exists.
    pub fn create_new(&mut self, on: bool) -> &mut Self {
        self.set(OpenFlags::CREATE.with(OpenFlags::EXCLUSIVE), on)
    }

    /// Cut it to no bytes; needs `write`.
    pub fn truncate(&mut self, on: bool) -> &mut Self {
        self.set(OpenFlags::TRUNCATE, on)
    }

    /// Bypass the server's page cache. Offsets and lengths then have to be multiples of
    /// [`Attributes::offset_alignment`](crate::proto::Attributes::offset_alignment); memory may lie anywhere here.
    pub fn direct(&mut self, on: bool) -> &mut Self {
        self.set(OpenFlags::DIRECT, on)
    }

    /// Every write is on stable storage before it is answered, with the metadata needed to read it back.
    pub fn data_sync(&mut self, on: bool) -> &mut Self {
        self.set(OpenFlags::DATA_SYNC, on)
    }

    /// Leave the access time alone, where the server's user may.
    pub fn no_atime(&mut self, on: bool) -> &mut Self {
        self.set(OpenFlags::NO_ATIME, on)
    }

    /// Permission bits of a file that is created, less the server's umask. Default: 0o666.
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.mode = mode;
        self
    }

    /// How to connect, for [`OpenOptions::open`].
    pub fn client(&mut self, options: ClientOptions) -> &mut Self {
        self.client = options;
        self
    }

    /// Connects to the server of a uri and opens the file that it names.
    ///
    /// # Errors
    /// Those of connecting, and of opening.
    pub fn open(&self, uri: &str) -> Result<File> {
        let uri = parse_uri(uri)?;
        let client = Client::connect_with(&uri, &self.client)?;
        self.open_on(&client, uri.resource())
    }

    /// Opens a file on a connection that exists.
    ///
    /// # Errors
    /// [`Error::Operation`] with the server's reason, [`Error::Invalid`] for flags that contradict one another,
    /// [`Error::Lost`].
    pub fn open_on(&self, client: &Client, path: impl AsRef<Path>) -> Result<File> {
        File::open_on(client, path.as_ref(), self.operation(path.as_ref()))
    }

    /// The flags as they travel.
    #[must_use]
    pub fn flags(&self) -> OpenFlags {
        self.flags
    }

    /// How to connect.
    #[must_use]
    pub fn client_options(&self) -> &ClientOptions {
        &self.client
    }

    pub(crate) fn operation(&self, path: &Path) -> Operation {
        Operation::Open { path: path_bytes(path), flags: self.flags, mode: self.mode }
    }
}

/// A path as the protocol has it.
pub(crate) fn path_bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}

/// A uri, or a sentence that says what is wrong with it.
pub(crate) fn parse_uri(text: &str) -> Result<libxio::Uri> {
    text.parse().map_err(|cause| Error::uri(text, cause))
}
