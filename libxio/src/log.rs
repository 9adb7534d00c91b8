//! A hook for embedders that have no `tracing` subscriber: what the library has to say, as lines of text.
//!
//! The library logs when connections come, go and fail, never per message. Programs that use `tracing` already need
//! nothing of this.

use crate::{Error, Result};
use std::fmt::Write;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

pub use tracing::Level;

/// Calls the hook for everything of this level and above, from all threads, with the level, the module it comes from
/// and one line of text. It can be set once in a process, and not together with another subscriber of `tracing`. The
/// hook must not panic, and should not block: it is called from the loop.
///
/// # Errors
/// [`Error::Unsupported`] where a hook or another subscriber is set already.
pub fn set_hook(level: Level, hook: impl Fn(Level, &str, &str) + Send + Sync + 'static) -> Result<()> {
    tracing::subscriber::set_global_default(Hook { level, hook })
        .map_err(|_| Error::Unsupported("a log hook or tracing subscriber is set already"))
}

struct Hook<F> {
    level: Level,
    hook: F,
}

impl<F: Fn(Level, &str, &str) + Send + Sync + 'static> Subscriber for Hook<F> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level && metadata.is_event()
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        // None is enabled.
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let text = format!("{}{}", line.message, line.fields);
        (self.hook)(*event.metadata().level(), event.metadata().target(), &text);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The message and then its fields.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing to a string does not fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, ", {}: {value:?}", field.name())
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = write!(self.fields, ", {}: {value}", field.name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn the_hook_gets_lines_of_its_level() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&lines);
        let hook = move |level: Level, target: &str, text: &str| {
            if target == "the test" {
                sink.lock().unwrap().push(format!("{level} {text}"));
            }
        };
        set_hook(Level::INFO, hook).unwrap();
        tracing::warn!(target: "the test", peer = "tcp://h:1", count = 3, "closing a connection");
        tracing::debug!(target: "the test", "too small to be said");
        assert_eq!(*lines.lock().unwrap(), ["WARN closing a connection, peer: tcp://h:1, count: 3"]);
        assert!(set_hook(Level::INFO, |_, _, _| {}).is_err());
    }
}
