//! `cargo xtask bench`: this stack beside what people would use instead, side by side in one run, and what we want it to
//! reach. Writes bench/RESULTS.md and bench/plots; every run's figures are kept as JSON in target/bench.
//!
//! `plan` says what is measured, `contender` how each one is, `row` runs them in turns, `target` judges, `report` tells.

mod chart;
mod contender;
mod crowd;
mod machine;
mod measured;
mod message;
mod place;
mod plan;
mod progress;
mod report;
mod rounds;
mod row;
mod schedule;
mod talker;
mod target;
mod transport;
mod work;

use crate::{Common, Result, counts, packages, root};
use clap::Args;
use crowd::Crowd;
pub(crate) use measured::Measured;
use message::Talk;
use place::Place;
#[cfg(test)]
pub(crate) use place::free_port;
pub(crate) use place::work_folder;
use report::Report;
use schedule::Schedule;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Time for everything but building, in the long and in the quick form.
const TIME: Duration = Duration::from_secs(14 * 60);
const TIME_QUICK: Duration = Duration::from_secs(170);
/// Seconds of one run.
const SECONDS: f64 = 0.8;
const SECONDS_QUICK: f64 = 0.25;
/// Rounds, from which medians and spreads come.
const ROUNDS: u32 = 5;

/// Arguments of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Three minutes instead of fifteen: shorter runs, fewer rows
    #[arg(long)]
    quick: bool,
    /// Seconds of one run
    #[arg(long)]
    seconds: Option<f64>,
    /// Rounds of each row
    #[arg(long, default_value_t = ROUNDS)]
    rounds: u32,
    /// Only rows whose description has this in it ("depth 32", "cached file"), or `messages`, or `connections`; leaves
    /// RESULTS.md alone. With --counts: only cases whose name has this in it ("tcp, read 4 KiB x32")
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Count instructions, system calls and allocations per operation instead, and hold them against bench/counts.json
    #[arg(long)]
    counts: bool,
    /// With --counts: write bench/counts.json
    #[arg(long, requires = "counts")]
    write: bool,
    /// With --counts: show where the instructions are, by source file and by function
    #[arg(long, requires = "counts")]
    profile: bool,
}

pub(crate) fn run(arguments: &Arguments, common: &Common) -> Result<()> {
    if arguments.counts {
        packages::ensure(&[packages::BUILD, packages::TEST].concat(), common)?;
        let Arguments { write, profile, only, .. } = arguments;
        return counts::run(&counts::Options { write: *write, profile: *profile, only: only.as_deref() });
    }
    let seconds = arguments.seconds.unwrap_or(if arguments.quick { SECONDS_QUICK } else { SECONDS });
    if !(0.05..=60.0).contains(&seconds) {
        return Err(format!("--seconds {seconds}: expected 0.05 to 60"));
    }
    println!("Looking for what has to be installed");
    packages::ensure(&[packages::BUILD, contender::PACKAGES].concat(), common)?;
    let mut schedule = Schedule::make(arguments)?;
    let mut place = Place::prepare(seconds)?;
    let mut notes = schedule.build(&mut place)?;
    notes.extend(busy());
    notes.iter().for_each(|note| println!("{note}"));
    let limit = if arguments.quick { TIME_QUICK } else { TIME };
    notes.extend(schedule.measure(&mut place, arguments, limit));
    report(&schedule, notes, arguments, &place)
}

/// Judges, tells, draws and keeps.
fn report(schedule: &Schedule, notes: Vec<String>, arguments: &Arguments, place: &Place) -> Result<()> {
    let Schedule { rows, curves, talks, crowds, .. } = schedule;
    let charts = chart::charts(rows, curves, crowds);
    let mut targets = target::judge_storage(rows);
    targets.extend(message::judge(talks));
    targets.extend(crowds.iter().flat_map(Crowd::judge));
    let crowd_tables: String = crowds.iter().map(Crowd::table).collect();
    let report = Report {
        machine: machine::describe(),
        versions: machine::versions(contender::PROGRAMS),
        notes,
        floor: target::judge_floor(rows),
        targets,
        rows,
        curves,
        charts: &charts,
        sections: vec![message::section(talks, place), ("Many connections".to_owned(), crowd_tables)],
    };
    // Of a part of the rows only what was measured.
    let is_part = arguments.only.is_some();
    report::print_verdicts("Floor", &report.floor, is_part);
    report::print_verdicts("Targets", &report.targets, is_part);
    let kept = keep(&report, talks, crowds, place)?;
    println!("\nkept in {}", contender::relative(&kept).display());
    if arguments.only.is_none() {
        charts.iter().try_for_each(|chart| chart.draw(place))?;
        let path = root().join("bench").join("RESULTS.md");
        std::fs::write(&path, report.markdown(place))
            .map_err(|cause| format!("can't write {}: {cause}", path.display()))?;
        println!("written: {}", contender::relative(&path).display());
    }
    Ok(())
}

/// What makes the figures worth less, said before measuring.
fn busy() -> Option<String> {
    let load = machine::load();
    (load > machine::LOAD_MAX).then(|| {
        format!("The machine was busy with other things (load {load}): only the ratios say something.")
    })
}

/// Keeps every figure, and the medians as `raio bench compare` reads them.
fn keep(report: &Report<'_>, talks: &[Talk], crowds: &[Crowd], place: &Place) -> Result<std::path::PathBuf> {
    let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let rows = report.rows.iter().chain(report.curves.iter().flat_map(|curve| &curve.rows));
    let mut measurements: Vec<Value> = Vec::new();
    for row in rows.clone() {
        for entry in row.entries.iter().filter(|entry| !entry.rounds.is_empty()) {
            let of = |figure| row.median(entry.contender, figure).unwrap_or(0.0);
            measurements.push(json!({
                "name": format!("{}: {}", entry.contender.name(), row.work.describe()),
                "iops": of(measured::Figure::Rate),
                "bytes_per_second": of(measured::Figure::Bandwidth),
                "p50_ns": of(measured::Figure::Median),
                "p99_ns": of(measured::Figure::P99),
                "cpu_ns": of(measured::Figure::Cpu),
            }));
        }
    }
    let value = json!({
        "machine": pairs(&report.machine), "versions": pairs(&report.versions), "notes": report.notes,
        "rows": rows.map(|row| row.to_json(place)).collect::<Vec<_>>(),
        "messages": talks.iter().map(|talk| talk.to_json(place)).collect::<Vec<_>>(),
        "connections": crowds.iter().map(Crowd::to_json).collect::<Vec<_>>(),
        "measurements": measurements,
    });
    let path = place.folder.join(format!("run-{second}.json"));
    std::fs::write(&path, format!("{value:#}"))
        .map_err(|cause| format!("can't write {}: {cause}", path.display()))?;
    Ok(path)
}

fn pairs(pairs: &[(String, String)]) -> Value {
    Value::Object(pairs.iter().map(|(name, value)| (name.clone(), json!(value))).collect())
}
