//! The efficient mode: AdamW on A and B, each fed with its adjusted gradient.

use lora_pro_core::Error;

use crate::adamw::adam_on_factors;
use crate::closed_form::split;
use crate::damping::Grams;
use crate::direction::closed_form;
use crate::factors::{FactorPair, Factors};
use crate::state::{FactorMoments, OptimizerState};
use crate::update::{StepOutcome, StepParams, Update};

/// One step of the efficient mode from the gradients (gA, gB). State 2 r (m + n), as plain LoRA's.
/// ```text
/// (dA, dB) = closed_form(gA, gB)
/// for F in A, B:
///     MF  = beta1 MF + (1 - beta1) dF
///     VF  = beta2 VF + (1 - beta2) dF . dF     entry by entry
///     DF  = (MF / (1 - beta1^t)) / (sqrt(VF / (1 - beta2^t)) + eps)
/// ```
/// Source: paper, algorithm 2.
///
/// # Errors
/// As [`Grams::of`].
///
/// ```
/// use lora_pro_core::{Damping, Method, Preset};
/// use lora_pro_reference::factors::{Factors, factor_gradients};
/// use lora_pro_reference::state::{FactorMoments, Moments};
/// use lora_pro_reference::{efficient, update::StepParams};
/// use nalgebra::dmatrix;
/// let hyper = Preset::Paper.hyper().method(Method::Efficient).damping(Damping::None);
/// let params = StepParams { hyper: &hyper, lr: 0.5, t: 1, quirk: Default::default() };
/// let factors = Factors { b: dmatrix![0.0], a: dmatrix![2.0], s: 1.0 };
/// let zero = Moments { first: dmatrix![0.0], second: dmatrix![0.0], largest: None };
/// let old = FactorMoments { a: zero.clone(), b: zero };
/// let gradients = factor_gradients(&factors, &dmatrix![4.0]);
/// let new = efficient::step(&params, &factors, &gradients, &old)?.update.factors;
/// // B = 0: dA = 0, and B moves by lr against the sign of dB.
/// assert_eq!(new.a, factors.a);
/// assert!((new.b[0] + 0.5).abs() < 1e-8);
/// # Ok::<(), lora_pro_core::Error>(())
/// ```
pub fn step(
    params: &StepParams<'_>,
    factors: &Factors,
    gradients: &FactorPair,
    old: &FactorMoments,
) -> Result<StepOutcome, Error> {
    let StepParams { hyper, t, .. } = *params;
    // SA^+, SB^+, damped
    let grams = Grams::of(factors, hyper.damping)?;
    // U, V of (gA, gB)
    let split = split(factors, &grams, gradients);
    // (dA, dB) = closed_form(gA, gB)
    let adjusted = closed_form(hyper, factors, &grams, gradients, &split)?;
    // MF, VF and DF of dF: Adam's recurrence
    let (moments, direction) = adam_on_factors(hyper, old, &adjusted, t);
    // UA, UB = lr DA, lr lr_ratio DB, clipped;  A = decay_A A - UA,  B = decay_B B - UB
    let update = Update::along(params, factors, &direction);
    Ok(StepOutcome {
        update,
        state: OptimizerState::Factors(moments),
        equivalent_norm: split.equivalent_gradient(factors).norm(),
    })
}
