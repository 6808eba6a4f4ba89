//! Scaled errors: dimensionless numbers with one threshold for all laws.

use lora_pro_core::backend::ratio_or_zero;

use crate::sample::CaseSpec;

/// A law holds where its ratio is below this. LAPACK's testers use the same number.
pub const THRESHOLD: f64 = 30.0;

/// True where the ratio is small enough. A NaN is not.
pub fn holds(ratio: f64) -> bool {
    ratio < THRESHOLD
}

/// The unit round-off of f64, in which every backend accumulates and inverts Gram matrices.
const U_GRAM: f64 = f64::EPSILON / 2.0;

/// `error / (u kappa^2 size sqrt(m + n + r))`: what rounding explains comes out as a small number.
///
/// u is the unit round-off of the case's storage type. A product with a Gram inverse is wrong by
/// u kappa^2, and so are the projections on B's columns and A's rows. Where rounding leaves less
/// than two digits of the smallest eigenvalue of a Gram matrix, a subject may count it as zero.
/// Gram matrices are in f64 whatever the storage type, so this happens at the same kappa for all;
/// no larger kappa magnifies anything, since no smaller eigenvalue is inverted. From there on the
/// factor is at least 1: a result may be wrong altogether, but (in f64, where rounding alone would
/// explain less) not larger than what it is compared with.
pub fn ratio(spec: &CaseSpec, error: f64, size: f64) -> f64 {
    let kappa = spec.kappa_a.max(spec.kappa_b);
    let cut = 1.0 / (200.0 * U_GRAM * spec.m.max(spec.n) as f64);
    let rounding = spec.dtype.unit_roundoff() * (kappa * kappa).min(cut);
    let blurred = kappa * kappa >= cut;
    let growth = if blurred { rounding.max(1.0) } else { rounding };
    ratio_or_zero(error, size * growth * dimension(spec))
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
