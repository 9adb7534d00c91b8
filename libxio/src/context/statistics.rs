//! Counters of a context: written by its thread alone, readable from any; and those of a connection.

use super::histogram::Histogram;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of a context; all but the gauges only grow.
        #[derive(Debug, Default)]
        pub struct Statistics {
            $($(#[$doc])* pub(crate) $name: Counter,)*
            pub(crate) request_latency: Histogram,
            pub(crate) service_time: Histogram,
        }

        /// The values of [`Statistics`] at one moment.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct StatisticsSnapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Statistics {
            /// The values now. Each is exact; they need not be from one instant.
            #[must_use]
            pub fn snapshot(&self) -> StatisticsSnapshot {
                StatisticsSnapshot { $($name: self.$name.get(),)* }
            }

            /// Times from sending a request to its response, for requests of this side that were answered. The
            /// resolution is a turn of the loop.
            #[must_use]
            pub fn request_latency(&self) -> &Histogram {
                &self.request_latency
            }

            /// Times from a peer's request to its answer by this side's application; the resolution is a turn of the loop, and
            /// what is answered in the turn in which it came counts as nothing.
            #[must_use]
            pub fn service_time(&self) -> &Histogram {
                &self.service_time
            }
        }

        impl StatisticsSnapshot {
            /// Names and values, in a fixed order.
            #[must_use]
            pub fn entries(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

counters! {
    /// Gauge: connections open.
    connections,
    /// Gauge: requests of peers not answered yet.
    requests_running,
    /// Gauge: requests of this side not answered yet.
    requests_outstanding,
    /// Gauge: one-way messages of this side that the peer has not acknowledged.
    one_way_unacknowledged,
    /// Gauge: one-way messages of peers not released yet.
    one_way_held,
    /// Gauge: requests and one-way messages that wait for the peer's byte grant.
    waiting_for_grant,
    /// Gauge: file operations in flight.
    operations_outstanding,
    /// Gauge: bytes of peers' memory that are pinned for O_DIRECT.
    pinned_bytes,
    /// File operations on pinned memory.
    operations_pinned,
    /// Requests sent (one-sided operations by frames among them).
    requests_sent,
    /// Requests received (one-sided operations by frames among them).
    requests_received,
    /// One-way messages sent.
    one_way_sent,
    /// One-way messages received.
    one_way_received,
    /// Receipts given to peers.
    receipts_given,
    /// Cancels asked for by this side, deadlines among them.
    cancels,
    /// Requests of this side whose time was over.
    deadlines_exceeded,
    /// Times a message found the peer's byte grant used up.
    grant_stalls,
    /// Frames sent.
    frames_sent,
    /// Frames received.
    frames_received,
    /// Bytes handed to transports.
    bytes_sent,
    /// Bytes taken from transports.
    bytes_received,
    /// Bytes of data that did not travel: they lie where both sides reach them.
    bytes_in_place,
    /// Bytes of those that had to be copied there first.
    bytes_copied,
    /// Transport sends (one per active link and turn).
    link_sends,
    /// Transport receives that brought something.
    link_receives,
    /// Transport receives that brought nothing.
    link_receives_empty,
    /// Turns of the loop.
    turns,
    /// Waits that ended while polling.
    spins_won,
    /// Waits that ended in sleep.
    sleeps,
    /// System calls into the ring.
    ring_enters,
    /// Connections accepted or opened.
    connections_opened,
    /// Connections ended.
    connections_closed,
    /// Redirects followed.
    redirects_followed,
    /// Connections ended by a broken rule of the protocol.
    protocol_violations,
    /// Links closed before a valid hello.
    handshakes_failed,
    /// Times a link had to wait for pool memory.
    pool_stalls,
    /// One-sided operations of this side that its device did without the owner's doing.
    operations_alone,
    /// Those that were begun so and refused by the owner's device, and went by frames.
    operations_refused,
    /// Work requests (SEND, RDMA READ, RDMA WRITE) handed to RDMA devices.
    rdma_posts,
    /// Doorbells: calls that handed them over, in chains.
    rdma_doorbells,
    /// Completions taken from RDMA devices, for work and for received messages.
    rdma_completions,
    /// Regions and chunks of pools that were registered with RDMA devices, once for as long as they live.
    rdma_registrations,
    /// Memory that nobody holds for longer, registered for one operation.
    rdma_registrations_once,
    /// Bytes of data that were copied between RDMA messages and their place, by this side.
    rdma_bytes_copied,
}

/// A number with one writer.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds without a locked instruction: only the context's thread writes.
    #[inline]
    pub(crate) fn add(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn subtract(&self, amount: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(amount), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What flows over a connection, and what holds it up; see
/// [`Context::connection_statistics`](crate::Context::connection_statistics).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ConnectionStatistics {
    /// Requests sent, one-sided operations by frames among them.
    pub requests_sent: u64,
    /// Requests received, one-sided operations by frames among them.
    pub requests_received: u64,
    /// One-way messages sent.
    pub one_way_sent: u64,
    /// One-way messages received.
    pub one_way_received: u64,
    /// Now: requests of this side without an answer.
    pub requests_outstanding: u32,
    /// Now: requests that could be sent before
    /// [`Error::SlotsExhausted`](crate::Error::SlotsExhausted).
    pub slots_free: u32,
    /// Now: requests of the peer without an answer.
    pub requests_running: u32,
    /// Now: one-way messages that the peer has not acknowledged.
    pub one_way_unacknowledged: u32,
    /// Now: one-way messages that could be sent before
    /// [`Error::OneWayExhausted`](crate::Error::OneWayExhausted).
    pub one_way_free: u32,
    /// Now: one-way messages of the peer that the application has not released.
    pub one_way_held: u32,
    /// Now: messages that wait for the peer's byte grant.
    pub waiting_for_grant: u32,
    /// Now: bytes of data that the peer is ready for.
    pub grant_left_bytes: u64,
    /// Now: bytes of the peer's data that the application has not released.
    pub held_bytes: u64,
    /// Now: bytes queued and not yet with the transport.
    pub unsent_bytes: u64,
}
