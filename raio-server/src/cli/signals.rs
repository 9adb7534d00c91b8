//! Signals as something to wait for: a thread takes them and passes on what they ask for.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// SIGTERM, SIGINT: stop in good order.
    Stop,
    /// SIGHUP: read the configuration again.
    Reload,
}

/// What was asked for and not waited for yet.
#[derive(Debug)]
pub(super) struct Asking(Receiver<Asked>);

impl Asking {
    /// From now on signals are taken instead of ending the process.
    pub(super) fn begin() -> io::Result<Asking> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let (sender, receiver) = channel();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for signal in signals.forever() {
                let asked = if signal == SIGHUP { Asked::Reload } else { Asked::Stop };
                // The receiver lives as long as the process does something.
                let _ = sender.send(asked);
            }
        })?;
        Ok(Asking(receiver))
    }

    /// Waits for a signal; `None` when the time is over.
    pub(super) fn wait(&self, time: Duration) -> Option<Asked> {
        self.0.recv_timeout(time).ok()
    }
}
