//! That random numbers are others wherever they must be.

use lora_pro_conformance::sample::CaseSpec;
use lora_pro_core::{DType, HostTensor, Hyper, Method, Rounding};

use super::{BackendFn, Batch, adapter, hyper};

/// Which entries of A and of B' moved in a step, for constant factors and gradients.
fn moved(batch: &mut Batch, member: usize) -> [Vec<bool>; 2] {
    for member in &mut batch.run.adapters {
        for factor in [&mut member.a, &mut member.b] {
            *factor = HostTensor::from_fn(DType::Bf16, factor.shape(), |_, _| CONSTANT);
        }
    }
    let specs = batch.specs.clone();
    let ones = |rows, cols| HostTensor::from_fn(DType::Bf16, [rows, cols], |_, _| 1.0);
    let gradients = specs
        .iter()
        .map(|spec| (ones(spec.r, spec.n), ones(spec.m, spec.r)))
        .collect();
    batch.step_with(&gradients).expect("a step");
    let factors = batch.run.adapters[member].factors();
    let [a, b] = [factors.a, factors.b.transpose()];
    [a, b].map(|after| after.iter().map(|x| *x != CONSTANT).collect())
}

const CONSTANT: f64 = 1.5;

/// The random numbers are others in each step, for each adapter, for each of its factors and for
/// each entry; a run has the same ones again.
pub fn differs(make: BackendFn) {
    let spec = adapter(4000, 4000, 8, DType::Bf16);
    let specs = [spec, CaseSpec { seed: 7, ..spec }];
    let hyper = hyper(Method::Lora)
        .rounding(Rounding::Stochastic)
        .lr(0.25 * 2f64.powi(-7))
        .weight_decay(0.0);
    let start = || Batch::start(make, &specs, hyper).expect("valid");
    let mut batch = start();
    let first = moved(&mut batch, 0);
    let [second, _] = moved(&mut batch, 0);
    assert_eq!(first, moved(&mut start(), 0), "a run repeats itself");
    let [other, _] = moved(&mut start(), 1);
    let [a, b] = first;
    let rotated = |by: usize| [&a[by..], &a[..by]].concat();
    let patterns = [
        ("adapter", other),
        ("step", second),
        ("factor", b),
        ("entry of a column", rotated(1)),
        ("entry of a row", rotated(spec.r)),
    ];
    for (what, pattern) in patterns {
        independent(&a, &pattern, what);
    }
}

/// Where chance 1/4 and chance 1/4 are independent, both happen with 1/16, within five standard
/// errors.
pub fn independent(x: &[bool], y: &[bool], what: &str) {
    let n = x.len() as f64;
    for pattern in [x, y] {
        let share = pattern.iter().filter(|moved| **moved).count() as f64 / n;
        let error = (0.25 * 0.75 / n).sqrt();
        assert!((share - 0.25).abs() < 5.0 * error, "{what}: {share} moved");
    }
    let both = x.iter().zip(y).filter(|(x, y)| **x && **y).count() as f64 / n;
    let error = (15.0 / 256.0 / n).sqrt();
    assert!(
        (both - 1.0 / 16.0).abs() < 5.0 * error,
        "{what}: {both} moved in both"
    );
}
