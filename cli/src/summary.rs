//! A comparison in a few sentences, computed from its numbers.

use lora_pro_finetune::{Comparison, MethodResult, Spread};

use crate::table::{rate, reference_lr};

/// What the numbers say, whatever they are.
pub fn summary(comparison: &Comparison) -> Vec<String> {
    [tracking(comparison), own_best(comparison)]
        .into_iter()
        .flatten()
        .collect()
}

/// Who follows full fine-tuning best at its own learning rate, and where LoRA is.
fn tracking(comparison: &Comparison) -> Option<String> {
    let lr = reference_lr(comparison);
    let mut distances: Vec<(&str, f64)> = comparison
        .methods
        .iter()
        .filter_map(|method| Some((method.name.as_str(), distance(method, lr)?)))
        .collect();
    distances.sort_by(|x, y| x.1.total_cmp(&y.1));
    let list: Vec<String> = distances
        .iter()
        .map(|(name, distance)| format!("{name} {distance:.2}"))
        .collect();
    Some(format!(
        "At full fine-tuning's best learning rate ({}), from the nearest to its weights to the \
         farthest: {}.",
        rate(lr),
        (!list.is_empty()).then(|| list.join(", "))?
    ))
}

fn distance(method: &MethodResult, lr: f64) -> Option<f64> {
    let runs = &method.at(lr)?.runs;
    let distances: Option<Vec<f64>> = runs.iter().map(|run| run.distance_to_full).collect();
    distances
        .filter(|all| !all.is_empty())
        .map(|all| Spread::of(&all).mean)
}

/// Test accuracies at the learning rates that the validation split chose.
fn own_best(comparison: &Comparison) -> Option<String> {
    let mut best: Vec<(&str, f64)> = comparison
        .methods
        .iter()
        .filter_map(|method| {
            let rate = method.at(method.best_lr)?;
            Some((
                method.name.as_str(),
                rate.spread(|run| run.test_accuracy).mean,
            ))
        })
        .collect();
    best.sort_by(|x, y| y.1.total_cmp(&x.1));
    let list: Vec<String> = best
        .iter()
        .map(|(name, part)| format!("{name} {:.1} %", 100.0 * part))
        .collect();
    (!list.is_empty()).then(|| {
        format!(
            "Each at its own best learning rate, on the test split: {}.",
            list.join(", ")
        )
    })
}
