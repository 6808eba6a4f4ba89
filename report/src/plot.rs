//! A line plot as SVG: axes, grid, ticks, lines, points with error bars.
//!
//! Colours and dashes are the page's style sheet's: a line of style k has class `sk`.

use std::fmt::Write;

use crate::escape::markup as escape;
use crate::ticks::{self, Ticks};

/// How values map to lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Equal differences, equal lengths.
    Linear,
    /// Equal ratios, equal lengths; values that are not positive are left out.
    Log,
}

/// One axis.
pub struct Axis {
    /// What it shows, with the unit.
    pub label: String,
    /// How values map to lengths.
    pub scale: Scale,
    /// Words for a tick.
    pub format: fn(f64) -> String,
    /// Values that must be on the axis, besides those of the lines.
    pub include: Vec<f64>,
}

/// One point of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Where.
    pub x: f64,
    /// How much.
    pub y: f64,
    /// Half the length of the error bar; 0 for none.
    pub error: f64,
}

/// One line.
pub struct Line {
    /// What it shows.
    pub name: String,
    /// Number of its style.
    pub style: usize,
    /// Its points, from left to right.
    pub points: Vec<Point>,
    /// Draws the points, too.
    pub dots: bool,
    /// The x of a point to mark with a ring.
    pub ring: Option<f64>,
}

/// A whole plot.
pub struct Plot {
    /// What it shows, for those who do not see it.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// The lines, in the order of drawing.
    pub lines: Vec<Line>,
}

/// Size of the picture, and the frame's distance from its left, right, top and bottom edges.
const SIZE: [f64; 2] = [520.0, 330.0];
const MARGIN: [f64; 4] = [62.0, 12.0, 10.0, 48.0];

/// An axis with its ends fixed: values to lengths from the lower end.
struct Ruler {
    ticks: Ticks,
    scale: Scale,
    length: f64,
}

impl Ruler {
    fn new(axis: &Axis, values: impl Iterator<Item = f64>, length: f64) -> Option<Self> {
        let shown = values
            .chain(axis.include.iter().copied())
            .filter(|v| visible(axis.scale, *v));
        let (low, high) = shown.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
        let ticks = match axis.scale {
            _ if low > high => return None,
            Scale::Linear => ticks::linear(low, high),
            Scale::Log => ticks::logarithmic(low, high),
        };
        Some(Ruler {
            ticks,
            scale: axis.scale,
            length,
        })
    }

    fn at(&self, value: f64) -> f64 {
        let (low, high) = (self.ticks.low, self.ticks.high);
        let part = match self.scale {
            Scale::Linear => (value - low) / (high - low),
            Scale::Log => (value / low).ln() / (high / low).ln(),
        };
        part * self.length
    }
}

fn visible(scale: Scale, value: f64) -> bool {
    value.is_finite() && (scale == Scale::Linear || value > 0.0)
}

impl Plot {
    /// The plot as an `svg` element; a plot without any point says so.
    pub fn svg(&self) -> String {
        let [left, right, top, bottom] = MARGIN;
        let (width, height) = (SIZE[0] - left - right, SIZE[1] - top - bottom);
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let ends =
            points().flat_map(|point| [point.y - point.error, point.y, point.y + point.error]);
        let x = Ruler::new(&self.x, points().map(|point| point.x), width);
        let y = Ruler::new(&self.y, ends, height);
        let (Some(x), Some(y)) = (x, y) else {
            return "<p class=\"empty\">Nothing to show.</p>".into();
        };
        let mut svg = format!(
            "<svg viewBox=\"0 0 {} {}\" role=\"img\"><title>{}</title>\n",
            SIZE[0],
            SIZE[1],
            escape(&self.title)
        );
        let _ = writeln!(svg, "<g transform=\"translate({left} {top})\">");
        self.draw_axes(&mut svg, &x, &y);
        // An inner `svg` cuts off what is outside of the frame.
        let _ = writeln!(svg, "<svg width=\"{width}\" height=\"{height}\">");
        for line in &self.lines {
            draw_line(&mut svg, line, &x, &y);
        }
        svg.push_str("</svg>\n</g>\n</svg>\n");
        svg
    }

    fn draw_axes(&self, svg: &mut String, x: &Ruler, y: &Ruler) {
        let (width, height) = (x.length, y.length);
        for &tick in &y.ticks.at {
            let at = height - y.at(tick);
            let text = escape(&(self.y.format)(tick));
            let _ = writeln!(svg, "<path class=\"grid\" d=\"M0 {at:.1}H{width}\"/>");
            let _ = writeln!(
                svg,
                "<text class=\"y\" x=\"-8\" y=\"{at:.1}\" dy=\".32em\">{text}</text>"
            );
        }
        for &tick in &x.ticks.at {
            let (at, below) = (x.at(tick), height + 18.0);
            let text = escape(&(self.x.format)(tick));
            let _ = writeln!(svg, "<path class=\"axis\" d=\"M{at:.1} {height}v5\"/>");
            let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{below}\">{text}</text>");
        }
        let _ = writeln!(svg, "<path class=\"axis\" d=\"M0 0V{height}H{width}\"/>");
        let (middle, below) = (width / 2.0, height + 40.0);
        let label = escape(&self.x.label);
        let _ = writeln!(
            svg,
            "<text class=\"label\" x=\"{middle}\" y=\"{below}\">{label}</text>"
        );
        let (middle, beside) = (-height / 2.0, 14.0 - MARGIN[0]);
        let label = escape(&self.y.label);
        let _ = writeln!(
            svg,
            "<text class=\"label\" transform=\"rotate(-90)\" x=\"{middle}\" y=\"{beside}\">{label}</text>"
        );
    }
}

fn draw_line(svg: &mut String, line: &Line, x: &Ruler, y: &Ruler) {
    let shown = |point: &&Point| visible(x.scale, point.x) && visible(y.scale, point.y);
    let points: Vec<&Point> = line.points.iter().filter(shown).collect();
    let place = |point: &Point| (x.at(point.x), y.length - y.at(point.y));
    let corners = points.iter().map(|point| place(point));
    let path: Vec<String> = corners.map(|(x, y)| format!("{x:.1} {y:.1}")).collect();
    let name = escape(&line.name);
    let _ = writeln!(svg, "<g class=\"s{}\"><title>{name}</title>", line.style);
    let _ = writeln!(svg, "<path class=\"line\" d=\"M{}\"/>", path.join("L"));
    for point in points.iter().filter(|_| line.dots) {
        let (cx, cy) = place(point);
        if point.error > 0.0 {
            let top = y.length - y.at(point.y + point.error);
            // On a logarithmic axis a bar may reach down for ever.
            let bottom = match visible(y.scale, point.y - point.error) {
                true => y.length - y.at(point.y - point.error),
                false => y.length,
            };
            let _ = writeln!(
                svg,
                "<path class=\"bar\" d=\"M{cx:.1} {top:.1}V{bottom:.1}\"/>"
            );
        }
        let _ = writeln!(
            svg,
            "<circle class=\"dot\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3\"/>"
        );
        if line.ring == Some(point.x) {
            let _ = writeln!(
                svg,
                "<circle class=\"ring\" cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"7\"/>"
            );
        }
    }
    svg.push_str("</g>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<Point>) -> Plot {
        let axis = |scale| Axis {
            label: "a < b".into(),
            scale,
            format: |tick| tick.to_string(),
            include: vec![],
        };
        let line = Line {
            name: "one".into(),
            style: 0,
            points,
            dots: true,
            ring: None,
        };
        Plot {
            title: "t".into(),
            x: axis(Scale::Linear),
            y: axis(Scale::Log),
            lines: vec![line],
        }
    }

    #[test]
    fn numbers_that_cannot_be_shown_are_left_out() {
        let at = |x, y| Point { x, y, error: 0.0 };
        let svg = plot(vec![
            at(0.0, 0.0),
            at(1.0, 2.0),
            at(2.0, f64::NAN),
            at(3.0, 4.0),
        ])
        .svg();
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert!(svg.contains("a &lt; b"));
    }

    #[test]
    fn a_plot_without_points_says_so() {
        assert!(plot(vec![]).svg().contains("Nothing to show"));
    }
}
