//! What a comparison is shown as: four tables, computed from its numbers.

use lora_pro_finetune::{Comparison, MeanStdErr, MethodResult, RateResult, RunResult};

use lora_pro_report::table;

/// Marks a number with runs that did not end.
const DIVERGED: &str = "†";

/// A column about methods.
pub type Column = table::Column<MethodResult>;

/// A table with a row for each method.
pub type Table = table::Table<MethodResult>;

/// Shown where a number does not exist.
const NONE: &str = "-";

/// All tables, each but the first with a title.
pub fn all(comparison: &Comparison) -> [(Option<String>, Table); 4] {
    let gaps_at = format!("The gaps at lr {}", rate(reference_lr(comparison)));
    [
        (None, results(comparison)),
        (Some("Every learning rate".into()), by_rate(comparison)),
        (
            Some("How much the learning rate matters".into()),
            robustness(comparison),
        ),
        (Some(gaps_at), gaps(comparison)),
    ]
}

/// How well each method did, and what it cost.
pub fn results(comparison: &Comparison) -> Table {
    let lr = reference_lr(comparison);
    let at = format!("at lr {}", rate(lr));
    let own = "at own best lr";
    let score = metric(comparison);
    let columns = vec![
        names(),
        Column::new(
            &at,
            &score,
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
            &score,
            "on the test split, at the method's own best learning rate",
            |method| accuracy(runs(method, method.best_lr)),
        ),
        Column::new(
            own,
            "lr",
            "that learning rate: the one with the highest mean on the validation split",
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
    let score = format!("{} at lr", metric(comparison));
    let accuracies = rates.iter().map(|&lr| {
        Column::new(
            &score,
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

/// How much a method depends on its learning rate: the question that tuned results hide.
pub fn robustness(comparison: &Comparison) -> Table {
    let lr = reference_lr(comparison);
    let full: Vec<RunResult> = comparison
        .methods
        .first()
        .map_or(&[][..], |full| runs(full, lr))
        .to_vec();
    let columns = vec![
        names(),
        Column::new(
            "at own best lr",
            &metric(comparison),
            "on the test split, at the learning rate that the validation split chose",
            |method: &MethodResult| mean(runs(method, method.best_lr), 1, in_percent),
        ),
        Column::new(
            "at own best lr",
            "minus full's",
            "difference to full fine-tuning at its own best rate, on the same test examples and \
             seeds: mean and standard error over the examples",
            move |method| paired(runs(method, method.best_lr), &full),
        ),
        Column::new(
            "at full's lr",
            "lost",
            "what the method loses, against its own best rate, when it is run at full \
             fine-tuning's best rate",
            move |method| lost(method, lr),
        ),
        Column::new(
            "within one point of the best",
            "rates",
            "the learning rates around the best one whose mean on the test split is at most one \
             point below it",
            near_best,
        ),
    ];
    of_methods(columns, comparison)
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
    over_runs(runs, number).map_or(NONE.into(), |MeanStdErr { mean, error }| match runs.len() {
        1 => format!("{mean:.2}"),
        _ => format!("{mean:.2} ± {error:.2}"),
    })
}

/// Mean over seeds and examples of what a method gets right and another does not, with the standard
/// error over the examples.
fn paired(runs: &[RunResult], others: &[RunResult]) -> String {
    let mut sums: Vec<f64> = Vec::new();
    let mut seeds = 0.0;
    for run in runs {
        let other = others.iter().find(|other| other.seed == run.seed);
        let Some(other) = other.filter(|other| other.test_right.len() == run.test_right.len())
        else {
            continue;
        };
        seeds += 1.0;
        sums.resize(run.test_right.len(), 0.0);
        let both = run.test_right.bytes().zip(other.test_right.bytes());
        for (sum, (one, other)) in sums.iter_mut().zip(both) {
            *sum += 100.0 * (f64::from(one) - f64::from(other));
        }
    }
    if sums.is_empty() {
        return NONE.into();
    }
    let means: Vec<f64> = sums.iter().map(|sum| sum / seeds).collect();
    let MeanStdErr { mean, error } = MeanStdErr::of(&means);
    format!("{mean:+.1} ± {error:.1}")
}

fn lost(method: &MethodResult, lr: f64) -> String {
    let score = |lr| over_runs(runs(method, lr), in_percent).map(|spread| spread.mean);
    match (score(method.best_lr), score(lr)) {
        (Some(best), Some(there)) => format!("{:.1}", best - there),
        _ => NONE.into(),
    }
}

/// Points below the best that count as no loss.
const NEAR: f64 = 1.0;

fn near_best(method: &MethodResult) -> String {
    let mean = |rate: &RateResult| rate.spread(|run| 100.0 * run.test_score).mean;
    let rates = &method.rates;
    let best = rates
        .iter()
        .map(mean)
        .enumerate()
        .max_by(|x, y| x.1.total_cmp(&y.1));
    let Some((peak, best)) = best else {
        return NONE.into();
    };
    let near = |rate: &&RateResult| mean(rate) >= best - NEAR;
    let below = rates[..peak].iter().rev().take_while(near).last();
    let above = rates[peak..].iter().take_while(near).last();
    let (first, last) = (below.unwrap_or(&rates[peak]), above.unwrap_or(&rates[peak]));
    match first.lr == last.lr {
        true => rate(first.lr),
        false => format!("{} to {}", rate(first.lr), rate(last.lr)),
    }
}

/// What is measured, as a table's head.
fn metric(comparison: &Comparison) -> String {
    format!("{} %", comparison.setup.metric.name())
}

fn accuracy(runs: &[RunResult]) -> String {
    over_runs(runs, in_percent).map_or(NONE.into(), |MeanStdErr { mean, error }| {
        let error = match runs.len() {
            1 => String::new(),
            _ => format!(" ± {error:.1}"),
        };
        format!("{mean:.1}{error}{}", mark(runs))
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
