//! The report's figures: a comparison's numbers as plots.

use lora_pro_finetune::{Comparison, MeanStdErr, MethodResult, RateResult, RunResult};

use crate::tables::{distance, rate, reference_lr};
use lora_pro_report::plot::{Axis, Line, Plot, Point, Scale};

/// A plot and the words around it.
pub struct Figure {
    /// Its heading.
    pub heading: String,
    /// The picture.
    pub plot: Plot,
    /// What to see, and how it was measured.
    pub caption: String,
}

/// All figures, in the order of the page.
pub fn all(comparison: &Comparison) -> Vec<Figure> {
    let figures = [
        learning_curves(comparison),
        error_by_rate(comparison),
        distance_by_rate(comparison),
        gap_curves(comparison),
        rescaled_gap_curves(comparison),
        first_updates(comparison),
    ];
    // What was not measured has no figure.
    let measured = |figure: &Figure| figure.plot.lines.iter().any(|line| !line.points.is_empty());
    figures.into_iter().filter(measured).collect()
}

/// Steps over which losses are averaged: a batch's loss says little.
const WINDOW: usize = 9;

fn learning_curves(comparison: &Comparison) -> Figure {
    let lr = rate(reference_lr(comparison));
    let curve = |rate: &RateResult| {
        let losses = rate.runs.iter().map(|run| run.losses.as_slice());
        numbered(smooth(&mean_series(losses.collect())))
    };
    Figure {
        heading: format!("Learning curves at lr {lr}"),
        plot: Plot {
            title: "Training loss over the steps".into(),
            x: steps_axis(),
            y: Axis {
                label: "training loss".into(),
                scale: Scale::Log,
                format: short,
                include: vec![],
            },
            lines: lines_at_reference(comparison, curve),
        },
        caption: format!(
            "Mean over the seeds, smoothed over {WINDOW} steps. All methods at full fine-tuning's \
             best learning rate and in its data order: the nearer a curve is to full \
             fine-tuning's, the better the method follows it."
        ),
    }
}

fn error_by_rate(comparison: &Comparison) -> Figure {
    let line = |(style, method): (usize, &MethodResult)| Line {
        name: method.name.clone(),
        style,
        points: method.rates.iter().map(error_point).collect(),
        dots: true,
        ring: Some(method.best_lr),
    };
    Figure {
        heading: "Test error by learning rate".into(),
        plot: Plot {
            title: "Test error over the learning rate".into(),
            x: rate_axis(),
            y: Axis {
                label: "test error, %".into(),
                scale: Scale::Log,
                format: short,
                include: vec![],
            },
            lines: comparison.methods.iter().enumerate().map(line).collect(),
        },
        caption: "100 % minus accuracy: mean and standard error over the seeds. A ring marks the \
                  learning rate that the validation split chose."
            .into(),
    }
}

fn error_point(rate: &RateResult) -> Point {
    let MeanStdErr { mean, error } = rate.spread(|run| 100.0 * (1.0 - run.test_score));
    Point {
        x: rate.lr,
        y: mean,
        error,
    }
}

fn distance_by_rate(comparison: &Comparison) -> Figure {
    let point = |rate: &RateResult| {
        let distances: Option<Vec<f64>> = rate.runs.iter().map(distance).collect();
        let MeanStdErr { mean, error } = MeanStdErr::of(&distances?);
        Some(Point {
            x: rate.lr,
            y: mean,
            error,
        })
    };
    let line = |(style, method): (usize, &MethodResult)| Line {
        name: match style {
            0 => "full fine-tuning, other data order".into(),
            _ => method.name.clone(),
        },
        style,
        points: method.rates.iter().filter_map(point).collect(),
        dots: true,
        ring: None,
    };
    Figure {
        heading: "Distance to full fine-tuning's weights".into(),
        plot: Plot {
            title: "Distance to full fine-tuning's weights over the learning rate".into(),
            x: rate_axis(),
            y: Axis {
                label: "distance / way of full fine-tuning".into(),
                scale: Scale::Log,
                format: short,
                include: vec![],
            },
            lines: comparison.methods.iter().enumerate().map(line).collect(),
        },
        caption: "At each learning rate, from full fine-tuning with the same learning rate, seed \
                  and data order. 1 is where an adapter that stands still would be; above the \
                  black line it is farther away than another data order leads full fine-tuning \
                  itself."
            .into(),
    }
}

fn gap_curves(comparison: &Comparison) -> Figure {
    Figure {
        heading: format!(
            "Gap to the full gradient at lr {}",
            rate(reference_lr(comparison))
        ),
        plot: Plot {
            title: "The gap over the steps".into(),
            x: steps_axis(),
            y: Axis {
                label: "‖g − E‖ / ‖g‖".into(),
                scale: Scale::Log,
                format: short,
                include: vec![],
            },
            lines: lines_at_reference(comparison, |rate| mean_curve(rate, |run| &run.gap)),
        },
        caption: "How much of the full gradient g a step leaves out: E is what the step does to \
                  the weight, to first order. Plain LoRA's E grows with its factors, so that it \
                  can miss by more than the whole gradient."
            .into(),
    }
}

fn rescaled_gap_curves(comparison: &Comparison) -> Figure {
    Figure {
        heading: format!(
            "The same after the best rescaling of E, lr {}",
            rate(reference_lr(comparison))
        ),
        plot: Plot {
            title: "The gap after rescaling over the steps".into(),
            x: steps_axis(),
            y: Axis {
                label: "smallest ‖g − c E‖ / ‖g‖".into(),
                scale: Scale::Linear,
                format: short,
                include: vec![1.0],
            },
            lines: lines_at_reference(comparison, |rate| mean_curve(rate, |run| &run.gap_rescaled)),
        },
        caption: "What is left of the gap when E's length does not count: a wrong length can be \
                  mended by the learning rate, a wrong direction cannot."
            .into(),
    }
}

fn first_updates(comparison: &Comparison) -> Figure {
    let lr = rate(reference_lr(comparison));
    let curve = |rate: &RateResult| {
        let updates = rate.runs.iter().map(|run| run.first_updates.as_slice());
        numbered(mean_series(updates.collect()))
    };
    Figure {
        heading: format!("The first fifty steps at lr {lr}"),
        plot: Plot {
            title: "Relative size of the update of A in the first fifty steps".into(),
            x: steps_axis(),
            y: Axis {
                label: "largest |lr dA| / |A|".into(),
                scale: Scale::Log,
                format: short,
                include: vec![],
            },
            lines: lines_at_reference(comparison, curve),
        },
        caption: "The second step is the large one: B is still as small as the learning rate, so \
                  that its inverse is large. It turns A toward the gradient at once. A step that \
                  leaves A alone, as LoRA-Pro's first does, is not drawn."
            .into(),
    }
}

fn rate_axis() -> Axis {
    Axis {
        label: "learning rate".into(),
        scale: Scale::Log,
        format: rate,
        include: vec![],
    }
}

fn steps_axis() -> Axis {
    Axis {
        label: "step".into(),
        scale: Scale::Linear,
        format: short,
        include: vec![0.0],
    }
}

/// One line per method, from its runs at full fine-tuning's best learning rate.
fn lines_at_reference(
    comparison: &Comparison,
    points: impl Fn(&RateResult) -> Vec<Point>,
) -> Vec<Line> {
    let lr = reference_lr(comparison);
    let methods = comparison.methods.iter().enumerate();
    let lines = methods.filter_map(|(style, method)| {
        let (name, points) = (method.name.clone(), points(method.at(lr)?));
        Some(Line {
            name,
            style,
            points,
            dots: false,
            ring: None,
        })
    });
    lines.filter(|line| !line.points.is_empty()).collect()
}

/// Mean over the runs, as far as the shortest of them goes.
fn mean_series(runs: Vec<&[f64]>) -> Vec<f64> {
    let length = runs.iter().map(|run| run.len()).min().unwrap_or(0);
    let mean = |k: usize| runs.iter().map(|run| run[k]).sum::<f64>() / runs.len() as f64;
    (0..length).map(mean).collect()
}

/// Centred moving average; narrower at the start, and nothing where the end would be too narrow.
fn smooth(values: &[f64]) -> Vec<f64> {
    let half = WINDOW / 2;
    let mean = |k: usize| {
        let reach = half.min(k);
        let near = &values[k - reach..=k + reach];
        near.iter().sum::<f64>() / near.len() as f64
    };
    (0..values.len().saturating_sub(half)).map(mean).collect()
}

/// Values of the steps 1, 2, ...
fn numbered(values: Vec<f64>) -> Vec<Point> {
    let numbers = (1..).map(f64::from);
    numbers
        .zip(values)
        .map(|(x, y)| Point { x, y, error: 0.0 })
        .collect()
}

/// Mean of a curve over the runs at each step that all of them measured.
fn mean_curve(rate: &RateResult, curve: fn(&RunResult) -> &Vec<(usize, f64)>) -> Vec<Point> {
    let values = |run| curve(run).iter().map(|point| point.1).collect::<Vec<f64>>();
    let values: Vec<Vec<f64>> = rate.runs.iter().map(values).collect();
    let means = mean_series(values.iter().map(Vec::as_slice).collect());
    let steps = rate
        .runs
        .first()
        .into_iter()
        .flat_map(curve)
        .map(|point| point.0 as f64);
    steps
        .zip(means)
        .map(|(x, y)| Point { x, y, error: 0.0 })
        .collect()
}

/// A number without trailing zeros: `0.05`, `200`, `1e-4`.
fn short(x: f64) -> String {
    match x.abs() {
        size if size != 0.0 && size < 1e-3 => format!("{x:.0e}"),
        // Rounding away what a multiple of a step leaves in the last bits.
        _ => format!("{}", (x * 1e9).round() / 1e9),
    }
}
