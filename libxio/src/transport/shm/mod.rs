//! `shm`: two processes on one host. They meet at a Unix socket; frames go through a ring of bytes each way in memory
//! that the client makes and the server maps; data stays where it is, in the client's regions, which the server maps
//! too. docs/PROTOCOL.md, "Shared memory", has the layout.
//!
//! `ring.rs` is the algorithm (pure, tested with loom), `memory.rs` the mapped rings, `message.rs` what goes over the
//! socket, `lending.rs` the client's regions as the server knows them and the other way round, `socket.rs` puts it
//! together as a byte socket under [`Stream`], `listener.rs` accepts. While both sides run, nothing here is a system call.
//!
//! The server hands nothing to the client but bytes in the ring: a client sees no memory of the server's, and so none of
//! another client. A doorbell is a futex in that memory, or, where a kernel's ring can't wait on one, a message on the socket.
//! Not an eventfd: a peer can make the write to one block (it shares the file's flags), but not a wake, nor a send that says
//! MSG_DONTWAIT.

mod identity;
mod lending;
mod listener;
mod memory;
mod message;
mod ring;
mod socket;

use super::{Link, Listener, Stream, Transport};
use crate::mem::{Amount, Budget};
use crate::{Error, Result, Uri, sys};
use identity::AllowList;
use listener::ShmListener;
use socket::ShmSocket;
use std::sync::Arc;

/// What a server maps of its clients' memory, at most: address space, and pages that the server touches, which weigh on its
/// memory group if it touches them first. Memory counts from before it is mapped until it is unmapped, be it withdrawn
/// meanwhile: a region stays mapped until the last buffer over it is dropped. A client is told what it may hand over, and
/// sends through the ring what lies beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedMemoryOptions {
    /// Regions of one client at a time. Default: 1,024, which is a pool of 1 GiB in the smallest shared chunks four times
    /// over.
    pub regions_max: u32,
    /// Bytes of all regions of one client. Default: 16 GiB; 0 maps none.
    pub region_bytes_max: u64,
    /// Regions of all clients of the context that listens, with two rings for each as one more. Default: 32,768, half of
    /// what Linux lets a process map (`vm.max_map_count`).
    pub total_regions_max: u32,
    /// Bytes of all regions and rings of all clients (rings take 516 KiB a client). A client whose rings find no room is
    /// refused with ENOBUFS. Default: half of the machine's memory, or of what the process's memory groups leave it.
    pub total_bytes_max: u64,
}

impl Default for SharedMemoryOptions {
    fn default() -> Self {
        SharedMemoryOptions {
            regions_max: 1024,
            region_bytes_max: 16 << 30,
            total_regions_max: 32_768,
            total_bytes_max: sys::usable_memory() / 2,
        }
    }
}

impl SharedMemoryOptions {
    fn of_all(self) -> Amount {
        Amount::new(self.total_regions_max, self.total_bytes_max)
    }

    fn of_one(self) -> Amount {
        Amount::new(self.regions_max, self.region_bytes_max).min(self.of_all())
    }
}

/// The `shm` scheme.
#[derive(Debug)]
pub(crate) struct Shm {
    options: SharedMemoryOptions,
    /// For all clients of all listeners of the context.
    budget: Arc<Budget>,
}

impl Shm {
    pub(crate) fn new(options: SharedMemoryOptions) -> Shm {
        let budget = Budget::new(options.of_all());
        Shm { options, budget }
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
        let socket = ShmSocket::connect(path, AllowList::of(uri)?)?;
        Ok(Box::new(Stream::new(socket, format!("shm:{path}"))))
    }

    fn listen(&self, uri: &Uri) -> Result<Box<dyn Listener>> {
        Ok(Box::new(ShmListener::bind(uri, self.options.of_one(), Arc::clone(&self.budget))?))
    }
}
