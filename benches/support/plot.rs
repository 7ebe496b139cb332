//! Draws samples over time as one SVG with a panel for each question.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::{
    BLACK, BLUE, ChartBuilder, Color as _, DrawingArea, GREEN, IntoDrawingArea as _, IntoFont as _,
    LineSeries, PathElement, RED, RGBColor, SVGBackend, SeriesLabelPosition, WHITE,
};

use super::Failure;
use super::samples::{Column, Sample};

/// Width and height of the picture, pixels.
const SIZE: (u32, u32) = (1_400, 1_300);
const COLOURS: [RGBColor; 3] = [BLUE, RED, GREEN];

/// A panel: a title and the columns in it.
type Panel = (&'static str, &'static [Column]);

const PANELS: [Panel; 8] = [
    ("memory, MiB", &[Column::RESIDENT_MIB, Column::OWN_MIB]),
    (
        "descriptors, threads, watches",
        &[Column::DESCRIPTORS, Column::THREADS, Column::WATCHES],
    ),
    (
        "state and journal on the disk, MB",
        &[Column::STATE_MB, Column::JOURNAL_MB],
    ),
    (
        "export and ledger on the disk, MB",
        &[Column::EXPORT_MB, Column::LEDGER_MB],
    ),
    (
        "from a write to its row, ms",
        &[
            Column::LATENCY_P50_MS,
            Column::LATENCY_P99_MS,
            Column::LATENCY_MAX_MS,
        ],
    ),
    ("duration of `status`, ms", &[Column::STATUS_MS]),
    ("CPU, percent of one processor", &[Column::CPU_PERCENT]),
    ("log, kB", &[Column::LOG_KB]),
];

/// Writes the picture.
///
/// # Errors
/// There are no samples, or the file cannot be written.
pub fn draw(samples: &[Sample], path: &Path) -> Result<(), Failure> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, panel) in root.split_evenly((4, 2)).iter().zip(PANELS) {
        draw_panel(area, panel, samples)?;
    }
    Ok(root.present()?)
}

fn draw_panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    (title, columns): Panel,
    samples: &[Sample],
) -> Result<(), Failure> {
    let minutes = |sample: &Sample| sample.get(Column::ELAPSED_S) / 60.0;
    let end = samples.last().map_or(0.0, minutes).max(0.1);
    let values = samples
        .iter()
        .flat_map(|sample| columns.iter().map(|column| sample.get(*column)));
    // `max` leaves out what is not a number.
    let top = values.fold(0.0, f64::max).max(1e-3) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18).into_font())
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart.configure_mesh().x_desc("minutes").draw()?;
    for (column, colour) in columns.iter().zip(COLOURS) {
        let points = samples
            .iter()
            .map(|sample| (minutes(sample), sample.get(*column)))
            .filter(|(_, value)| !value.is_nan());
        chart
            .draw_series(LineSeries::new(points, &colour))?
            .label(column.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 15, y)], colour));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}
