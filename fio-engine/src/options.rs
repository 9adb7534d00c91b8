//! The options that a job can give to this engine, as fio stores them, and what they mean for a connection.

use crate::error::Error;
use crate::fio::{Job, sys};
use raio::ClientOptions;
use std::ffi::{CStr, c_char, c_uint, c_void};
use std::mem::offset_of;
use std::ptr::NonNull;
use std::time::Duration;

/// Where fio stores the values. It is copied and written by fio, by offsets.
#[repr(C)]
pub struct Options {
    /// fio keeps the job's address here, so no option may have offset 0.
    job: *mut c_void,
    /// Index into [`TRANSPORTS`].
    transport: c_uint,
    polling_us: c_uint,
    keepalive_ms: c_uint,
    connect_timeout_ms: c_uint,
    crc: c_uint,
    socket: *mut c_char,
    key_file: *mut c_char,
}

/// Names of transports, the scheme of their uris, and the help text.
const TRANSPORTS: [(&CStr, &str, &CStr); 4] = [
    (c"auto", "raio", c"The best that both sides have"),
    (c"tcp", "tcp", c"TCP"),
    (c"shm", "shm", c"Shared memory with a server on this host"),
    (c"rdma", "rdma", c"RDMA (InfiniBand, RoCE, iWARP)"),
];

/// Least requests that a server is asked to take at a time, for jobs with a smaller depth.
const REQUESTS_MIN: usize = 16;

/// How a job connects.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The uri scheme that stands for the transport.
    pub scheme: &'static str,
    /// The socket of the server whose paths the files' names are.
    pub socket: Option<String>,
    pub client: ClientOptions,
}

impl Settings {
    /// What the job's options say.
    ///
    /// # Errors
    /// [`Error::Option`] for one that can't be followed.
    pub fn of(job: Job) -> Result<Settings, Error> {
        let mut client = ClientOptions::default();
        let depth = job.depth().clamp(REQUESTS_MIN, usize::from(u16::MAX));
        client.requests_max = u16::try_from(depth).unwrap_or(u16::MAX);
        let Some(options) = job.options() else {
            return Ok(Settings { scheme: TRANSPORTS[0].1, socket: None, client });
        };
        // SAFETY: fio has made a structure of the size that the table says, filled it, and leaves it alone now.
        let options = unsafe { options.as_ref() };
        if !options.key_file.is_null() {
            let reason = "servers of this version know no keys, so it would protect nothing";
            return Err(Error::Option { name: "key_file", reason });
        }
        let socket = text(options.socket).map_err(|reason| Error::Option { name: "socket", reason })?;
        client.polling_timeout = Duration::from_micros(options.polling_us.into());
        client.keepalive = Duration::from_millis(options.keepalive_ms.into());
        client.connect_timeout = Duration::from_millis(options.connect_timeout_ms.into());
        client.crc = options.crc != 0;
        let mut scheme = TRANSPORTS.get(options.transport as usize).unwrap_or(&TRANSPORTS[0]).1;
        if scheme == "shm" {
            // fio's names are made of host and port: the server found there says where its socket is.
            (scheme, client.transport) = ("raio", raio::Transport::Shm);
        }
        Ok(Settings { scheme, socket, client })
    }

    /// Whether a server may be reached by shared memory.
    pub fn shares_memory(&self) -> bool {
        self.scheme == "raio"
    }
}

/// The text of an option, if it was given.
fn text(value: *const c_char) -> Result<Option<String>, &'static str> {
    if value.is_null() {
        return Ok(None);
    }
    // SAFETY: fio keeps texts of options as strings of C, which end with a zero.
    match unsafe { CStr::from_ptr(value) }.to_str() {
        Ok("") => Err("it is empty"),
        Ok(text) => Ok(Some(text.to_owned())),
        Err(_) => Err("it is not UTF-8"),
    }
}

/// The options for fio's parser, ended by one without a name. It lives as long as the program, and fio writes to it.
pub fn table() -> NonNull<sys::fio_option> {
    let table = [
        transport(),
        number(
            c"polling_us",
            c"Polling time",
            c"Longest time in microseconds that a wait polls before it sleeps; 0 never polls",
            offset_of!(Options, polling_us),
            (0, 1_000_000, c"100"),
        ),
        number(
            c"keepalive_ms",
            c"Keepalive",
            c"Silence in milliseconds after which the server is given up, counted while fio waits for it",
            offset_of!(Options, keepalive_ms),
            (10, 3_600_000, c"10000"),
        ),
        number(
            c"connect_timeout_ms",
            c"Connect timeout",
            c"Time in milliseconds for a connection to be set up",
            offset_of!(Options, connect_timeout_ms),
            (10, 3_600_000, c"10000"),
        ),
        sys::fio_option {
            type_: sys::fio_opt_type_FIO_OPT_BOOL,
            ..number(
                c"crc",
                c"Checksums",
                c"Checksums (CRC-32C) over all that travels, if the server has them too",
                offset_of!(Options, crc),
                (0, 1, c"0"),
            )
        },
        sys::fio_option {
            type_: sys::fio_opt_type_FIO_OPT_STR_STORE,
            ..option(
                c"socket",
                c"Socket",
                c"Socket of a server on this host, for shared memory; names of files are paths at it then",
                offset_of!(Options, socket),
            )
        },
        sys::fio_option {
            type_: sys::fio_opt_type_FIO_OPT_STR_STORE,
            ..option(
                c"key_file",
                c"Key file",
                c"File with the key that client and server prove to each other",
                offset_of!(Options, key_file),
            )
        },
        empty(),
    ];
    NonNull::from(Box::leak(Box::new(table))).cast()
}

/// Bytes of [`Options`], for fio.
pub const OPTIONS_BYTES: usize = size_of::<Options>();

fn empty() -> sys::fio_option {
    // SAFETY: numbers, null pointers and an absent function: all of it may be zero, which fio takes for "not set".
    unsafe { std::mem::zeroed() }
}

fn option(name: &'static CStr, long: &'static CStr, help: &'static CStr, offset: usize) -> sys::fio_option {
    sys::fio_option {
        name: name.as_ptr(),
        lname: long.as_ptr(),
        help: help.as_ptr(),
        // The structure has a few dozen bytes.
        off1: offset as c_uint,
        category: sys::opt_category_FIO_OPT_C_ENGINE.into(),
        ..empty()
    }
}

fn number(
    name: &'static CStr,
    long: &'static CStr,
    help: &'static CStr,
    offset: usize,
    (least, greatest, default): (i32, u64, &'static CStr),
) -> sys::fio_option {
    sys::fio_option {
        type_: sys::fio_opt_type_FIO_OPT_INT,
        minval: least,
        maxval: greatest,
        def: default.as_ptr(),
        ..option(name, long, help, offset)
    }
}

fn transport() -> sys::fio_option {
    let help = c"How to reach the server";
    let mut option = option(c"transport", c"Transport", help, offset_of!(Options, transport));
    option.type_ = sys::fio_opt_type_FIO_OPT_STR;
    option.def = TRANSPORTS[0].0.as_ptr();
    for (index, (name, _, help)) in TRANSPORTS.iter().enumerate() {
        let value = &mut option.posval[index];
        value.ival = name.as_ptr();
        value.oval = index as u64;
        value.help = help.as_ptr();
    }
    option
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_option_has_offset_zero_and_the_table_ends() {
        let mut at = table().as_ptr();
        let mut offsets = Vec::new();
        // SAFETY: the table ends with an option without a name.
        unsafe {
            while !(*at).name.is_null() {
                offsets.push((*at).off1 as usize);
                at = at.add(1);
            }
        }
        assert_eq!(offsets.len(), 7);
        assert!(offsets.iter().all(|offset| (1..OPTIONS_BYTES).contains(offset)), "{offsets:?}");
    }
}
