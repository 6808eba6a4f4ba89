//! Adam's recurrence on a matrix of any shape: on dA and dB, on E, on a bias.

use lora_pro_core::Hyper;
use nalgebra::DMatrix;

use crate::factors::FactorPair;
use crate::state::{FactorMoments, Moments};

/// An exponential moving average of X:
/// ```math
/// M \leftarrow \beta M + (1 - \beta) X
/// ```
///
/// ```
/// use nalgebra::dmatrix;
/// let mean = lora_pro_reference::adamw::ema(0.75, &dmatrix![4.0], &dmatrix![8.0]);
/// assert_eq!(mean, dmatrix![5.0]);
/// ```
pub fn ema(beta: f64, mean: &DMatrix<f64>, x: &DMatrix<f64>) -> DMatrix<f64> {
    mean * beta + x * (1.0 - beta)
}

/// Bias correction of an exponential moving average that starts at 0, at step t = 1, 2, ...:
/// $`1 - \beta^t`$.
///
/// ```
/// assert_eq!(lora_pro_reference::adamw::bias_correction(0.5, 2), 0.75);
/// ```
pub fn bias_correction(beta: f64, t: u64) -> f64 {
    1.0 - beta.powf(t as f64)
}

/// One step of Adam on X, with $`V_2 \leftarrow \beta_2 V_2 + (1 - \beta_2)\, X \odot X`$ (its
/// largest value so far with AMSGrad) and
/// ```math
/// N = \frac{M / (1 - \beta_1^t)}{\sqrt{V_2 / (1 - \beta_2^t)} + \varepsilon}
/// ```
/// Returns the new moments and N. Source: 1412.6980; law 12.
///
/// ```
/// use lora_pro_core::Preset;
/// use lora_pro_reference::{adamw::adam, state::Moments};
/// use nalgebra::dmatrix;
/// let zero = Moments { first: dmatrix![0.0], second: dmatrix![0.0], largest: None };
/// let (_, n) = adam(&Preset::Paper.hyper(), &zero, &dmatrix![-3.0], 1);
/// assert!((n[0] + 1.0).abs() < 1e-8); // x / (|x| + eps) at t = 1
/// ```
pub fn adam(hyper: &Hyper, old: &Moments, x: &DMatrix<f64>, t: u64) -> (Moments, DMatrix<f64>) {
    adam_with_square(hyper, old, x, &x.component_mul(x), t)
}

/// [`adam`] with $`X \odot X`$ given: the public code's differs ([`crate::quirk`]).
pub fn adam_with_square(
    hyper: &Hyper,
    old: &Moments,
    x: &DMatrix<f64>,
    square: &DMatrix<f64>,
    t: u64,
) -> (Moments, DMatrix<f64>) {
    // M = beta1 M + (1 - beta1) X
    let first = ema(hyper.beta1, &old.first, x);
    // V2 = beta2 V2 + (1 - beta2) X . X
    let second = ema(hyper.beta2, &old.second, square);
    // AMSGrad: the largest V2 so far takes the place of V2 below
    let largest = old.largest.as_ref().map(|largest| largest.sup(&second));
    // c1, c2 = 1 - beta1^t, 1 - beta2^t
    let c1 = bias_correction(hyper.beta1, t);
    let c2 = bias_correction(hyper.beta2, t);
    // N = (M / c1) / (sqrt(V2 / c2) + eps)
    let used = largest.as_ref().unwrap_or(&second);
    let root = used.map(|v| (v / c2).sqrt() + hyper.eps);
    let n = (&first / c1).component_div(&root);
    let moments = Moments {
        first,
        second,
        largest,
    };
    (moments, n)
}

/// [`adam`] on both matrices of a pair, each by itself. Plain LoRA feeds it (gA, gB), the efficient
/// mode (dA, dB). Returns the new moments and the direction. Source: paper, algorithm 2.
///
/// ```
/// use lora_pro_core::Preset;
/// use lora_pro_reference::adamw::adam_on_factors;
/// use lora_pro_reference::factors::FactorPair;
/// use lora_pro_reference::state::{FactorMoments, Moments};
/// use nalgebra::dmatrix;
/// let zero = Moments { first: dmatrix![0.0], second: dmatrix![0.0], largest: None };
/// let old = FactorMoments { a: zero.clone(), b: zero };
/// let pair = FactorPair { a: dmatrix![0.5], b: dmatrix![-20.0] };
/// let (_, direction) = adam_on_factors(&Preset::Paper.hyper(), &old, &pair, 1);
/// assert!((direction.a[0] - 1.0).abs() < 1e-7 && (direction.b[0] + 1.0).abs() < 1e-7);
/// ```
pub fn adam_on_factors(
    hyper: &Hyper,
    old: &FactorMoments,
    pair: &FactorPair,
    t: u64,
) -> (FactorMoments, FactorPair) {
    let (moments_a, a) = adam(hyper, &old.a, &pair.a, t);
    let (moments_b, b) = adam(hyper, &old.b, &pair.b, t);
    let moments = FactorMoments {
        a: moments_a,
        b: moments_b,
    };
    (moments, FactorPair { a, b })
}
