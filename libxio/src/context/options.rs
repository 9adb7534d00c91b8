//! How contexts, connections and servers are made, with their defaults.

use super::handles::Server;
use crate::transport::{Clock, SharedMemoryOptions, Transport};
use crate::wire::{GRANT_AHEAD_MAX, Limits, LoopKind, PRIVATE_DATA_BYTES_MAX};
use crate::{Error, PoolOptions, Result, Uri};
use std::sync::Arc;
use std::time::Duration;

/// How a context is made.
#[derive(Debug, Clone)]
pub struct ContextOptions {
    /// Longest time a turn polls without sleeping when nothing happens; zero never polls. It adapts: while waiting is
    /// usually longer than this, the context sleeps at once. Default: 100 us, about what a sleep and a wake cost.
    pub polling_timeout: Duration,
    /// Entries of the submission ring; more operations in flight are queued. Default: 256.
    pub ring_entries: u32,
    /// The pool that message data lands in.
    pub pool: PoolOptions,
    /// Limits offered on new connections.
    pub limits: Limits,
    /// Who runs the loop: tell [`LoopKind::Caller`] where [`Context::wait`](crate::Context::wait) is only called while
    /// somebody waits for something.
    pub loop_kind: LoopKind,
    /// Silence after which a peer is given up; zero never does. Default: 10 s.
    pub keepalive: Duration,
    /// Time for data to arrive whole that a peer has begun to send, beside a second for each 64 KiB of it; a peer that takes
    /// longer is given up ([`Error::Stalled`](crate::Error::Stalled)), since it holds memory. While less than a quarter of
    /// the pool is free, [`ContextOptions::keepalive`] is the limit if it is shorter. Zero never gives up. Default: 10 min,
    /// so that a peer may stop in a debugger in the middle of sending.
    pub lease: Duration,
    /// Time for a connection to be set up: name look-up apart, until the server's answer. Default: 10 s.
    pub connect_timeout: Duration,
    /// How much of its clients' memory a server maps.
    pub shared_memory: SharedMemoryOptions,
    /// Bytes of peers' memory, by shared memory, that are pinned for O_DIRECT ([`Context::submit_direct`](crate::Context::submit_direct)):
    /// they can't be swapped or given back meanwhile. Regions above 64 MiB are not pinned. All contexts of a
    /// process without CAP_IPC_LOCK pin at most a quarter of what may be locked (RLIMIT_MEMLOCK). Default: 256 MiB; 0 pins none.
    pub pinned_bytes_max: u64,
    /// When data goes which way over RDMA.
    #[cfg(feature = "rdma")]
    pub rdma: crate::transport::RdmaOptions,
    /// Transports beside the built-in ones.
    pub transports: Vec<Arc<dyn Transport>>,
    /// Where time comes from; the simulator's virtual clock makes a context without a ring.
    pub clock: Clock,
    /// A [`PinnedContext`](crate::PinnedContext) binds its thread to this processor, counted from 0 as the kernel does;
    /// `None` leaves that to whoever made the thread. Other contexts take no notice.
    pub cpu: Option<usize>,
    /// Offer checksums (CRC-32C) of headers and data; in force where both sides offer them. Default: off.
    pub crc: bool,
}

/// Requests outstanding per connection that are asked for, and granted, by default.
pub const SLOTS_DEFAULT: u16 = 1024;
/// Most bytes of a message header by default: a 4,096-byte path twice (rename) and a fixed part.
pub const HEADER_BYTES_MAX_DEFAULT: u32 = 8192 + 256;
/// Most bytes of data in one message by default.
pub const DATA_BYTES_MAX_DEFAULT: u32 = 4 << 20;
/// Bytes of request data granted ahead by default: two messages of the greatest size.
pub const WINDOW_BYTES_DEFAULT: u64 = 8 << 20;
/// One-way messages unacknowledged per connection and direction by default.
pub const ONE_WAY_MAX_DEFAULT: u32 = 1024;
/// Largest response kept for replay by default, in bytes.
pub const REPLAY_BYTES_MAX_DEFAULT: u32 = 256;

impl Default for ContextOptions {
    fn default() -> Self {
        ContextOptions {
            polling_timeout: Duration::from_micros(100),
            ring_entries: 256,
            pool: PoolOptions::default(),
            limits: Limits {
                slots: SLOTS_DEFAULT,
                peer_slots: SLOTS_DEFAULT,
                header_bytes_max: HEADER_BYTES_MAX_DEFAULT,
                data_bytes_max: DATA_BYTES_MAX_DEFAULT,
                window_bytes: WINDOW_BYTES_DEFAULT,
                replay_bytes_max: REPLAY_BYTES_MAX_DEFAULT,
                keepalive_ms: 10_000,
                one_way_max: ONE_WAY_MAX_DEFAULT,
                immediate_bytes_max: u32::MAX,
            },
            loop_kind: LoopKind::Own,
            keepalive: Duration::from_secs(10),
            lease: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(10),
            shared_memory: SharedMemoryOptions::default(),
            pinned_bytes_max: 256 << 20,
            #[cfg(feature = "rdma")]
            rdma: crate::transport::RdmaOptions::default(),
            transports: Vec::new(),
            clock: Clock::Real,
            cpu: None,
            crc: false,
        }
    }
}

/// How a connection is opened.
#[derive(Debug, Clone, Default)]
pub struct ConnectionOptions {
    /// For the server's application, at most [`crate::wire::PRIVATE_DATA_BYTES_MAX`] bytes.
    pub private_data: Vec<u8>,
    /// Limits of this connection; `None` takes the context's.
    pub limits: Option<Limits>,
    /// Another way to the session's server than the session's uri. Only a connection that joins a session proves that it
    /// is the same server: anybody else does not know the session's secret.
    pub via: Option<Uri>,
}

/// How a server is made.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Contexts that own the connections, in turn; empty: the server's own context does.
    pub workers: Vec<crate::ContextHandle>,
    /// Links that have not said hello yet; beyond it the oldest is closed. Default: 1,024.
    pub handshakes_max: usize,
    /// Time for a client to say hello, and for the application to answer. Default: 10 s.
    pub handshake_timeout: Duration,
    /// Connections at a time; beyond it hellos are rejected as busy. Default: 16,384.
    pub connections_max: usize,
    /// Share the sessions of a server of the same context, so that a client's connections may come by either address.
    /// Workers and `connections_max` are then those of that server.
    pub join: Option<Server>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions {
            workers: Vec::new(),
            handshakes_max: 1024,
            handshake_timeout: Duration::from_secs(10),
            connections_max: 16_384,
            join: None,
        }
    }
}

/// Greatest header that any context receives, in bytes: one must fit into the scratch memory with room to spare.
const HEADER_BYTES_CAP: u32 = 64 << 10;

pub(super) fn check_private_data(bytes: &[u8]) -> Result<()> {
    if bytes.len() > PRIVATE_DATA_BYTES_MAX {
        return Err(Error::LimitExceeded {
            what: "private data in bytes",
            value: bytes.len() as u64,
            limit: PRIVATE_DATA_BYTES_MAX as u64,
        });
    }
    Ok(())
}

/// Limits that this library can keep.
pub(super) fn check_limits(limits: &Limits) -> Result<()> {
    if limits.header_bytes_max > HEADER_BYTES_CAP {
        return Err(Error::LimitExceeded {
            what: "greatest message header in bytes",
            value: u64::from(limits.header_bytes_max),
            limit: u64::from(HEADER_BYTES_CAP),
        });
    }
    if limits.window_bytes > GRANT_AHEAD_MAX {
        return Err(Error::LimitExceeded {
            what: "window in bytes",
            value: limits.window_bytes,
            limit: GRANT_AHEAD_MAX,
        });
    }
    if limits.window_bytes < u64::from(limits.data_bytes_max) {
        return Err(Error::LimitExceeded {
            what: "greatest message data in bytes (the window has to hold one)",
            value: u64::from(limits.data_bytes_max),
            limit: limits.window_bytes,
        });
    }
    let data_cap = (crate::SGL_PIECES_MAX * crate::BUFFER_LEN_MAX) as u64;
    if u64::from(limits.data_bytes_max) > data_cap {
        return Err(Error::LimitExceeded {
            what: "greatest message data in bytes",
            value: u64::from(limits.data_bytes_max),
            limit: data_cap,
        });
    }
    Ok(())
}
