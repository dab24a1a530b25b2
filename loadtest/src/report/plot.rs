//! Plots as SVG that stands in a page: lines over a grid, in colours that the page's style sheet chooses.
//!
//! Text, axes and grid are drawn in two marker colours, which the page replaces for light and dark; a series has the same colour in both.

use std::error::Error;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::Span;

/// Marks text and axes.
pub(super) const INK: RGBColor = RGBColor(0x01, 0x02, 0x03);

/// Marks the grid.
const GRID: RGBColor = RGBColor(0x04, 0x05, 0x06);

/// Told apart on light and on dark, and by most who cannot tell red from green.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x2f, 0x7f, 0xe0),
    RGBColor(0xe0, 0x7b, 0x1a),
    RGBColor(0x1f, 0x9e, 0x77),
    RGBColor(0xc4, 0x4e, 0x9b),
    RGBColor(0x8a, 0x6f, 0xd1),
    RGBColor(0x9a, 0x8a, 0x2c),
];

/// The largest latency in multiples of the smallest one.
const LOGARITHMIC_FROM: f64 = 50.0;

/// In units of the drawing; the page scales it.
const SIZE: (u32, u32) = (720, 320);

/// How wide the drawing is between the axis and the margin, and a letter in it, about.
const WIDE: f64 = 640.0;
const LETTER: f64 = 7.0;

/// Rows for the names of phases.
const NAME_ROWS: usize = 2;

/// One line.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    /// Whether what lies below is tinted.
    pub(super) is_filled: bool,
}

/// What is drawn.
pub(super) struct Plot<'a> {
    pub(super) across: &'a str,
    pub(super) up: &'a str,
    pub(super) lines: &'a [Line],
    /// Marked where the horizontal axis is time.
    pub(super) spans: &'a [Span],
    pub(super) scale: Scale,
}

/// What the horizontal axis is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// Seconds from the beginning; the vertical axis begins at 0.
    Seconds,
    /// Percent, more room the closer to 100; the vertical axis is logarithmic.
    Percentiles,
}

impl Plot<'_> {
    /// The names of the lines with their colours, as a style sheet writes them: what stands beside the drawing hides none of it.
    pub(super) fn legend(&self) -> impl Iterator<Item = (String, &str)> {
        let colour = |RGBColor(red, green, blue): &RGBColor| format!("#{red:02x}{green:02x}{blue:02x}");
        self.lines.iter().zip(COLOURS.iter().cycle()).map(move |(line, of)| (colour(of), line.name.as_str()))
    }

    /// The drawing; `None` if there is nothing to draw.
    pub(super) fn to_svg(&self) -> Option<String> {
        if self.lines.iter().all(|line| line.points.is_empty()) {
            return None;
        }
        let mut svg = String::new();
        // Drawing into a text fails only where the numbers are none, and what has no plot still has its figures.
        self.draw(&mut svg).ok()?;
        Some(svg)
    }

    fn draw<'b>(&'b self, svg: &'b mut String) -> Result<(), Box<dyn Error + 'b>> {
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        let ups = || self.lines.iter().flat_map(|line| line.points.iter().map(|(_, up)| *up));
        let most = ups().fold(0.0, f64::max).max(1e-3);
        match self.scale {
            Scale::Seconds => {
                // The names of phases stand above the lines.
                let room = if self.spans.is_empty() { 1.1 } else { 1.25 };
                self.draw_on(&root, 0.0..self.end_s(), 0.0..most * room, &|at| short(at), |at| at)?;
            }
            Scale::Percentiles => {
                let nines = self.lines.iter().flat_map(|line| line.points.last()).map(|at| rarity(at.0));
                let across = (1.0..nines.fold(10.0, f64::max) * 1.3).log_scale();
                let least = ups().filter(|up| *up > 0.0).fold(most, f64::min).max(1e-3);
                let label = |at| format!("{} %", percent(at));
                // A logarithmic axis has its marks at powers of ten: with less than two of them it says little.
                if most / least > LOGARITHMIC_FROM {
                    self.draw_on(&root, across, (least * 0.8..most * 1.3).log_scale(), &label, rarity)?;
                } else {
                    self.draw_on(&root, across, 0.0..most * 1.1, &label, rarity)?;
                }
            }
        }
        root.present()?;
        drop(root);
        Ok(())
    }

    fn draw_on<'b, X, Y>(
        &'b self,
        root: &DrawingArea<SVGBackend<'b>, Shift>,
        across: X,
        up: Y,
        label: &dyn Fn(f64) -> String,
        place: impl Fn(f64) -> f64,
    ) -> Result<(), Box<dyn Error + 'b>>
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let text = ("sans-serif", 15).into_font().color(&INK);
        let mut chart = ChartBuilder::on(root)
            .margin(8)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(across, up)?;
        let Range { start: floor, end: ceiling } = chart.y_range();
        chart
            .configure_mesh()
            .axis_style(INK)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .label_style(text.clone())
            .axis_desc_style(text)
            .x_labels(8)
            .y_labels(6)
            .x_label_formatter(&|at| label(*at))
            .y_label_formatter(&|up| short(*up))
            .x_desc(self.across)
            .y_desc(self.up)
            .draw()?;
        self.mark_spans(&mut chart, (floor, ceiling))?;
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let points = || line.points.iter().map(|(at, up)| (place(*at), up.max(floor)));
            if line.is_filled {
                chart.draw_series(AreaSeries::new(points(), floor, colour.mix(0.18)))?;
            }
            chart.draw_series(LineSeries::new(points(), colour.stroke_width(2)))?;
        }
        Ok(())
    }

    /// Each phase begins with a line and its name; every second one is tinted.
    fn mark_spans<'b, X, Y>(
        &self,
        chart: &mut ChartContext<'b, SVGBackend<'b>, Cartesian2d<X, Y>>,
        (floor, ceiling): (f64, f64),
    ) -> Result<(), Box<dyn Error + 'b>>
    where
        X: AsRangedCoord<Value = f64> + Ranged<ValueType = f64>,
        Y: AsRangedCoord<Value = f64> + Ranged<ValueType = f64>,
    {
        let end = self.end_s();
        let text = ("sans-serif", 13).into_font().color(&INK);
        let mut names_end = [f64::MIN; NAME_ROWS];
        for (nth, Span { phase, from_s, to_s }) in self.spans.iter().enumerate().filter(|(_, span)| span.from_s < end) {
            let (from, to) = (*from_s, to_s.min(end));
            if nth % 2 == 1 {
                chart.draw_series([Rectangle::new([(from, floor), (to, ceiling)], GRID.mix(0.4).filled())])?;
            }
            chart.draw_series([PathElement::new([(from, floor), (from, ceiling)], INK.mix(0.5))])?;
            // A name that does not fit beside the one before stands below it; where there is no row left, the line must do.
            let at = from / end * WIDE;
            let Some(row) = names_end.iter().position(|taken| *taken <= at) else { continue };
            names_end[row] = at + (phase.chars().count() + 1) as f64 * LETTER;
            let below = 3 + 15 * i32::try_from(row)?;
            let name = Text::new(phase.clone(), (4, below), text.clone());
            chart.draw_series([EmptyElement::at((from, ceiling)) + name])?;
        }
        Ok(())
    }

    /// Where the last line ends, and one second at least.
    fn end_s(&self) -> f64 {
        self.lines.iter().flat_map(|line| line.points.last()).fold(1.0, |end: f64, at| end.max(at.0))
    }
}

/// One of how many is beyond this percentile.
fn rarity(percent: f64) -> f64 {
    100.0 / (100.0 - percent).max(1e-4)
}

/// The other way round, without the digits that it does not need.
fn percent(rarity: f64) -> String {
    let text = format!("{:.4}", 100.0 - 100.0 / rarity);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A number beside an axis.
fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{} M", trimmed(value / 1e6)),
        value if value >= 1e4 => format!("{} k", trimmed(value / 1e3)),
        value => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_beside_an_axis_are_short() {
        assert_eq!(
            [short(0.0), short(0.25), short(9_000.0), short(25_000.0), short(1_500_000.0)].join(" "),
            "0 0.25 9000 25 k 1.5 M"
        );
        assert_eq!([percent(1.0), percent(10.0), percent(1_000.0), percent(100_000.0)].join(" "), "0 90 99.9 99.999");
    }

    #[test]
    fn a_plot_has_its_lines_and_nothing_draws_nothing() {
        let line = |points: &[(f64, f64)]| Line { name: "here".into(), points: points.to_vec(), is_filled: true };
        for scale in [Scale::Seconds, Scale::Percentiles] {
            let draw = |points| Plot { across: "x", up: "y", lines: &[line(points)], spans: &[], scale }.to_svg();
            assert!(draw(&[]).is_none());
            let svg = draw(&[(0.0, 1.0), (50.0, 2.0), (99.0, 40.0)]).expect("a drawing");
            assert!(svg.contains("#2F7FE0") && svg.contains("polyline") && svg.contains("polygon"), "{svg}");
        }
    }
}
