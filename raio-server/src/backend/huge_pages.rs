//! Huge pages under memory that has filled, by a thread of its own: a kernel whose memory is in small pieces takes milliseconds to
//! put one together, in which a worker would stand still.

use crossbeam_channel::{Receiver, Sender, bounded};

/// Places that may wait for the thread. Who finds no room asks again with the next write.
const WAITING_MAX: usize = 1024;

/// A way to ask for huge pages. The thread ends after this.
#[derive(Debug)]
pub(super) struct HugePages {
    /// None where no thread can be had: then pages stay small.
    asked: Option<Sender<Place>>,
}

/// Where memory lies, as numbers: it may be gone when its turn comes. What is there then keeps its content, and may get huge
/// pages in its stead.
struct Place {
    start: usize,
    length: usize,
}

impl HugePages {
    /// Makes the thread: now, since a worker may be bound to a processor, which its threads are then bound to too.
    pub(super) fn new() -> HugePages {
        HugePages { asked: start() }
    }

    /// Asks for huge pages under some memory; false if there is no room to wait.
    pub(super) fn ask(&self, memory: &[u8]) -> bool {
        let Some(asked) = &self.asked else { return true };
        asked.try_send(Place { start: memory.as_ptr() as usize, length: memory.len() }).is_ok()
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
