//! A request: what an iocb asks for, checked, and where its memory is.
//!
//! What is longer than one message may be goes in parts, one after the other, so that the bytes that were moved always
//! stand together from the start. Addresses are kept as numbers: they are the caller's promise, not ours to follow before
//! a part is made.

use crate::abi::{
    CMD_DISCARD, CMD_FDSYNC, CMD_FSYNC, CMD_PREAD, CMD_PREADV, CMD_PWRITE, CMD_PWRITEV, FLAG_DURABLE,
    FLAG_RESFD, Iocb,
};
use crate::errno::Errno;
use crate::memory::MemoryTable;
use crate::token;
use libxio::{BUFFER_LEN_MAX, Buffer, Landing, Region, SGL_PIECES_MAX, Sgl};
use raio::engine::Operation;
use raio::proto::Handle;
use std::ffi::c_int;
use std::ptr::{NonNull, with_exposed_provenance_mut};

/// Longest request in bytes, as Linux has it for read(2) and write(2).
const REQUEST_BYTES_MAX: u64 = 0x7fff_f000;

/// Most entries of a vectored request, as Linux has it (`UIO_MAXIOV`).
const IOVECS_MAX: u64 = 1024;

/// A request that was submitted and has not completed.
#[derive(Debug)]
pub(crate) struct Request {
    /// The iocb's address: given back with the event, and where the address of a library-provided buffer goes.
    pub iocb: usize,
    /// `data` of the iocb.
    pub data: usize,
    /// The entry of its eventfd.
    pub eventfd: Option<usize>,
    command: Command,
    offset: u64,
    /// Bytes to move; of a discard, to discard.
    length: u64,
    /// Bytes moved by parts that have ended.
    moved: u64,
    /// Bytes that the part being moved asks for.
    asked: u64,
    memory: Memory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Read,
    Write { durable: bool },
    Flush { data_only: bool },
    Discard,
}

#[derive(Debug)]
enum Memory {
    None,
    /// The library provides a buffer when the data arrives.
    Pool,
    /// The library provides a buffer, which is too long for that and was mapped at once.
    Mapped(Region),
    /// The caller's, at this address.
    Plain(usize),
    /// The caller's, at this offset of a registration.
    Registered(Region, usize),
    /// The caller's, in pieces (address and length).
    Pieces(Box<[(usize, usize)]>),
}

impl Request {
    /// Checks an iocb and notes what it asks for.
    ///
    /// # Safety
    /// `iocb` is NULL or points to an iocb whose memory is as libraio.h asks.
    pub(crate) unsafe fn new(
        iocb: *mut Iocb,
        table: &MemoryTable,
        part_max: u32,
    ) -> Result<(Request, Option<c_int>), Errno> {
        if iocb.is_null() {
            return Err(Errno::NULL);
        }
        // SAFETY: not NULL, so the caller promises an iocb; it may lie anywhere.
        let Iocb { data, raio_lio_opcode, c: common, .. } = unsafe { iocb.read_unaligned() };
        if common.flags & !(FLAG_RESFD | FLAG_DURABLE) != 0 {
            return Err(Errno::INVALID);
        }
        let durable = common.flags & FLAG_DURABLE != 0;
        let write = Command::Write { durable };
        let address = common.buf.expose_provenance();
        let (command, length, memory) = match raio_lio_opcode {
            CMD_PREAD if address == 0 && common.mr.is_null() => {
                let long = common.nbytes > u64::from(part_max).min(BUFFER_LEN_MAX as u64);
                let memory = if long && common.nbytes <= REQUEST_BYTES_MAX {
                    Memory::Mapped(
                        Region::allocate(common.nbytes as usize, true).map_err(|_| Errno::NO_MEMORY)?,
                    )
                } else {
                    Memory::Pool
                };
                (Command::Read, common.nbytes, memory)
            }
            CMD_PREAD | CMD_PWRITE => {
                let command = if raio_lio_opcode == CMD_PREAD { Command::Read } else { write };
                (command, common.nbytes, flat(address, common.nbytes, token::from_pointer(common.mr), table)?)
            }
            CMD_PREADV | CMD_PWRITEV => {
                let command = if raio_lio_opcode == CMD_PREADV { Command::Read } else { write };
                let region = registration(token::from_pointer(common.mr), table)?;
                // SAFETY: the caller promises that `buf` points to `nbytes` entries.
                let pieces = unsafe { pieces(common.buf.cast(), common.nbytes, region.as_ref()) }?;
                let length = pieces.iter().map(|(_, length)| *length as u64).sum();
                (command, length, Memory::Pieces(pieces))
            }
            CMD_FSYNC => (Command::Flush { data_only: false }, 0, Memory::None),
            CMD_FDSYNC => (Command::Flush { data_only: true }, 0, Memory::None),
            CMD_DISCARD => (Command::Discard, common.nbytes, Memory::None),
            _ => return Err(Errno::INVALID),
        };
        if durable && command != write {
            return Err(Errno::INVALID);
        }
        let offset = match command {
            Command::Flush { .. } => 0,
            _ => u64::try_from(common.offset).map_err(|_| Errno::INVALID)?,
        };
        let too_long = matches!(command, Command::Read | Command::Write { .. }) && length > REQUEST_BYTES_MAX;
        let end = offset.checked_add(length).filter(|end| *end <= i64::MAX as u64);
        if too_long || end.is_none() || (command == Command::Discard && length == 0) {
            return Err(Errno::INVALID);
        }
        let eventfd = (common.flags & FLAG_RESFD != 0).then_some(common.resfd.cast_signed());
        let (iocb, data) = (iocb.expose_provenance(), data.expose_provenance());
        Ok((
            Request { iocb, data, eventfd: None, command, offset, length, moved: 0, asked: 0, memory },
            eventfd,
        ))
    }

    /// The operation that moves the next part, at most `part_max` bytes.
    pub(crate) fn next_part(&mut self, handle: Handle, part_max: u32) -> Result<Operation, Errno> {
        let offset = self.offset + self.moved;
        let length = (self.length - self.moved).min(u64::from(part_max));
        self.asked = length;
        Ok(match self.command {
            Command::Read => {
                let landing = match &self.memory {
                    // A part is at most `part_max` long.
                    Memory::Pool => Landing::Pool(length as u32),
                    _ => Landing::Place(self.list(length as usize)?),
                };
                let length = landing.room() as u32;
                self.asked = length.into();
                Operation::Read { handle, offset, length, landing }
            }
            Command::Write { durable } => {
                let data = self.list(length as usize)?;
                self.asked = data.len() as u64;
                Operation::Write { handle, offset, data, durable }
            }
            Command::Flush { data_only } => Operation::Flush { handle, data_only },
            Command::Discard => Operation::Discard { handle, offset, length: self.length },
        })
    }

    /// A part has ended: notes what it moved, and says whether another one follows.
    pub(crate) fn part_ended(&mut self, moved: u64) -> bool {
        let moves = matches!(self.command, Command::Read | Command::Write { .. });
        self.moved += moved.min(self.asked);
        moves && moved == self.asked && self.moved < self.length
    }

    /// Bytes moved so far.
    pub(crate) fn moved(&self) -> u64 {
        self.moved
    }

    /// What the caller is to read of a buffer that the library provided: for one from the pool, `arrived` with the
    /// data; `None` where the caller had the memory.
    pub(crate) fn provided(&self, arrived: Sgl) -> Result<Option<Buffer>, Errno> {
        match &self.memory {
            Memory::Pool if arrived.pieces().len() > 1 => Ok(Some(Buffer::from_vec(arrived.to_vec()))),
            Memory::Pool => Ok(arrived.into_pieces().next()),
            Memory::Mapped(region) => Ok(Some(region.slice(0, self.moved as usize)?)),
            _ => Ok(None),
        }
    }

    /// The memory of the next `length` bytes; fewer where that takes too many pieces.
    fn list(&self, length: usize) -> Result<Sgl, Errno> {
        let moved = self.moved as usize;
        match &self.memory {
            Memory::None | Memory::Pool => Ok(Sgl::new()),
            Memory::Mapped(region) => Ok(region.slice(moved, length)?.into()),
            Memory::Registered(region, start) => Ok(region.slice(start + moved, length)?.into()),
            Memory::Plain(address) => Ok(foreign(address + moved, length).into()),
            Memory::Pieces(pieces) => {
                let mut list = Sgl::new();
                let mut skip = moved;
                for (address, piece) in pieces {
                    let left = length - list.len();
                    if left == 0 || list.pieces().len() == SGL_PIECES_MAX {
                        break;
                    }
                    if skip >= *piece {
                        skip -= piece;
                        continue;
                    }
                    list.push(foreign(address + skip, (piece - skip).min(left)))?;
                    skip = 0;
                }
                Ok(list)
            }
        }
    }
}

/// Memory of the caller, promised with the iocb to stay until the request's event was returned, or its context was
/// destroyed. A length of 0 touches nothing.
fn foreign(address: usize, length: usize) -> Buffer {
    let pointer = NonNull::new(with_exposed_provenance_mut(address)).unwrap_or(NonNull::dangling());
    // SAFETY: the caller of `Request::new` made the promise; the requests of a context end, or their connection is
    // severed, before it goes.
    unsafe { Buffer::foreign(pointer, length) }
}

/// One stretch of the caller's memory.
fn flat(address: usize, length: u64, token: u64, table: &MemoryTable) -> Result<Memory, Errno> {
    let length = usize::try_from(length).map_err(|_| Errno::INVALID)?;
    if let Some(region) = registration(token, table)? {
        return Ok(Memory::Registered(region.clone(), inside(&region, address, length)?));
    }
    if address == 0 && length > 0 {
        return Err(Errno::NULL);
    }
    if address.checked_add(length).is_none() {
        return Err(Errno::INVALID);
    }
    Ok(Memory::Plain(address))
}

fn registration(token: u64, table: &MemoryTable) -> Result<Option<Region>, Errno> {
    if token == 0 { Ok(None) } else { table.find(token).map(Some) }
}

/// Where memory begins within its registration.
fn inside(region: &Region, address: usize, length: usize) -> Result<usize, Errno> {
    let start = address.checked_sub(region.as_ptr().addr()).ok_or(Errno::INVALID)?;
    let end = start.checked_add(length).ok_or(Errno::INVALID)?;
    if end <= region.len() { Ok(start) } else { Err(Errno::INVALID) }
}

/// A copy of the caller's entries, without the empty ones.
///
/// # Safety
/// `entries` is NULL or points to `count` entries.
unsafe fn pieces(
    entries: *const libc::iovec,
    count: u64,
    region: Option<&Region>,
) -> Result<Box<[(usize, usize)]>, Errno> {
    if count > IOVECS_MAX {
        return Err(Errno::INVALID);
    }
    if entries.is_null() && count > 0 {
        return Err(Errno::NULL);
    }
    let mut pieces = Vec::with_capacity(count as usize);
    for index in 0..count as usize {
        // SAFETY: the index is below the count that the caller promises.
        let libc::iovec { iov_base, iov_len } = unsafe { entries.add(index).read_unaligned() };
        if iov_len == 0 {
            continue;
        }
        let address = iov_base.expose_provenance();
        if address == 0 {
            return Err(Errno::NULL);
        }
        if iov_len as u64 > REQUEST_BYTES_MAX || address.checked_add(iov_len).is_none() {
            return Err(Errno::INVALID);
        }
        if let Some(region) = region {
            inside(region, address, iov_len)?;
        }
        pieces.push((address, iov_len));
    }
    Ok(pieces.into_boxed_slice())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::IocbCommon;
    use std::ffi::c_void;

    const FILE: Handle = Handle(1);

    fn iocb(opcode: c_int, buf: *mut c_void, nbytes: u64, offset: i64) -> Iocb {
        let null = std::ptr::null_mut();
        let common = IocbCommon { buf, nbytes, offset, mr: null, flags: 0, resfd: 0 };
        Iocb { data: null, key: 0, raio_fildes: -1, raio_lio_opcode: opcode, pad: 0, c: common }
    }

    fn request(mut iocb: Iocb, part_max: u32) -> Result<Request, Errno> {
        // SAFETY: tests give real memory, or expect a refusal, and run no operation.
        unsafe { Request::new(&mut iocb, &MemoryTable::new(), part_max) }.map(|(request, _)| request)
    }

    #[test]
    fn parts_follow_one_another_until_one_falls_short() {
        let mut memory = vec![0_u8; 10];
        let mut request = request(iocb(CMD_PREAD, memory.as_mut_ptr().cast(), 10, 100), 4).unwrap();
        for (start, length) in [(0, 4), (4, 4), (8, 2)] {
            let part = request.next_part(FILE, 4).unwrap();
            let Operation::Read { offset, length: asked, landing: Landing::Place(list), .. } = part else {
                panic!("a read");
            };
            assert_eq!((offset, u64::from(asked)), (100 + start, length));
            assert_eq!(list.pieces()[0].as_ptr(), memory.as_mut_ptr().wrapping_add(start as usize));
            assert_eq!(request.part_ended(length), start < 8);
        }
        assert_eq!(request.moved(), 10);
        let mut request = self::request(iocb(CMD_PREAD, memory.as_mut_ptr().cast(), 10, 0), 4).unwrap();
        request.next_part(FILE, 4).unwrap();
        assert!(!request.part_ended(3));
    }

    #[test]
    fn vectors_are_cut_by_length_and_by_number() {
        let mut memory = vec![0_u8; 1000];
        let entries: Vec<_> = memory
            .chunks_mut(1)
            .map(|piece| libc::iovec { iov_base: piece.as_mut_ptr().cast(), iov_len: 1 })
            .collect();
        let buf = entries.as_ptr().cast_mut().cast();
        let mut request = request(iocb(CMD_PWRITEV, buf, 1000, 0), 300).unwrap();
        let mut lengths = Vec::new();
        loop {
            let Operation::Write { data, .. } = request.next_part(FILE, 300).unwrap() else {
                panic!("a write")
            };
            lengths.push(data.len());
            if !request.part_ended(data.len() as u64) {
                break;
            }
        }
        assert_eq!(lengths, [256, 256, 256, 232]);
        assert_eq!(self::request(iocb(CMD_PREADV, buf, 1025, 0), 300).unwrap_err(), Errno::INVALID);
        let null = std::ptr::null_mut();
        assert_eq!(self::request(iocb(CMD_PREADV, null, 1, 0), 300).unwrap_err(), Errno::NULL);
        assert_eq!(self::request(iocb(CMD_PREADV, null, 0, 0), 300).unwrap().moved(), 0);
    }

    #[test]
    fn a_long_read_without_a_buffer_gets_one() {
        let null = std::ptr::null_mut();
        let short = request(iocb(CMD_PREAD, null, 4096, 0), 4096).unwrap();
        assert!(matches!(short.memory, Memory::Pool));
        let mut long = request(iocb(CMD_PREAD, null, 4097, 0), 4096).unwrap();
        for (length, more) in [(4096, true), (1, false)] {
            long.next_part(FILE, 4096).unwrap();
            assert_eq!(long.part_ended(length), more);
        }
        assert_eq!(long.provided(Sgl::new()).unwrap().map(|buffer| buffer.len()), Some(4097));
    }

    #[test]
    fn what_can_not_be_meant_is_refused() {
        let null = std::ptr::null_mut();
        let somewhere = NonNull::<u8>::dangling().as_ptr().cast();
        let mut cases = vec![
            (iocb(CMD_PWRITE, null, 1, 0), Errno::NULL),
            (iocb(CMD_PREAD, somewhere, 1, -1), Errno::INVALID),
            (iocb(CMD_PREAD, somewhere, REQUEST_BYTES_MAX + 1, 0), Errno::INVALID),
            (iocb(CMD_PREAD, null, u64::MAX, 0), Errno::INVALID),
            (iocb(CMD_PREAD, somewhere, 2, i64::MAX - 1), Errno::INVALID),
            (iocb(CMD_PREAD, std::ptr::without_provenance_mut(usize::MAX), 2, 0), Errno::INVALID),
            (iocb(CMD_DISCARD, null, 0, 0), Errno::INVALID),
            (iocb(CMD_DISCARD, null, u64::MAX, 0), Errno::INVALID),
            (iocb(-1, somewhere, 1, 0), Errno::INVALID),
            (iocb(7, somewhere, 1, 0), Errno::INVALID),
        ];
        let mut flagged = iocb(CMD_PREAD, somewhere, 1, 0);
        flagged.c.flags = 4;
        cases.push((flagged, Errno::INVALID));
        flagged.c.flags = FLAG_DURABLE;
        cases.push((flagged, Errno::INVALID));
        let mut registered = iocb(CMD_PREAD, somewhere, 1, 0);
        registered.c.mr = somewhere;
        cases.push((registered, Errno::INVALID));
        for (iocb, errno) in cases {
            assert_eq!(request(iocb, 4096).unwrap_err(), errno, "{iocb:?}");
        }
        // SAFETY: NULL is allowed.
        let nothing = unsafe { Request::new(null.cast(), &MemoryTable::new(), 4096) };
        assert_eq!(nothing.unwrap_err(), Errno::NULL);
    }

    #[test]
    fn registered_memory_is_used_within_its_bounds_only() {
        let table = MemoryTable::new();
        let mut memory = vec![0_u8; 64];
        let start = memory.as_mut_ptr();
        // SAFETY: no operation is run over the memory.
        let token = unsafe { table.register(start, 64) }.unwrap();
        let check = |offset: isize, length| {
            let mut iocb = iocb(CMD_PWRITE, start.wrapping_offset(offset).cast(), length, 0);
            iocb.c.mr = token::to_pointer(token);
            // SAFETY: as above.
            unsafe { Request::new(&mut iocb, &table, 4096) }.map(drop)
        };
        assert_eq!((check(0, 64), check(60, 4), check(64, 0)), (Ok(()), Ok(()), Ok(())));
        assert_eq!((check(60, 5), check(-1, 2)), (Err(Errno::INVALID), Err(Errno::INVALID)));
        assert_eq!(check(0, u64::MAX), Err(Errno::INVALID));
    }
}
