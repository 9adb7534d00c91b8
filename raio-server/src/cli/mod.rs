//! From the command line to a running server, and back when it is told to stop.

mod arguments;
mod file;
mod signals;

use arguments::{Arguments, LogFormat, Plan};
use clap::Parser;
use raio_server::{Error, Result, Running};
use sd_notify::NotifyState;
use signals::{Asked, Asking};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::EnvFilter;

/// How often a server that is to end with its first client looks whether that has left.
const FINITE_INTERVAL: Duration = Duration::from_millis(100);

/// Waits for signals without anything else to do are as long.
const FOREVER: Duration = Duration::from_secs(3600);

/// Parses, serves, and says what went wrong.
pub(crate) fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.print_config {
        // Nobody to tell if standard output is gone.
        let _ = std::io::stdout().write_all(file::EXAMPLE.as_bytes());
        return ExitCode::SUCCESS;
    }
    if let Err(reason) = start_log(&arguments) {
        eprintln!("raio-server: --log: {reason}");
        return ExitCode::from(2);
    }
    match serve(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("raio-server: {error}");
            let usage = matches!(
                error,
                Error::Usage(_)
                    | Error::ExportText { .. }
                    | Error::ListenText { .. }
                    | Error::OutOfRange { .. }
            );
            ExitCode::from(if usage { 2 } else { 1 })
        }
    }
}

fn start_log(arguments: &Arguments) -> std::result::Result<(), String> {
    let filter = match &arguments.log {
        Some(filter) => filter.clone(),
        None => std::env::var("RAIO_LOG").unwrap_or_else(|_| "info".to_owned()),
    };
    let filter = EnvFilter::try_new(&filter).map_err(|cause| format!("{filter:?}: {cause}"))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match arguments.log_format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

fn serve(arguments: &Arguments) -> Result<()> {
    let Plan { config, finite } = arguments.plan()?;
    let asking = Asking::begin().map_err(|cause| Error::Usage(format!("can't take signals: {cause}")))?;
    raise_file_limit();
    let running = raio_server::start(config)?;
    let mut out = std::io::stdout().lock();
    for uri in running.uris() {
        let address = uri.to_string();
        // Without standard output nobody waits for the lines.
        let _ = writeln!(out, "listening {}", address.trim_end_matches('/'));
    }
    let _ = out.flush();
    notify(&[NotifyState::Ready]);
    wait(arguments, &running, &asking, finite);
    notify(&[NotifyState::Stopping]);
    running.stop();
    tracing::info!("stopped");
    Ok(())
}

/// Until the server is to stop.
fn wait(arguments: &Arguments, running: &Running, asking: &Asking, finite: bool) {
    loop {
        match asking.wait(if finite { FINITE_INTERVAL } else { FOREVER }) {
            Some(Asked::Stop) => {
                tracing::info!(connections = running.counters().connections, "stopping");
                return;
            }
            Some(Asked::Reload) => reload(arguments, running),
            None => {}
        }
        let counters = running.counters();
        if finite && counters.connections_total > 0 && counters.connections == 0 {
            tracing::info!("the last client has left, as -f 1 waits for");
            return;
        }
    }
}

fn reload(arguments: &Arguments, running: &Running) {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, now]);
    }
    let outcome = arguments.plan().and_then(|plan| running.set_exports(&plan.config.exports));
    match outcome {
        Ok(()) => tracing::info!("reloaded; settings other than exports change with the next start"),
        Err(error) => tracing::error!(%error, "not reloaded, the exports stay as they are"),
    }
    notify(&[NotifyState::Ready]);
}

/// Tells the service manager, if there is one.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(cause) = sd_notify::notify(state) {
        tracing::warn!(%cause, "can't notify the service manager");
    }
}

/// Clients' files and sockets are descriptors: as many as the system lets us have.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(cause) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%cause, "the limit on open files stays as it is");
    }
}
