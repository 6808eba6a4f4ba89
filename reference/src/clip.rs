//! The two clips: of gradients before the adjustment, of updates after it.

use lora_pro_core::backend::ratio_or_zero;
use nalgebra::DMatrix;

use crate::factors::{FactorPair, Factors};

/// The factor that brings the global norm of all gradients down to a limit c:
/// $`\min(1, c / \lVert g \rVert)`$.
///
/// ```
/// use lora_pro_reference::clip::gradient_clip;
/// assert_eq!(gradient_clip(Some(1.0), 4.0), 0.25);
/// assert_eq!(gradient_clip(Some(1.0), 0.5), 1.0);
/// assert_eq!(gradient_clip(None, 4.0), 1.0);
/// ```
pub fn gradient_clip(c: Option<f64>, norm: f64) -> f64 {
    match c {
        Some(c) if norm > c => c / norm,
        _ => 1.0,
    }
}

/// The factor on the update of both factors that keeps it in the trust region of size c:
/// ```math
/// \min\left(1, \frac{c}{\lVert \Delta F \rVert / \lVert F \rVert}\right)
/// ```
/// where F is the factor with the larger norm (A, as PEFT starts adapters). The other one may be
/// zero or still small, and must grow freely. Both updates are scaled alike: E keeps its direction.
///
/// ```
/// use lora_pro_reference::{clip::update_clip, factors::{FactorPair, Factors}};
/// use nalgebra::dmatrix;
/// let factors = Factors { b: dmatrix![0.0], a: dmatrix![4.0], s: 1.0 };
/// let update = FactorPair { a: dmatrix![2.0], b: dmatrix![9.0] };
/// assert_eq!(update_clip(Some(0.25), &factors, &update), 0.5);
/// assert_eq!(update_clip(Some(0.75), &factors, &update), 1.0);
/// ```
pub fn update_clip(c: Option<f64>, factors: &Factors, update: &FactorPair) -> f64 {
    let relative =
        |update: &DMatrix<f64>, factor: &DMatrix<f64>| ratio_or_zero(update.norm(), factor.norm());
    let moved = if factors.a.norm() >= factors.b.norm() {
        relative(&update.a, &factors.a)
    } else {
        relative(&update.b, &factors.b)
    };
    match c {
        Some(c) if moved > c => c / moved,
        _ => 1.0,
    }
}
