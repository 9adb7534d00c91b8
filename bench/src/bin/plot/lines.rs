//! Lines with points, over a logarithmic or plain axis.

use crate::{HEIGHT, WIDTH, colour, show, show_binary, text};
use bench::{Result, failed};
use plotters::prelude::*;
use serde_json::Value;

/// A named line.
struct Series<'a> {
    name: &'a str,
    points: Vec<(f64, f64)>,
}

/// Draws a chart of kind `lines`.
pub(crate) fn draw(chart: &Value) -> Result<String> {
    let series: Vec<Series<'_>> = chart["series"].as_array().into_iter().flatten().map(read).collect();
    let (x_log, y_log) = (chart["x_log"].as_bool() == Some(true), chart["y_log"].as_bool() == Some(true));
    let points = || series.iter().flat_map(|series| &series.points);
    let fold = |axis: fn(&(f64, f64)) -> f64| {
        points()
            .map(axis)
            .fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)))
    };
    let (x, y) = (fold(|point| point.0), fold(|point| point.1));
    if !x.0.is_finite() {
        return Err("there is nothing to draw".to_owned());
    }
    // A logarithmic axis is a plain one of logarithms, so that both are one kind of chart.
    let scale = |log: bool, value: f64| if log { value.max(1e-9).log2() } else { value };
    let back = |log: bool, value: f64| if log { value.exp2() } else { value };
    let left = if x_log { scale(true, x.0) } else { x.0.min(0.0) };
    let bottom = if y_log { scale(true, y.0).floor() } else { 0.0 };
    let right = scale(x_log, x.1).max(left + 1e-6);
    let top = scale(y_log, y.1 * 1.08).max(bottom + 1e-6);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        area.fill(&WHITE).map_err(failed("drawing"))?;
        let mut context = ChartBuilder::on(&area)
            .caption(text(chart, "title"), ("sans-serif", 20))
            .margin(14)
            .x_label_area_size(44)
            .y_label_area_size(76)
            .build_cartesian_2d(left..right, bottom..top)
            .map_err(failed("drawing the axes"))?;
        context
            .configure_mesh()
            .x_desc(text(chart, "x"))
            .y_desc(text(chart, "y"))
            .x_labels(if x_log { (right - left).round() as usize + 1 } else { 10 })
            .light_line_style(WHITE)
            .x_label_formatter(&|value| {
                if x_log { show_binary(back(true, *value)) } else { show(*value) }
            })
            .y_label_formatter(&|value| show(back(y_log, *value)))
            .draw()
            .map_err(failed("drawing the axes"))?;
        for (number, series) in series.iter().enumerate().filter(|(_, series)| !series.points.is_empty()) {
            let line: Vec<(f64, f64)> =
                series.points.iter().map(|point| (scale(x_log, point.0), scale(y_log, point.1))).collect();
            let colour = colour(number);
            context
                .draw_series(LineSeries::new(line.iter().copied(), colour.stroke_width(2)))
                .map_err(failed("drawing a line"))?
                .label(series.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
            context
                .draw_series(line.iter().map(|point| Circle::new(*point, 3, colour.filled())))
                .map_err(failed("drawing points"))?;
        }
        context
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(RGBColor(200, 200, 200))
            .draw()
            .map_err(failed("drawing the legend"))?;
        area.present().map_err(failed("drawing"))?;
    }
    Ok(svg)
}

fn read(value: &Value) -> Series<'_> {
    let point = |point: &Value| Some((point[0].as_f64()?, point[1].as_f64()?));
    Series {
        name: text(value, "name"),
        points: value["points"].as_array().into_iter().flatten().filter_map(point).collect(),
    }
}
