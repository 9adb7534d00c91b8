//! Whether memory of a peer is pinned by the ring of the context that uses it, and from when on that is worthwhile.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Whether memory is pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pin {
    /// At this place of the ring's table.
    At(u16),
    /// It is not, and has been used so often that it should be; said once.
    Worthwhile,
    /// It is not.
    No,
}

/// How a mapping is known to a ring.
#[derive(Default)]
pub(super) struct Pinning {
    uses: AtomicU32,
    pinned: OnceLock<Pinned>,
}

struct Pinned {
    /// Number of the context whose ring has pinned it.
    context: u32,
    place: u16,
    /// Told the place when the memory is gone, from any thread.
    release: Box<dyn Fn(u16) + Send + Sync>,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        (self.release)(self.place);
    }
}

impl Pinning {
    /// Counts a use by a context.
    pub(super) fn at(&self, context: u32, uses_min: u32) -> Pin {
        if let Some(pinned) = self.pinned.get() {
            return if pinned.context == context { Pin::At(pinned.place) } else { Pin::No };
        }
        let uses = self.uses.load(Ordering::Relaxed);
        if uses > uses_min {
            return Pin::No;
        }
        self.uses.store(uses + 1, Ordering::Relaxed);
        if uses == uses_min { Pin::Worthwhile } else { Pin::No }
    }

    /// Where two contexts do so at once, the second one's place is released at once.
    pub(super) fn pin(&self, context: u32, place: u16, release: impl Fn(u16) + Send + Sync + 'static) {
        let _ = self.pinned.set(Pinned { context, place, release: Box::new(release) });
    }
}
