//! `shm`: two processes on one host. They meet at a Unix socket; frames go through a ring of bytes each way in memory
//! that the client makes and the server maps; data stays where it is, in the client's regions, which the server maps
//! too. docs/PROTOCOL.md, "Shared memory", has the layout.
//!
//! `ring.rs` is the algorithm (pure, tested with loom), `memory.rs` the mapped rings, `message.rs` what goes over the
//! socket, `lending.rs` the client's regions as the server knows them and the other way round, `socket.rs` puts it
//! together as a byte socket under [`Stream`], `listener.rs` accepts. While both sides run, nothing here is a system call.
//!
//! The server hands nothing to the client but bytes in the ring: a client sees no memory of the server's, and so none of
//! another client. A doorbell is a message on the socket rather than an eventfd: a peer can make the write to an eventfd
//! block (it shares the file's flags), but not a send that says MSG_DONTWAIT.

mod identity;
mod lending;
mod listener;
mod memory;
mod message;
mod ring;
mod socket;

use super::{Link, Listener, Stream, Transport};
use crate::{Error, Result, Uri};
use identity::AllowList;
use listener::ShmListener;
use socket::ShmSocket;

/// What a server maps of one client's memory, at most, counted by what the client may name at a time (a region that was
/// withdrawn stays mapped until the operations that use it have ended): address space, and pages that the server touches.
/// A client is told, and sends through the ring what lies beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedMemoryOptions {
    /// Regions at a time. Default: 1,024, which is a pool of 1 GiB in the smallest shared chunks four times over.
    pub regions_max: u32,
    /// Bytes of all regions. Default: 16 GiB; 0 maps none.
    pub region_bytes_max: u64,
}

impl Default for SharedMemoryOptions {
    fn default() -> Self {
        SharedMemoryOptions { regions_max: 1024, region_bytes_max: 16 << 30 }
    }
}

/// The `shm` scheme.
#[derive(Debug)]
pub(crate) struct Shm {
    options: SharedMemoryOptions,
}

impl Shm {
    pub(crate) fn new(options: SharedMemoryOptions) -> Shm {
        Shm { options }
    }
}

impl Transport for Shm {
    fn scheme(&self) -> &'static str {
        "shm"
    }

    fn connect(&self, uri: &Uri) -> Result<Box<dyn Link>> {
        let path = uri.query("socket").ok_or_else(|| Error::BadUri {
            uri: uri.to_string(),
            reason: "a shared-memory uri names the server's socket: shm:///resource?socket=/run/raio.sock",
        })?;
        let socket = ShmSocket::connect(path, AllowList::of(uri)?, self.options)?;
        Ok(Box::new(Stream::new(socket, format!("shm:{path}"))))
    }

    fn listen(&self, uri: &Uri) -> Result<Box<dyn Listener>> {
        Ok(Box::new(ShmListener::bind(uri, self.options)?))
    }
}
