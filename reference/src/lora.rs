//! Plain LoRA: AdamW on A and B, for comparison.

use crate::adamw::adam_on_factors;
use crate::equivalent::equivalent_gradient;
use crate::factors::{FactorPair, Factors};
use crate::state::{FactorMoments, OptimizerState};
use crate::update::{StepOutcome, StepParams, Update};

/// One step of plain LoRA from the gradients (gA, gB). State 2 r (m + n).
/// ```text
/// for F in A, B:
///     MF  = beta1 MF + (1 - beta1) gF
///     VF  = beta2 VF + (1 - beta2) gF . gF     entry by entry
///     DF  = (MF / (1 - beta1^t)) / (sqrt(VF / (1 - beta2^t)) + eps)
/// ```
/// Its equivalent gradient is $`E = s\,(B g_A + g_B A)`$.
///
/// ```
/// use lora_pro_core::{Method, Preset};
/// use lora_pro_reference::factors::{Factors, factor_gradients};
/// use lora_pro_reference::state::{FactorMoments, Moments};
/// use lora_pro_reference::{lora, update::StepParams};
/// use nalgebra::dmatrix;
/// let hyper = Preset::Paper.hyper().method(Method::Lora);
/// let params = StepParams { hyper: &hyper, lr: 0.5, t: 1, quirk: Default::default() };
/// let factors = Factors { b: dmatrix![2.0], a: dmatrix![3.0], s: 1.0 };
/// let zero = Moments { first: dmatrix![0.0], second: dmatrix![0.0], largest: None };
/// let old = FactorMoments { a: zero.clone(), b: zero };
/// let outcome = lora::step(&params, &factors, &factor_gradients(&factors, &dmatrix![-1.0]), &old);
/// // Adam's first step is the sign of the gradient.
/// assert!((outcome.update.factors.a[0] - 3.5).abs() < 1e-8);
/// assert!((outcome.update.factors.b[0] - 2.5).abs() < 1e-8);
/// ```
pub fn step(
    params: &StepParams<'_>,
    factors: &Factors,
    gradients: &FactorPair,
    old: &FactorMoments,
) -> StepOutcome {
    let StepParams { hyper, t, .. } = *params;
    // MF, VF and DF of gF: Adam's recurrence
    let (moments, direction) = adam_on_factors(hyper, old, gradients, t);
    // UA, UB = lr DA, lr lr_ratio DB, clipped;  A = decay_A A - UA,  B = decay_B B - UB
    let update = Update::along(params, factors, &direction);
    StepOutcome {
        update,
        state: OptimizerState::Factors(moments),
        equivalent_norm: equivalent_gradient(factors, gradients).norm(),
    }
}
