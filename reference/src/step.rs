//! One optimizer step of one adapter: the algorithm of its method.

use lora_pro_core::{Error, Method};

use crate::factors::{FactorPair, Factors};
use crate::state::OptimizerState;
use crate::update::{StepOutcome, StepParams};
use crate::{efficient, factored, full, lora, sgd};

/// One step from the gradients (gA, gB), which are scaled and clipped already. With `maximize`
/// they change their sign first.
///
/// # Errors
/// As [`crate::damping::Grams::of`]; [`Error::Invalid`] where `state` belongs to another method.
///
/// ```
/// use lora_pro_core::{Method, Preset};
/// use lora_pro_reference::factors::{FactorPair, Factors};
/// use lora_pro_reference::{state::OptimizerState, step::step, update::StepParams};
/// use nalgebra::dmatrix;
/// let sgd = Preset::Paper.hyper().method(Method::Sgd);
/// let params = StepParams { hyper: &sgd, lr: 0.5, t: 1, quirk: Default::default() };
/// let factors = Factors { b: dmatrix![0.0], a: dmatrix![2.0], s: 1.0 };
/// let gradients = FactorPair { a: dmatrix![0.0], b: dmatrix![8.0] };
/// let state = OptimizerState::Momentum(None);
/// assert!(step(&params, &factors, &gradients, &state)?.update.factors.b[0] < 0.0);
///
/// let full = sgd.method(Method::Full);
/// let params = StepParams { hyper: &full, ..params };
/// assert!(step(&params, &factors, &gradients, &state).is_err());
/// # Ok::<(), lora_pro_core::Error>(())
/// ```
pub fn step(
    params: &StepParams<'_>,
    factors: &Factors,
    gradients: &FactorPair,
    state: &OptimizerState,
) -> Result<StepOutcome, Error> {
    use OptimizerState as S;
    let hyper = params.hyper;
    let sign = if hyper.maximize { -1.0 } else { 1.0 };
    let gradients = &gradients.scaled(sign);
    match (hyper.method, state) {
        (Method::Lora, S::Factors(old)) => Ok(lora::step(params, factors, gradients, old)),
        (Method::Sgd, S::Momentum(old)) => sgd::step(params, factors, gradients, old.as_ref()),
        (Method::Efficient, S::Factors(old)) => efficient::step(params, factors, gradients, old),
        (Method::Factored, S::Factored(old)) => factored::step(params, factors, gradients, old),
        (Method::Full, S::Full(old)) => full::step(params, factors, gradients, old),
        // Each method is named, so that the compiler asks for the arm of a new one.
        (
            Method::Lora | Method::Sgd | Method::Efficient | Method::Factored | Method::Full,
            S::Momentum(_) | S::Factors(_) | S::Factored(_) | S::Full(_),
        ) => Err(Error::invalid(
            "the optimizer",
            "state",
            "of another method",
            format!("state of method {}", hyper.method),
        )),
    }
}
