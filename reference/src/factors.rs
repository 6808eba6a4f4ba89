//! The adapter, its gradients and its Gram matrices.

use nalgebra::DMatrix;

/// The factors of $`W = W_0 + s B A`$.
#[derive(Clone, Debug, PartialEq)]
pub struct Factors {
    /// B, m x r.
    pub b: DMatrix<f64>,
    /// A, r x n.
    pub a: DMatrix<f64>,
    /// The scale s.
    pub s: f64,
}

/// One matrix of the shape of each factor: gradients (gA, gB), adjusted gradients (dA, dB), updates.
#[derive(Clone, Debug, PartialEq)]
pub struct FactorPair {
    /// Of A's shape, r x n.
    pub a: DMatrix<f64>,
    /// Of B's shape, m x r.
    pub b: DMatrix<f64>,
}

impl FactorPair {
    /// Both matrices times a number.
    pub fn scaled(&self, factor: f64) -> FactorPair {
        FactorPair {
            a: &self.a * factor,
            b: &self.b * factor,
        }
    }
}

/// What backpropagation gives for the factors when the full gradient is g (m x n):
/// ```math
/// g_A = s\, B^\top g \qquad g_B = s\, g A^\top
/// ```
/// g_A is r x n, g_B is m x r. Source: chain rule; paper, section 2.
///
/// ```
/// use lora_pro_reference::factors::{factor_gradients, Factors};
/// use nalgebra::dmatrix;
/// let factors = Factors { b: dmatrix![1.0; 2.0], a: dmatrix![3.0, 0.0], s: 2.0 };
/// let gradients = factor_gradients(&factors, &dmatrix![1.0, 0.0; 0.0, 1.0]);
/// assert_eq!(gradients.a, dmatrix![2.0, 4.0]);
/// assert_eq!(gradients.b, dmatrix![6.0; 0.0]);
/// ```
pub fn factor_gradients(factors: &Factors, g: &DMatrix<f64>) -> FactorPair {
    FactorPair {
        a: factors.b.transpose() * g * factors.s,
        b: g * factors.a.transpose() * factors.s,
    }
}

/// $`S_A = A A^\top`$, r x r.
///
/// ```
/// use nalgebra::dmatrix;
/// assert_eq!(lora_pro_reference::factors::gram_a(&dmatrix![3.0, 4.0]), dmatrix![25.0]);
/// ```
pub fn gram_a(a: &DMatrix<f64>) -> DMatrix<f64> {
    a * a.transpose()
}

/// $`S_B = B^\top B`$, r x r.
///
/// ```
/// use nalgebra::dmatrix;
/// assert_eq!(lora_pro_reference::factors::gram_b(&dmatrix![3.0; 4.0]), dmatrix![25.0]);
/// ```
pub fn gram_b(b: &DMatrix<f64>) -> DMatrix<f64> {
    b.transpose() * b
}
