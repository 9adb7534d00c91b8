//! Charts from rows and curves, drawn by the bench crate's `plot`.

use super::contender::Contender;
use super::crowd::Crowd;
use super::measured::Figure;
use super::place::Place;
use super::plan::{self, Axis, Curve};
use super::row::{Entry, Row};
use crate::child::{self, Running};
use crate::{Result, root};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

const DRAW_TIME: Duration = Duration::from_secs(20);

/// A chart: its file's name without `.svg`, what it shows, and its description for `plot`.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) name: String,
    pub(crate) title: String,
    value: Value,
}

/// All charts of a run.
pub(crate) fn charts(rows: &[Row], curves: &[Curve], crowds: &[Crowd]) -> Vec<Chart> {
    let mut charts: Vec<Chart> = curves.iter().flat_map(of_curve).collect();
    if let Some(row) = rows.iter().find(|row| row.work == plan::READS_DEFAULT) {
        charts.push(cpu(row));
    }
    if crowds.iter().any(|crowd| !crowd.series()["points"].as_array().is_none_or(Vec::is_empty)) {
        charts.push(connections(crowds));
    }
    let latencies = rows.iter().filter(|row| [plan::FLOOR_LATENCY, plan::LATENCY_NULL].contains(&row.work));
    charts.extend(latencies.map(percentiles));
    charts
}

/// Lines of a rate (or bandwidth) over what the curve's rows differ in.
fn of_curve(curve: &Curve) -> Option<Chart> {
    let first = curve.rows.first()?;
    let (x, figure, y) = match curve.axis {
        Axis::Depth => ("requests in flight", Figure::Rate, "operations a second"),
        Axis::Block => ("bytes of a block", Figure::Bandwidth, "bytes a second"),
        Axis::Jobs => ("connections", Figure::Rate, "operations a second"),
    };
    let at = |row: &Row| match curve.axis {
        Axis::Depth => row.work.depth,
        Axis::Block => row.work.block_bytes,
        Axis::Jobs => row.work.jobs,
    };
    let mut contenders: Vec<Contender> = Vec::new();
    for entry in curve.rows.iter().flat_map(|row| &row.entries) {
        if !contenders.contains(&entry.contender) {
            contenders.push(entry.contender);
        }
    }
    let series = |contender: &Contender| {
        let point = |row: &Row| Some(json!([at(row), row.median(*contender, figure)?]));
        json!({ "name": contender.name(), "points": curve.rows.iter().filter_map(point).collect::<Vec<_>>() })
    };
    let work = first.work.describe();
    let title = match curve.axis {
        Axis::Depth => format!("Rate against depth: {}", without(&work, ", depth ")),
        Axis::Block => {
            let rest =
                work.split_once(' ').and_then(|(_, rest)| rest.split_once(' ')).map_or("", |(_, rest)| rest);
            format!("Bandwidth against block size: {rest}")
        }
        Axis::Jobs => format!("Scaling with connections: {work} each"),
    };
    let value = json!({
        "kind": "lines", "title": title, "x": x, "y": y, "x_log": true, "y_log": false,
        "series": contenders.iter().map(series).collect::<Vec<_>>(),
    });
    Some(Chart { name: format!("curve-{}", curve.name), title, value })
}

/// Leaves the word after a mark out.
fn without(text: &str, mark: &str) -> String {
    let Some((before, after)) = text.split_once(mark) else { return text.to_owned() };
    format!("{before},{}", after.split_once(',').map_or("", |(_, rest)| rest))
}

fn connections(crowds: &[Crowd]) -> Chart {
    let title = "4 KiB reads against connections, one in flight on each".to_owned();
    let value = json!({
        "kind": "lines", "title": title, "x": "connections", "y": "operations a second", "x_log": true, "y_log": false,
        "series": crowds.iter().map(Crowd::series).collect::<Vec<_>>(),
    });
    Chart { name: "connections".to_owned(), title, value }
}

fn cpu(row: &Row) -> Chart {
    let bar = |entry: &Entry| {
        let micro = |get: fn(&super::measured::Measured) -> f64| {
            super::rounds::median(entry.rounds.iter().map(get).collect()).unwrap_or(0.0) / 1e3
        };
        json!({ "name": entry.contender.name(), "parts": [
            ["client", micro(|measured| measured.client_cpu_ns)],
            ["server", micro(|measured| measured.server_cpu_ns)],
        ] })
    };
    let title = format!("Processor time for each: {}", row.work.describe());
    let value = json!({
        "kind": "bars", "title": title, "y": "us", "bars": row.entries.iter().map(bar).collect::<Vec<_>>(),
    });
    Chart { name: "cpu".to_owned(), title, value }
}

fn percentiles(row: &Row) -> Chart {
    let series = |entry: &Entry| {
        let median = |get: fn(&super::measured::Measured) -> f64| {
            super::rounds::median(entry.rounds.iter().map(get).collect()).unwrap_or(0.0) / 1e3
        };
        // Nines: 50 % is one half, 99 % two, 99.9 % three.
        json!({ "name": entry.contender.name(), "points": [
            [1, median(|measured| measured.p50_ns)], [2, median(|measured| measured.p99_ns)],
            [3, median(|measured| measured.p999_ns)],
        ] })
    };
    let title = format!("Latency: {}", row.work.describe());
    let value = json!({
        "kind": "lines", "title": title, "x": "1: median, 2: p99, 3: p99.9", "y": "us", "x_log": false,
        "y_log": true, "series": row.entries.iter().map(series).collect::<Vec<_>>(),
    });
    Chart {
        name: format!("latency-{}", if row.work == plan::LATENCY_NULL { "null" } else { "file" }),
        title,
        value,
    }
}

impl Chart {
    /// Draws it into bench/plots.
    pub(crate) fn draw(&self, place: &Place) -> Result<()> {
        let folder = root().join("bench").join("plots");
        std::fs::create_dir_all(&folder)
            .map_err(|cause| format!("can't make {}: {cause}", folder.display()))?;
        let path = folder.join(format!("{}.svg", self.name));
        let file = std::fs::File::create(&path)
            .map_err(|cause| format!("can't write {}: {cause}", path.display()))?;
        let mut command = Command::new(place.release.join("plot"));
        command.stdin(Stdio::piped()).stdout(file);
        let mut running = Running::start(&mut command)?;
        if let Some(mut into) = running.child().stdin.take() {
            into.write_all(self.value.to_string().as_bytes())
                .map_err(|cause| format!("{} reads nothing: {cause}", child::line(&command)))?;
        }
        let status = running.wait(DRAW_TIME)?;
        if status.success() { Ok(()) } else { Err(format!("the chart {} can't be drawn", self.name)) }
    }
}
