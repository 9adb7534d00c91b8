//! bench/RESULTS.md: medians, ratios with their spread, targets, the machine, and the exact commands.

use super::chart::Chart;
use super::contender::Contender;
use super::measured::Figure;
use super::place::Place;
use super::plan::Curve;
use super::row::Row;
use super::target::Verdict;
use std::fmt::Write;

/// What a run gave, as it is told.
#[derive(Debug)]
pub(crate) struct Report<'a> {
    pub(crate) machine: Vec<(String, String)>,
    pub(crate) versions: Vec<(String, String)>,
    pub(crate) notes: Vec<String>,
    pub(crate) floor: Vec<Verdict>,
    pub(crate) targets: Vec<Verdict>,
    pub(crate) rows: &'a [Row],
    pub(crate) curves: &'a [Curve],
    pub(crate) charts: &'a [Chart],
    /// Sections that others wrote: title and body.
    pub(crate) sections: Vec<(String, String)>,
}

impl Report<'_> {
    /// As Markdown.
    pub(crate) fn markdown(&self, place: &Place) -> String {
        let mut text = String::from(
            "# Results\n\nWritten by `cargo xtask bench`. Everything in one table row was measured in turns on the same \
             machine: one server thread on one core, one client thread on the other, over loopback. Compare ratios, not \
             figures of different days. *minimal* moves the same bytes and does nothing else ([what it is]\
             (src/bin/minimal/main.rs)).\n",
        );
        section(&mut text, "Floor");
        verdicts(&mut text, &self.floor);
        section(&mut text, "Targets");
        text.push_str("In brackets: where we want to end. *minimal*: the same figure of the program that does only what can't be avoided, in the same rounds: the limit.\n\n");
        verdicts(&mut text, &self.targets);
        section(&mut text, "Storage, side by side");
        text.push_str(
            "Medians of the rounds. *Ratio*: rate of the first line by this line's, of each round: median (least - greatest).\n",
        );
        for row in self.rows {
            self.row(&mut text, row);
        }
        for (title, body) in &self.sections {
            section(&mut text, title);
            text.push_str(body);
        }
        if !self.charts.is_empty() {
            section(&mut text, "Charts");
            for chart in self.charts {
                let _ = writeln!(text, "![{}](plots/{}.svg)\n", chart.title, chart.name);
            }
        }
        section(&mut text, "Curves");
        for curve in self.curves {
            curve_table(&mut text, curve);
        }
        section(&mut text, "Machine and versions");
        text.push_str("| | |\n|---|---|\n");
        for (name, value) in self.machine.iter().chain(&self.versions) {
            let _ = writeln!(text, "| {name} | {} |", value.replace('|', "\\|"));
        }
        if !self.notes.is_empty() {
            section(&mut text, "Notes");
            for note in &self.notes {
                let _ = writeln!(text, "- {}", note.replace('\n', " "));
            }
        }
        self.commands(&mut text, place);
        text
    }

    fn row(&self, text: &mut String, row: &Row) {
        let _ = writeln!(text, "\n**{}**\n", row.work.describe());
        text.push_str("| who | a second | MB/s | p50 us | p99 us | p99.9 us | CPU us, client + server | switches, client + server | ratio |\n");
        text.push_str("|---|---:|---:|---:|---:|---:|---:|---:|---:|\n");
        let first = row.entries.first().map(|entry| entry.contender);
        for entry in &row.entries {
            let name = entry.contender.name();
            if let (Some(failure), true) = (&entry.failure, entry.rounds.is_empty()) {
                let _ = writeln!(text, "| {name} | failed: {} | | | | | | | |", reason(failure));
                continue;
            }
            let get = |figure: fn(&super::measured::Measured) -> f64| {
                super::rounds::median(entry.rounds.iter().map(figure).collect()).unwrap_or(0.0)
            };
            let ratio = first.filter(|first| *first != entry.contender);
            let ratio = ratio.and_then(|first| row.ratio(first, entry.contender, Figure::Rate));
            let _ = writeln!(
                text,
                "| {name} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} | {:.2} + {:.2} | {:.2} + {:.2} | {} |",
                get(|measured| measured.rate),
                get(|measured| measured.bytes_per_second) / 1e6,
                get(|measured| measured.p50_ns) / 1e3,
                get(|measured| measured.p99_ns) / 1e3,
                get(|measured| measured.p999_ns) / 1e3,
                get(|measured| measured.client_cpu_ns) / 1e3,
                get(|measured| measured.server_cpu_ns) / 1e3,
                get(|measured| measured.client_switches),
                get(|measured| measured.server_switches),
                ratio.map_or(String::new(), |ratio| ratio.show()),
            );
        }
    }

    fn commands(&self, text: &mut String, place: &Place) {
        section(text, "Commands");
        text.push_str(
            "Server first, then client; ports differ from run to run. Run in the workspace's root.\n",
        );
        let root = format!("{}/", crate::root().display());
        for row in self.rows {
            let _ = writeln!(text, "\n**{}**\n\n```", row.work.describe());
            for entry in &row.entries {
                for command in entry.contender.commands(&row.work, place) {
                    let _ = writeln!(text, "{}", command.replace(&root, ""));
                }
            }
            text.push_str("```\n");
        }
    }
}

/// What a program that failed said for it, in a cell of a table: its last line. The command is in the line before all.
pub(crate) fn reason(failure: &str) -> String {
    let line = failure.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim().replace('|', "\\|")
}

fn section(text: &mut String, title: &str) {
    let _ = write!(text, "\n## {title}\n\n");
}

fn verdicts(text: &mut String, verdicts: &[Verdict]) {
    text.push_str("| what | target | measured | minimal | |\n|---|---:|---:|---:|---|\n");
    for Verdict { what, target, found, limit, reached } in verdicts {
        let word = match (found, reached) {
            (None, _) => "not measured",
            (Some(_), true) => "reached",
            (Some(_), false) => "**not reached**",
        };
        let (found, limit) = (found.as_deref().unwrap_or(""), limit.as_deref().unwrap_or(""));
        let _ = writeln!(text, "| {what} | {target} | {found} | {limit} | {word} |");
    }
}

fn curve_table(text: &mut String, curve: &Curve) {
    let mut contenders: Vec<Contender> = Vec::new();
    for entry in curve.rows.iter().flat_map(|row| &row.entries) {
        if !contenders.contains(&entry.contender) {
            contenders.push(entry.contender);
        }
    }
    let names: Vec<String> = contenders.iter().map(|contender| contender.name()).collect();
    let _ = writeln!(text, "| a second | {} |\n|---|{}", names.join(" | "), "---:|".repeat(names.len()));
    for row in &curve.rows {
        let cell = |contender: &Contender| {
            let rate = row.median(*contender, Figure::Rate);
            rate.map_or(String::new(), |rate| format!("{rate:.0}"))
        };
        let cells: Vec<String> = contenders.iter().map(cell).collect();
        let _ = writeln!(text, "| {} | {} |", row.work.describe(), cells.join(" | "));
    }
    text.push('\n');
}

/// The verdicts for the terminal, of a run of a part without those that nothing was measured for.
pub(crate) fn print_verdicts(title: &str, verdicts: &[Verdict], is_part: bool) {
    println!("\n{title}");
    for Verdict { what, target, found, limit, reached } in verdicts {
        if is_part && found.is_none() {
            continue;
        }
        let word = match (found, reached) {
            (None, _) => "not measured",
            (Some(_), true) => "reached",
            (Some(_), false) => "NOT reached",
        };
        let limit = limit.as_ref().map_or(String::new(), |limit| format!(" (minimal {limit})"));
        println!("  {what:90} {target:>16}  {:>22}  {word}{limit}", found.as_deref().unwrap_or("-"));
    }
}
