//! SGD: gradient descent along the adjusted gradients.

use lora_pro_core::Error;

use crate::closed_form::split;
use crate::damping::Grams;
use crate::direction::closed_form;
use crate::factors::{FactorPair, Factors};
use crate::state::OptimizerState;
use crate::update::{StepOutcome, StepParams, Update};

/// One step of SGD from the gradients (gA, gB). State: none, or r (m + n) with momentum.
/// ```text
/// (dA, dB) = closed_form(gA, gB)
/// (DA, DB) = (dA, dB)                          without momentum
/// (DA, DB) = momentum (MA, MB) + (dA, dB)      with it, and then
/// (MA, MB) = (DA, DB)
/// ```
///
/// # Errors
/// As [`Grams::of`].
///
/// ```
/// use lora_pro_core::{Damping, Method, Preset};
/// use lora_pro_reference::factors::{Factors, factor_gradients};
/// use lora_pro_reference::{sgd, update::StepParams};
/// use nalgebra::dmatrix;
/// let hyper = Preset::Paper.hyper().method(Method::Sgd).damping(Damping::None);
/// let params = StepParams { hyper: &hyper, lr: 0.5, t: 1, quirk: Default::default() };
/// let factors = Factors { b: dmatrix![0.0; 0.0], a: dmatrix![2.0, 0.0], s: 1.0 };
/// let gradients = factor_gradients(&factors, &dmatrix![4.0, 7.0; 8.0, 9.0]);
/// let new = sgd::step(&params, &factors, &gradients, None)?.update.factors;
/// // B = 0: A stays, and B A moves by -lr times the part of g in A's rows.
/// assert_eq!(new.a, factors.a);
/// assert_eq!(&new.b * &factors.a, dmatrix![-2.0, 0.0; -4.0, 0.0]);
/// # Ok::<(), lora_pro_core::Error>(())
/// ```
pub fn step(
    params: &StepParams<'_>,
    factors: &Factors,
    gradients: &FactorPair,
    old: Option<&FactorPair>,
) -> Result<StepOutcome, Error> {
    let StepParams { hyper, .. } = *params;
    // SA^+, SB^+, damped
    let grams = Grams::of(factors, hyper.damping)?;
    // U, V of (gA, gB)
    let split = split(factors, &grams, gradients);
    // (dA, dB) = closed_form(gA, gB)
    let adjusted = closed_form(hyper, factors, &grams, gradients, &split)?;
    // (MA, MB) = momentum (MA, MB) + (dA, dB)
    let momentum = old.map(|old| with_momentum(hyper.momentum, old, &adjusted));
    // (DA, DB) = (MA, MB), or (dA, dB) without momentum
    let direction = momentum.as_ref().unwrap_or(&adjusted);
    // UA, UB = lr DA, lr lr_ratio DB, clipped;  A = decay_A A - UA,  B = decay_B B - UB
    let update = Update::along(params, factors, direction);
    Ok(StepOutcome {
        update,
        state: OptimizerState::Momentum(momentum),
        equivalent_norm: split.equivalent_gradient(factors).norm(),
    })
}

/// The direction of SGD with momentum $`\mu`$: $`D \leftarrow \mu D + (\mathrm{d}A, \mathrm{d}B)`$.
/// The returned pair is both the direction and the new momentum.
///
/// ```
/// use lora_pro_reference::{factors::FactorPair, sgd::with_momentum};
/// use nalgebra::dmatrix;
/// let old = FactorPair { a: dmatrix![2.0], b: dmatrix![4.0] };
/// let new = FactorPair { a: dmatrix![1.0], b: dmatrix![1.0] };
/// assert_eq!(with_momentum(0.5, &old, &new), FactorPair { a: dmatrix![2.0], b: dmatrix![3.0] });
/// ```
pub fn with_momentum(mu: f64, old: &FactorPair, adjusted: &FactorPair) -> FactorPair {
    FactorPair {
        a: &old.a * mu + &adjusted.a,
        b: &old.b * mu + &adjusted.b,
    }
}
