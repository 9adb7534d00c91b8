//! Counts per operation that noise can't move: instructions, system calls, allocations, and instructions spent in copying;
//! held against bench/counts.json, so that nothing grows unnoticed.
//!
//! A case runs a fixed number of reads or writes in lockstep, twice; the difference of the two runs, by the number of
//! operations, leaves starting and ending out. Both sides sleep instead of polling, since polling is counted too.

mod callgrind;
mod case;

use crate::{Result, compile, root};
use case::{CASES, Case, Counts, Place};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Growth of a count that is an error.
const GROWTH_MAX: f64 = 0.05;
/// Growth that is none whatever it is in parts of a small count: per operation, since batches end a little
/// differently from run to run.
const GROWTH_INSTRUCTIONS: f64 = 30.0;
const GROWTH_CALLS: f64 = 0.04;

/// Counts every case and holds it against the baseline.
///
/// # Errors
/// A line per count that has grown.
pub(crate) fn check() -> Result<()> {
    let place = prepare()?;
    let baseline = read_baseline()?;
    let mut grown = Vec::new();
    for case in CASES {
        let counts = case.count(&place)?;
        show(case, &counts);
        let Some(before) = decode(&baseline["cases"][case.name()]) else {
            grown.push(format!("{}: bench/counts.json has nothing about it", case.name()));
            continue;
        };
        let more = growth(&before, &counts);
        if more.is_empty() {
            continue;
        }
        // Once more: an answer that came late makes a batch two.
        let again = case.count(&place)?;
        for line in growth(&before, &again) {
            grown.push(format!("{}: {line}", case.name()));
        }
    }
    if grown.is_empty() {
        return Ok(());
    }
    Err(format!(
        "counts have grown by more than {:.0} % (if that is meant, run `cargo xtask bench --counts --write` and commit \
         bench/counts.json):\n{}",
        GROWTH_MAX * 100.0,
        grown.join("\n")
    ))
}

/// Counts every case and writes the baseline.
pub(crate) fn update() -> Result<()> {
    let place = prepare()?;
    let mut cases = serde_json::Map::new();
    for case in CASES {
        let counts = case.count(&place)?;
        show(case, &counts);
        cases.insert(case.name(), encode(&counts));
    }
    let path = baseline_path();
    let value =
        json!({ "what": "per operation; written by `cargo xtask bench --counts --write`", "cases": cases });
    std::fs::write(&path, format!("{value:#}\n"))
        .map_err(|cause| format!("can't write {}: {cause}", path.display()))?;
    println!("written: bench/counts.json");
    Ok(())
}

fn prepare() -> Result<Place> {
    compile::release()?;
    case::prepare()
}

fn baseline_path() -> PathBuf {
    root().join("bench").join("counts.json")
}

fn read_baseline() -> Result<Value> {
    let path = baseline_path();
    let text =
        std::fs::read_to_string(&path).map_err(|cause| format!("can't read {}: {cause}", path.display()))?;
    serde_json::from_str(&text).map_err(|cause| format!("{}: {cause}", path.display()))
}

fn show(case: &Case, counts: &Counts) {
    let Counts { instructions, system_calls, allocations, copying } = counts;
    println!(
        "  {:36} {instructions:8.0} instructions, {system_calls:6.3} system calls, {allocations:6.3} allocations, \
         {copying:6.0} copying",
        case.name()
    );
}

/// What has grown from one to the other, a sentence each.
fn growth(before: &Counts, now: &Counts) -> Vec<String> {
    let compare = |what: &str, before: f64, now: f64, slack: f64| {
        let has_grown = now > before * (1.0 + GROWTH_MAX) && now > before + slack;
        has_grown.then(|| format!("{what}: {before:.3} -> {now:.3}"))
    };
    [
        compare("instructions", before.instructions, now.instructions, GROWTH_INSTRUCTIONS),
        compare("system calls", before.system_calls, now.system_calls, GROWTH_CALLS),
        compare("allocations", before.allocations, now.allocations, GROWTH_CALLS),
        compare("instructions in copying", before.copying, now.copying, GROWTH_INSTRUCTIONS),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn encode(counts: &Counts) -> Value {
    let Counts { instructions, system_calls, allocations, copying } = *counts;
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    json!({
        "instructions": instructions.round(), "system_calls": round(system_calls),
        "allocations": round(allocations), "copying": copying.round(),
    })
}

fn decode(value: &Value) -> Option<Counts> {
    Some(Counts {
        instructions: value["instructions"].as_f64()?,
        system_calls: value["system_calls"].as_f64()?,
        allocations: value["allocations"].as_f64()?,
        copying: value["copying"].as_f64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_and_noise_is_not() {
        let before = Counts { instructions: 1000.0, system_calls: 0.5, allocations: 0.0, copying: 100.0 };
        let now = Counts { instructions: 1040.0, system_calls: 0.53, allocations: 0.01, copying: 120.0 };
        assert!(growth(&before, &now).is_empty());
        let now = Counts { instructions: 1051.0, system_calls: 0.6, allocations: 1.0, copying: 800.0 };
        assert_eq!(growth(&before, &now).len(), 4);
        assert_eq!(decode(&encode(&before)), Some(before));
    }
}
