//! Before the jobs start: how large the files are, and laying out those that are missing or too short.
//!
//! fio does this in its main process, before it makes the jobs' processes, so it happens over connections that are
//! closed again. The rules are those of fio's own files: what a job reads is written in full, with the content that
//! its options ask for; for a job that only writes, a file is made, and given its size with `fallocate=` anything but
//! none and keep. A file that is made anew is cut to nothing first.

use crate::error::Error;
use crate::fio::{self, File, Job};
use crate::links::Links;
use crate::opening::OpenFile;
use crate::options::Settings;
use crate::place::Place;
use raio::proto::{FileKind, OpenFlags};
use raio::{Operation, Outcome};
use std::sync::Arc;

/// Bytes of one write while a file is filled.
const PIECE_BYTES: u32 = 1 << 20;

/// Writes in flight while a file is filled.
const PIECES_IN_FLIGHT: usize = 8;

/// Finds out the sizes of a job's files, and makes them as large as the job needs them.
///
/// # Errors
/// The first that is met, for fio to give the job up.
pub fn lay_out(job: Job) -> Result<(), Error> {
    let mut links = Links::new(Settings::of(job)?);
    let result =
        job.files().enumerate().try_for_each(|(index, file)| lay_out_file(job, index, file, &mut links));
    links.close();
    result
}

/// Finds out the size of one file.
///
/// # Errors
/// Those of the name, of connecting, and the server's; a file that is not there has none.
pub fn find_size(job: Job, file: File) -> Result<(), Error> {
    let mut links = Links::new(Settings::of(job)?);
    let place = links.place(file)?;
    let size = size_now(&place, file, &mut links);
    links.close();
    file.set_size(size?.unwrap_or(0));
    Ok(())
}

fn lay_out_file(job: Job, index: usize, file: File, links: &mut Links) -> Result<(), Error> {
    let place = links.place(file)?;
    let found = size_now(&place, file, links)?;
    let size = found.unwrap_or(0);
    file.set_size(size);
    if job.replays_log() {
        return Ok(());
    }
    if job.fills_device() && file.is_regular() {
        if job.reads() {
            let reason = "a job that reads has to know where its file ends";
            return Err(Error::Option { name: "fill_device", reason });
        }
        if found.is_none() || !job.appends() {
            make(job, &place, 0, links)?;
        }
        file.set_size(fio::SIZE_UNKNOWN);
        return Ok(());
    }
    let wanted = size_wanted(job, index, file);
    if found.is_none() && wanted == 0 {
        return Err(Error::Missing { path: place.display() });
    }
    if !file.is_regular() || (found.is_some() && wanted <= size) {
        return Ok(());
    }
    if fio::is_read_only() {
        return Err(Error::MayNotCreate { path: place.display(), option: "--readonly" });
    }
    if !job.creates_on_open() {
        if found.is_none() && !job.may_create() {
            return Err(Error::MayNotCreate { path: place.display(), option: "allow_file_create=0" });
        }
        make(job, &place, wanted, links)?;
    }
    file.set_size(wanted);
    Ok(())
}

/// Size of a file as it is, after what it is was noted; `None` where it is not there.
fn size_now(place: &Place, file: File, links: &mut Links) -> Result<Option<u64>, Error> {
    match links.stat(place) {
        Ok(attributes) => match attributes.kind() {
            kind @ (FileKind::File | FileKind::BlockDevice | FileKind::CharacterDevice) => {
                file.set_kind(kind);
                Ok(Some(attributes.size))
            }
            kind => Err(Error::Kind { path: place.display(), kind: kind.name() }),
        },
        Err(Error::Remote(raio::Error::Operation { errno: libc::ENOENT, .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Size in bytes that the job needs the file to have; its own where no option says anything.
fn size_wanted(job: Job, index: usize, file: File) -> u64 {
    let size = file.size();
    if let Some((low, high)) = job.file_sizes() {
        return match size {
            size if (low..=high).contains(&size) => size,
            _ if low == high => low,
            _ => job.random_file_size(),
        };
    }
    let share = share(job.size(), job.files_planned().max(1), index as u64, job.block_min());
    if share == 0 { size } else { job.start_offset(file).saturating_add(share) }
}

/// The part of a size that falls to one of several files; the first ones take what does not divide, in blocks.
fn share(size: u64, files: u64, index: u64, block: u64) -> u64 {
    let share = size / files;
    let extra_blocks = (size - share * files) / block;
    if share > 0 && index < extra_blocks { share + block } else { share }
}

/// Makes a file, or makes it anew, with a size and, for jobs that read it, content.
fn make(job: Job, place: &Place, size: u64, links: &mut Links) -> Result<(), Error> {
    let fill = size > 0 && (job.reads() || (job.writes() && job.overwrites() && !job.appends()));
    let anew = fill || (job.writes() && !job.overwrites() && !job.appends());
    let mut flags = OpenFlags::WRITE;
    if job.may_create() {
        flags = flags.with(OpenFlags::CREATE);
    }
    if anew {
        flags = flags.with(OpenFlags::TRUNCATE);
    }
    if size > 0 {
        let megabytes = size.div_ceil(1 << 20);
        fio::log_info(&format!("{}: Laying out IO file {} ({megabytes}MiB)", job.name(), place.display()));
    }
    let open = links.open(place, flags)?;
    let result = make_open(job, place, &open, (size, fill), links);
    let closed = links.call(place, Operation::Close { handle: open.handle });
    result.and(closed.map(drop))
}

fn make_open(
    job: Job,
    place: &Place,
    open: &OpenFile,
    (size, fill): (u64, bool),
    links: &mut Links,
) -> Result<(), Error> {
    if size > 0 && (fill || job.sets_size_first()) {
        links.call(place, Operation::Truncate { handle: open.handle, size })?;
    }
    if fill {
        fill_file(job, place, open, size, links)?;
    }
    if job.is_ending() {
        let unlink = Operation::Unlink { path: place.path.clone(), directory: false };
        links.call(place, unlink)?;
    } else if job.syncs_new_files() {
        links.call(place, Operation::Flush { handle: open.handle, data_only: false })?;
    }
    Ok(())
}

/// Writes a file from start to end.
fn fill_file(job: Job, place: &Place, open: &OpenFile, size: u64, links: &mut Links) -> Result<(), Error> {
    let engine = &mut links.all()[open.link].engine;
    let piece = PIECE_BYTES.min(open.io_bytes_max);
    let path: Arc<str> = place.display().into();
    let mut next = 0;
    let mut flying = 0;
    while flying > 0 || (next < size && !job.is_ending()) {
        while flying < PIECES_IN_FLIGHT && next < size && !job.is_ending() {
            // The lesser of the two fits `u32`.
            let length = (size - next).min(u64::from(piece)) as u32;
            let mut buffer = engine.pool().take(length as usize).map_err(raio::Error::Local)?;
            if let Some(bytes) = buffer.try_as_mut_slice() {
                job.fill(bytes);
            }
            let mut data = raio::libxio::Sgl::new();
            data.push(buffer).map_err(raio::Error::Local)?;
            engine.submit(
                Operation::Write { handle: open.handle, offset: next, data, durable: false },
                length.into(),
            )?;
            next += u64::from(length);
            flying += 1;
        }
        engine.poll(None)?;
        while let Some(completion) = engine.next() {
            flying -= 1;
            let outcome = completion.result.map_err(|error| error.with_path(&path))?;
            if !matches!(outcome, Outcome::Written { bytes } if u64::from(bytes) == completion.token) {
                // A server writes in part only where the next write would fail.
                let op = raio::proto::Op::Write;
                let errno = libc::ENOSPC;
                return Err(raio::Error::Operation { op, path: Some(path), errno }.into());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn sizes_are_shared_among_files_as_fio_does() {
        assert_eq!(share(1 << 20, 1, 0, 4096), 1 << 20);
        let shares: Vec<_> = (0..3).map(|index| share(10 * 4096, 3, index, 4096)).collect();
        assert_eq!(shares, [13653, 13653, 13653]);
        let shares: Vec<_> = (0..3).map(|index| share(11, 3, index, 1)).collect();
        assert_eq!(shares, [4, 4, 3]);
        assert_eq!(share(0, 4, 0, 512), 0);
    }
}
