//! Scatter plots of a study as SVG text.

use plotters::prelude::*;

use super::metrics::{Metric, find as metric};
use super::model::Study;
use super::tables;

/// A plot.
#[derive(Debug, Clone)]
pub struct Plot {
    /// Title.
    pub title: String,
    /// The picture.
    pub svg: String,
}

/// The pairs that are drawn for the first profile: x, y, whether x is logarithmic.
const PAIRS: &[(&str, &str, bool)] = &[
    ("ping.rtt", "tcp.throughput", true),
    ("tcp.retransmits", "tcp.throughput", true),
    ("tcp.retransmits", "tcp.cwnd_max", true),
    ("tcp.throughput", "parallel.throughput", false),
    ("tcp.throughput", "download.time", false),
    ("tcp.throughput", "quic.cpu", false),
];

/// Width and height in pixels.
const SIZE: (u32, u32) = (640, 400);

/// All plots that the tree has data for; one that cannot be drawn is left out.
#[must_use]
pub fn all(study: &Study) -> Vec<Plot> {
    let Some(profile) = study.profiles.first() else {
        return Vec::new();
    };
    let mut plots: Vec<Plot> = PAIRS
        .iter()
        .filter_map(|(x, y, logarithmic)| {
            scatter(study, profile, metric(x)?, metric(y)?, *logarithmic)
        })
        .collect();
    plots.extend(rate_plot(study, profile));
    plots
}

fn scatter(
    study: &Study,
    profile: &str,
    x: &Metric,
    y: &Metric,
    logarithmic: bool,
) -> Option<Plot> {
    let points = study.systems.iter().filter_map(|system| {
        let value = |metric: &Metric| metric.figure(study, system, profile).sound;
        Some((system.clone(), value(x)?, value(y)?))
    });
    let title = format!("{} against {} at {profile}", y.id, x.id);
    draw(
        &title,
        &format!("{}, {}", x.title, x.unit),
        &format!("{}, {}", y.title, y.unit),
        points.collect(),
        logarithmic,
    )
}

fn rate_plot(study: &Study, profile: &str) -> Option<Plot> {
    let throughput = metric("tcp.throughput")?;
    let points = study.systems.iter().filter_map(|system| {
        let rates: Vec<f64> = study
            .rows_of(system, profile, "tcp", "retransmits")
            .filter_map(|row| tables::per_1000_segments(study, row))
            .collect();
        Some((
            system.clone(),
            super::statistics::mean(&rates)?,
            throughput.figure(study, system, profile).sound?,
        ))
    });
    let title = format!("throughput against retransmissions per 1000 segments at {profile}");
    draw(
        &title,
        "retransmissions per 1000 segments",
        "single TCP stream, Mbit/s",
        points.collect(),
        false,
    )
}

fn draw(
    title: &str,
    x: &str,
    y: &str,
    points: Vec<(String, f64, f64)>,
    logarithmic: bool,
) -> Option<Plot> {
    if points.len() < 2 {
        return None;
    }
    let place = |value: f64| {
        if logarithmic {
            value.max(0.1).log10()
        } else {
            value
        }
    };
    let top = points.iter().map(|point| point.2).fold(0.0, f64::max) * 1.1;
    let left = points
        .iter()
        .map(|point| place(point.1))
        .fold(f64::MAX, f64::min);
    let right = points
        .iter()
        .map(|point| place(point.1))
        .fold(f64::MIN, f64::max);
    let margin = ((right - left) * 0.1).max(1e-6);
    let left = if logarithmic { left - margin } else { 0.0 };
    let mut svg = String::new();
    let drawn = (|| {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(left..right + margin * 2.0, 0.0..top)?;
        let label = |value: &f64| {
            super::audit::number(if logarithmic {
                10f64.powf(*value)
            } else {
                *value
            })
        };
        chart
            .configure_mesh()
            .x_desc(x)
            .y_desc(y)
            .x_label_formatter(&label)
            .light_line_style(TRANSPARENT)
            .draw()?;
        chart.draw_series(
            points
                .iter()
                .map(|(_, x, y)| Circle::new((place(*x), *y), 4, BLUE.filled())),
        )?;
        chart.draw_series(points.iter().map(|(name, x, y)| {
            Text::new(
                name.clone(),
                (place(*x) + margin * 0.15, *y),
                ("sans-serif", 12),
            )
        }))?;
        root.present()?;
        Ok::<(), DrawingAreaErrorKind<std::io::Error>>(())
    })();
    // The backend writes to a string, which cannot fail; a plot that it refuses is left out.
    drawn.is_ok().then(|| Plot {
        title: title.to_owned(),
        svg,
    })
}
