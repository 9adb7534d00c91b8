//! Programs that xtask runs: each in a process group of its own, under a time limit, and ended with xtask itself,
//! however that ends.

use crate::Result;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Time that a program gets to end by itself when it is told to.
const END_TIME: Duration = Duration::from_secs(10);
/// Time between two looks at a program.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A program that ends when this value is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    name: String,
}

impl Running {
    /// Starts a program in a process group of its own; the kernel ends it when xtask dies.
    pub(crate) fn start(command: &mut Command) -> Result<Running> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.process_group(0);
        // SAFETY: between fork and exec only async-signal-safe calls are allowed; prctl and getppid are plain system
        // calls.
        unsafe {
            command.pre_exec(|| {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) != 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().map_err(|cause| cannot_start(&name, &cause))?;
        Ok(Running { child, name })
    }

    /// The child, for its pipes.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Waits for the end, at most so long; then ends it.
    pub(crate) fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) if Instant::now() >= deadline => {
                    self.end();
                    return Err(format!(
                        "{} was not done after {} s and was ended",
                        self.name,
                        limit.as_secs()
                    ));
                }
                Ok(None) => std::thread::sleep(LOOK_INTERVAL),
                Err(cause) => return Err(format!("can't wait for {}: {cause}", self.name)),
            }
        }
    }

    /// Asks the group to end, and kills what is left of it after a while.
    pub(crate) fn end(&mut self) {
        self.signal(libc::SIGTERM);
        let deadline = Instant::now() + END_TIME;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        self.signal(libc::SIGKILL);
        // What was killed is gone at once; nothing is to be learnt from its status.
        let _ = self.child.wait();
    }

    fn signal(&self, signal: i32) {
        if let Ok(group) = i32::try_from(self.child.id()) {
            // SAFETY: a plain system call; the group is our child's, which was not waited for yet.
            unsafe { libc::kill(-group, signal) };
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

/// Runs a program whose output the person sees; an exit code other than 0 is an error.
pub(crate) fn run(command: &mut Command, limit: Duration) -> Result<()> {
    let line = line(command);
    let status = Running::start(command.stdin(Stdio::null()))?.wait(limit)?;
    succeeded(&line, status)
}

/// Runs a program and returns what it wrote to stdout; an exit code other than 0 is an error with what it wrote to
/// stderr.
pub(crate) fn output(command: &mut Command, limit: Duration) -> Result<String> {
    let line = line(command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(command)?;
    let out = running.child().stdout.take().map(collect);
    let err = running.child().stderr.take().map(collect);
    let status = running.wait(limit)?;
    let text = |reader: Option<std::thread::JoinHandle<String>>| {
        reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
    };
    let (out, err) = (text(out), text(err));
    succeeded(&line, status).map_err(|sentence| format!("{sentence}\n{}", err.trim_end()))?;
    Ok(out)
}

/// Runs a program in the foreground, with the terminal: one that may ask for a password.
pub(crate) fn run_interactive(command: &mut Command) -> Result<()> {
    let line = line(command);
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|cause| cannot_start(&name, &cause))?;
    succeeded(&line, status)
}

/// Voluntary context switches of all programs that have ended and were waited for.
pub(crate) fn switches_so_far() -> u64 {
    // SAFETY: a structure of numbers, for which zeros are values, and a plain system call that fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    u64::try_from(usage.ru_nvcsw).unwrap_or(0)
}

/// The command line, for messages.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn collect(mut pipe: impl io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A pipe that breaks gives what came before.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn cannot_start(name: &str, cause: &io::Error) -> String {
    match cause.kind() {
        io::ErrorKind::NotFound => format!("{name} is not installed, or not on the PATH"),
        _ => format!("can't start {name}: {cause}"),
    }
}

fn succeeded(line: &str, status: ExitStatus) -> Result<()> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(format!("`{line}` ended with exit code {code}")),
        (None, signal) => Err(format!("`{line}` was ended by signal {}", signal.unwrap_or_default())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_failures_are_told() {
        let limit = Duration::from_secs(20);
        assert_eq!(output(&mut shell("echo here"), limit), Ok("here\n".to_owned()));
        let failed = output(&mut shell("echo why >&2; exit 3"), limit);
        assert!(failed.is_err_and(|text| text.contains("exit code 3") && text.ends_with("why")));
        let missing = run(&mut Command::new("no-such-program-here"), limit);
        assert!(missing.is_err_and(|text| text.contains("not installed")));
    }

    #[test]
    fn what_takes_too_long_is_ended_with_its_children() {
        let late = output(&mut shell("sleep 600 & sleep 600"), Duration::from_millis(300));
        assert!(late.is_err_and(|text| text.contains("was ended")));
    }
}
