//! The solution of $`\min \lVert E - g \rVert_F^2`$ over (dA, dB).

use nalgebra::DMatrix;

use crate::damping::{Grams, Inverse};
use crate::factors::{Factors, Pair};

/// The two parts of the closed form that do not depend on X.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// U, r x n.
    pub u: DMatrix<f64>,
    /// V, m x r, with $`B^\top V = 0`$.
    pub v: DMatrix<f64>,
}

/// The part of dA that does not depend on X, r x n:
/// ```math
/// U = \frac{1}{s^2}\, S_B^+ \, g_A
/// ```
/// Source: paper, theorem 2.1.
///
/// ```
/// use lora_pro_reference::{closed_form::u, damping::Inverse};
/// use nalgebra::dmatrix;
/// let sb_inverse = Inverse { root: dmatrix![0.5] };
/// assert_eq!(u(2.0, &sb_inverse, &dmatrix![16.0, 32.0]), dmatrix![1.0, 2.0]);
/// ```
pub fn u(s: f64, sb_inverse: &Inverse, grad_a: &DMatrix<f64>) -> DMatrix<f64> {
    sb_inverse.times(grad_a) / (s * s)
}

/// The part of dB that does not depend on X, m x r:
/// ```math
/// V = \frac{1}{s^2}\, (I - P_B)\, g_B \, S_A^+ , \qquad P_B = B S_B^+ B^\top
/// ```
/// P_B is never formed, and it comes last: projecting first would let $`S_A^+`$ magnify the
/// projection's rounding. Source: paper, theorem 2.1.
///
/// ```
/// use lora_pro_core::Damping;
/// use lora_pro_reference::{closed_form::v, damping::Grams, factors::Factors};
/// use nalgebra::dmatrix;
/// let factors = Factors { b: dmatrix![1.0; 0.0], a: dmatrix![2.0, 0.0], s: 1.0 };
/// let grams = Grams::of(&factors, Damping::None)?;
/// // The first row of gB lies in B's column space and is projected away.
/// assert_eq!(v(&factors, &grams, &dmatrix![8.0; 4.0]), dmatrix![0.0; 1.0]);
/// # Ok::<(), lora_pro_core::Error>(())
/// ```
pub fn v(factors: &Factors, grams: &Grams, grad_b: &DMatrix<f64>) -> DMatrix<f64> {
    let unprojected = grams.sa_inverse.times_left(grad_b) / (factors.s * factors.s);
    outside_columns(&factors.b, &grams.sb_inverse, &unprojected)
}

/// $`(I - P_B)\, y`$ for y of m rows, with $`P_B = B S_B^+ B^\top = (B R)(B R)^\top`$.
///
/// ```
/// use lora_pro_reference::{closed_form::outside_columns, damping::Inverse};
/// use nalgebra::dmatrix;
/// let b = dmatrix![2.0; 0.0];
/// let sb_inverse = Inverse { root: dmatrix![0.5] };
/// assert_eq!(outside_columns(&b, &sb_inverse, &dmatrix![5.0; 7.0]), dmatrix![0.0; 7.0]);
/// ```
pub fn outside_columns(b: &DMatrix<f64>, sb_inverse: &Inverse, y: &DMatrix<f64>) -> DMatrix<f64> {
    let basis = b * &sb_inverse.root;
    y - &basis * (basis.transpose() * y)
}

/// [`u`] and [`v`] of the gradients (gA, gB).
///
/// ```
/// use lora_pro_core::Damping;
/// use lora_pro_reference::closed_form::{Split, split};
/// use lora_pro_reference::{damping::Grams, factors::{Factors, Pair}};
/// use nalgebra::dmatrix;
/// let factors = Factors { b: dmatrix![2.0; 0.0], a: dmatrix![2.0, 0.0], s: 1.0 };
/// let grams = Grams::of(&factors, Damping::None)?;
/// let gradients = Pair { a: dmatrix![8.0, 4.0], b: dmatrix![8.0; 4.0] };
/// let expected = Split { u: dmatrix![2.0, 1.0], v: dmatrix![0.0; 1.0] };
/// assert_eq!(split(&factors, &grams, &gradients), expected);
/// # Ok::<(), lora_pro_core::Error>(())
/// ```
pub fn split(factors: &Factors, grams: &Grams, gradients: &Pair) -> Split {
    Split {
        u: u(factors.s, &grams.sb_inverse, &gradients.a),
        v: v(factors, grams, &gradients.b),
    }
}

/// The adjusted gradients, for any X (r x r):
/// ```math
/// \mathrm{d}A = U + X A \qquad \mathrm{d}B = V - B X
/// ```
/// Source: paper, theorem 2.1.
///
/// ```
/// use lora_pro_reference::{closed_form::{adjusted, Split}, factors::{Factors, Pair}};
/// use nalgebra::dmatrix;
/// let factors = Factors { b: dmatrix![1.0; 0.0], a: dmatrix![0.0, 1.0], s: 1.0 };
/// let split = Split { u: dmatrix![5.0, 0.0], v: dmatrix![0.0; 7.0] };
/// let pair = adjusted(&factors, &split, &dmatrix![2.0]);
/// assert_eq!(pair, Pair { a: dmatrix![5.0, 2.0], b: dmatrix![-2.0; 7.0] });
/// ```
pub fn adjusted(factors: &Factors, split: &Split, x: &DMatrix<f64>) -> Pair {
    Pair {
        a: &split.u + x * &factors.a,
        b: &split.v - &factors.b * x,
    }
}
