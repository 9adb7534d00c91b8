//! Messages side by side: latency, rate and bandwidth of libxio beside UCX and plain sockets.

use super::measured::{Figure, Measured};
use super::place::Place;
use super::progress::Progress;
use super::report;
use super::rounds::{Ratio, median_of};
use super::row::FAILURES_MAX;
use super::talker::{Exchange, Talker};
use super::target::{Limit, Verdict};
use super::transport::TRANSPORTS;
use serde_json::{Value, json};
use std::fmt::Write;

/// One exchange, done by several in turns.
#[derive(Debug)]
pub(crate) struct Talk {
    exchange: Exchange,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    talker: Talker,
    rounds: Vec<Measured>,
    failure: Option<String>,
    failures: u32,
}

/// All exchanges; libxio may have transports that the file server does not offer yet.
pub(crate) fn talks() -> Vec<Talk> {
    let ours = TRANSPORTS.iter().map(Talker::Xio);
    let others = [Talker::Ucx("tcp"), Talker::Ucx("posix"), Talker::Sockets];
    let talkers: Vec<Talker> = ours.chain(others).chain(TRANSPORTS.iter().map(Talker::Raw)).collect();
    let talk = |exchange: Exchange| {
        let able = talkers.iter().filter(|talker| talker.can_do(exchange));
        let entries = able
            .map(|talker| Entry { talker: *talker, rounds: Vec::new(), failure: None, failures: 0 })
            .collect();
        Talk { exchange, entries }
    };
    Exchange::ALL.map(talk).into()
}

impl Talk {
    /// Runs that a round has.
    pub(crate) fn runs(&self) -> usize {
        self.entries.len()
    }

    /// Runs a round; who fails again is left out from then on.
    pub(crate) fn run(&mut self, place: &Place, progress: &mut Progress) {
        let what = self.exchange.describe();
        for entry in self.entries.iter_mut().filter(|entry| entry.failures < FAILURES_MAX) {
            match entry.talker.measure(self.exchange, place) {
                Ok(measured) => {
                    progress.measured(&entry.talker.name(), what, &measured);
                    entry.rounds.push(measured);
                }
                Err(sentence) => {
                    progress.failed(&entry.talker.name(), what, &sentence);
                    entry.failure = Some(sentence);
                    entry.failures += 1;
                }
            }
        }
    }

    fn rounds(&self, name: &str) -> &[Measured] {
        self.entries.iter().find(|entry| entry.talker.name() == name).map_or(&[], |entry| &entry.rounds)
    }

    fn ratio(&self, ours: &str, theirs: &str, figure: Figure) -> Option<Ratio> {
        Ratio::of(self.rounds(ours), self.rounds(theirs), figure)
    }

    pub(crate) fn to_json(&self, place: &Place) -> Value {
        let entry = |entry: &Entry| {
            json!({
                "contender": entry.talker.name(), "commands": [entry.talker.command(self.exchange, place)],
                "rounds": entry.rounds.iter().map(|measured| measured.to_json()).collect::<Vec<_>>(),
                "failure": entry.failure,
            })
        };
        json!({ "work": self.exchange.describe(), "entries": self.entries.iter().map(entry).collect::<Vec<_>>() })
    }

    fn table(&self, text: &mut String, place: &Place) {
        let _ = writeln!(text, "**{}**\n", self.exchange.describe());
        text.push_str("| who | a second | MB/s | p50 us | p99 us | p99.9 us | client's command |\n");
        text.push_str("|---|---:|---:|---:|---:|---:|---|\n");
        let root = format!("{}/", crate::root().display());
        for entry in &self.entries {
            let name = entry.talker.name();
            if let (Some(failure), true) = (&entry.failure, entry.rounds.is_empty()) {
                let _ = writeln!(text, "| {name} | failed: {} | | | | | |", report::reason(failure));
                continue;
            }
            let get = |figure| median_of(&entry.rounds, figure).unwrap_or(0.0);
            let micro = |figure| match get(figure) / 1e3 {
                0.0 => String::new(),
                time => format!("{time:.2}"),
            };
            let _ = writeln!(
                text,
                "| {name} | {:.0} | {:.0} | {} | {} | {} | `{}` |",
                get(Figure::Rate),
                get(Figure::Bandwidth) / 1e6,
                micro(Figure::Median),
                micro(Figure::P99),
                micro(Figure::P999),
                entry.talker.command(self.exchange, place).replace(&root, "")
            );
        }
        text.push('\n');
    }
}

/// The section of the report.
pub(crate) fn section(talks: &[Talk], place: &Place) -> (String, String) {
    let mut text = String::from(
        "One side sends from one core, the other receives on the other core. UCX tells latencies one way: they are \
         doubled here. The 8 B messages of libxio are one-way, and their number is asked for in the end; those of 1 MiB \
         are requests, four at a time, filled by the sender and read by the receiver byte by byte, which is more than UCX \
         and iperf3 do.\n\n",
    );
    talks.iter().for_each(|talk| talk.table(&mut text, place));
    ("Messages, side by side".to_owned(), text)
}

/// Whether the targets of messages are reached.
pub(crate) fn judge(talks: &[Talk]) -> Vec<Verdict> {
    use Limit::{AtLeast, AtMost};
    let [round_trip, small, large] = talks else { return Vec::new() };
    let ratio = |talk: &Talk, ours: &str, theirs: &str, figure, must, want| {
        let what = format!("{ours}, {}: against {theirs}", talk.exchange.describe());
        let minimal = format!("minimal ({})", ours.trim_start_matches("libxio "));
        let limit = talk.ratio(&minimal, theirs, figure);
        Verdict::of_ratio(what, must, want, talk.ratio(ours, theirs, figure))
            .with_limit(limit.map(|limit| limit.show()))
    };
    let millions = median_of(small.rounds("libxio shm"), Figure::Rate).map(|rate| rate / 1e6);
    vec![
        ratio(round_trip, "libxio tcp", "UCX tcp", Figure::Median, AtMost(1.0), None),
        ratio(small, "libxio tcp", "UCX tcp", Figure::Rate, AtLeast(3.0), None),
        ratio(large, "libxio tcp", "UCX tcp", Figure::Bandwidth, AtLeast(1.0), None),
        ratio(round_trip, "libxio shm", "UCX posix", Figure::Median, AtMost(1.2), None),
        Verdict::of_value("libxio shm, 8 B messages".to_owned(), AtLeast(5.0), Some(12.0), millions, " M/s"),
        ratio(large, "libxio shm", "UCX posix", Figure::Bandwidth, AtLeast(1.0), Some(1.3)),
    ]
}
