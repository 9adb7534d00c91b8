//! Diagnostics, for who asks: `RAIO_LOG=debug`, or any directive of `tracing`, writes to standard error. Without it the
//! library prints nothing.

use std::io;
use std::sync::Once;
use tracing_subscriber::EnvFilter;

/// Starts the log if it is asked for. A program written in Rust that has a log of its own keeps it.
pub(crate) fn start() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        let Ok(directives) = std::env::var("RAIO_LOG") else { return };
        let Ok(filter) = EnvFilter::try_new(directives) else { return };
        let log =
            tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(|| StandardError);
        let _ = log.try_init();
    });
}

/// Standard error without the lock of the standard library, which a thread may hold while another one forks.
struct StandardError;

impl io::Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(io::stderr(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
