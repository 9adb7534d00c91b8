//! Opening, closing and removing the files of a job, with the flags that fio's own engines use.

use crate::error::Error;
use crate::fio::{self, File, Job, SIZE_UNKNOWN};
use crate::links::Links;
use raio::Operation;
use raio::proto::{Attributes, FileKind, Handle, OpenFlags};

/// What is known about an open file.
#[derive(Debug)]
pub struct OpenFile {
    /// Number of its connection.
    pub link: usize,
    pub handle: Handle,
    pub attributes: Attributes,
    /// Greatest length of one read or write in bytes.
    pub io_bytes_max: u32,
}

/// Opens a file as the job's options say.
///
/// # Errors
/// Those of the name, of connecting, and the server's.
pub fn open(job: Job, file: File, links: &mut Links) -> Result<(), Error> {
    let place = links.place(file)?;
    let open = links.open(&place, flags(job, file))?;
    let attributes = &open.attributes;
    if !matches!(attributes.kind(), FileKind::File | FileKind::BlockDevice | FileKind::CharacterDevice) {
        let kind = attributes.kind().name();
        close_handle(links, &open);
        return Err(Error::Kind { path: place.display(), kind });
    }
    file.set_kind(attributes.kind());
    if file.size() == SIZE_UNKNOWN && !job.fills_device() {
        file.set_size(attributes.size);
    }
    let alignment = u64::from(attributes.offset_alignment);
    if job.is_direct() && alignment > 0 && !job.block_min().is_multiple_of(alignment) {
        fio::log_error(&format!(
            "{}: with direct=1 blocks have to be multiples of {alignment} bytes here, and bs={} is none",
            place.display(),
            job.block_min()
        ));
    }
    file.set_open(open);
    Ok(())
}

/// Closes a file; a server that is gone has closed it.
///
/// # Errors
/// The server's, where it met an error at last.
pub fn close(file: File, links: &mut Links) -> Result<(), Error> {
    let Some(open) = file.take_open() else { return Ok(()) };
    let Some(link) = links.all().get_mut(open.link) else { return Ok(()) };
    if link.engine.lost().is_some() {
        return Ok(());
    }
    link.engine.call(Operation::Close { handle: open.handle }).map(drop).map_err(Error::Remote)
}

/// Removes a file's name.
///
/// # Errors
/// Those of the name, of connecting, and the server's.
pub fn unlink(file: File, links: &mut Links) -> Result<(), Error> {
    let place = links.place(file)?;
    let unlink = Operation::Unlink { path: place.path.clone(), directory: false };
    links.call(&place, unlink).map(drop)
}

/// As [`close`], for a file that fio never saw open; best effort.
fn close_handle(links: &mut Links, open: &OpenFile) {
    if let Some(link) = links.all().get_mut(open.link) {
        let _ = link.engine.call(Operation::Close { handle: open.handle });
    }
}

fn flags(job: Job, file: File) -> OpenFlags {
    let writes = (job.writes() || job.only_trims()) && !fio::is_read_only();
    let mut flags = if writes { OpenFlags::READ.with(OpenFlags::WRITE) } else { OpenFlags::READ };
    if !file.is_regular() {
        flags = flags.with(OpenFlags::NO_ATIME);
    }
    if job.only_trims() {
        return flags;
    }
    if job.is_direct() {
        flags = flags.with(OpenFlags::DIRECT);
    }
    // O_SYNC contains O_DSYNC's bit.
    match job.sync_flags() & libc::O_SYNC {
        0 => {}
        libc::O_SYNC => flags = flags.with(OpenFlags::SYNC),
        _ => flags = flags.with(OpenFlags::DATA_SYNC),
    }
    let creates = job.creates_on_open() || writes && file.is_regular();
    if creates && job.may_create() {
        flags = flags.with(OpenFlags::CREATE);
    }
    flags
}
