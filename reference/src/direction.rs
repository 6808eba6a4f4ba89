//! (dA, dB) with the chosen X: what every algorithm but plain LoRA calls `closed_form`.

use lora_pro_core::{Error, Hyper};
use nalgebra::DMatrix;

use crate::closed_form::{Split, adjusted, split};
use crate::damping::Grams;
use crate::factors::{FactorPair, Factors, factor_gradients};
use crate::x;

/// (dA, dB) of the gradients (gA, gB), whose `split` is given:
/// ```text
/// X  = by choice: Sylvester, symmetric or zero
/// dA = U + X A,  dB = V - B X
/// ```
///
/// # Errors
/// As [`x::choose`].
///
/// ```
/// use lora_pro_core::{Damping, Preset};
/// use lora_pro_reference::direction::closed_form;
/// use lora_pro_reference::factors::{FactorPair, Factors, factor_gradients};
/// use lora_pro_reference::{closed_form::split, damping::Grams};
/// use nalgebra::dmatrix;
/// let factors = Factors { b: dmatrix![1.0; 0.0], a: dmatrix![1.0, 0.0], s: 1.0 };
/// let gradients = factor_gradients(&factors, &dmatrix![6.0, 1.0; 1.0, 1.0]);
/// let grams = Grams::of(&factors, Damping::None)?;
/// let split = split(&factors, &grams, &gradients);
/// let pair = closed_form(&Preset::Paper.hyper(), &factors, &grams, &gradients, &split)?;
/// // X = -3: the part that both factors reach, 6, is shared equally.
/// assert_eq!(pair, FactorPair { a: dmatrix![3.0, 1.0], b: dmatrix![3.0; 1.0] });
/// # Ok::<(), lora_pro_core::Error>(())
/// ```
pub fn closed_form(
    hyper: &Hyper,
    factors: &Factors,
    grams: &Grams,
    gradients: &FactorPair,
    split: &Split,
) -> Result<FactorPair, Error> {
    let x = x::choose(hyper.x, factors, grams, gradients, split)?;
    Ok(adjusted(factors, split, &x))
}

/// (dA, dB) whose E is nearest to N, an m x n matrix that takes the place of g:
/// ```math
/// g_A = s\, B^\top N \qquad g_B = s\, N A^\top
/// ```
/// and the closed form of these. Source: paper, algorithm 1.
///
/// # Errors
/// As [`x::choose`].
///
/// ```
/// use lora_pro_core::{Damping, Preset};
/// use lora_pro_reference::direction::closed_form_for_full_gradient;
/// use lora_pro_reference::{damping::Grams, equivalent::equivalent_gradient, factors::Factors};
/// use nalgebra::dmatrix;
/// let factors = Factors { b: dmatrix![1.0; 0.0], a: dmatrix![1.0, 0.0], s: 1.0 };
/// let grams = Grams::of(&factors, Damping::None)?;
/// let n = dmatrix![6.0, 1.0; 1.0, 1.0];
/// let pair = closed_form_for_full_gradient(&Preset::Paper.hyper(), &factors, &grams, &n)?;
/// assert_eq!(equivalent_gradient(&factors, &pair), dmatrix![6.0, 1.0; 1.0, 0.0]);
/// # Ok::<(), lora_pro_core::Error>(())
/// ```
pub fn closed_form_for_full_gradient(
    hyper: &Hyper,
    factors: &Factors,
    grams: &Grams,
    n: &DMatrix<f64>,
) -> Result<FactorPair, Error> {
    let gradients = factor_gradients(factors, n);
    let split = split(factors, grams, &gradients);
    closed_form(hyper, factors, grams, &gradients, &split)
}
