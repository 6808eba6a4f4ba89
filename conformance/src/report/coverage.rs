//! Which branches, condition numbers and options the cases of a run went through.

use std::collections::BTreeMap;

use super::Record;

/// What a complete run goes through: what is never met shows as 0.
const EXPECTED: [&str; 44] = [
    "A = 0",
    "B = 0",
    "rank-deficient A",
    "rank-deficient B",
    "r = 1",
    "r = min(m, n)",
    "m = 1 or n = 1",
    "1 step",
    "2 to 5 steps",
    "6 steps and more",
    "kappa from 1e00",
    "kappa from 1e02",
    "kappa from 1e04",
    "kappa from 1e06",
    "kappa from 1e08",
    "kappa from 1e10",
    "kappa from 1e12",
    "kappa from 1e14",
    "spectrum: arithmetic",
    "spectrum: geometric",
    "spectrum: onelarge",
    "spectrum: onesmall",
    "spectrum: random",
    "x: sylvester",
    "x: symmetric",
    "x: zero",
    "damping: none",
    "damping: absolute",
    "damping: relative",
    "damping: cutoff",
    "weight decay",
    "decay of W0",
    "momentum",
    "amsgrad",
    "maximize",
    "update clip",
    "gradient clip",
    "loss scale",
    "schedule",
    "unpaired parameter",
    "learning-rate ratio",
    "no memory (b1 = b2 = 0)",
    "eps that matters",
    "master copies",
];

/// How often each was met, by subject.
pub(super) fn coverage(record: &Record) -> Vec<(String, Vec<u32>)> {
    let names = record.subjects.iter().map(|subject| subject.name.as_str());
    let names: Vec<&str> = names.collect();
    let mut all: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for cell in &record.cells {
        let Some(k) = names.iter().position(|name| *name == cell.subject) else {
            continue;
        };
        for (feature, count) in &cell.coverage {
            let counts = all
                .entry(feature.clone())
                .or_insert_with(|| vec![0; names.len()]);
            counts[k] += count;
        }
    }
    let mut rows = Vec::new();
    for expected in EXPECTED {
        let counts = all.remove(expected);
        rows.push((
            expected.into(),
            counts.unwrap_or_else(|| vec![0; names.len()]),
        ));
    }
    rows.extend(all);
    rows
}
