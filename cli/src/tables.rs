//! What a comparison is shown as: three tables, computed from its numbers.

use lora_pro_finetune::{Comparison, MeanStdErr, MethodResult, RunResult};

use lora_pro_report::table;

/// Marks a number with runs that did not end.
const DIVERGED: &str = "†";

/// A column about methods.
pub type Column = table::Column<MethodResult>;

/// A table with a row for each method.
pub type Table = table::Table<MethodResult>;

/// Shown where a number does not exist.
const NONE: &str = "-";

/// How well each method did, and what it cost.
pub fn results(comparison: &Comparison) -> Table {
    let lr = reference_lr(comparison);
    let at = format!("at lr {}", rate(lr));
    let own = "at own best lr";
    let columns = vec![
        names(),
        Column::new(
            &at,
            "accuracy %",
            "on the test split, at full fine-tuning's best learning rate: mean and standard error \
             over the seeds",
            move |method| accuracy(runs(method, lr)),
        ),
        Column::new(
            &at,
            "loss",
            "training loss there, mean of the last tenth of the steps",
            move |method| mean(runs(method, lr), 3, |run| Some(run.final_loss)),
        ),
        Column::new(
            &at,
            "distance",
            "to full fine-tuning's weights with the same data order, divided by how far full \
             fine-tuning moved; 1 = did not move. In its own row, what another data order alone does",
            move |method| spread(runs(method, lr), distance),
        ),
        Column::new(
            own,
            "accuracy %",
            "on the test split, at the method's own best learning rate",
            |method| accuracy(runs(method, method.best_lr)),
        ),
        Column::new(
            own,
            "lr",
            "that learning rate: the one with the highest mean accuracy on the validation split",
            |method: &MethodResult| rate(method.best_lr),
        ),
        Column::new(
            "step",
            "ms",
            "time of one optimizer step alone, median",
            |method: &MethodResult| format!("{:.2}", 1e3 * method.seconds_per_step),
        ),
        Column::new(
            "state",
            "kB",
            "memory of the optimizer's state for the adapted weights",
            |method: &MethodResult| format!("{:.1}", method.state_bytes as f64 / 1e3),
        ),
    ];
    of_methods(columns, comparison)
}

/// Accuracy and distance at every learning rate of full fine-tuning's grid: a single rate, however
/// it is chosen, does not show which method follows full fine-tuning.
pub fn by_rate(comparison: &Comparison) -> Table {
    let rates: Vec<f64> = comparison.methods.first().map_or(vec![], |full| {
        full.rates.iter().map(|rate| rate.lr).collect()
    });
    let accuracies = rates.iter().map(|&lr| {
        Column::new(
            "accuracy % at lr",
            &rate(lr),
            "mean on the test split at this learning rate",
            move |method| percent(runs(method, lr)),
        )
    });
    let distances = rates.iter().map(|&lr| {
        Column::new(
            "distance at lr",
            &rate(lr),
            "to full fine-tuning's weights at this learning rate",
            move |method| mean(runs(method, lr), 2, distance),
        )
    });
    let columns = [names()].into_iter().chain(accuracies).chain(distances);
    of_methods(columns.collect(), comparison)
}

/// How each method's steps compare with full fine-tuning's, at its best learning rate.
pub fn gaps(comparison: &Comparison) -> Table {
    let lr = reference_lr(comparison);
    let of_gap = |head, meaning, point: fn(&Curve) -> Option<f64>| {
        Column::new("gap", head, meaning, move |method| {
            mean(runs(method, lr), 2, |run| point(&run.gap))
        })
    };
    let of_rescaled = |head, meaning, point: fn(&Curve) -> Option<f64>| {
        Column::new("gap, E rescaled", head, meaning, move |method| {
            mean(runs(method, lr), 2, |run| point(&run.gap_rescaled))
        })
    };
    let columns = vec![
        names(),
        of_gap(
            "start",
            "||g - E|| / ||g|| before the first step: g is the full gradient, E what a step does \
             to the weight",
            first,
        ),
        of_gap("middle", "the same in the middle of the run", middle),
        of_gap("end", "the same before the last step", last),
        of_rescaled(
            "start",
            "the smallest ||g - c E|| / ||g||: what a learning rate of its own cannot mend",
            first,
        ),
        of_rescaled("middle", "the same in the middle of the run", middle),
        of_rescaled("end", "the same before the last step", last),
        Column::new(
            "update of A",
            "largest",
            "largest |lr dA| / |A| of the first fifty steps",
            move |method| mean(runs(method, lr), 2, largest_update),
        ),
    ];
    of_methods(columns, comparison)
}

fn of_methods(columns: Vec<Column>, comparison: &Comparison) -> Table {
    Table::new(columns, &comparison.methods).footnote(
        DIVERGED,
        "† at least one run diverged; its accuracy is its last",
    )
}

fn names() -> Column {
    Column::new(
        "",
        "method",
        "how the weights are trained",
        |method: &MethodResult| method.name.clone(),
    )
}

/// Full fine-tuning's best learning rate, at which all methods are compared.
pub fn reference_lr(comparison: &Comparison) -> f64 {
    comparison
        .methods
        .first()
        .map_or(f64::NAN, |full| full.best_lr)
}

/// A learning rate as people write it: `5e-4`.
pub fn rate(lr: f64) -> String {
    format!("{lr:e}")
}

/// A run's distance to full fine-tuning; full fine-tuning's own is that of another data order.
pub fn distance(run: &RunResult) -> Option<f64> {
    run.distance_to_full.or(run.distance_by_order)
}

/// A method's runs at a learning rate; none where it has not run there.
fn runs(method: &MethodResult, lr: f64) -> &[RunResult] {
    method.at(lr).map_or(&[], |rate| &rate.runs)
}

/// Mean and error of a number that every run has; `None` where one has not.
fn over_runs(runs: &[RunResult], number: impl Fn(&RunResult) -> Option<f64>) -> Option<MeanStdErr> {
    let values: Option<Vec<f64>> = runs.iter().map(number).collect();
    values
        .filter(|values| !values.is_empty())
        .map(|values| MeanStdErr::of(&values))
}

fn mean(runs: &[RunResult], digits: usize, number: impl Fn(&RunResult) -> Option<f64>) -> String {
    over_runs(runs, number).map_or(NONE.into(), |spread| format!("{:.digits$}", spread.mean))
}

fn spread(runs: &[RunResult], number: impl Fn(&RunResult) -> Option<f64>) -> String {
    over_runs(runs, number).map_or(NONE.into(), |MeanStdErr { mean, error }| {
        format!("{mean:.2} ± {error:.2}")
    })
}

fn accuracy(runs: &[RunResult]) -> String {
    over_runs(runs, in_percent).map_or(NONE.into(), |MeanStdErr { mean, error }| {
        format!("{mean:.1} ± {error:.1}{}", mark(runs))
    })
}

fn percent(runs: &[RunResult]) -> String {
    mean(runs, 1, in_percent) + mark(runs)
}

fn in_percent(run: &RunResult) -> Option<f64> {
    Some(100.0 * run.test_score)
}

fn mark(runs: &[RunResult]) -> &'static str {
    let diverged = runs.iter().any(|run| run.diverged);
    if diverged { DIVERGED } else { "" }
}

type Curve = [(usize, f64)];

fn first(curve: &Curve) -> Option<f64> {
    curve.first().map(|point| point.1)
}

fn middle(curve: &Curve) -> Option<f64> {
    curve.get(curve.len() / 2).map(|point| point.1)
}

fn last(curve: &Curve) -> Option<f64> {
    curve.last().map(|point| point.1)
}

fn largest_update(run: &RunResult) -> Option<f64> {
    run.first_updates.iter().copied().reduce(f64::max)
}
