//! The adjusted step never raises the loss, to first order.

use crate::closed_form::Split;
use crate::factors::FactorPair;

/// The first-order decrease of the loss per unit of learning rate:
/// ```math
/// \langle g, E \rangle = \langle g_A, U \rangle + \langle g_B, V \rangle = \lVert E \rVert_F^2 \ge 0
/// ```
/// Known without g and without anything m x n. The last equality holds without damping. Source:
/// paper, theorem 2.2; law 4.
///
/// ```
/// use lora_pro_reference::{closed_form::Split, descent::decrease, factors::FactorPair};
/// use nalgebra::dmatrix;
/// let gradients = FactorPair { a: dmatrix![1.0, 2.0], b: dmatrix![3.0; 4.0] };
/// let split = Split { u: dmatrix![1.0, 1.0], v: dmatrix![0.0; 2.0] };
/// assert_eq!(decrease(&gradients, &split), 11.0);
/// ```
pub fn decrease(gradients: &FactorPair, split: &Split) -> f64 {
    gradients.a.dot(&split.u) + gradients.b.dot(&split.v)
}
