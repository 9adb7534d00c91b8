//! bench/counts.json: the counts of the last time that somebody meant them to change.

use super::case::{Counts, Sides};
use crate::{Result, child, root};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const QUERY_TIME: Duration = Duration::from_secs(20);

/// The counts by case.
#[derive(Debug)]
pub(crate) struct Baseline {
    cases: Map<String, Value>,
    /// What they were counted with.
    tools: Value,
}

impl Baseline {
    /// Reads the file; one that is not there yet is empty when it is going to be written.
    ///
    /// # Errors
    /// It can't be read.
    pub(crate) fn read(is_to_be_written: bool) -> Result<Baseline> {
        let path = path();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(cause) if is_to_be_written && cause.kind() == std::io::ErrorKind::NotFound => "{}".to_owned(),
            Err(cause) => return Err(format!("can't read {}: {cause}", path.display())),
        };
        let value: Value =
            serde_json::from_str(&text).map_err(|cause| format!("{}: {cause}", path.display()))?;
        Ok(Baseline {
            cases: value["cases"].as_object().cloned().unwrap_or_default(),
            tools: value["tools"].clone(),
        })
    }

    /// What is known of a case.
    pub(crate) fn get(&self, case: &str) -> Option<Sides<Counts>> {
        let value = self.cases.get(case)?;
        Some(Sides { client: decode(&value["client"])?, server: decode(&value["server"])? })
    }

    /// Puts a case's counts in the place of the old ones.
    pub(crate) fn set(&mut self, case: &str, counts: &Sides<Counts>) {
        let value = json!({ "client": encode(&counts.client), "server": encode(&counts.server) });
        self.cases.insert(case.to_owned(), value);
    }

    /// Writes the file. Cases that were not counted this time stay as they were.
    ///
    /// # Errors
    /// It can't be written.
    pub(crate) fn write(&self) -> Result<()> {
        let path = path();
        let value = json!({
            "what": "per operation; written by `cargo xtask bench --counts --write`",
            "tools": tools(),
            "cases": self.cases,
        });
        std::fs::write(&path, format!("{value:#}\n"))
            .map_err(|cause| format!("can't write {}: {cause}", path.display()))
    }

    /// A sentence when the baseline was counted with other tools than ours, which explains growth; else nothing.
    pub(crate) fn other_tools(&self) -> String {
        let ours = tools();
        if self.tools == ours {
            return String::new();
        }
        format!("\nThe baseline was counted with {}, this is {ours}: counts differ with them.", self.tools)
    }
}

fn path() -> PathBuf {
    root().join("bench").join("counts.json")
}

/// The compiler, which makes the instructions, and the tool that counts them.
fn tools() -> Value {
    let first_line = |program: &str| {
        let text = child::output(Command::new(program).arg("--version"), QUERY_TIME).unwrap_or_default();
        text.lines().next().unwrap_or("?").to_owned()
    };
    json!([first_line("rustc"), first_line("valgrind")])
}

fn encode(counts: &Counts) -> Value {
    let Counts { instructions, system_calls, clock_reads, allocations, copies, copying } = *counts;
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    json!({
        "instructions": instructions.round(), "system_calls": round(system_calls), "clock_reads": round(clock_reads),
        "allocations": round(allocations), "copies": round(copies), "copying": copying.round(),
    })
}

fn decode(value: &Value) -> Option<Counts> {
    Some(Counts {
        instructions: value["instructions"].as_f64()?,
        system_calls: value["system_calls"].as_f64()?,
        clock_reads: value["clock_reads"].as_f64()?,
        allocations: value["allocations"].as_f64()?,
        copies: value["copies"].as_f64()?,
        copying: value["copying"].as_f64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read() {
        let client = Counts {
            instructions: 1000.0,
            system_calls: 0.5,
            clock_reads: 0.031,
            allocations: 0.0,
            copies: 1.25,
            copying: 100.0,
        };
        let counts = Sides { client, server: Counts { instructions: 2000.0, ..client } };
        let mut baseline = Baseline { cases: Map::new(), tools: Value::Null };
        baseline.set("it", &counts);
        assert_eq!(baseline.get("it"), Some(counts));
        assert_eq!(baseline.get("other"), None);
    }
}
