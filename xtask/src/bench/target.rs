//! Targets: ratios that must hold, the greater ones where we want to end, and whether today's run reached them.

use super::contender::Contender;
use super::contender::Contender::{Engine, Local, Minimal, Nbdkit, Raio};
use super::measured::Figure::{self, ClientSwitches, Cpu, Median, Rate, ServerSwitches};
use super::plan;
use super::rounds::Ratio;
use super::row::Row;
use super::transport::{TRANSPORTS, Transport};
use super::work::Work;

/// Which side of a limit is good.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

impl Limit {
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Limit::AtLeast(limit) => value >= limit,
            Limit::AtMost(limit) => value <= limit,
        }
    }

    pub(crate) fn show(self, unit: &str) -> String {
        match self {
            Limit::AtLeast(limit) => format!(">= {limit}{unit}"),
            Limit::AtMost(limit) => format!("<= {limit}{unit}"),
        }
    }
}

/// What a target says about a row.
#[derive(Debug, Clone, Copy)]
enum Against {
    /// A ratio to somebody in the same row.
    Peer(Contender),
    /// The figure itself, in a unit of so many of its own.
    Value(f64, &'static str),
}

/// A target for one of our transports.
#[derive(Debug)]
struct Target {
    transport: &'static Transport,
    work: Work,
    figure: Figure,
    against: Against,
    must: Limit,
    /// Where we want to end, in the same unit.
    want: Option<f64>,
}

/// A line of the table.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) what: String,
    pub(crate) target: String,
    /// What was measured; `None`: nothing was.
    pub(crate) found: Option<String>,
    /// The same of a program that does only what can't be avoided, where there is one.
    pub(crate) limit: Option<String>,
    pub(crate) reached: bool,
}

impl Verdict {
    /// Of a ratio of rounds.
    pub(crate) fn of_ratio(what: String, must: Limit, want: Option<f64>, found: Option<Ratio>) -> Verdict {
        let want = want.map_or(String::new(), |want| format!(" [{want}]"));
        Verdict {
            what,
            target: format!("{}{want}", must.show("x")),
            reached: found.is_some_and(|found| must.holds(found.median)),
            found: found.map(|found| found.show()),
            limit: None,
        }
    }

    /// Of a figure in a unit.
    pub(crate) fn of_value(
        what: String,
        must: Limit,
        want: Option<f64>,
        found: Option<f64>,
        unit: &str,
    ) -> Verdict {
        let want = want.map_or(String::new(), |want| format!(" [{want}]"));
        // As it is shown: a start's few context switches make no 1.00 of it.
        let found = found.map(|found| (found * 100.0).round() / 100.0);
        Verdict {
            what,
            target: format!("{}{want}", must.show(unit)),
            reached: found.is_some_and(|found| must.holds(found)),
            found: found.map(|found| format!("{found:.2}{unit}")),
            limit: None,
        }
    }

    /// With what the limit is.
    pub(crate) fn with_limit(self, limit: Option<String>) -> Verdict {
        Verdict { limit, ..self }
    }
}

const fn target(transport: usize, work: Work, figure: Figure, against: Against, must: Limit) -> Target {
    Target { transport: &TRANSPORTS[transport], work, figure, against, must, want: None }
}

const fn wanting(target: Target, want: f64) -> Target {
    Target { want: Some(want), ..target }
}

const TCP: usize = 0;
const SHM: usize = 1;

/// What must hold before everything else.
fn floor() -> Vec<Target> {
    use Against::Peer;
    vec![
        target(TCP, plan::FLOOR_RATE, Rate, Peer(Nbdkit), Limit::AtLeast(3.0)),
        target(TCP, plan::FLOOR_LATENCY, Median, Peer(Nbdkit), Limit::AtMost(0.5)),
    ]
}

/// The targets of storage.
fn storage() -> Vec<Target> {
    use Against::{Peer, Value};
    use Limit::{AtLeast, AtMost};
    use plan::{
        LARGE_FILE, LATENCY_ASLEEP, LATENCY_DEFAULT, LATENCY_MEMORY, LATENCY_NULL, MIDDLE_FILE,
        READS_DEFAULT, READS_FILE, READS_MEMORY, READS_NULL, WRITES_MEMORY, WRITES_NULL,
    };
    let micro = Value(1e3, " us");
    let million = Value(1e6, " M/s");
    let each = Value(1.0, "");
    let latency = LATENCY_MEMORY.map(|work| wanting(target(SHM, work, Median, micro, AtMost(1.0)), 0.6));
    let rates = [READS_MEMORY, WRITES_MEMORY].concat();
    let rates = rates.into_iter().map(|work| wanting(target(SHM, work, Rate, million, AtLeast(1.5)), 2.5));
    let mut targets = vec![
        target(TCP, LATENCY_NULL, Median, Peer(plan::MINIMAL_TCP), AtMost(1.15)),
        target(TCP, READS_NULL, Rate, Peer(plan::MINIMAL_TCP), AtLeast(0.85)),
        target(TCP, WRITES_NULL, Rate, Peer(plan::MINIMAL_TCP), AtLeast(0.85)),
        target(TCP, READS_NULL, Rate, Peer(Nbdkit), AtLeast(7.0)),
        target(TCP, WRITES_NULL, Rate, Peer(Nbdkit), AtLeast(7.0)),
        wanting(target(TCP, READS_FILE, Rate, Peer(Local), AtLeast(0.75)), 0.95),
        wanting(target(TCP, MIDDLE_FILE, Rate, Peer(Local), AtLeast(0.5)), 0.8),
        wanting(target(TCP, LARGE_FILE, Rate, Peer(Local), AtLeast(0.45)), 0.65),
        target(TCP, LATENCY_DEFAULT, Median, Peer(Nbdkit), AtMost(0.4)),
        target(TCP, LATENCY_ASLEEP, Median, Peer(Nbdkit), AtMost(1.1)),
        target(TCP, LATENCY_ASLEEP, ServerSwitches, each, AtMost(2.0)),
        target(TCP, LATENCY_ASLEEP, ClientSwitches, each, AtMost(2.0)),
        target(TCP, READS_DEFAULT, Cpu, Peer(Nbdkit), AtMost(0.2)),
        wanting(target(SHM, READS_FILE, Rate, Peer(Local), AtLeast(1.2)), 1.5),
        wanting(target(SHM, MIDDLE_FILE, Rate, Peer(Local), AtLeast(1.0)), 1.1),
        wanting(target(SHM, LARGE_FILE, Rate, Peer(Local), AtLeast(0.95)), 1.1),
        target(SHM, LATENCY_DEFAULT, Median, Peer(Nbdkit), AtMost(0.1)),
        target(SHM, LATENCY_ASLEEP, Median, Peer(Nbdkit), AtMost(1.0)),
        target(SHM, LATENCY_ASLEEP, ServerSwitches, each, AtMost(1.0)),
        target(SHM, LATENCY_ASLEEP, ClientSwitches, each, AtMost(1.0)),
        target(SHM, READS_DEFAULT, Cpu, Peer(Nbdkit), AtMost(0.1)),
    ];
    targets.extend(latency);
    targets.extend(rates);
    targets
}

/// Whether the rows reach the floor.
pub(crate) fn judge_floor(rows: &[Row]) -> Vec<Verdict> {
    floor().iter().map(|target| target.judge(rows)).collect()
}

/// Whether the rows reach the targets of storage.
pub(crate) fn judge_storage(rows: &[Row]) -> Vec<Verdict> {
    storage().iter().map(|target| target.judge(rows)).collect()
}

impl Target {
    fn judge(&self, rows: &[Row]) -> Verdict {
        let figure = match self.figure {
            Rate => "rate",
            Figure::Bandwidth => "bandwidth",
            Median => "median",
            Figure::P99 => "p99",
            Figure::P999 => "p99.9",
            Cpu => "processor time",
            ClientSwitches => "context switches of the client for each",
            ServerSwitches => "context switches of the server for each",
        };
        let row = rows.iter().find(|row| row.work == self.work);
        // fio against fio, where fio is what is compared with: raio bench where nobody ran our engine.
        let engine = Engine(self.transport);
        let by_fio = matches!(self.against, Against::Peer(Local))
            && row.is_some_and(|row| !row.rounds(engine).is_empty());
        let ours = if by_fio { engine } else { Raio(self.transport) };
        let limit = Minimal(self.transport);
        let what = format!("{}, {}: {figure}", self.transport.name, self.work.describe());
        match self.against {
            Against::Peer(peer) => {
                let ratio = |of| row.and_then(|row| row.ratio(of, peer, self.figure));
                let what = if by_fio { format!("{what} of fio libraio") } else { what };
                let what = format!("{what} against {}", peer.name());
                let verdict = Verdict::of_ratio(what, self.must, self.want, ratio(ours));
                if peer == limit {
                    verdict
                } else {
                    verdict.with_limit(ratio(limit).map(|found| found.show()))
                }
            }
            Against::Value(scale, unit) => {
                let median = |of| row.and_then(|row| row.median(of, self.figure)).map(|found| found / scale);
                let verdict = Verdict::of_value(what, self.must, self.want, median(ours), unit);
                verdict.with_limit(median(limit).map(|found| format!("{found:.2}{unit}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::measured::Measured;
    use super::super::row::Entry;
    use super::*;

    #[test]
    fn a_target_is_judged_by_the_median_of_the_ratios() {
        let rounds = |rates: [f64; 3]| {
            rates.iter().map(|rate| Measured { rate: *rate, ..Measured::default() }).collect::<Vec<_>>()
        };
        let entry = |contender, rates| Entry { contender, rounds: rounds(rates), failure: None, failures: 0 };
        let entries =
            vec![entry(Raio(&TRANSPORTS[TCP]), [310.0, 320.0, 10.0]), entry(Nbdkit, [100.0, 100.0, 100.0])];
        let verdicts = judge_floor(&[Row { work: plan::FLOOR_RATE, entries }]);
        assert!(verdicts[0].reached, "{verdicts:?}");
        assert_eq!(verdicts[0].found.as_deref(), Some("3.10x (0.10 - 3.20)"));
        assert!(!verdicts[1].reached && verdicts[1].found.is_none());
    }

    #[test]
    fn the_limit_stands_beside_what_was_reached() {
        let entry = |contender, p50_ns| {
            let rounds = vec![Measured { p50_ns, ..Measured::default() }];
            Entry { contender, rounds, failure: None, failures: 0 }
        };
        let shm = &TRANSPORTS[SHM];
        let entries = vec![entry(Raio(shm), 1400.0), entry(Minimal(shm), 1030.0)];
        let verdicts = judge_storage(&[Row { work: plan::LATENCY_MEMORY[0], entries }]);
        let verdict = verdicts.iter().find(|verdict| verdict.found.is_some()).unwrap();
        assert_eq!((verdict.found.as_deref(), verdict.limit.as_deref()), (Some("1.40 us"), Some("1.03 us")));
        assert!(!verdict.reached);
    }
}
