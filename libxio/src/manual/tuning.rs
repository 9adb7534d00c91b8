//! Tuning: what can be set, with its unit and default, and where to look.
//!
//! # Latency: polling
//!
//! Being woken costs 40 to 90 us on a small virtual machine, more than everything else together. A context polls for
//! [`polling_timeout`](crate::ContextOptions::polling_timeout) (100 us) before it sleeps, and stops polling by itself while
//! waits are usually longer. Set it to the pause that you want to bridge; zero for a context that shares its core.
//! `spins_won` and `sleeps` in the [statistics](crate::StatisticsSnapshot) tell how often it paid.
//!
//! # Throughput: depth, size, copies
//!
//! - [`slots`](crate::wire::Limits::slots) (1,024): requests under way per connection. A depth of 16 to 64 hides the round
//!   trip on a local network. `peer_slots` bounds what the peer may have under way here.
//! - [`window_bytes`](crate::wire::Limits::window_bytes) (8 MiB): data granted ahead. At least the bandwidth times the round
//!   trip, and two messages of the greatest size. `grant_stalls` counts how often a sender had to wait for it.
//! - [`data_bytes_max`](crate::wire::Limits::data_bytes_max) (4 MiB): the greatest message.
//! - [`one_way_max`](crate::wire::Limits::one_way_max) (1,024): one-way messages unacknowledged.
//! - [`immediate_bytes_max`](crate::wire::Limits::immediate_bytes_max) (all): above it data is announced first. For a
//!   receiver that has a place of its own for large data, or little memory.
//! - Name where responses land ([`Landing::Place`](crate::Landing::Place)): data is received straight into it.
//! - Send what belongs together in one turn: it goes out in one system call. Call
//!   [`flush`](crate::Context::flush) only where something has to go before the turn's end, or before you do something else
//!   than wait: see [`wait`](crate::Context::wait).
//!
//! # Memory
//!
//! - [`PoolOptions::bytes_max`](crate::PoolOptions::bytes_max) (1 GiB): when it is used up, links wait (`pool_stalls`).
//! - [`PoolOptions::huge_pages`](crate::PoolOptions::huge_pages) (on): taken where the system gives them to shared memory by
//!   advice (`echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled`), fewer translations for large transfers.
//! - [`shared_memory`](crate::ContextOptions::shared_memory) (16 GiB, 1,024 regions; half of the usable memory,
//!   32,768 regions): what a server maps of each client, and of all; beyond it data is copied through the ring.
//! - [`pinned_bytes_max`](crate::ContextOptions::pinned_bytes_max) (256 MiB): peers' memory that is pinned where
//!   [`submit_direct`](crate::Context::submit_direct) uses it again and again.
//! - A connection that is idle takes a few KiB; 10,000 of them are a test of this library.
//!
//! # Time
//!
//! - [`keepalive`](crate::ContextOptions::keepalive) (10 s): silence after which a peer is given up; probes go out after a
//!   third of it.
//! - [`lease`](crate::ContextOptions::lease) (10 min): for data to arrive whole that a peer has begun to send; the time of
//!   `keepalive` while memory is scarce.
//! - [`connect_timeout`](crate::ContextOptions::connect_timeout) (10 s),
//!   [`ServerOptions::handshake_timeout`](crate::ServerOptions::handshake_timeout) (10 s).
//! - [`SendOptions::timeout`](crate::SendOptions::timeout) (none): for the answer to one request.
//!
//! # Integrity
//!
//! [`crc`](crate::ContextOptions::crc) (off): CRC-32C of headers and data, in force where both sides want it; about
//! 20 us for a MiB on either side.
//!
//! # Cores
//!
//! A context per core: [`cpu`](crate::ContextOptions::cpu) binds a [`PinnedContext`](crate::PinnedContext)'s thread to a
//! processor, network interrupts belong on the same ones. A pinned context saves work per completion, too.
//!
//! # Where to look
//!
//! - [`Context::statistics`](crate::Context::statistics), and the same from another thread by
//!   [`ContextHandle::statistics`](crate::ContextHandle::statistics): counters, and histograms of
//!   [latency](crate::Statistics::request_latency) and [service time](crate::Statistics::service_time).
//! - [`Context::connection_statistics`](crate::Context::connection_statistics): what holds one connection up.
//!
//! | you see | it means |
//! |---|---|
//! | `slots_free` is 0 | more depth, or a slow peer |
//! | `waiting_for_grant` stays above 0 | the receiver does not release, or its window is too small |
//! | `one_way_free` is 0 | the receiver does not release |
//! | `unsent_bytes` grows | the network, or a peer that does not read |
//! | `pool_stalls` grows | this side's pool is too small for what its application holds |
//! | `sleeps` for each message | waits are longer than the polling time |
