//! Scaled errors: dimensionless numbers with one threshold for all laws.

use lora_pro_core::relative;

use crate::sample::CaseSpec;

/// A law holds where its ratio is below this. LAPACK's testers use the same number.
pub const THRESHOLD: f64 = 30.0;

/// True where the ratio is small enough. A NaN is not.
pub fn holds(ratio: f64) -> bool {
    ratio < THRESHOLD
}

/// The unit round-off of f64, in which the reference computes.
const U: f64 = f64::EPSILON / 2.0;

/// `error / (u growth size sqrt(m + n + r))`: what rounding explains comes out as a small number.
///
/// The growth is `kappa_a kappa_b max(kappa_a, kappa_b)`. Gram matrices square a condition number:
/// the projection on B's columns is wrong by u kappa_b^2, and what it was applied to has been
/// divided by A's smallest singular value, which is another kappa_a (and the same with A and B
/// exchanged). Past u growth = 1 the factor stays there: a result may then be wrong altogether,
/// but not larger than what it is compared with.
pub fn ratio(spec: &CaseSpec, error: f64, size: f64) -> f64 {
    let growth = (U * spec.kappa_a * spec.kappa_b * spec.kappa_a.max(spec.kappa_b)).min(1.0);
    relative(error, size * growth * dimension(spec))
}

fn dimension(spec: &CaseSpec) -> f64 {
    ((spec.m + spec.n + spec.r) as f64).sqrt()
}

/// The worst of several ratios; NaN is worse than everything.
pub fn worst(ratios: impl IntoIterator<Item = f64>) -> f64 {
    ratios.into_iter().max_by(f64::total_cmp).unwrap_or(0.0)
}

/// The ratio of a law that holds or does not: 0 or infinity.
pub fn all_or_nothing(holds: bool) -> f64 {
    if holds { 0.0 } else { f64::INFINITY }
}
