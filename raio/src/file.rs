//! A remote file, for blocking calls.

use crate::borrow;
use crate::client::display;
use crate::engine::{Operation, Outcome, StatTarget};
use crate::proto::{Attributes, Handle, Op};
use crate::{Client, Error, OpenOptions, Result};
use std::io::{IoSlice, IoSliceMut};
use std::path::Path;
use std::sync::Arc;

/// An open remote file. Every read and write names its offset, so threads can share it; their calls take turns.
///
/// Long reads and writes are cut into pieces that are in flight together. When it is dropped the server closes the file;
/// [`File::close`] tells whether that went well.
///
/// ```no_run
/// # fn main() -> raio::Result<()> {
/// let file = raio::File::open("raio://127.0.0.1:5555/data/big.img")?;
/// let mut block = vec![0; 4096];
/// let bytes = file.read_at(&mut block, 8192)?;
/// println!("{bytes} of {} bytes", file.attributes().size);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct File {
    client: Client,
    handle: Handle,
    path: Arc<str>,
    attributes: Attributes,
    /// Greatest length of one request in bytes.
    io_bytes_max: u32,
}

impl File {
    /// Connects to the server of a uri and opens its file for reading.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn open(uri: &str) -> Result<File> {
        OpenOptions::new().read(true).open(uri)
    }

    /// Connects to the server of a uri and opens its file for writing; it is created, or cut to no bytes.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn create(uri: &str) -> Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(true).open(uri)
    }

    pub(crate) fn open_on(client: &Client, path: &Path, operation: Operation) -> Result<File> {
        let path = display(path);
        let mut engine = client.engine();
        match engine.call(operation).map_err(|error| error.with_path(&path))? {
            Outcome::Opened { handle, attributes } => {
                let io_bytes_max = attributes.io_bytes_max.min(engine.limits().io_bytes_max).max(1);
                drop(engine);
                Ok(File { client: client.clone(), handle, path, attributes: *attributes, io_bytes_max })
            }
            _ => Err(Outcome::unexpected(Op::Open)),
        }
    }

    /// Reads at an offset in bytes. Fewer bytes than there is room for come only at the end of the file (0 at the end),
    /// or where an error follows, which the next call meets.
    ///
    /// # Errors
    /// [`Error::Operation`] with the server's reason, [`Error::Lost`].
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.read_vectored_at(&mut [IoSliceMut::new(buffer)], offset)
    }

    /// As [`File::read_at`], into several buffers, each filled before the next.
    ///
    /// # Errors
    /// As [`File::read_at`].
    pub fn read_vectored_at(&self, buffers: &mut [IoSliceMut<'_>], offset: u64) -> Result<usize> {
        borrow::read(&mut self.client.engine(), self.handle, buffers, offset, self.io_bytes_max)
            .map_err(|error| self.named(error))
    }

    /// Fills the whole buffer.
    ///
    /// # Errors
    /// [`Error::UnexpectedEnd`] where the file ends before, and as [`File::read_at`].
    pub fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset.saturating_add(done as u64);
            match self.read_at(&mut buffer[done..], at)? {
                0 => return Err(Error::UnexpectedEnd { path: Arc::clone(&self.path), offset: at }),
                bytes => done += bytes,
            }
        }
        Ok(())
    }

    /// Writes at an offset in bytes. Fewer bytes than given are written only where an error follows, which the next call
    /// meets.
    ///
    /// # Errors
    /// [`Error::Operation`] with the server's reason, [`Error::Lost`].
    pub fn write_at(&self, data: &[u8], offset: u64) -> Result<usize> {
        self.write_vectored_at(&[IoSlice::new(data)], offset)
    }

    /// As [`File::write_at`], from several buffers, one after the other.
    ///
    /// # Errors
    /// As [`File::write_at`].
    pub fn write_vectored_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> Result<usize> {
        self.write(buffers, offset, false)
    }

    /// As [`File::write_at`]; the data are on stable storage when it returns.
    ///
    /// # Errors
    /// As [`File::write_at`].
    pub fn write_durable_at(&self, data: &[u8], offset: u64) -> Result<usize> {
        self.write(&[IoSlice::new(data)], offset, true)
    }

    /// Writes all of the data.
    ///
    /// # Errors
    /// As [`File::write_at`]; some of the data may be written.
    pub fn write_all_at(&self, data: &[u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < data.len() {
            match self.write_at(&data[done..], offset.saturating_add(done as u64))? {
                0 => {
                    return Err(self.named(Error::Operation { op: Op::Write, path: None, errno: libc::EIO }));
                }
                bytes => done += bytes,
            }
        }
        Ok(())
    }

    /// Puts everything written, by anyone, on stable storage.
    ///
    /// # Errors
    /// [`Error::Operation`] with the server's reason, [`Error::Lost`].
    pub fn flush(&self) -> Result<()> {
        self.call(Operation::Flush { handle: self.handle, data_only: false }).map(drop)
    }

    /// As [`File::flush`], without metadata that is not needed to read the data back.
    ///
    /// # Errors
    /// As [`File::flush`].
    pub fn flush_data(&self) -> Result<()> {
        self.call(Operation::Flush { handle: self.handle, data_only: true }).map(drop)
    }

    /// Gives the storage of a range back; it reads as zeros. The size stays.
    ///
    /// # Errors
    /// [`Error::Operation`] (EOPNOTSUPP where the file system can't), [`Error::Lost`].
    pub fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.call(Operation::Discard { handle: self.handle, offset, length }).map(drop)
    }

    /// Sets the size in bytes; what is new reads as zeros.
    ///
    /// # Errors
    /// [`Error::Operation`] with the server's reason, [`Error::Lost`].
    pub fn truncate(&self, size: u64) -> Result<()> {
        self.call(Operation::Truncate { handle: self.handle, size }).map(drop)
    }

    /// Attributes now.
    ///
    /// # Errors
    /// [`Error::Operation`] with the server's reason, [`Error::Lost`].
    pub fn stat(&self) -> Result<Attributes> {
        match self.call(Operation::Stat(StatTarget::Handle(self.handle)))? {
            Outcome::Attributes(attributes) => Ok(*attributes),
            _ => Err(self.named(Outcome::unexpected(Op::Stat))),
        }
    }

    /// Attributes as they were when it was opened: identity, limits, the size then.
    #[must_use]
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// The path at the server.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The connection that it is open on.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Closes it.
    ///
    /// # Errors
    /// [`Error::Operation`] where the server met an error at last, [`Error::Lost`].
    pub fn close(mut self) -> Result<()> {
        let handle = std::mem::replace(&mut self.handle, Handle(0));
        self.call(Operation::Close { handle }).map(drop)
    }

    fn write(&self, buffers: &[IoSlice<'_>], offset: u64, durable: bool) -> Result<usize> {
        let mut engine = self.client.engine();
        borrow::write(&mut engine, self.handle, buffers, offset, self.io_bytes_max, durable)
            .map_err(|error| self.named(error))
    }

    fn call(&self, operation: Operation) -> Result<Outcome> {
        self.client.engine().call(operation).map_err(|error| self.named(error))
    }

    fn named(&self, error: Error) -> Error {
        error.with_path(&self.path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if self.handle != Handle(0) {
            self.client.engine().submit_unwatched(Operation::Close { handle: self.handle });
        }
    }
}
