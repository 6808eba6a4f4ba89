//! The full mode: Adam in the m x n space of W, on the equivalent gradient.

use lora_pro_core::{DType, Hyper};
use nalgebra::DMatrix;

use crate::adamw::{Moments, adam_with_square};

/// How E is squared into the second moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Square {
    /// As it is.
    #[default]
    Exact,
    /// A quirk of the public code: from the second step on, E is rounded to bf16 first. Only for
    /// replaying what that code computed.
    Bf16FromSecondStep,
}

impl Square {
    /// E . E, m x n.
    ///
    /// ```
    /// use lora_pro_reference::full::Square;
    /// use nalgebra::dmatrix;
    /// let e = dmatrix![1.001];
    /// assert_eq!(Square::Exact.of(&e, 2)[0], 1.001 * 1.001);
    /// assert_eq!(Square::Bf16FromSecondStep.of(&e, 2)[0], 1.0);
    /// assert_eq!(Square::Bf16FromSecondStep.of(&e, 1)[0], 1.001 * 1.001);
    /// ```
    pub fn of(self, e: &DMatrix<f64>, t: u64) -> DMatrix<f64> {
        match self {
            Square::Bf16FromSecondStep if t > 1 => e.map(|x| DType::Bf16.round(x).powi(2)),
            _ => e.component_mul(e),
        }
    }
}

/// Adam on E, m x n: returns the new moments and N, which takes the place of g:
/// ```math
/// M \leftarrow \beta_1 M + (1-\beta_1) E , \quad
/// V_2 \leftarrow \beta_2 V_2 + (1-\beta_2)\, E \odot E , \quad
/// N = \frac{M / (1-\beta_1^t)}{\sqrt{V_2 / (1-\beta_2^t)} + \varepsilon}
/// ```
/// Then $`g_A \leftarrow s B^\top N`$, $`g_B \leftarrow s N A^\top`$, and the closed form again.
/// State 2 m n. Source: paper, algorithm 1; law 12.
///
/// ```
/// use lora_pro_core::Preset;
/// use lora_pro_reference::{adamw::Moments, full::{normalized, Square}};
/// use nalgebra::dmatrix;
/// let zero = Moments { first: dmatrix![0.0, 0.0], second: dmatrix![0.0, 0.0], largest: None };
/// let (_, n) = normalized(&Preset::Paper.hyper(), &zero, &dmatrix![5.0, -0.1], 1, Square::Exact);
/// assert!((n[0] - 1.0).abs() < 1e-6 && (n[1] + 1.0).abs() < 1e-6);
/// ```
pub fn normalized(
    hyper: &Hyper,
    old: &Moments,
    e: &DMatrix<f64>,
    t: u64,
    square: Square,
) -> (Moments, DMatrix<f64>) {
    adam_with_square(hyper, old, e, &square.of(e, t), t)
}
