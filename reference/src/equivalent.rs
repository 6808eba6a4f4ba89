//! The equivalent gradient: what a step on the factors does to W.

use nalgebra::DMatrix;

use crate::damping::Grams;
use crate::factors::{FactorPair, Factors};

/// A step $`-\eta\,(\mathrm{d}A, \mathrm{d}B)`$ on the factors moves W, to first order, by
/// $`-\eta E`$ with the m x n matrix
/// ```math
/// E = s\,(B \,\mathrm{d}A + \mathrm{d}B\, A)
/// ```
/// Source: paper, definition 1.
///
/// ```
/// use lora_pro_reference::{equivalent::equivalent_gradient, factors::{Factors, FactorPair}};
/// use nalgebra::dmatrix;
/// let factors = Factors { b: dmatrix![1.0; 0.0], a: dmatrix![0.0, 1.0], s: 2.0 };
/// let pair = FactorPair { a: dmatrix![3.0, 0.0], b: dmatrix![0.0; 5.0] };
/// assert_eq!(equivalent_gradient(&factors, &pair), dmatrix![6.0, 0.0; 0.0, 10.0]);
/// ```
pub fn equivalent_gradient(factors: &Factors, pair: &FactorPair) -> DMatrix<f64> {
    (&factors.b * &pair.a + &pair.b * &factors.a) * factors.s
}

/// The best E, from the full gradient g (m x n), which the closed form never sees:
/// ```math
/// E = P_B\, g + g P_A - P_B\, g P_A , \qquad
/// P_B = B S_B^+ B^\top , \; P_A = A^\top S_A^+ A
/// ```
/// the orthogonal projection of g on $`\{B Y + Z A\}`$. Forms the projectors, so it is for tests
/// and small examples. Source: laws 1 and 10.
///
/// ```
/// use lora_pro_core::Damping;
/// use lora_pro_reference::{damping::Grams, equivalent::tangent_projection, factors::Factors};
/// use nalgebra::dmatrix;
/// let factors = Factors { b: dmatrix![1.0; 0.0], a: dmatrix![0.0, 2.0], s: 3.0 };
/// let grams = Grams::of(&factors, Damping::None)?;
/// let g = dmatrix![1.0, 2.0; 3.0, 4.0];
/// // Only the entry outside of B's column space and of A's row space is out of reach.
/// assert_eq!(tangent_projection(&factors, &grams, &g), dmatrix![1.0, 2.0; 0.0, 4.0]);
/// # Ok::<(), lora_pro_core::Error>(())
/// ```
pub fn tangent_projection(factors: &Factors, grams: &Grams, g: &DMatrix<f64>) -> DMatrix<f64> {
    let columns = &factors.b * &grams.sb_inverse.root;
    let rows = grams.sa_inverse.root.transpose() * &factors.a;
    let pb = &columns * columns.transpose();
    let pa = rows.transpose() * &rows;
    &pb * g + g * &pa - &pb * g * &pa
}
