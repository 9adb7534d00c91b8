//! The types of `libraio.h`, as C lays them out. The header's own asserts are in `tests/c/layout.c`; these hold the same
//! numbers on this side.

use std::ffi::{c_int, c_longlong, c_uint, c_ulong, c_ulonglong, c_void};
use std::mem::offset_of;

/// `raio_context_t`: a token that looks like a pointer; nothing is there.
pub type ContextToken = *mut c_void;

/// `raio_mr_t`: a token that looks like a pointer; nothing is there.
pub type MemoryToken = *mut c_void;

/// `RAIO_CMD_PREAD`.
pub(crate) const CMD_PREAD: c_int = 0;
/// `RAIO_CMD_PWRITE`.
pub(crate) const CMD_PWRITE: c_int = 1;
/// `RAIO_CMD_FSYNC`.
pub(crate) const CMD_FSYNC: c_int = 2;
/// `RAIO_CMD_FDSYNC`.
pub(crate) const CMD_FDSYNC: c_int = 3;
/// `RAIO_CMD_DISCARD`.
pub(crate) const CMD_DISCARD: c_int = 4;
/// `RAIO_CMD_PREADV`.
pub(crate) const CMD_PREADV: c_int = 5;
/// `RAIO_CMD_PWRITEV`.
pub(crate) const CMD_PWRITEV: c_int = 6;

/// `RAIO_IOCB_FLAG_RESFD`: write the eventfd `resfd` when the request can be reaped.
pub(crate) const FLAG_RESFD: c_uint = 1;
/// `RAIO_IOCB_FLAG_DURABLE`: a write is on stable storage when it completes.
pub(crate) const FLAG_DURABLE: c_uint = 2;

/// `struct raio_iocb_common`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct IocbCommon {
    /// The memory; the array of `struct iovec` for vectored commands.
    pub buf: *mut c_void,
    /// Its length in bytes; the number of entries for vectored commands.
    pub nbytes: c_ulonglong,
    /// Where in the file, in bytes.
    pub offset: c_longlong,
    /// The registration that the memory lies in, or NULL.
    pub mr: MemoryToken,
    /// `RAIO_IOCB_FLAG_*`.
    pub flags: c_uint,
    /// An eventfd, with `RAIO_IOCB_FLAG_RESFD`.
    pub resfd: c_uint,
}

/// `struct raio_iocb`. Its union has one member, which stands in its place here.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Iocb {
    /// The caller's, given back in the event.
    pub data: *mut c_void,
    /// Not used.
    pub key: c_uint,
    /// Not looked at: the context's file is meant.
    pub raio_fildes: c_int,
    /// `RAIO_CMD_*`.
    pub raio_lio_opcode: c_int,
    /// Not used.
    pub pad: c_int,
    /// `u.c`.
    pub c: IocbCommon,
}

/// `struct raio_event`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Event {
    /// `data` of the iocb.
    pub data: *mut c_void,
    /// The iocb.
    pub obj: *mut Iocb,
    /// For `raio_release`.
    pub handle: c_ulonglong,
    /// Bytes moved, or a negative errno.
    pub res: c_ulong,
    /// 0.
    pub res2: c_ulong,
}

const _: () = {
    assert!(size_of::<IocbCommon>() == 40 && align_of::<IocbCommon>() == 8);
    assert!(offset_of!(IocbCommon, buf) == 0);
    assert!(offset_of!(IocbCommon, nbytes) == 8);
    assert!(offset_of!(IocbCommon, offset) == 16);
    assert!(offset_of!(IocbCommon, mr) == 24);
    assert!(offset_of!(IocbCommon, flags) == 32);
    assert!(offset_of!(IocbCommon, resfd) == 36);

    assert!(size_of::<Iocb>() == 64 && align_of::<Iocb>() == 8);
    assert!(offset_of!(Iocb, data) == 0);
    assert!(offset_of!(Iocb, key) == 8);
    assert!(offset_of!(Iocb, raio_fildes) == 12);
    assert!(offset_of!(Iocb, raio_lio_opcode) == 16);
    assert!(offset_of!(Iocb, pad) == 20);
    assert!(offset_of!(Iocb, c) == 24);

    assert!(size_of::<Event>() == 40 && align_of::<Event>() == 8);
    assert!(offset_of!(Event, data) == 0);
    assert!(offset_of!(Event, obj) == 8);
    assert!(offset_of!(Event, handle) == 16);
    assert!(offset_of!(Event, res) == 24);
    assert!(offset_of!(Event, res2) == 32);
};
