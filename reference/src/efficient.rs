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
/// mode (dA, dB). Source: paper, algorithm 2.
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
