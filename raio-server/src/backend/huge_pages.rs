//! Huge pages under memory that has filled, by a thread of its own: a kernel whose memory is in small pieces takes milliseconds to
//! put one together, in which a worker would stand still.

use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::OnceLock;

/// Places that may wait for the thread. Who finds no room asks again with the next write.
const WAITING_MAX: usize = 1024;

/// A way to ask for huge pages. The thread is made when there is something to do, and ends after this.
#[derive(Debug, Default)]
pub(super) struct HugePages {
    /// None where no thread can be had: then pages stay small.
    asked: OnceLock<Option<Sender<Place>>>,
}

/// Where memory lies, as numbers: it may be gone when its turn comes, which hurts nobody.
struct Place {
    start: usize,
    length: usize,
}

impl HugePages {
    /// Asks for huge pages under some memory; false if there is no room to wait.
    pub(super) fn ask(&self, memory: &[u8]) -> bool {
        let Some(asked) = self.asked.get_or_init(start) else { return true };
        asked.try_send(Place { start: memory.as_ptr() as usize, length: memory.len() }).is_ok()
    }

    /// Whether anybody has asked yet.
    #[cfg(test)]
    pub(super) fn was_asked(&self) -> bool {
        self.asked.get().is_some()
    }
}

fn start() -> Option<Sender<Place>> {
    let (asked, places) = bounded(WAITING_MAX);
    let thread = std::thread::Builder::new().name("raio-huge-pages".into());
    match thread.spawn(move || collapse_all(&places)) {
        Ok(_) => Some(asked),
        Err(error) => {
            tracing::info!(%error, "no thread for huge pages; memory exports keep small ones");
            None
        }
    }
}

fn collapse_all(places: &Receiver<Place>) {
    let mut has_failed = false;
    for Place { start, length } in places {
        if let Err(cause) = libxio::collapse_memory(start, length)
            // Memory that is short, or gone, says nothing about the next.
            && !std::mem::replace(&mut has_failed, true)
        {
            tracing::debug!(%cause, "some memory of an export keeps small pages");
        }
    }
}
