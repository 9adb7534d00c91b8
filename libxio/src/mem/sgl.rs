//! Scatter-gather lists: the data of a message as a few buffers in order.

use super::Buffer;
use crate::sys::{self, IO_VECS_MAX};
use crate::{Error, Result};
use smallvec::SmallVec;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::os::fd::BorrowedFd;

/// Most pieces in a list; one `sendmsg` takes 1,024, so a list never needs more than one call by its count.
pub const SGL_PIECES_MAX: usize = 256;

/// A scatter-gather list: buffers whose bytes follow one another.
///
/// Nearly all lists have one piece, and every message moves some through several hands: a list is as small as a buffer.
#[derive(Default)]
pub struct Sgl {
    /// Dropped by hand: most lists are empty when they are dropped, which is seen at once where it is done so.
    pieces: ManuallyDrop<Pieces>,
}

impl Drop for Sgl {
    #[inline]
    fn drop(&mut self) {
        if !matches!(*self.pieces, Pieces::None) {
            // SAFETY: it is dropped once, here, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.pieces) };
        }
    }
}

impl std::fmt::Debug for Sgl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sgl").field("pieces", &*self.pieces).finish()
    }
}

#[derive(Debug, Default)]
enum Pieces {
    #[default]
    None,
    One(Buffer),
    Many(Box<Many>),
}

#[derive(Debug)]
struct Many {
    pieces: Vec<Buffer>,
    /// Sum of the pieces' lengths.
    length: usize,
}

const _: () = assert!(size_of::<Sgl>() == 32);

/// One entry for `readv`, `writev`, `recvmsg` or `sendmsg`, borrowed from the list that keeps its memory alive. What is
/// received into is reached through a unique borrow of the entry only, so entries are not copied. Whoever makes entries over
/// a peer's memory guards the call that they are for (mem/peer_pieces.rs).
#[repr(transparent)]
pub struct IoVec<'a> {
    raw: libc::iovec,
    borrowed: PhantomData<&'a Sgl>,
}

impl std::fmt::Debug for IoVec<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IoVec({} bytes)", self.len())
    }
}

impl<'a> IoVec<'a> {
    /// An entry over bytes that the call only reads.
    pub(crate) fn from_slice(bytes: &'a [u8]) -> IoVec<'a> {
        let raw = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        IoVec { raw, borrowed: PhantomData }
    }

    /// An entry over bytes that the call may write.
    pub(crate) fn from_mut_slice(bytes: &'a mut [u8]) -> IoVec<'a> {
        let raw = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        IoVec { raw, borrowed: PhantomData }
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.raw.iov_len
    }

    /// Copies `length` bytes from `offset` to raw memory.
    ///
    /// # Safety
    /// The range is inside the entry, and `target` valid for writes of it.
    pub(crate) unsafe fn copy_to_raw(&self, offset: usize, target: *mut u8, length: usize) {
        debug_assert!(offset + length <= self.len());
        // SAFETY: promised by the caller; the entry's memory lives as long as the list that it borrows.
        unsafe { std::ptr::copy(self.raw.iov_base.cast::<u8>().add(offset), target, length) };
    }

    /// Copies `length` bytes from raw memory to `offset`.
    ///
    /// # Safety
    /// The range is inside the entry, whose memory may be written, and `source` valid for reads of it.
    pub(crate) unsafe fn copy_from_raw(&mut self, offset: usize, source: *const u8, length: usize) {
        debug_assert!(offset + length <= self.len());
        // SAFETY: promised by the caller; the entry's memory lives as long as the list that it borrows.
        unsafe { std::ptr::copy(source, self.raw.iov_base.cast::<u8>().add(offset), length) };
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of the first `length` bytes (at most all), for sockets that are no descriptors.
    #[must_use]
    pub fn copy_out(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length.min(self.len())];
        // SAFETY: the entry's memory is valid for `len` bytes while the list that it borrows lives.
        unsafe { std::ptr::copy(self.raw.iov_base.cast(), bytes.as_mut_ptr(), bytes.len()) };
        bytes
    }

    /// Copies bytes to the front of the entry's memory, as a receive would; what does not fit is left out.
    pub fn copy_in(&mut self, bytes: &[u8]) {
        let length = bytes.len().min(self.len());
        // SAFETY: as in `copy_out`; receives are only given entries whose memory may be written.
        unsafe { std::ptr::copy(bytes.as_ptr(), self.raw.iov_base.cast(), length) };
    }
}

impl Sgl {
    /// An empty list.
    #[must_use]
    #[inline]
    pub fn new() -> Sgl {
        Sgl::default()
    }

    /// Lets go of all pieces.
    #[inline]
    pub(crate) fn clear(&mut self) {
        if !matches!(*self.pieces, Pieces::None) {
            *self.pieces = Pieces::None;
        }
    }

    /// Adds a buffer at the end.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] beyond [`SGL_PIECES_MAX`] pieces or `u32::MAX` bytes.
    #[inline]
    pub fn push(&mut self, piece: Buffer) -> Result<()> {
        if let Pieces::None = *self.pieces
            && piece.len() <= u32::MAX as usize
        {
            *self.pieces = Pieces::One(piece);
            return Ok(());
        }
        self.push_more(piece)
    }

    fn push_more(&mut self, piece: Buffer) -> Result<()> {
        let limit = |what, value, limit| Err(Error::LimitExceeded { what, value, limit });
        let length = self.len() + piece.len();
        if length > u32::MAX as usize {
            return limit("data of a message in bytes", length as u64, u64::from(u32::MAX));
        }
        match &mut *self.pieces {
            Pieces::None => *self.pieces = Pieces::One(piece),
            Pieces::One(_) => {
                let Pieces::One(first) = std::mem::take(&mut *self.pieces) else { return Ok(()) };
                *self.pieces = Pieces::Many(Box::new(Many { pieces: vec![first, piece], length }));
            }
            Pieces::Many(many) if many.pieces.len() == SGL_PIECES_MAX => {
                return limit("pieces of a message", SGL_PIECES_MAX as u64 + 1, SGL_PIECES_MAX as u64);
            }
            Pieces::Many(many) => {
                many.pieces.push(piece);
                many.length = length;
            }
        }
        Ok(())
    }

    /// Whether data may land in all of it.
    #[inline]
    pub(crate) fn is_writable(&self) -> bool {
        self.pieces().iter().all(Buffer::is_writable)
    }

    /// Total length in bytes.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        match &*self.pieces {
            Pieces::None => 0,
            Pieces::One(piece) => piece.len(),
            Pieces::Many(many) => many.length,
        }
    }

    /// Whether it has no bytes.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces in order.
    #[must_use]
    #[inline]
    pub fn pieces(&self) -> &[Buffer] {
        match &*self.pieces {
            Pieces::None => &[],
            Pieces::One(piece) => std::slice::from_ref(piece),
            Pieces::Many(many) => &many.pieces,
        }
    }

    #[inline]
    fn pieces_mut(&mut self) -> &mut [Buffer] {
        match &mut *self.pieces {
            Pieces::None => &mut [],
            Pieces::One(piece) => std::slice::from_mut(piece),
            Pieces::Many(many) => &mut many.pieces,
        }
    }

    /// The pieces, to be kept.
    pub fn into_pieces(mut self) -> impl Iterator<Item = Buffer> {
        let (one, many) = match std::mem::take(&mut *self.pieces) {
            Pieces::None => (None, Vec::new()),
            Pieces::One(piece) => (Some(piece), Vec::new()),
            Pieces::Many(many) => (None, many.pieces),
        };
        one.into_iter().chain(many)
    }

    /// Keeps the first `length` bytes.
    #[inline]
    pub fn truncate(&mut self, length: usize) {
        match &mut *self.pieces {
            Pieces::None => {}
            Pieces::One(_) if length == 0 => *self.pieces = Pieces::None,
            Pieces::One(piece) => piece.truncate(length),
            Pieces::Many(many) => {
                let mut left = length;
                for piece in &mut many.pieces {
                    piece.truncate(left);
                    left -= piece.len();
                }
                many.pieces.retain(|piece| !piece.is_empty());
                many.length = many.length.min(length);
            }
        }
    }

    /// Copies `source` into the list at `offset`.
    ///
    /// # Panics
    /// When the range leaves the list.
    #[inline]
    pub fn scatter(&mut self, offset: usize, source: &[u8]) {
        assert!(self.covers(offset, source.len()), "range leaves the list");
        if let Pieces::One(piece) = &mut *self.pieces {
            return piece.copy_from(offset, source);
        }
        let (mut skip, mut source) = (offset, source);
        for piece in self.pieces_mut() {
            let start = skip.min(piece.len());
            skip -= start;
            let (now, later) = source.split_at(source.len().min(piece.len() - start));
            piece.copy_from(start, now);
            source = later;
        }
    }

    /// Puts fresh pages with the same content where the pieces lie in regions ([`Region::detach`](super::Region)).
    ///
    /// # Errors
    /// The system has no memory for them.
    pub(crate) fn detach(&self) -> Result<()> {
        for piece in self.pieces() {
            if let Some((region, offset)) = piece.place_in_region() {
                region.detach(offset, piece.len())?;
            }
        }
        Ok(())
    }

    /// Copies as much of `source` as this list holds to its start; returns how many bytes that is.
    pub(crate) fn copy_from_list(&self, source: &Sgl) -> usize {
        let mut done = 0;
        for piece in source.pieces() {
            let mut start = 0;
            let length = piece.len().min(self.len() - done);
            self.walk(done, length, |target, offset, part| {
                target.copy_from_buffer(offset, piece, start, part);
                start += part;
            });
            done += length;
        }
        done
    }

    /// Whether this list's bytes are, byte for byte, the memory at the start of `other`.
    #[inline]
    pub(crate) fn is_start_of(&self, other: &Sgl) -> bool {
        if let (Pieces::One(piece), Pieces::One(other)) = (&*self.pieces, &*other.pieces) {
            return piece.len() <= other.len() && piece.as_ptr() == other.as_ptr();
        }
        let (own, others) = (self.pieces(), other.pieces());
        let last = own.len().saturating_sub(1);
        own.len() <= others.len()
            && own.iter().zip(others).enumerate().all(|(at, (piece, other))| {
                let fits = if at == last { piece.len() <= other.len() } else { piece.len() == other.len() };
                fits && piece.as_ptr() == other.as_ptr()
            })
    }

    /// Copies bytes from `offset` of the list until `target` is full.
    ///
    /// # Panics
    /// When the range leaves the list.
    pub fn gather(&self, offset: usize, target: &mut [u8]) {
        let mut done = 0;
        self.walk(offset, target.len(), |piece, start, length| {
            piece.copy_to(start, &mut target[done..done + length]);
            done += length;
        });
    }

    /// A copy of all bytes.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        self.gather(0, &mut bytes);
        bytes
    }

    /// CRC-32C (Castagnoli; RFC 3720, appendix B.4) of all bytes. Memory that others may write is copied out piece by
    /// piece first, so that what is summed is what was read.
    #[must_use]
    pub fn crc32c(&self) -> u32 {
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        for piece in self.pieces() {
            if let Some(bytes) = piece.try_as_slice() {
                digest.update(bytes);
                continue;
            }
            let mut copy = [0; 4096];
            for start in (0..piece.len()).step_by(copy.len()) {
                let part = &mut copy[..(piece.len() - start).min(4096)];
                piece.copy_to(start, part);
                digest.update(part);
            }
        }
        // A 32-bit sum in a u64.
        digest.finalize() as u32
    }

    /// Fills the list from its byte `start` on with what a file has at `offset`, by one call that may wait for the device,
    /// or with `now` takes only what is in memory. Returns how many bytes came; fewer than there is room for say nothing
    /// about the file's end.
    ///
    /// # Errors
    /// What `preadv2(2)` says; with `now` `WouldBlock` where the device has to be waited for, and EOPNOTSUPP where the
    /// file can't be read so. A list with static buffers is refused (EFAULT).
    pub fn read_file(
        &mut self,
        start: usize,
        file: BorrowedFd<'_>,
        offset: u64,
        now: bool,
    ) -> std::io::Result<usize> {
        if self.pieces().iter().any(Buffer::is_static) {
            return Err(std::io::Error::from_raw_os_error(libc::EFAULT));
        }
        let mut entries: SmallVec<[IoVec<'_>; 4]> = SmallVec::new();
        self.io_vecs(start, usize::MAX, &mut entries, IO_VECS_MAX);
        sys::read_vectored_at(file, &mut entries, offset, now)
    }

    /// Writes the list from its byte `start` on to a file at `offset`, by one call; `now` as in [`Sgl::read_file`].
    /// Returns how many bytes were taken.
    ///
    /// # Errors
    /// As [`Sgl::read_file`].
    pub fn write_file(
        &self,
        start: usize,
        file: BorrowedFd<'_>,
        offset: u64,
        now: bool,
    ) -> std::io::Result<usize> {
        let mut entries: SmallVec<[IoVec<'_>; 4]> = SmallVec::new();
        self.io_vecs(start, usize::MAX, &mut entries, IO_VECS_MAX);
        sys::write_vectored_at(file, &entries, offset, now)
    }

    /// Entries over all pieces; good as long as the list lives.
    pub(crate) fn raw_entries(&self) -> RawEntries {
        let entry = |piece: &Buffer| libc::iovec { iov_base: piece.as_ptr().cast(), iov_len: piece.len() };
        RawEntries(self.pieces().iter().map(entry).collect())
    }

    /// Appends entries for the bytes from `offset` to `end`, at most until `entries` holds `entries_max`; returns how
    /// many bytes they cover.
    pub(crate) fn io_vecs<'a, const N: usize>(
        &'a self,
        offset: usize,
        end: usize,
        entries: &mut SmallVec<[IoVec<'a>; N]>,
        entries_max: usize,
    ) -> usize {
        let mut skip = offset;
        let mut left = end.min(self.len()).saturating_sub(offset);
        let mut covered = 0;
        for piece in self.pieces() {
            if left == 0 || entries.len() >= entries_max {
                break;
            }
            if skip >= piece.len() {
                skip -= piece.len();
                continue;
            }
            let length = (piece.len() - skip).min(left);
            // SAFETY: `skip < piece.len()`, so the pointer stays inside the piece.
            let base = unsafe { piece.as_ptr().add(skip) };
            let raw = libc::iovec { iov_base: base.cast(), iov_len: length };
            entries.push(IoVec { raw, borrowed: PhantomData });
            covered += length;
            left -= length;
            skip = 0;
        }
        covered
    }

    #[inline]
    fn covers(&self, offset: usize, length: usize) -> bool {
        offset.checked_add(length).is_some_and(|end| end <= self.len())
    }

    /// Calls `each` with the parts of pieces that make up `length` bytes from `offset`.
    fn walk(&self, offset: usize, length: usize, mut each: impl FnMut(&Buffer, usize, usize)) {
        assert!(self.covers(offset, length), "range leaves the list");
        let mut skip = offset;
        let mut left = length;
        for piece in self.pieces() {
            if left == 0 {
                break;
            }
            if skip >= piece.len() {
                skip -= piece.len();
                continue;
            }
            let part = (piece.len() - skip).min(left);
            each(piece, skip, part);
            left -= part;
            skip = 0;
        }
    }
}

/// Entries for a vectored operation whose list lives beside them, in the table of operations.
#[derive(Debug, Default)]
pub(crate) struct RawEntries(Box<[libc::iovec]>);

// SAFETY: the entries point into buffers, which are Send; only the kernel follows the pointers.
unsafe impl Send for RawEntries {}

impl RawEntries {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Address and number of the entries; a list has at most 256 pieces.
    pub(crate) fn raw(&self) -> (*const libc::iovec, u32) {
        (self.0.as_ptr(), self.0.len() as u32)
    }
}

impl From<Buffer> for Sgl {
    #[inline]
    fn from(piece: Buffer) -> Sgl {
        Sgl { pieces: ManuallyDrop::new(Pieces::One(piece)) }
    }
}

impl From<Vec<u8>> for Sgl {
    fn from(bytes: Vec<u8>) -> Sgl {
        Buffer::from_vec(bytes).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn list(parts: &[usize]) -> Sgl {
        let mut list = Sgl::new();
        for length in parts {
            list.push(Buffer::from_vec(vec![0; *length])).unwrap();
        }
        list
    }

    #[test]
    fn bytes_cross_pieces() {
        let mut sgl = list(&[3, 0, 1, 5]);
        sgl.scatter(0, b"abcdefghi");
        let mut part = [0; 4];
        sgl.gather(2, &mut part);
        assert_eq!(&part, b"cdef");
        let mut entries: SmallVec<[IoVec<'_>; 4]> = SmallVec::new();
        assert_eq!(sgl.io_vecs(1, 8, &mut entries, 2), 3);
        assert_eq!(entries.iter().map(IoVec::len).collect::<Vec<_>>(), [2, 1]);
        drop(entries);
        sgl.truncate(4);
        assert_eq!((sgl.len(), sgl.to_vec()), (4, b"abcd".to_vec()));
    }

    #[test]
    fn files_are_read_and_written_from_anywhere_in_the_list() {
        let file = tempfile::tempfile().unwrap();
        let mut sgl = list(&[3, 4]);
        sgl.scatter(0, b"abcdefg");
        assert_eq!(sgl.write_file(2, file.as_fd(), 10, false).unwrap(), 5);
        assert_eq!(sgl.read_file(1, file.as_fd(), 11, false).unwrap(), 4);
        assert_eq!(sgl.to_vec(), b"adefgfg");
        assert_eq!(sgl.read_file(0, file.as_fd(), 15, false).unwrap(), 0);
        assert_eq!(
            sgl.read_file(0, file.as_fd(), u64::MAX, false).unwrap_err().raw_os_error(),
            Some(libc::EINVAL)
        );
        let mut fixed = Sgl::from(Buffer::from_static(b"fixed"));
        assert_eq!(
            fixed.read_file(0, file.as_fd(), 10, false).unwrap_err().raw_os_error(),
            Some(libc::EFAULT)
        );
    }

    #[test]
    fn the_number_of_pieces_is_bounded() {
        let mut sgl = list(&[1; SGL_PIECES_MAX]);
        assert!(matches!(sgl.push(Buffer::from_vec(vec![0])), Err(Error::LimitExceeded { .. })));
    }
}
