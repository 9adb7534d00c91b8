//! `plot`: draws a chart, described in JSON on standard input, as SVG on standard output.
//!
//!     { "kind": "lines", "title": "...", "x": "depth", "y": "reads a second", "x_log": true, "y_log": false,
//!       "series": [ { "name": "raio tcp", "points": [[1, 50000], [32, 400000]] } ] }
//!     { "kind": "bars", "title": "...", "y": "us", "bars": [ { "name": "raio tcp", "parts": [["client", 1.2], ["server", 0.9]] } ] }

#![forbid(unsafe_code)]

mod bars;
mod lines;

use bench::{Result, failed};
use serde_json::Value;
use std::io::Read;

/// Size of a chart in pixels.
const WIDTH: u32 = 860;
const HEIGHT: u32 = 480;
/// Okabe and Ito's colours, which people who are colour-blind tell apart.
const COLOURS: [(u8, u8, u8); 7] = [
    (0, 114, 178),
    (213, 94, 0),
    (0, 158, 115),
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (90, 90, 90),
];

fn main() -> std::process::ExitCode {
    match draw() {
        Ok(svg) => {
            print!("{svg}");
            std::process::ExitCode::SUCCESS
        }
        Err(sentence) => {
            eprintln!("plot: {sentence}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn draw() -> Result<String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(failed("reading standard input"))?;
    let chart: Value = serde_json::from_str(&text).map_err(failed("the description of the chart"))?;
    match chart["kind"].as_str() {
        Some("lines") => lines::draw(&chart),
        Some("bars") => bars::draw(&chart),
        _ => Err("kind: expected lines or bars".to_owned()),
    }
}

fn colour(number: usize) -> plotters::style::RGBColor {
    let (red, green, blue) = COLOURS[number % COLOURS.len()];
    plotters::style::RGBColor(red, green, blue)
}

fn text<'a>(chart: &'a Value, name: &str) -> &'a str {
    chart[name].as_str().unwrap_or_default()
}

/// A number on an axis: `500`, `64k`, `1.5M`.
fn show(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let rounded = (scaled * 10.0).round() / 10.0;
    if scaled == 0.0 || rounded != 0.0 { format!("{rounded}{unit}") } else { format!("{scaled:.3}{unit}") }
}

/// Powers of two as people name them: `512`, `4k`, `1M`.
fn show_binary(value: f64) -> String {
    let whole = value.round();
    if (value - whole).abs() > 1e-6 {
        return String::new();
    }
    match whole as u64 {
        number if number >= 1 << 20 && number.is_multiple_of(1 << 20) => format!("{}M", number >> 20),
        number if number >= 1 << 10 && number.is_multiple_of(1 << 10) => format!("{}k", number >> 10),
        number => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_short() {
        assert_eq!([show(0.0), show(512.0), show(1500.0), show(2.5e6)], ["0", "512", "1.5k", "2.5M"]);
        assert_eq!([show_binary(512.0), show_binary(65_536.0), show_binary(1.5)], ["512", "64k", ""]);
    }

    #[test]
    fn charts_are_drawn() {
        let chart = json!({ "kind": "lines", "title": "a < b", "x": "depth", "y": "rate", "x_log": true,
            "series": [ { "name": "one", "points": [[1, 5.0], [32, 70.0], [256, 80.0]] }, { "name": "none", "points": [] } ] });
        let svg = lines::draw(&chart).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("a &lt; b") && svg.contains("one"), "{svg}");
        let chart = json!({ "kind": "bars", "title": "t", "y": "us",
            "bars": [ { "name": "one", "parts": [["client", 1.0], ["server", 2.0]] } ] });
        assert!(bars::draw(&chart).unwrap().contains("server"));
        assert!(lines::draw(&json!({ "series": [] })).is_err());
    }
}
