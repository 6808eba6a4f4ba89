//! A comparison as a table: the same cells for the terminal and for the report.

use lora_pro_finetune::{Comparison, MethodResult, RateResult, RunResult, Spread};

/// Shown where a number does not exist.
const NONE: &str = "-";

/// Column heads in two lines, and what stands in the column.
pub struct Column {
    /// First line of the head.
    pub over: String,
    /// Second line of the head.
    pub head: &'static str,
    /// The column explained.
    pub meaning: &'static str,
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

/// Marks a cell with runs that did not end.
const DIVERGED: &str = "†";

impl Table {
    /// The table of a comparison.
    pub fn of(comparison: &Comparison) -> Self {
        let lr = reference_lr(comparison);
        let rows: Vec<Vec<String>> = comparison
            .methods
            .iter()
            .map(|method| row(method, lr))
            .collect();
        let marked = rows.iter().flatten().any(|cell| cell.ends_with(DIVERGED));
        let footnote = marked.then_some("† at least one run diverged: its numbers are its last");
        Table {
            columns: columns(lr),
            rows,
            footnote,
        }
    }

    /// Aligned for a terminal: names to the left, numbers to the right.
    pub fn text(&self) -> String {
        let overs = self
            .columns
            .iter()
            .map(|column| column.over.clone())
            .collect();
        let heads = self
            .columns
            .iter()
            .map(|column| column.head.to_string())
            .collect();
        let lines: Vec<&Vec<String>> = [&overs, &heads].into_iter().chain(&self.rows).collect();
        let width = |k: usize| lines.iter().map(|line| length(&line[k])).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text: Vec<String> = lines.iter().map(|line| align(line, &widths)).collect();
        text.insert(
            2,
            "-".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1)),
        );
        text.extend(self.footnote.map(str::to_string));
        text.join("\n")
    }
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

fn columns(lr: f64) -> Vec<Column> {
    let column = |over: &str, head, meaning| Column {
        over: over.into(),
        head,
        meaning,
    };
    let at = format!("at lr {}", rate(lr));
    vec![
        column("", "method", "how the weights are trained"),
        column(
            &at,
            "accuracy %",
            "on the test split, at full fine-tuning's best learning rate: mean and standard error \
             over the seeds",
        ),
        column(
            &at,
            "loss",
            "training loss, mean of the last tenth of the steps",
        ),
        column(
            &at,
            "distance",
            "of the trained weights from full fine-tuning's in the same data order, over the way \
             that full fine-tuning went",
        ),
        column("gap", "start", "||g - E|| / ||g|| at the first step"),
        column("gap", "middle", "the same in the middle of the run"),
        column("gap", "end", "the same at its end"),
        column(
            "at own best",
            "accuracy %",
            "on the test split, at the method's own best learning rate, chosen on the validation \
             split",
        ),
        column("at own best", "lr", "that learning rate"),
        column("step", "ms", "time of the optimizer alone, median"),
        column(
            "state",
            "kB",
            "memory of the optimizer's state for the adapted weights",
        ),
    ]
}

fn row(method: &MethodResult, lr: f64) -> Vec<String> {
    let (here, own) = (method.at(lr), method.at(method.best_lr));
    let [start, middle, end] = gaps(here);
    vec![
        method.name.clone(),
        accuracy(here),
        cell(here, |rate| {
            Some(format!("{:.3}", rate.spread(|run| run.final_loss).mean))
        }),
        cell(here, distance),
        start,
        middle,
        end,
        accuracy(own),
        rate(method.best_lr),
        format!("{:.2}", 1e3 * method.seconds_per_step),
        format!("{:.1}", method.state_bytes as f64 / 1e3),
    ]
}

fn cell(rate: Option<&RateResult>, show: impl Fn(&RateResult) -> Option<String>) -> String {
    rate.and_then(show).unwrap_or_else(|| NONE.into())
}

fn accuracy(rate: Option<&RateResult>) -> String {
    cell(rate, |rate| {
        let Spread { mean, error } = rate.spread(|run| 100.0 * run.test_accuracy);
        let mark = if rate.runs.iter().any(|run| run.diverged) {
            DIVERGED
        } else {
            ""
        };
        Some(format!("{mean:.1} ± {error:.1}{mark}"))
    })
}

fn distance(rate: &RateResult) -> Option<String> {
    let distances: Option<Vec<f64>> = rate.runs.iter().map(|run| run.distance_to_full).collect();
    let Spread { mean, error } = Spread::of(&distances?);
    Some(format!("{mean:.2} ± {error:.2}"))
}

/// The gap at the first, the middle and the last measured step.
fn gaps(rate: Option<&RateResult>) -> [String; 3] {
    let first = |run: &RunResult| run.gap.first().map(|point| point.1);
    let middle = |run: &RunResult| run.gap.get(run.gap.len() / 2).map(|point| point.1);
    let last = |run: &RunResult| run.gap.last().map(|point| point.1);
    let mean = |pick: fn(&RunResult) -> Option<f64>| {
        cell(rate, |rate| {
            let values: Option<Vec<f64>> = rate.runs.iter().map(pick).collect();
            values.map(|values| format!("{:.2}", Spread::of(&values).mean))
        })
    };
    [mean(first), mean(middle), mean(last)]
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
    padded.collect::<Vec<_>>().join("  ").trim_end().to_string()
}
