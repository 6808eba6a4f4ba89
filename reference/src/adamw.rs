//! Adam's recurrence on a matrix of any shape: on dA and dB, on E, on a bias.

use lora_pro_core::Hyper;
use nalgebra::DMatrix;

/// Both moments of a matrix, of its shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// M, the running mean of X.
    pub first: DMatrix<f64>,
    /// V2, the running mean of X.X.
    pub second: DMatrix<f64>,
    /// The largest V2 so far, where AMSGrad is on.
    pub largest: Option<DMatrix<f64>>,
}

/// A running mean:
/// ```math
/// M \leftarrow \beta M + (1 - \beta) X
/// ```
///
/// ```
/// use nalgebra::dmatrix;
/// let mean = lora_pro_reference::adamw::running_mean(0.75, &dmatrix![4.0], &dmatrix![8.0]);
/// assert_eq!(mean, dmatrix![5.0]);
/// ```
pub fn running_mean(beta: f64, mean: &DMatrix<f64>, x: &DMatrix<f64>) -> DMatrix<f64> {
    mean * beta + x * (1.0 - beta)
}

/// What a running mean that started from 0 is divided by at step t = 1, 2, ...:
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
/// use lora_pro_reference::adamw::{adam, Moments};
/// use nalgebra::dmatrix;
/// let zero = Moments { first: dmatrix![0.0], second: dmatrix![0.0], largest: None };
/// let (_, n) = adam(&Preset::Paper.hyper(), &zero, &dmatrix![-3.0], 1);
/// assert!((n[0] + 1.0).abs() < 1e-8); // E / (|E| + eps) at t = 1
/// ```
pub fn adam(hyper: &Hyper, old: &Moments, x: &DMatrix<f64>, t: u64) -> (Moments, DMatrix<f64>) {
    adam_with_square(hyper, old, x, &x.component_mul(x), t)
}

/// [`adam`] with the square of X given: the public code's differs ([`crate::full::Square`]).
pub fn adam_with_square(
    hyper: &Hyper,
    old: &Moments,
    x: &DMatrix<f64>,
    square: &DMatrix<f64>,
    t: u64,
) -> (Moments, DMatrix<f64>) {
    let first = running_mean(hyper.beta1, &old.first, x);
    let second = running_mean(hyper.beta2, &old.second, square);
    let largest = old.largest.as_ref().map(|largest| largest.sup(&second));
    let c1 = bias_correction(hyper.beta1, t);
    let c2 = bias_correction(hyper.beta2, t);
    let root = largest
        .as_ref()
        .unwrap_or(&second)
        .map(|v| (v / c2).sqrt() + hyper.eps);
    let n = (&first / c1).component_div(&root);
    (
        Moments {
            first,
            second,
            largest,
        },
        n,
    )
}
