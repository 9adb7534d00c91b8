//! The two ends of a copy: a local file, read and written at once, or a queue to a server.

use super::super::failure::Failure;
use super::super::place::Place;
use super::{Arguments, Done};
use libxio::{BUFFER_LEN_MAX, Pool, PoolOptions, Sgl, Uri};
use raio::proto::FileKind;
use raio::{Client, ClientOptions, Error, OpenOptions, Queue};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// Time to wait for one of two queues before the other is looked at.
const TURN: Duration = Duration::from_micros(500);

/// Token of the flush after the last block; block numbers stay below it.
const SYNC: u64 = u64::MAX;

/// One end. Reads and writes that could not be done at once are collected by `next_read` and `next_written`.
pub(super) enum End {
    Local { file: File, name: String, pool: Pool },
    Remote { queue: Box<Queue>, uri: Uri },
}

/// The file to copy.
pub(super) struct Source {
    pub(super) end: End,
    length: u64,
    /// Permission bits.
    mode: u32,
}

/// The file to write.
pub(super) struct Target {
    pub(super) end: End,
    is_new: bool,
}

impl Source {
    pub(super) fn open(place: &Place, options: &ClientOptions, depth: usize) -> Result<Source, Failure> {
        match place {
            Place::Local(path) => {
                let failed = |cause: io::Error| Failure::local("open", place, &cause);
                let file = File::open(path).map_err(failed)?;
                let metadata = file.metadata().map_err(failed)?;
                let kind = metadata.file_type();
                let length = if kind.is_file() {
                    metadata.len()
                } else if kind.is_block_device() {
                    io::Seek::seek(&mut &file, io::SeekFrom::End(0)).map_err(failed)?
                } else {
                    return Err(not_a_file(place, kind.is_dir()));
                };
                Ok(Source { end: End::local(file, place), length, mode: metadata.mode() & 0o777 })
            }
            Place::Remote(uri) => {
                let queue = open_queue(uri, OpenOptions::new().read(true), options, depth)?;
                let attributes = *queue.attributes();
                // The null device has a length here.
                let kinds = [FileKind::File, FileKind::BlockDevice, FileKind::CharacterDevice];
                if !kinds.contains(&attributes.kind()) {
                    return Err(not_a_file(place, attributes.kind() == FileKind::Directory));
                }
                let end = End::Remote { queue: Box::new(queue), uri: uri.clone() };
                Ok(Source { end, length: attributes.size, mode: attributes.mode & 0o777 })
            }
        }
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }
}

impl Target {
    /// Opens the target, or the file of the source's name in it; says which place that is.
    pub(super) fn open(
        place: &Place,
        source: &Place,
        from: &Source,
        options: &ClientOptions,
        arguments: &Arguments,
    ) -> Result<(Place, Target), Failure> {
        let (place, exists) = resolve(place, source, options)?;
        let exists = match exists {
            // Devices are there to be written to.
            Some(FileKind::File) if !arguments.force => {
                return Err(Failure::Other {
                    what: "open",
                    place: place.to_string(),
                    why: "it exists".to_owned(),
                    advice: Some("--force replaces it".to_owned()),
                });
            }
            Some(FileKind::Directory) => return Err(not_a_file(&place, true)),
            found => found,
        };
        let fresh = matches!(exists, None | Some(FileKind::File));
        let end = match &place {
            Place::Local(path) => {
                let mut opening = fs::OpenOptions::new();
                opening.read(true).write(true).mode(from.mode | 0o200);
                if exists.is_none() {
                    opening.create_new(true);
                } else {
                    opening.truncate(fresh);
                }
                let file = opening.open(path).map_err(|cause| Failure::local("open", &place, &cause))?;
                End::local(file, &place)
            }
            Place::Remote(uri) => {
                let mut opening = OpenOptions::new();
                opening.read(arguments.verify).write(true).mode(from.mode | 0o200);
                if exists.is_none() {
                    opening.create_new(true);
                } else {
                    opening.truncate(fresh);
                }
                let queue = open_queue(uri, &mut opening, options, arguments.depth)?;
                End::Remote { queue: Box::new(queue), uri: uri.clone() }
            }
        };
        Ok((place, Target { end, is_new: exists.is_none() }))
    }

    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }
}

/// The place itself, or in it if it is a directory; with it what is there now.
fn resolve(
    place: &Place,
    source: &Place,
    options: &ClientOptions,
) -> Result<(Place, Option<FileKind>), Failure> {
    let mut found = kind_at(place, options)?;
    let mut place = place.clone();
    if found == Some(FileKind::Directory)
        && let Some(name) = source.file_name()
    {
        place = place.join(&name);
        found = kind_at(&place, options)?;
    }
    Ok((place, found))
}

fn kind_at(place: &Place, options: &ClientOptions) -> Result<Option<FileKind>, Failure> {
    match place {
        Place::Local(path) => local_kind(path).map_err(|cause| Failure::local("stat", place, &cause)),
        Place::Remote(uri) => {
            let client = Client::connect_with(uri, options).map_err(Failure::at(uri))?;
            match client.stat(uri.resource()) {
                Ok(attributes) => Ok(Some(attributes.kind())),
                // What is wrong with the path shows again, better told, when the file is opened.
                Err(Error::Operation { errno: libc::ENOENT, .. }) => Ok(None),
                Err(error) => Err(Failure::at(uri)(error)),
            }
        }
    }
}

fn local_kind(path: &Path) -> io::Result<Option<FileKind>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(FileKind::from_mode(metadata.mode()))),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(cause),
    }
}

fn open_queue(
    uri: &Uri,
    opening: &mut OpenOptions,
    options: &ClientOptions,
    depth: usize,
) -> Result<Queue, Failure> {
    // One more than blocks in flight, for the flush.
    Queue::open(&uri.to_string(), opening.client(options.clone()), depth + 1).map_err(Failure::at(uri))
}

fn not_a_file(place: &Place, directory: bool) -> Failure {
    let (why, advice) = if directory {
        ("it is a directory", Some("copy its files one by one: raio ls lists them".to_owned()))
    } else {
        ("it is neither a file nor a block device", None)
    };
    Failure::Other { what: "copy", place: place.to_string(), why: why.to_owned(), advice }
}

impl End {
    fn local(file: File, place: &Place) -> End {
        End::Local { file, name: place.to_string(), pool: Pool::new(PoolOptions::default()) }
    }

    /// Longest block that can be read or written at once, in bytes.
    pub(super) fn block_max(&self) -> u32 {
        match self {
            End::Local { .. } => BUFFER_LEN_MAX as u32,
            End::Remote { queue, .. } => queue.io_bytes_max(),
        }
    }

    /// Reads: the data at once, or `None` and later from `next_read`.
    pub(super) fn read(&mut self, offset: u64, length: u32, token: u64) -> Result<Option<Sgl>, Failure> {
        match self {
            End::Local { file, name, pool } => {
                let mut buffer = pool.take(length as usize).map_err(Error::Local)?;
                let memory = buffer.try_as_mut_slice().ok_or(Error::Local(NOT_PLAIN))?;
                let filled = read_full(file, memory, offset)
                    .map_err(|cause| Failure::local("read", &*name, &cause))?;
                buffer.truncate(filled);
                Ok(Some(buffer.into()))
            }
            End::Remote { queue, uri } => {
                queue.submit_read(offset, length, token).map_err(Failure::at(uri))?;
                Ok(None)
            }
        }
    }

    /// Writes: true when done at once, else it shows later in `next_written`.
    pub(super) fn write(&mut self, offset: u64, data: Sgl, token: u64) -> Result<bool, Failure> {
        match self {
            End::Local { file, name, .. } => {
                let mut at = offset;
                for piece in data.pieces() {
                    let written = match piece.try_as_slice() {
                        Some(bytes) => file.write_all_at(bytes, at),
                        None => file.write_all_at(&piece.to_vec(), at),
                    };
                    written.map_err(|cause| Failure::local("write", &*name, &cause))?;
                    at += piece.len() as u64;
                }
                Ok(true)
            }
            End::Remote { queue, uri } => {
                queue.submit_write(offset, data, token).map_err(Failure::at(uri))?;
                Ok(false)
            }
        }
    }

    /// A read that has ended: its token and data.
    pub(super) fn next_read(&mut self) -> Result<Option<(u64, Sgl)>, Failure> {
        let End::Remote { queue, uri } = self else { return Ok(None) };
        let Some(completion) = queue.next() else { return Ok(None) };
        Ok(Some((completion.token, completion.result.map_err(Failure::at(uri))?.into_data())))
    }

    /// A write that has ended: its token and how many bytes were written.
    pub(super) fn next_written(&mut self) -> Result<Option<(u64, usize)>, Failure> {
        let End::Remote { queue, uri } = self else { return Ok(None) };
        let Some(completion) = queue.next() else { return Ok(None) };
        Ok(Some((completion.token, completion.result.map_err(Failure::at(uri))?.bytes())))
    }

    /// Waits until what was written is on stable storage.
    pub(super) fn sync(&mut self) -> Done {
        match self {
            End::Local { file, name, .. } => match file.sync_all() {
                // Devices like /dev/null have nothing to put anywhere.
                Err(cause) if cause.raw_os_error() != Some(libc::EINVAL) => {
                    Err(Failure::local("sync", &*name, &cause))
                }
                _ => Ok(()),
            },
            End::Remote { queue, .. } => {
                if queue.attributes().kind() == FileKind::CharacterDevice {
                    return Ok(());
                }
                let begun = queue.submit_flush(false, SYNC);
                let End::Remote { uri, .. } = &*self else { return Ok(()) };
                begun.map_err(Failure::at(uri))?;
                wait(self, 1)?;
                self.next_written().map(drop)
            }
        }
    }

    pub(super) fn close(self) -> Done {
        match self {
            End::Local { .. } => Ok(()),
            End::Remote { queue, uri } => queue.close().map_err(Failure::at(&uri)),
        }
    }
}

/// Pool buffers can be written by this process alone.
const NOT_PLAIN: libxio::Error = libxio::Error::Unsupported("pool memory that is not this process's own");

/// Reads until the memory is full or the file ends.
fn read_full(file: &File, memory: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < memory.len() {
        match file.read_at(&mut memory[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(bytes) => done += bytes,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(done)
}

/// Waits until one of an end's requests has ended, if it has any.
pub(super) fn wait(end: &mut End, outstanding: usize) -> Done {
    wait_for(end, outstanding, None).map(drop)
}

/// Waits until one of the requests has ended, at either end.
pub(super) fn wait_any(from: &mut End, reading: usize, to: &mut End, writing: usize) -> Done {
    match (reading, writing) {
        (_, 0) => wait(from, reading),
        (0, _) => wait(to, writing),
        _ => loop {
            if wait_for(from, reading, Some(TURN))? + wait_for(to, writing, Some(TURN))? > 0 {
                return Ok(());
            }
        },
    }
}

fn wait_for(end: &mut End, outstanding: usize, timeout: Option<Duration>) -> Result<usize, Failure> {
    match end {
        End::Remote { queue, uri } if outstanding > 0 => queue.wait(1, timeout).map_err(Failure::at(uri)),
        _ => Ok(0),
    }
}
