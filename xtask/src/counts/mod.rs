//! Counts per operation that noise can't move: instructions, system calls, readings of clocks, allocations and copies, of
//! client and server; held against bench/counts.json, so that nothing grows unnoticed.
//!
//! A case runs a fixed number of reads or writes in lockstep, twice; the difference of the two runs, by the number of
//! operations, leaves starting and ending out. Both sides sleep instead of polling, since polling is counted too.

mod baseline;
mod callgrind;
mod case;
mod table;

use crate::{Result, compile};
use baseline::Baseline;
use case::{CASES, Case, Counts, Difference, Place, Sides};
use std::time::Instant;

/// Growth of a count that is an error.
const GROWTH_MAX: f64 = 0.05;
/// Growth that is none, whatever it is in parts of a small count: per operation, since batches end a little
/// differently from run to run.
const GROWTH_INSTRUCTIONS: f64 = 30.0;
const GROWTH_CALLS: f64 = 0.04;
/// For batches of one: a side that had to sleep once more.
const GROWTH_CALLS_SINGLE: f64 = 0.2;

/// Runs of a case that seems to have grown: growth shows in each of them, an answer that was late does not.
const RUNS_MAX: usize = 3;
/// Runs of a case whose counts become the baseline.
const RUNS_WRITTEN: usize = 2;

/// What to do with the counts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options<'a> {
    /// Keep them as the baseline.
    pub(crate) write: bool,
    /// Show where the instructions are.
    pub(crate) profile: bool,
    /// Only cases whose name has this in it.
    pub(crate) only: Option<&'a str>,
}

/// Counts every case and holds it against the baseline, or makes it the baseline.
///
/// # Errors
/// A line per count that has grown.
pub(crate) fn run(options: &Options<'_>) -> Result<()> {
    let started = Instant::now();
    let wanted = |case: &&Case| options.only.is_none_or(|text| case.name().contains(text));
    let cases: Vec<&Case> = CASES.iter().filter(wanted).collect();
    if cases.is_empty() {
        let names: Vec<String> = CASES.iter().map(Case::name).collect();
        return Err(format!("no case is called so; there are:\n{}", names.join("\n")));
    }
    println!("Building raio-server and lockstep");
    compile::programs(&["raio-server", "lockstep"])?;
    let place = Place::prepare()?;
    let mut baseline = Baseline::read(options.write)?;
    let mut grown = Vec::new();
    table::print_head();
    for case in cases {
        let name = case.name();
        let before = baseline.get(&name);
        let difference = case.run(&place, 0)?;
        let mut counts = difference.counts();
        for run in 1..RUNS_MAX {
            let has_grown = before.as_ref().is_some_and(|before| !growth(case, before, &counts).is_empty());
            let is_enough = if options.write { run >= RUNS_WRITTEN } else { !has_grown };
            if is_enough {
                break;
            }
            counts = least(&counts, &case.run(&place, run)?.counts());
        }
        table::print_line(&name, "client", &counts.client, before.as_ref().map(|before| &before.client));
        table::print_line("", "server", &counts.server, before.as_ref().map(|before| &before.server));
        if options.profile {
            table::print_profile(&name, "client", &difference.client);
            table::print_profile(&name, "server", &difference.server);
            println!();
        }
        match before {
            _ if options.write => baseline.set(&name, &counts),
            Some(before) => grown.extend(growth(case, &before, &counts)),
            None => grown.push(format!("{name}: bench/counts.json has nothing about it")),
        }
    }
    println!("took {} s", started.elapsed().as_secs());
    if options.write {
        baseline.write()?;
        println!("written: bench/counts.json");
        return Ok(());
    }
    if grown.is_empty() {
        return Ok(());
    }
    Err(format!(
        "counts have grown by more than {:.0} % (if that is meant, run `cargo xtask bench --counts --write` and commit \
         bench/counts.json):\n{}{}",
        GROWTH_MAX * 100.0,
        grown.join("\n"),
        baseline.other_tools()
    ))
}

impl Sides<Difference> {
    fn counts(&self) -> Sides<Counts> {
        Sides { client: self.client.counts(), server: self.server.counts() }
    }
}

/// Of two runs the less of each count: what is more comes from answers that were late, which make a batch two.
fn least(one: &Sides<Counts>, other: &Sides<Counts>) -> Sides<Counts> {
    let less = |one: &Counts, other: &Counts| Counts {
        instructions: one.instructions.min(other.instructions),
        system_calls: one.system_calls.min(other.system_calls),
        clock_reads: one.clock_reads.min(other.clock_reads),
        allocations: one.allocations.min(other.allocations),
        copies: one.copies.min(other.copies),
        copying: one.copying.min(other.copying),
    };
    Sides { client: less(&one.client, &other.client), server: less(&one.server, &other.server) }
}

/// What has grown from one to the other, a sentence each.
fn growth(case: &Case, before: &Sides<Counts>, now: &Sides<Counts>) -> Vec<String> {
    let slack = if case.is_single() { GROWTH_CALLS_SINGLE } else { GROWTH_CALLS };
    let of = |side: &str, before: &Counts, now: &Counts| {
        let lines = growth_of_side(before, now, slack);
        lines.into_iter().map(|line| format!("{}, {side}: {line}", case.name())).collect::<Vec<_>>()
    };
    [of("client", &before.client, &now.client), of("server", &before.server, &now.server)].concat()
}

fn growth_of_side(before: &Counts, now: &Counts, slack_calls: f64) -> Vec<String> {
    let compare = |what: &str, before: f64, now: f64, slack: f64| {
        let has_grown = now > before * (1.0 + GROWTH_MAX) && now > before + slack;
        has_grown.then(|| format!("{what}: {before:.3} -> {now:.3}"))
    };
    [
        compare("instructions", before.instructions, now.instructions, GROWTH_INSTRUCTIONS),
        compare("system calls", before.system_calls, now.system_calls, slack_calls),
        compare("readings of clocks", before.clock_reads, now.clock_reads, slack_calls),
        compare("allocations", before.allocations, now.allocations, GROWTH_CALLS),
        compare("copies", before.copies, now.copies, slack_calls),
        compare("instructions in copies", before.copying, now.copying, GROWTH_INSTRUCTIONS),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_and_noise_is_not() {
        let before = Counts {
            instructions: 1000.0,
            system_calls: 0.5,
            clock_reads: 0.1,
            allocations: 0.0,
            copies: 1.0,
            copying: 100.0,
        };
        let mut now = Counts { instructions: 1040.0, system_calls: 0.53, allocations: 0.01, ..before };
        assert!(growth_of_side(&before, &now, GROWTH_CALLS).is_empty());
        now = Counts { instructions: 1051.0, system_calls: 0.6, clock_reads: 0.2, ..before };
        assert_eq!(growth_of_side(&before, &now, GROWTH_CALLS).len(), 3);
        now = Counts { allocations: 1.0, copies: 2.0, copying: 800.0, ..before };
        assert_eq!(growth_of_side(&before, &now, GROWTH_CALLS).len(), 3);
    }

    #[test]
    fn growth_shows_in_every_run() {
        let before = Counts {
            instructions: 1000.0,
            system_calls: 0.06,
            clock_reads: 0.06,
            allocations: 0.0,
            copies: 1.0,
            copying: 100.0,
        };
        let both = |counts| Sides { client: counts, server: counts };
        let late = Counts { system_calls: 0.156, clock_reads: 0.156, ..before };
        let later = Counts { clock_reads: 0.2, instructions: 1100.0, ..before };
        let least_of_two = least(&both(late), &both(later));
        assert_eq!(growth_of_side(&before, &least_of_two.client, GROWTH_CALLS).len(), 1);
        assert!(growth(&CASES[1], &both(before), &least(&least_of_two, &both(before))).is_empty());
        assert_eq!(growth(&CASES[1], &both(before), &least(&both(late), &both(late))).len(), 4);
    }
}
