//! Many connections, idle connections, and a small client beside a large one.

use super::measured::{Figure, Measured};
use super::place::{CLIENT_CORE, Place, SERVER_CORE};
use super::progress::Progress;
use super::rounds::{Ratio, median, median_of};
use super::target::{Limit, Verdict};
use super::transport::Transport;
use crate::Result;
use crate::child::Running;
use crate::server::Server;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Numbers of connections that are measured, each with one read in flight.
const COUNTS: &[u32] = &[1, 10, 100, 1000, 10_000];
const COUNTS_QUICK: &[u32] = &[10, 1000];
/// Those that a target is about.
const JUDGED: &[u32] = &[10, 1000];
/// Idle connections.
const IDLE: u32 = 10_000;
const IDLE_QUICK: u32 = 1000;
/// Time for the idle ones to be there.
const OPEN_TIME: Duration = Duration::from_secs(60);
/// Bytes of user memory that an idle connection may take on the server.
const IDLE_BYTES_MAX: f64 = 16.0 * 1024.0;

/// What a transport reached.
#[derive(Debug)]
pub(crate) struct Crowd {
    transport: &'static Transport,
    /// For each number of connections: its rounds.
    rates: Vec<(u32, Vec<Measured>)>,
    /// Of the numbers that are judged, what `minimal` reached.
    limits: Vec<(u32, Vec<Measured>)>,
    /// Bytes of user memory per idle connection, and how many there were.
    idle: Vec<(u32, f64)>,
    /// A small client's reads beside a large one.
    beside: Vec<Measured>,
    has_run: bool,
    pub(crate) failures: Vec<String>,
}

impl Crowd {
    pub(crate) fn new(transport: &'static Transport, quick: bool) -> Crowd {
        let counts = if quick { COUNTS_QUICK } else { COUNTS };
        Crowd {
            transport,
            rates: counts.iter().map(|count| (*count, Vec::new())).collect(),
            limits: JUDGED.iter().map(|count| (*count, Vec::new())).collect(),
            idle: Vec::new(),
            beside: Vec::new(),
            has_run: false,
            failures: Vec::new(),
        }
    }

    /// Runs that the first round has, and the others.
    pub(crate) fn runs(&self) -> (usize, usize) {
        let judged = self.rates.iter().filter(|(count, _)| JUDGED.contains(count)).count();
        let limits = if self.transport.name == "tcp" { self.limits.len() } else { 0 };
        (self.rates.len() + limits + 2, judged + limits + 1)
    }

    /// Runs a round. What no target is held against is measured in the first one only.
    pub(crate) fn run(&mut self, place: &Place, quick: bool, progress: &mut Progress) {
        let transport = self.transport;
        let who = format!("raio {}", transport.name);
        let is_first = !std::mem::replace(&mut self.has_run, true);
        for (count, rounds) in &mut self.rates {
            if !is_first && !JUDGED.contains(count) {
                continue;
            }
            let what = format!("{count} connections");
            match rate(transport, *count, place) {
                Ok(measured) => {
                    progress.measured(&who, &what, &measured);
                    rounds.push(measured);
                }
                Err(sentence) => fail(&mut self.failures, progress, &who, &what, &sentence),
            }
        }
        if transport.name == "tcp" {
            for (count, rounds) in &mut self.limits {
                let what = format!("{count} connections");
                match place.client(&mut minimal(*count, place)).and_then(|text| Measured::from_program(&text))
                {
                    Ok(measured) => {
                        progress.measured("minimal (tcp)", &what, &measured);
                        rounds.push(measured);
                    }
                    Err(sentence) => fail(&mut self.failures, progress, "minimal (tcp)", &what, &sentence),
                }
            }
        }
        if is_first {
            let count = if quick { IDLE_QUICK } else { IDLE };
            let what = format!("{count} idle connections");
            match idle(transport, count, place) {
                Ok(bytes) => {
                    progress.found(&who, &format!("{what}: {bytes:.0} bytes each"));
                    self.idle.push((count, bytes));
                }
                Err(sentence) => fail(&mut self.failures, progress, &who, &what, &sentence),
            }
        }
        let what = "4 KiB reads beside 1,024 of 1 MiB";
        match beside(transport, place) {
            Ok(measured) => {
                progress.found(&who, &format!("{what}: p99 {:.2} ms", measured.p99_ns / 1e6));
                self.beside.push(measured);
            }
            Err(sentence) => fail(&mut self.failures, progress, &who, what, &sentence),
        }
    }

    fn of(&self, count: u32) -> &[Measured] {
        rounds_of(&self.rates, count)
    }

    /// Whether its targets are reached.
    pub(crate) fn judge(&self) -> Vec<Verdict> {
        let name = self.transport.name;
        let shared = name != "tcp";
        let mut verdicts = Vec::new();
        if !shared {
            let ratio = Ratio::of(self.of(1000), self.of(10), Figure::Rate);
            let what = format!("{name}, 4 KiB, 1,000 connections: rate against 10 connections");
            let limit = Ratio::of(rounds_of(&self.limits, 1000), rounds_of(&self.limits, 10), Figure::Rate);
            let verdict = Verdict::of_ratio(what, Limit::AtLeast(0.8), None, ratio);
            verdicts.push(verdict.with_limit(limit.map(|limit| limit.show())));
        }
        let kib = self.idle.first().map(|(_, bytes)| bytes / 1024.0);
        let what = format!("{name}, idle connection: user memory on the server (of shm without its rings)");
        verdicts.push(Verdict::of_value(what, Limit::AtMost(IDLE_BYTES_MAX / 1024.0), None, kib, " KiB"));
        let p99 = median_of(&self.beside, Figure::P99).map(|time| time / 1e6);
        let what = format!("{name}, 4 KiB depth 1 beside 1,024 x 1 MiB on the same worker: p99");
        verdicts.push(Verdict::of_value(
            what,
            Limit::AtMost(if shared { 2.0 } else { 5.0 }),
            None,
            p99,
            " ms",
        ));
        verdicts
    }

    /// For the report.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "**raio {}**, 4 KiB reads of the null device, one in flight on each\n\n",
            self.transport.name
        );
        text.push_str("| connections | a second | p50 us | p99 us |\n|---:|---:|---:|---:|\n");
        for (count, rounds) in self.rates.iter().filter(|(_, rounds)| !rounds.is_empty()) {
            let get = |figure| median_of(rounds, figure).unwrap_or(0.0);
            let (p50, p99) = (get(Figure::Median) / 1e3, get(Figure::P99) / 1e3);
            let _ = writeln!(text, "| {count} | {:.0} | {p50:.1} | {p99:.1} |", get(Figure::Rate));
        }
        for (count, bytes) in &self.idle {
            let _ = writeln!(
                text,
                "\n{count} idle connections: {bytes:.0} bytes of user memory each on the server."
            );
        }
        if let Some(p99) = median(self.beside.iter().map(|measured| measured.p99_ns / 1e6).collect()) {
            let _ = writeln!(
                text,
                "\n4 KiB reads, depth 1, beside a client with 1,024 x 1 MiB: p99 {p99:.2} ms."
            );
        }
        text.push('\n');
        text
    }

    /// Rate against connections, as a line of a chart.
    pub(crate) fn series(&self) -> Value {
        let point =
            |(count, rounds): &(u32, Vec<Measured>)| Some(json!([count, median_of(rounds, Figure::Rate)?]));
        json!({
            "name": format!("raio {}", self.transport.name),
            "points": self.rates.iter().filter_map(point).collect::<Vec<_>>(),
        })
    }

    pub(crate) fn to_json(&self) -> Value {
        let rounds =
            |rounds: &[Measured]| rounds.iter().map(|measured| measured.to_json()).collect::<Vec<_>>();
        let rate =
            |(count, all): &(u32, Vec<Measured>)| json!({ "connections": count, "rounds": rounds(all) });
        json!({
            "transport": self.transport.name, "rates": self.rates.iter().map(rate).collect::<Vec<_>>(),
            "idle": self.idle, "beside_large": rounds(&self.beside), "failures": self.failures,
        })
    }
}

/// Says it, and keeps it for the report.
fn fail(failures: &mut Vec<String>, progress: &mut Progress, who: &str, what: &str, sentence: &str) {
    progress.failed(who, what, sentence);
    failures.push(format!("{who}, {what}: {sentence}"));
}

fn server(transport: &Transport, place: &Place) -> Result<(Server, String)> {
    let mut command = place.ours("raio-server", SERVER_CORE);
    command.args(["--export", "null=null:256M", "--listen", &transport.listen(place), "--threads", "1"]);
    let server = Server::start_that_tells(&mut command)?;
    let uri = transport.with_path(&server.uri, "/null");
    Ok((server, uri))
}

fn rounds_of(all: &[(u32, Vec<Measured>)], count: u32) -> &[Measured] {
    all.iter().find(|(known, _)| *known == count).map_or(&[], |(_, rounds)| rounds)
}

fn minimal(count: u32, place: &Place) -> Command {
    let mut command = place.minimal();
    command.args(["--connections", &count.to_string()]);
    command
}

fn rate(transport: &Transport, count: u32, place: &Place) -> Result<Measured> {
    let (server, uri) = server(transport, place)?;
    let mut client = place.ours("connections", CLIENT_CORE);
    client.args([&uri, "--count", &count.to_string(), "--time", &place.seconds.to_string()]);
    let text = place.client(&mut client)?;
    server.end();
    Measured::from_program(&text)
}

fn idle(transport: &Transport, count: u32, place: &Place) -> Result<f64> {
    let (server, uri) = server(transport, place)?;
    // A few first, so that what is kept once for all is there.
    let before = memory_with(&server, &uri, 16, place)?;
    let after = memory_with(&server, &uri, count, place)?;
    server.end();
    Ok((after - before).max(0.0) / f64::from(count))
}

/// The server's memory while so many connections are open.
fn memory_with(server: &Server, uri: &str, count: u32, place: &Place) -> Result<f64> {
    let mut command: Command = place.ours("connections", CLIENT_CORE);
    command.args([uri, "--idle", "--count", &count.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut running = Running::start(&mut command)?;
    let out = running.child().stdout.take().ok_or("connections has no stdout")?;
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(out).read_line(&mut line);
        // The receiver may have given up.
        let _ = sender.send(read.is_ok() && line.trim() == "ready");
    });
    match receiver.recv_timeout(OPEN_TIME) {
        Ok(true) => {
            let bytes = server.memory();
            running.end();
            Ok(bytes)
        }
        _ => Err(format!("{count} connections could not be opened")),
    }
}

/// 4 KiB reads one at a time, beside a client that has 1,024 reads of 1 MiB in flight.
fn beside(transport: &Transport, place: &Place) -> Result<Measured> {
    let (server, uri) = server(transport, place)?;
    let bench = |time: f64, rest: &[&str]| {
        let mut command = place.ours("raio", CLIENT_CORE);
        command.args(["bench", &uri, "--json", "--time", &time.to_string()]).args(rest);
        command
    };
    let lead = Duration::from_millis(300);
    let long = place.seconds + 2.0 * lead.as_secs_f64();
    let mut large = bench(long, &["--bs", "1M", "--depth", "1024"]);
    large.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running::start(&mut large)?;
    std::thread::sleep(lead);
    let text = place.client(&mut bench(place.seconds, &["--bs", "4k", "--depth", "1"]))?;
    drop(running);
    server.end();
    Measured::from_raio(&text)
}
