//! A comparison in a few sentences, computed from its numbers.

use lora_pro_finetune::{Comparison, MeanStdErr, MethodResult};

use crate::tables::{distance, rate, reference_lr};

/// What the numbers say, whatever they are.
pub fn summary(comparison: &Comparison) -> Vec<String> {
    [tracking(comparison), own_best(comparison)]
        .into_iter()
        .flatten()
        .collect()
}

/// The methods that follow full fine-tuning at its own learning rate.
fn tracking(comparison: &Comparison) -> Option<String> {
    let lr = reference_lr(comparison);
    let adapters = comparison.methods.get(1..)?;
    let mut found = ranked(adapters, |method| mean_distance(method, lr));
    found.reverse();
    let list = listed(&found, |distance| format!("{distance:.2}"))?;
    Some(format!(
        "At full fine-tuning's best learning rate ({}), from the nearest to its weights to the \
         farthest: {list}.",
        rate(lr),
    ))
}

/// Test accuracies at the learning rates that the validation split chose.
fn own_best(comparison: &Comparison) -> Option<String> {
    let accuracy = |method: &MethodResult| {
        let rate = method.at(method.best_lr)?;
        Some(rate.spread(|run| 100.0 * run.test_score).mean)
    };
    let found = ranked(&comparison.methods, accuracy);
    let list = listed(&found, |percent| format!("{percent:.1} %"))?;
    Some(format!(
        "Each at its own best learning rate, on the test split: {list}."
    ))
}

fn mean_distance(method: &MethodResult, lr: f64) -> Option<f64> {
    let runs = &method.at(lr)?.runs;
    let distances: Option<Vec<f64>> = runs.iter().map(distance).collect();
    distances
        .filter(|all| !all.is_empty())
        .map(|all| MeanStdErr::of(&all).mean)
}

/// The methods that have the number, the largest first.
fn ranked(
    methods: &[MethodResult],
    number: impl Fn(&MethodResult) -> Option<f64>,
) -> Vec<(&str, f64)> {
    let found = methods
        .iter()
        .filter_map(|method| Some((method.name.as_str(), number(method)?)));
    let mut found: Vec<(&str, f64)> = found.collect();
    found.sort_by(|x, y| y.1.total_cmp(&x.1));
    found
}

fn listed(found: &[(&str, f64)], show: impl Fn(f64) -> String) -> Option<String> {
    let entries = found
        .iter()
        .map(|(name, number)| format!("{name} {}", show(*number)));
    let list = entries.collect::<Vec<_>>().join(", ");
    (!list.is_empty()).then_some(list)
}
