//! What a worker counts: written by its thread alone, read from any.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one worker.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub $name: Counter,)*
        }

        /// Counters of a server at one moment, all workers together.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct CountersSnapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Adds the values now to `sum`.
            pub(crate) fn add_to(&self, sum: &mut CountersSnapshot) {
                $(sum.$name += self.$name.get();)*
            }
        }
    };
}

counters! {
    /// Connections open.
    connections,
    /// Connections accepted since the start.
    connections_total,
    /// Files open.
    open_files,
    /// Requests received and not answered yet.
    requests_running,
    /// Requests answered since the start.
    requests,
    /// Bytes read for clients since the start.
    bytes_read,
    /// Bytes written for clients since the start.
    bytes_written,
    /// Reads answered without a system call of their own, from a mapping of the file, since the start.
    reads_mapped,
    /// Parts of files, of 2 MiB at most, that were mapped for that since the start.
    windows_mapped,
    /// Page faults since the start in which a worker had to wait for a device while it had parts of files mapped.
    major_faults,
    /// Times that a client had to wait because it does not take its answers.
    clients_paused,
    /// Bytes of message memory in use.
    memory_bytes,
}

/// A number with one writer.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds without a locked instruction: only the worker's thread writes.
    #[inline]
    pub(crate) fn add(&self, amount: u64) {
        self.0.store(self.get().wrapping_add(amount), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn subtract(&self, amount: u64) {
        self.0.store(self.get().wrapping_sub(amount), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
