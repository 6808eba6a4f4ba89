//! The report's figures: a comparison's numbers as plots.

use lora_pro_finetune::{Comparison, MethodResult, RateResult, RunResult, Spread};

use super::plot::{Axis, Line, Plot, Point, Scale};
use crate::table::{rate, reference_lr};

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
    vec![
        learning_curves(comparison),
        accuracy_by_rate(comparison),
        gap_curves(comparison),
        first_updates(comparison),
    ]
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

fn accuracy_by_rate(comparison: &Comparison) -> Figure {
    let line = |(style, method): (usize, &MethodResult)| Line {
        name: method.name.clone(),
        style,
        points: method.rates.iter().map(accuracy_point).collect(),
        dots: true,
        ring: Some(method.best_lr),
    };
    Figure {
        heading: "Accuracy by learning rate".into(),
        plot: Plot {
            title: "Test accuracy over the learning rate".into(),
            x: Axis {
                label: "learning rate".into(),
                scale: Scale::Log,
                format: rate,
                include: vec![],
            },
            y: Axis {
                label: "test accuracy, %".into(),
                scale: Scale::Linear,
                format: short,
                include: vec![],
            },
            lines: comparison.methods.iter().enumerate().map(line).collect(),
        },
        caption: "Mean and standard error over the seeds. A ring marks the learning rate that the \
                  validation split chose."
            .into(),
    }
}

fn accuracy_point(rate: &RateResult) -> Point {
    let Spread { mean, error } = rate.spread(|run| 100.0 * run.test_accuracy);
    Point {
        x: rate.lr,
        y: mean,
        error,
    }
}

fn gap_curves(comparison: &Comparison) -> Figure {
    let lr = rate(reference_lr(comparison));
    Figure {
        heading: format!("Gap to the full gradient at lr {lr}"),
        plot: Plot {
            title: "The gap over the steps".into(),
            x: steps_axis(),
            y: Axis {
                label: "‖g − E‖ / ‖g‖".into(),
                scale: Scale::Linear,
                format: short,
                include: vec![0.0, 1.0],
            },
            lines: lines_at_reference(comparison, gap_points),
        },
        caption: "How much of the full gradient g a step leaves out: E is what the step does to \
                  the weight, to first order. 0 is full fine-tuning. Plain LoRA's E depends on \
                  the size of its factors, so that it can miss by more than the whole gradient."
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

/// Centred moving average, over fewer numbers at the ends.
fn smooth(values: &[f64]) -> Vec<f64> {
    let mean = |k: usize| {
        let reach = (WINDOW / 2).min(k).min(values.len() - 1 - k);
        let near = &values[k - reach..=k + reach];
        near.iter().sum::<f64>() / near.len() as f64
    };
    (0..values.len()).map(mean).collect()
}

/// Values of the steps 1, 2, ...
fn numbered(values: Vec<f64>) -> Vec<Point> {
    let numbers = (1..).map(f64::from);
    numbers
        .zip(values)
        .map(|(x, y)| Point { x, y, error: 0.0 })
        .collect()
}

/// Mean of the gap over the runs at each step that all of them measured.
fn gap_points(rate: &RateResult) -> Vec<Point> {
    let gaps = |run: &RunResult| run.gap.iter().map(|point| point.1).collect::<Vec<f64>>();
    let gaps: Vec<Vec<f64>> = rate.runs.iter().map(gaps).collect();
    let means = mean_series(gaps.iter().map(Vec::as_slice).collect());
    let steps = rate
        .runs
        .iter()
        .min_by_key(|run| run.gap.len())
        .map(|run| &run.gap);
    let steps = steps.into_iter().flatten().map(|point| point.0 as f64);
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
