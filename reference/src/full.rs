//! The full mode: Adam in the m x n space of W, on the equivalent gradient.

use lora_pro_core::Error;

use crate::adamw::adam_with_square;
use crate::closed_form::split;
use crate::damping::Grams;
use crate::direction::closed_form_for_full_gradient;
use crate::factors::{FactorPair, Factors};
use crate::state::{Moments, OptimizerState};
use crate::update::{StepOutcome, StepParams, Update};

/// One step of the full mode from the gradients (gA, gB). State 2 m n.
/// ```text
/// E        = closed_form(gA, gB).E
/// M        = beta1 M + (1 - beta1) E
/// V2       = beta2 V2 + (1 - beta2) E . E
/// N        = (M / (1 - beta1^t)) / (sqrt(V2 / (1 - beta2^t)) + eps)
/// (DA, DB) = closed_form(s B'N, s N A')
/// ```
/// Source: paper, algorithm 1; law 12.
///
/// # Errors
/// As [`Grams::of`].
///
/// ```
/// use lora_pro_core::{Damping, Method, Preset};
/// use lora_pro_reference::factors::{Factors, factor_gradients};
/// use lora_pro_reference::{full, state::Moments, update::StepParams};
/// use nalgebra::dmatrix;
/// let hyper = Preset::Paper.hyper().method(Method::Full).damping(Damping::None);
/// let params = StepParams { hyper: &hyper, lr: 0.5, t: 1, quirk: Default::default() };
/// let factors = Factors { b: dmatrix![0.0; 0.0], a: dmatrix![1.0], s: 1.0 };
/// let zero = dmatrix![0.0; 0.0];
/// let old = Moments { first: zero.clone(), second: zero, largest: None };
/// let gradients = factor_gradients(&factors, &dmatrix![-4.0; 0.1]);
/// let new = full::step(&params, &factors, &gradients, &old)?.update.factors;
/// // W moves by lr against the sign of g, as full fine-tuning's would.
/// assert!((&new.b * &new.a - dmatrix![0.5; -0.5]).norm() < 1e-7);
/// # Ok::<(), lora_pro_core::Error>(())
/// ```
pub fn step(
    params: &StepParams<'_>,
    factors: &Factors,
    gradients: &FactorPair,
    old: &Moments,
) -> Result<StepOutcome, Error> {
    let StepParams {
        hyper, t, quirk, ..
    } = *params;
    // SA^+, SB^+, damped
    let grams = Grams::of(factors, hyper.damping)?;
    // U, V of (gA, gB)
    let split = split(factors, &grams, gradients);
    // E = s (B U + V A)
    let e = split.equivalent_gradient(factors);
    // M, V2 and N of E: Adam's recurrence
    let (moments, n) = adam_with_square(hyper, old, &e, &quirk.square(&e, t), t);
    // (DA, DB) = closed_form(s B'N, s N A')
    let direction = closed_form_for_full_gradient(hyper, factors, &grams, &n)?;
    // UA, UB = lr DA, lr lr_ratio DB, clipped;  A = decay_A A - UA,  B = decay_B B - UB
    let update = Update::along(params, factors, &direction);
    Ok(StepOutcome {
        update,
        state: OptimizerState::Full(moments),
        equivalent_norm: e.norm(),
    })
}
