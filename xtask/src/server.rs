//! Servers, ours and others, that run for one measurement or one case.

use crate::Result;
use crate::child::{self, Running};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Time for a server to take connections, under callgrind on a busy machine too.
const START_TIME: Duration = Duration::from_secs(60);
/// Time for a signal to be sent, and to work.
const SIGNAL_TIME: Duration = Duration::from_secs(20);

/// A server that runs until this value is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    running: Running,
    process: u32,
    /// What it says that it listens at, if it does.
    pub(crate) uri: String,
}

impl Server {
    /// Starts a server that says where it listens, in a line `listening URI`.
    pub(crate) fn start_that_tells(command: &mut Command) -> Result<Server> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut running = Running::start(command)?;
        let process = running.child().id();
        let out = running.child().stdout.take().ok_or("the server has no stdout")?;
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(std::io::Result::ok) {
                if let Some(uri) = line.strip_prefix("listening ") {
                    // The receiver may have given up: then nobody is interested.
                    let _ = sender.send(uri.to_owned());
                }
            }
        });
        match receiver.recv_timeout(START_TIME) {
            Ok(uri) => Ok(Server { running, process, uri }),
            Err(_) => Err(format!("`{}` did not say where it listens", child::line(command))),
        }
    }

    /// Starts a server at a port, and waits until it takes connections.
    pub(crate) fn start_at(command: &mut Command, port: u16) -> Result<Server> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = Running::start(command)?;
        let process = running.child().id();
        let deadline = Instant::now() + START_TIME;
        // Connecting would be a client to some of them.
        while !is_listening(port) {
            if Instant::now() > deadline || !matches!(running.child().try_wait(), Ok(None)) {
                return Err(format!("`{}` takes no connections", child::line(command)));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Server { running, process, uri: format!("tcp://127.0.0.1:{port}") })
    }

    /// Anonymous memory in bytes.
    pub(crate) fn memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process)).unwrap_or_default();
        field(&status, "RssAnon:") * 1024.0
    }

    /// Processor time in nanoseconds of all its threads so far, and voluntary context switches of those that live.
    pub(crate) fn usage(&self) -> (f64, f64) {
        let mut usage = (0.0_f64, 0.0);
        let Ok(tasks) = std::fs::read_dir(format!("/proc/{}/task", self.process)) else { return usage };
        for task in tasks.flatten() {
            let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
            usage.0 += first_number(&read("schedstat"));
            usage.1 += field(&read("status"), "voluntary_ctxt_switches:");
        }
        // A thread that has ended, as those of a connection, is only in the sum of the process, told in ticks of 10 ms.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process)).unwrap_or_default();
        usage.0 = usage.0.max(process_time_ns(&stat));
        usage
    }

    /// Sends it a signal, named as kill(1) does.
    pub(crate) fn signal(&mut self, name: &str) -> Result<()> {
        let script = format!("kill -{name} {}", self.process);
        child::run(Command::new("sh").args(["-c", &script]), SIGNAL_TIME)
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.signal("KILL")?;
        self.running.wait(SIGNAL_TIME).map(drop)
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&mut self) -> bool {
        !matches!(self.running.child().try_wait(), Ok(None))
    }

    /// Ends it.
    pub(crate) fn end(mut self) {
        self.running.end();
    }
}

fn first_number(text: &str) -> f64 {
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// User and system time of a process and all threads that it ever had: proc(5), "/proc/pid/stat", fields 14 and 15,
/// in ticks of which a second has 100 on every architecture that we build for.
fn process_time_ns(stat: &str) -> f64 {
    const NS_PER_TICK: f64 = 1e7;
    // The second field is a name, in which everything may stand; the rest begins with the third.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    fields.split_whitespace().skip(11).take(2).map(first_number).sum::<f64>() * NS_PER_TICK
}

fn field(text: &str, name: &str) -> f64 {
    text.lines().find_map(|line| line.strip_prefix(name)).map_or(0.0, first_number)
}

/// Whether somebody listens at a port of TCP: proc(5), "/proc/net/tcp".
fn is_listening(port: u16) -> bool {
    const LISTEN: &str = "0A";
    let (suffix, read) = (format!(":{port:04X}"), |name| std::fs::read_to_string(name).unwrap_or_default());
    let listens = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        words.next().is_some_and(|local| local.ends_with(&suffix)) && words.nth(1) == Some(LISTEN)
    };
    [read("/proc/net/tcp"), read("/proc/net/tcp6")].iter().any(|table| table.lines().any(listens))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::free_port;
    use std::net::TcpListener;

    #[test]
    fn a_servers_usage_is_read() {
        let status = "Name:\tx\nRssAnon:\t     120 kB\nvoluntary_ctxt_switches:\t17\n";
        assert_eq!(field(status, "RssAnon:"), 120.0);
        assert_eq!(field(status, "voluntary_ctxt_switches:"), 17.0);
        assert_eq!(first_number("12345 6 7\n"), 12_345.0);
    }

    #[test]
    fn the_time_of_ended_threads_counts() {
        let stat = "7 (a) b) S 1 7 7 0 -1 0 5 0 0 0 12 30 9 9 20 0 1 0 100";
        assert_eq!(process_time_ns(stat), 42e7);
        assert_eq!(process_time_ns(""), 0.0);
    }

    #[test]
    fn listeners_are_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_listening(port));
        drop(listener);
        assert!(!is_listening(port));
    }

    #[test]
    fn a_server_that_ends_at_once_is_told() {
        let failed = Server::start_at(&mut Command::new("true"), free_port().unwrap());
        assert!(failed.is_err_and(|text| text.contains("takes no connections")));
    }
}
