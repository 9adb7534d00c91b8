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
mod report;
mod rounds;
mod row;
mod talker;
mod target;
mod transport;
mod work;

use crate::{Common, Result, compile, counts, packages, root};
use clap::Args;
use crowd::Crowd;
pub(crate) use measured::Measured;
use message::Talk;
use place::Place;
pub(crate) use place::{Server, work_folder};
use plan::Curve;
use report::Report;
use row::Row;
use serde_json::{Value, json};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use transport::{TRANSPORTS, Transport};

/// Time for everything but building, in the long and in the quick form.
const TIME: Duration = Duration::from_secs(14 * 60);
const TIME_QUICK: Duration = Duration::from_secs(170);
/// Seconds of one run.
const SECONDS: f64 = 1.5;
const SECONDS_QUICK: f64 = 0.5;
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
    packages::ensure(&[packages::BUILD, contender::PACKAGES].concat(), common)?;
    compile::release()?;
    let engine = crate::fio::build();
    let started = Instant::now();
    let deadline = started + if arguments.quick { TIME_QUICK } else { TIME };
    let seconds = arguments.seconds.unwrap_or(if arguments.quick { SECONDS_QUICK } else { SECONDS });
    if !(0.05..=60.0).contains(&seconds) {
        return Err(format!("--seconds {seconds}: expected 0.05 to 60"));
    }
    let mut notes = notes(engine.as_ref().err());
    let place = Place::prepare(seconds, engine.ok().map(|engine| engine.folder))?;
    let transports: Vec<&'static Transport> =
        TRANSPORTS.iter().filter(|transport| transport.is_there(&place)).collect();
    if transports.is_empty() {
        return Err("raio-server listens on none of our transports; does it start by hand?".to_owned());
    }
    let machine = machine::describe();
    let wanted = |row: &Row| arguments.only.as_ref().is_none_or(|text| row.work.describe().contains(text));
    let mut rows = plan::rows(&transports, &place, arguments.quick);
    rows.retain(wanted);
    let mut curves = plan::curves(&transports, &place, arguments.quick);
    curves.iter_mut().for_each(|curve| curve.rows.retain(wanted));
    curves.retain(|curve| !curve.rows.is_empty());
    // Messages and crowds are not rows of work: a wish for certain rows leaves them out, but under their own names.
    let with = |name: &str| arguments.only.as_ref().is_none_or(|text| text == name);
    let mut talks = if with("messages") { message::talks() } else { Vec::new() };
    let mut crowds: Vec<Crowd> = if with("connections") {
        transports.iter().map(|transport| Crowd::new(transport, arguments.quick)).collect()
    } else {
        Vec::new()
    };
    let curves_time = estimate(&curves, seconds);
    let mut done = 0;
    let mut longest = Duration::ZERO;
    while done < arguments.rounds && (done == 0 || Instant::now() + longest + curves_time < deadline) {
        println!("round {} of {}", done + 1, arguments.rounds);
        let begun = Instant::now();
        rows.iter_mut().for_each(|row| row.run(&place));
        talks.iter_mut().for_each(|talk| talk.run(&place));
        crowds.iter_mut().for_each(|crowd| crowd.run(&place, arguments.quick));
        longest = longest.max(begun.elapsed());
        done += 1;
    }
    if done < arguments.rounds {
        notes.push(format!("Time was over after {done} of {} rounds.", arguments.rounds));
    }
    notes.extend(crowds.iter().flat_map(|crowd| &crowd.failures).cloned());
    println!("curves");
    for row in curves.iter_mut().flat_map(|curve| &mut curve.rows) {
        if Instant::now() > deadline {
            notes.push(format!("Time was over before: {}.", row.work.describe()));
            continue;
        }
        row.run(&place);
    }
    notes.push(format!("{done} rounds of {seconds} s each; {} s in all.", started.elapsed().as_secs()));
    let charts = chart::charts(&rows, &curves, &crowds);
    let mut targets = target::judge_storage(&rows);
    targets.extend(message::judge(&talks));
    targets.extend(crowds.iter().flat_map(Crowd::judge));
    let crowd_tables: String = crowds.iter().map(Crowd::table).collect();
    let report = Report {
        machine,
        versions: machine::versions(contender::PROGRAMS),
        notes,
        floor: target::judge_floor(&rows),
        targets,
        rows: &rows,
        curves: &curves,
        charts: &charts,
        sections: vec![message::section(&talks, &place), ("Many connections".to_owned(), crowd_tables)],
    };
    report::print_verdicts("Floor", &report.floor);
    report::print_verdicts("Targets", &report.targets);
    let kept = keep(&report, &talks, &crowds, &place)?;
    println!("\nkept in {}", contender::relative(&kept).display());
    if arguments.only.is_none() {
        charts.iter().try_for_each(|chart| chart.draw(&place))?;
        let path = root().join("bench").join("RESULTS.md");
        std::fs::write(&path, report.markdown(&place))
            .map_err(|cause| format!("can't write {}: {cause}", path.display()))?;
        println!("written: {}", contender::relative(&path).display());
    }
    Ok(())
}

/// What makes the figures worth less, said before measuring.
fn notes(no_engine: Option<&String>) -> Vec<String> {
    let mut notes = Vec::new();
    let load = machine::load();
    if load > machine::LOAD_MAX {
        notes.push(format!(
            "The machine was busy with other things (load {load}): only the ratios say something."
        ));
    }
    if let Some(reason) = no_engine {
        notes.push(format!("fio with our engine was left out: {reason}"));
    }
    notes.iter().for_each(|note| println!("{note}"));
    notes
}

/// What the curves will take.
fn estimate(curves: &[Curve], seconds: f64) -> Duration {
    /// Starting and ending programs.
    const OVERHEAD_SECONDS: f64 = 0.7;
    let runs = curves.iter().flat_map(|curve| &curve.rows).map(|row| row.entries.len()).sum::<usize>();
    Duration::from_secs_f64(runs as f64 * (seconds + OVERHEAD_SECONDS))
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
