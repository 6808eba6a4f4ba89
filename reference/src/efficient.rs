//! The efficient mode: AdamW on A and B, each fed with its adjusted gradient.

use lora_pro_core::Hyper;

use crate::adamw::{Moments, adam};
use crate::factors::Pair;

/// The moments of both factors: state 2 r (m + n).
#[derive(Clone, Debug, PartialEq)]
pub struct FactorMoments {
    /// Of dA, r x n.
    pub a: Moments,
    /// Of dB, m x r.
    pub b: Moments,
}

/// Adam on both matrices of a pair, each by itself. Plain LoRA feeds it (gA, gB), the efficient
/// mode (dA, dB). Returns the new moments and the direction. Source: paper, algorithm 2.
///
/// ```
/// use lora_pro_core::Preset;
/// use lora_pro_reference::adamw::Moments;
/// use lora_pro_reference::efficient::{FactorMoments, adam_on_factors};
/// use lora_pro_reference::factors::Pair;
/// use nalgebra::dmatrix;
/// let zero = Moments { first: dmatrix![0.0], second: dmatrix![0.0], largest: None };
/// let old = FactorMoments { a: zero.clone(), b: zero };
/// let pair = Pair { a: dmatrix![0.5], b: dmatrix![-20.0] };
/// let (_, direction) = adam_on_factors(&Preset::Paper.hyper(), &old, &pair, 1);
/// assert!((direction.a[0] - 1.0).abs() < 1e-7 && (direction.b[0] + 1.0).abs() < 1e-7);
/// ```
pub fn adam_on_factors(
    hyper: &Hyper,
    old: &FactorMoments,
    pair: &Pair,
    t: u64,
) -> (FactorMoments, Pair) {
    let (a, direction_a) = adam(hyper, &old.a, &pair.a, t);
    let (b, direction_b) = adam(hyper, &old.b, &pair.b, t);
    let direction = Pair {
        a: direction_a,
        b: direction_b,
    };
    (FactorMoments { a, b }, direction)
}
