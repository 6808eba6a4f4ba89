//! A comparison as tables: the same cells for the terminal and for the report.

use lora_pro_finetune::{Comparison, MethodResult, RunResult, Spread};

/// Shown where a number does not exist.
const NONE: &str = "-";

/// Marks a number with runs that did not end.
const DIVERGED: &str = "†";

/// One column: its head in two lines, what it means, and how a method's cell is made.
pub struct Column {
    /// First line of the head; neighbours with the same one share it.
    pub over: String,
    /// Second line of the head.
    pub head: &'static str,
    /// The column explained.
    pub meaning: &'static str,
    cell: fn(&Place) -> String,
}

/// Where a cell is: its method, and full fine-tuning's best learning rate.
struct Place<'c> {
    method: &'c MethodResult,
    lr: f64,
}

/// Heads and cells, as text.
pub struct Table {
    /// The columns; the first holds the methods' names.
    pub columns: Vec<Column>,
    /// One row per method.
    pub rows: Vec<Vec<String>>,
    /// What a mark in a cell means, where there is one.
    pub footnote: Option<&'static str>,
}

/// How well each method did, and what it cost.
pub fn results(comparison: &Comparison) -> Table {
    let at = format!("at lr {}", rate(reference_lr(comparison)));
    let column = |over: &str, head, cell, meaning| Column {
        over: over.into(),
        head,
        meaning,
        cell,
    };
    let columns = vec![
        column(
            "",
            "method",
            |place| place.method.name.clone(),
            "how the weights are trained",
        ),
        column(
            &at,
            "accuracy %",
            |place| accuracy(place.here()),
            "on the test split, at full fine-tuning's best learning rate: mean and standard error \
             over the seeds",
        ),
        column(
            &at,
            "loss",
            |place| mean(place.here(), 3, |run| Some(run.final_loss)),
            "training loss there, mean of the last tenth of the steps",
        ),
        column(
            &at,
            "distance",
            |place| spread(place.here(), distance),
            "of the trained weights from full fine-tuning's in the same data order, over the way \
             that full fine-tuning went; in its own row, what another data order alone does",
        ),
        column(
            "at own best lr",
            "accuracy %",
            |place| accuracy(place.own()),
            "on the test split, at the method's own best learning rate",
        ),
        column(
            "at own best lr",
            "lr",
            |place| rate(place.method.best_lr),
            "that learning rate, chosen on the validation split",
        ),
        column(
            "step",
            "ms",
            |place| format!("{:.2}", 1e3 * place.method.seconds_per_step),
            "time of one optimizer step alone, median",
        ),
        column(
            "state",
            "kB",
            |place| format!("{:.1}", place.method.state_bytes as f64 / 1e3),
            "memory of the optimizer's state for the adapted weights",
        ),
    ];
    Table::new(columns, comparison)
}

/// How each method's steps compare with full fine-tuning's, at its best learning rate.
pub fn gaps(comparison: &Comparison) -> Table {
    let column = |over: &str, head, cell, meaning| Column {
        over: over.into(),
        head,
        meaning,
        cell,
    };
    let (gap, rescaled, update) = ("gap", "gap, E rescaled", "update of A");
    let columns = vec![
        column(
            "",
            "method",
            |place| place.method.name.clone(),
            "how the weights are trained",
        ),
        column(
            gap,
            "start",
            |place| mean(place.here(), 2, |run| first(&run.gap)),
            "||g - E|| / ||g|| before the first step: g is the full gradient, E what a step does \
             to the weight",
        ),
        column(
            gap,
            "middle",
            |place| mean(place.here(), 2, |run| middle(&run.gap)),
            "the same in the middle of the run",
        ),
        column(
            gap,
            "end",
            |place| mean(place.here(), 2, |run| last(&run.gap)),
            "the same before the last step",
        ),
        column(
            rescaled,
            "start",
            |place| mean(place.here(), 2, |run| first(&run.gap_rescaled)),
            "the smallest ||g - c E|| / ||g||: what a learning rate of its own cannot mend",
        ),
        column(
            rescaled,
            "middle",
            |place| mean(place.here(), 2, |run| middle(&run.gap_rescaled)),
            "the same in the middle of the run",
        ),
        column(
            rescaled,
            "end",
            |place| mean(place.here(), 2, |run| last(&run.gap_rescaled)),
            "the same before the last step",
        ),
        column(
            update,
            "largest",
            |place| mean(place.here(), 2, largest_update),
            "largest |lr dA| / |A| of the first fifty steps",
        ),
    ];
    Table::new(columns, comparison)
}

impl Table {
    fn new(columns: Vec<Column>, comparison: &Comparison) -> Self {
        let lr = reference_lr(comparison);
        let row = |method| {
            let place = Place { method, lr };
            columns.iter().map(|column| (column.cell)(&place)).collect()
        };
        let rows: Vec<Vec<String>> = comparison.methods.iter().map(row).collect();
        let marked = rows.iter().flatten().any(|cell| cell.ends_with(DIVERGED));
        let footnote = marked.then_some("† at least one run diverged; its accuracy is its last");
        Table {
            columns,
            rows,
            footnote,
        }
    }

    /// Aligned for a terminal: names to the left, numbers to the right.
    pub fn text(&self) -> String {
        let heads: Vec<String> = self
            .columns
            .iter()
            .map(|column| column.head.into())
            .collect();
        let cells = |k: usize| {
            std::iter::once(&heads)
                .chain(&self.rows)
                .map(move |line| &line[k])
        };
        let width = |k: usize| cells(k).map(|cell| length(cell)).max().unwrap_or(0);
        let mut widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let overs = self.overs(&mut widths);
        let rule = "-".repeat(widths.iter().sum::<usize>() + GUTTER.len() * (widths.len() - 1));
        let mut lines = vec![overs, align(&heads, &widths), rule];
        lines.extend(self.rows.iter().map(|row| align(row, &widths)));
        lines.extend(self.footnote.map(str::to_string));
        lines.join("\n")
    }

    /// The first line of the heads; widens columns that are too narrow for theirs.
    fn overs(&self, widths: &mut [usize]) -> String {
        let groups = self.groups().map(|(over, range)| {
            let gutters = GUTTER.len() * (range.len() - 1);
            let room = widths[range.clone()].iter().sum::<usize>() + gutters;
            widths[range.start] += length(over).saturating_sub(room);
            let width = room.max(length(over));
            format!("{over:>width$}")
        });
        groups.collect::<Vec<_>>().join(GUTTER)
    }

    /// Neighbouring columns with the same first line.
    pub fn groups(&self) -> impl Iterator<Item = (&str, std::ops::Range<usize>)> {
        let mut start = 0;
        self.columns
            .chunk_by(|x, y| x.over == y.over)
            .map(move |group| {
                let range = start..start + group.len();
                start = range.end;
                (group[0].over.as_str(), range)
            })
    }
}

/// Between two columns.
const GUTTER: &str = "  ";

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

impl<'c> Place<'c> {
    /// The runs at full fine-tuning's best learning rate.
    fn here(&self) -> &'c [RunResult] {
        self.method.at(self.lr).map_or(&[], |rate| &rate.runs)
    }

    /// The runs at the method's own best learning rate.
    fn own(&self) -> &'c [RunResult] {
        self.method
            .at(self.method.best_lr)
            .map_or(&[], |rate| &rate.runs)
    }
}

/// Mean and error of a number that every run has; `None` where one has not.
fn over_runs(runs: &[RunResult], number: impl Fn(&RunResult) -> Option<f64>) -> Option<Spread> {
    let values: Option<Vec<f64>> = runs.iter().map(number).collect();
    values
        .filter(|values| !values.is_empty())
        .map(|values| Spread::of(&values))
}

fn mean(runs: &[RunResult], digits: usize, number: impl Fn(&RunResult) -> Option<f64>) -> String {
    over_runs(runs, number).map_or(NONE.into(), |spread| format!("{:.digits$}", spread.mean))
}

fn spread(runs: &[RunResult], number: impl Fn(&RunResult) -> Option<f64>) -> String {
    over_runs(runs, number).map_or(NONE.into(), |Spread { mean, error }| {
        format!("{mean:.2} ± {error:.2}")
    })
}

fn accuracy(runs: &[RunResult]) -> String {
    let mark = if runs.iter().any(|run| run.diverged) {
        DIVERGED
    } else {
        ""
    };
    over_runs(runs, |run| Some(100.0 * run.test_accuracy))
        .map_or(NONE.into(), |Spread { mean, error }| {
            format!("{mean:.1} ± {error:.1}{mark}")
        })
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

/// Characters, not bytes.
fn length(text: &str) -> usize {
    text.chars().count()
}

fn align(cells: &[String], widths: &[usize]) -> String {
    let padded = cells
        .iter()
        .zip(widths)
        .enumerate()
        .map(|(k, (cell, &width))| match k {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
    padded.collect::<Vec<_>>().join(GUTTER)
}
