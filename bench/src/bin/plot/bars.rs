//! Lying bars, each made of parts.

use crate::{HEIGHT, WIDTH, colour, show, text};
use bench::{Result, failed};
use plotters::prelude::*;
use serde_json::Value;

/// Space for the names at the left, in pixels.
const NAMES_WIDTH: u32 = 220;

/// Draws a chart of kind `bars`.
pub(crate) fn draw(chart: &Value) -> Result<String> {
    let bars: Vec<(&str, Vec<(&str, f64)>)> =
        chart["bars"].as_array().into_iter().flatten().map(read).collect();
    let total = |parts: &[(&str, f64)]| parts.iter().map(|part| part.1).sum::<f64>();
    let most = bars.iter().map(|(_, parts)| total(parts)).fold(0.0, f64::max);
    if most <= 0.0 {
        return Err("there is nothing to draw".to_owned());
    }
    let count = bars.len() as f64;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        area.fill(&WHITE).map_err(failed("drawing"))?;
        let mut context = ChartBuilder::on(&area)
            .caption(text(chart, "title"), ("sans-serif", 20))
            .margin(14)
            .x_label_area_size(44)
            .y_label_area_size(NAMES_WIDTH)
            .build_cartesian_2d(0.0..most * 1.1, 0.0..count)
            .map_err(failed("drawing the axes"))?;
        context
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_desc(text(chart, "y"))
            .x_label_formatter(&|value| show(*value))
            .light_line_style(WHITE)
            .draw()
            .map_err(failed("drawing the axes"))?;
        let mut named: Vec<&str> = Vec::new();
        for (number, (name, parts)) in bars.iter().enumerate() {
            let (low, high) = (count - number as f64 - 0.8, count - number as f64 - 0.2);
            let mut start = 0.0;
            for (part, value) in parts {
                let kind = named.iter().position(|known| known == part).unwrap_or(named.len());
                let colour = colour(kind);
                let drawn = context
                    .draw_series([Rectangle::new([(start, low), (start + value, high)], colour.filled())])
                    .map_err(failed("drawing a bar"))?;
                if kind == named.len() {
                    named.push(part);
                    drawn
                        .label(*part)
                        .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled()));
                }
                start += value;
            }
            let (x, y) = context.backend_coord(&(0.0, (low + high) / 2.0));
            let style = ("sans-serif", 14).into_font().color(&BLACK);
            let right = style.pos(plotters::style::text_anchor::Pos::new(
                plotters::style::text_anchor::HPos::Right,
                plotters::style::text_anchor::VPos::Center,
            ));
            area.draw_text(name, &right, (x - 8, y)).map_err(failed("drawing a name"))?;
            let (x, y) = context.backend_coord(&(start, (low + high) / 2.0));
            area.draw_text(&show(start), &style, (x + 6, y - 7)).map_err(failed("drawing a number"))?;
        }
        context
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .border_style(RGBColor(200, 200, 200))
            .draw()
            .map_err(failed("drawing the legend"))?;
        area.present().map_err(failed("drawing"))?;
    }
    Ok(svg)
}

fn read(value: &Value) -> (&str, Vec<(&str, f64)>) {
    let part = |part: &'_ Value| part[1].as_f64();
    let parts = value["parts"].as_array().into_iter().flatten();
    let parts = parts.filter_map(|entry| Some((entry[0].as_str()?, part(entry)?))).collect();
    (text(value, "name"), parts)
}
