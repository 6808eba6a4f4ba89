//! The solution of $`\min \lVert E - g \rVert_F^2`$ over (dA, dB).

use nalgebra::DMatrix;

use crate::damping::{Grams, InverseRoot};
use crate::factors::{FactorPair, Factors};

/// The two parts of the closed form that do not depend on X.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// U, r x n.
    pub u: DMatrix<f64>,
    /// V, m x r, with $`B^\top V = 0`$.
    pub v: DMatrix<f64>,
}

impl Split {
    /// The equivalent gradient of the closed form, m x n: $`E = s\,(B U + V A)`$, since
    /// $`B X A - B X A`$ cancels. Source: law 3.
    ///
    /// ```
    /// use lora_pro_reference::{closed_form::Split, factors::Factors};
    /// use nalgebra::dmatrix;
    /// let factors = Factors { b: dmatrix![1.0; 0.0], a: dmatrix![0.0, 1.0], s: 2.0 };
    /// let split = Split { u: dmatrix![3.0, 0.0], v: dmatrix![0.0; 5.0] };
    /// assert_eq!(split.equivalent_gradient(&factors), dmatrix![6.0, 0.0; 0.0, 10.0]);
    /// ```
    pub fn equivalent_gradient(&self, factors: &Factors) -> DMatrix<f64> {
        (&factors.b * &self.u + &self.v * &factors.a) * factors.s
    }
}

/// The part of dA that does not depend on X, r x n:
/// ```math
/// U = \frac{1}{s^2}\, S_B^+ \, g_A
/// ```
/// Source: paper, theorem 2.1.
///
/// ```
/// use lora_pro_reference::{closed_form::u, damping::InverseRoot};
/// use nalgebra::dmatrix;
/// let sb_inverse = InverseRoot { root: dmatrix![0.5] };
/// assert_eq!(u(2.0, &sb_inverse, &dmatrix![16.0, 32.0]), dmatrix![1.0, 2.0]);
/// ```
pub fn u(s: f64, sb_inverse: &InverseRoot, grad_a: &DMatrix<f64>) -> DMatrix<f64> {
    sb_inverse.apply(grad_a) / (s * s)
}

/// The part of dB that does not depend on X, m x r:
/// ```math
/// V = \frac{1}{s^2}\, (I - P_B)\, g_B \, S_A^+ , \qquad P_B = B S_B^+ B^\top
/// ```
/// P_B is never formed. The projection is applied last: $`S_A^+`$ would magnify the rounding of one
/// that is applied first. Source: paper, theorem 2.1.
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
    let unprojected = grams.sa_inverse.apply_right(grad_b) / (factors.s * factors.s);
    project_out_columns_of_b(&factors.b, &grams.sb_inverse, &unprojected)
}

/// $`(I - P_B)\, y`$ for y of m rows, with $`P_B = B S_B^+ B^\top = (B R)(B R)^\top`$.
///
/// ```
/// use lora_pro_reference::{closed_form::project_out_columns_of_b, damping::InverseRoot};
/// use nalgebra::dmatrix;
/// let b = dmatrix![2.0; 0.0];
/// let sb_inverse = InverseRoot { root: dmatrix![0.5] };
/// assert_eq!(project_out_columns_of_b(&b, &sb_inverse, &dmatrix![5.0; 7.0]), dmatrix![0.0; 7.0]);
/// ```
pub fn project_out_columns_of_b(
    b: &DMatrix<f64>,
    sb_inverse: &InverseRoot,
    y: &DMatrix<f64>,
) -> DMatrix<f64> {
    let basis = b * &sb_inverse.root;
    y - &basis * (basis.transpose() * y)
}

/// [`u`] and [`v`] of the gradients (gA, gB).
///
/// ```
/// use lora_pro_core::Damping;
/// use lora_pro_reference::closed_form::{Split, split};
/// use lora_pro_reference::{damping::Grams, factors::{Factors, FactorPair}};
/// use nalgebra::dmatrix;
/// let factors = Factors { b: dmatrix![2.0; 0.0], a: dmatrix![2.0, 0.0], s: 1.0 };
/// let grams = Grams::of(&factors, Damping::None)?;
/// let gradients = FactorPair { a: dmatrix![8.0, 4.0], b: dmatrix![8.0; 4.0] };
/// let expected = Split { u: dmatrix![2.0, 1.0], v: dmatrix![0.0; 1.0] };
/// assert_eq!(split(&factors, &grams, &gradients), expected);
/// # Ok::<(), lora_pro_core::Error>(())
/// ```
pub fn split(factors: &Factors, grams: &Grams, gradients: &FactorPair) -> Split {
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
/// use lora_pro_reference::{closed_form::{adjusted, Split}, factors::{Factors, FactorPair}};
/// use nalgebra::dmatrix;
/// let factors = Factors { b: dmatrix![1.0; 0.0], a: dmatrix![0.0, 1.0], s: 1.0 };
/// let split = Split { u: dmatrix![5.0, 0.0], v: dmatrix![0.0; 7.0] };
/// let pair = adjusted(&factors, &split, &dmatrix![2.0]);
/// assert_eq!(pair, FactorPair { a: dmatrix![5.0, 2.0], b: dmatrix![-2.0; 7.0] });
/// ```
pub fn adjusted(factors: &Factors, split: &Split, x: &DMatrix<f64>) -> FactorPair {
    FactorPair {
        a: &split.u + x * &factors.a,
        b: &split.v - &factors.b * x,
    }
}
