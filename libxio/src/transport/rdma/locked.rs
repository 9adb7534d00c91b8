//! How much memory this process has registered with devices, beside what links can't be without. Registered memory is
//! locked, and the system bounds that for a process (RLIMIT_MEMLOCK): were all of it taken, the next connection would find
//! none for its receive buffers. So what can do without (exposed memory, regions, a request's own memory) has a part.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Of what may be locked, what can do without has one of so many parts. (Memory that is pinned for O_DIRECT has a quarter.)
const PARTS: u64 = 2;
/// Memory is locked in pages.
const PAGE_BYTES: u64 = 4096;

/// In bytes, of all contexts.
static REGISTERED: AtomicU64 = AtomicU64::new(0);

/// What may be registered where the options say nothing: half of what may be locked, all where that has no limit.
pub(super) fn bytes_max(option: Option<u64>) -> u64 {
    option.or_else(|| Some(crate::sys::locked_memory_max()? / PARTS)).unwrap_or(u64::MAX)
}

/// A part of what may be registered; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Part(u64);

impl Part {
    /// Takes as much as a range needs, if no more than `bytes_max` are taken then.
    ///
    /// # Errors
    /// There is not so much left; the error says what can be done.
    pub(super) fn take(address: *const u8, length: usize, bytes_max: u64) -> io::Result<Part> {
        let before_it = address as u64 % PAGE_BYTES;
        let bytes = (before_it + length as u64).next_multiple_of(PAGE_BYTES);
        let taken = REGISTERED.fetch_add(bytes, Ordering::Relaxed);
        // Given back by its drop.
        let part = Part(bytes);
        if taken.saturating_add(bytes) <= bytes_max {
            return Ok(part);
        }
        let refused = Refused { bytes, taken, bytes_max };
        static TOLD: AtomicBool = AtomicBool::new(false);
        if !TOLD.load(Ordering::Relaxed) && !TOLD.swap(true, Ordering::Relaxed) {
            tracing::warn!("{refused}");
        }
        Err(io::Error::other(refused))
    }
}

/// Memory is not registered, since enough is.
#[derive(Debug, thiserror::Error)]
#[error(
    "{bytes} bytes of memory are not registered with the RDMA device: {taken} are, of at most {bytes_max}. What lies there is \
     copied, or reached by frames. Raise the limit on locked memory (ulimit -l, RLIMIT_MEMLOCK; systemd: LimitMEMLOCK=), \
     give the process CAP_IPC_LOCK, or raise what the program allows itself (--rdma-memory of raio-server and raio, \
     RAIO_RDMA_MEMORY_MIB of programs with libraio, RdmaOptions::registered_bytes_max)"
)]
struct Refused {
    bytes: u64,
    taken: u64,
    bytes_max: u64,
}

impl Drop for Part {
    fn drop(&mut self) {
        REGISTERED.fetch_sub(self.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_and_it_comes_back() {
        let place = |offset: usize| std::ptr::without_provenance::<u8>(0x10_0000 + offset);
        let one = Part::take(place(0), 8192, 16_384).unwrap();
        let other = Part::take(place(4095), 2, 16_384).unwrap();
        assert_eq!(REGISTERED.load(Ordering::Relaxed), 16_384, "both pages of a range count");
        let error = Part::take(place(0), 1, 16_384).unwrap_err().to_string();
        assert!(
            error.contains("ulimit -l")
                && error.contains("--rdma-memory")
                && error.contains("16384 are, of at most 16384"),
            "{error}"
        );
        assert!(Part::take(place(0), usize::MAX >> 1, 16_384).is_err());
        drop(one);
        let again = Part::take(place(0), 8192, 16_384).unwrap();
        drop((other, again));
        assert_eq!(REGISTERED.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn an_option_goes_before_the_systems_limit() {
        assert_eq!(bytes_max(Some(7)), 7);
        assert_eq!(bytes_max(None), crate::sys::locked_memory_max().map_or(u64::MAX, |limit| limit / 2));
    }
}
