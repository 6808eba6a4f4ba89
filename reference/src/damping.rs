//! Damped inverses of the Gram matrices. All regularisation happens in this file.

use lora_pro_core::backend::NULL_EIGENVALUE;
use lora_pro_core::{Damping, Error};
use nalgebra::DMatrix;

use crate::eigen::symmetric_eigen;
use crate::factors::{Factors, gram_a, gram_b};

/// Both Gram matrices and their inverses, each r x r.
#[derive(Clone, Debug)]
pub struct Grams {
    /// $`S_B = B^\top B`$.
    pub sb: DMatrix<f64>,
    /// $`S_A = A A^\top`$.
    pub sa: DMatrix<f64>,
    /// $`S_B^+`$, damped.
    pub sb_inverse: InverseRoot,
    /// $`S_A^+`$, damped.
    pub sa_inverse: InverseRoot,
}

impl Grams {
    /// The Gram matrices of `factors` and their damped inverses.
    ///
    /// # Errors
    /// As [`damped_inverse`].
    pub fn of(factors: &Factors, damping: Damping) -> Result<Self, Error> {
        let (sb, sa) = (gram_b(&factors.b), gram_a(&factors.a));
        Ok(Grams {
            sb_inverse: damped_inverse(&sb, damping, factors.b.nrows())?,
            sa_inverse: damped_inverse(&sa, damping, factors.a.ncols())?,
            sb,
            sa,
        })
    }
}

/// A damped inverse $`S^+ = R R^\top`$ (r x r), kept as its root R.
///
/// $`B R`$ has orthonormal columns, so multiplying by R twice loses the condition number of B in
/// accuracy, where multiplying by $`S^+`$ once would lose its square.
#[derive(Clone, Debug, PartialEq)]
pub struct InverseRoot {
    /// R, r x r.
    pub root: DMatrix<f64>,
}

impl InverseRoot {
    /// $`S^+ y`$ for y of r rows.
    ///
    /// ```
    /// use lora_pro_reference::damping::InverseRoot;
    /// use nalgebra::dmatrix;
    /// let inverse = InverseRoot { root: dmatrix![3.0] };
    /// assert_eq!(inverse.apply(&dmatrix![1.0, 2.0]), dmatrix![9.0, 18.0]);
    /// ```
    pub fn apply(&self, y: &DMatrix<f64>) -> DMatrix<f64> {
        &self.root * (self.root.transpose() * y)
    }

    /// $`y\, S^+`$ for y of r columns.
    ///
    /// ```
    /// use lora_pro_reference::damping::InverseRoot;
    /// use nalgebra::dmatrix;
    /// let inverse = InverseRoot { root: dmatrix![3.0] };
    /// assert_eq!(inverse.apply_right(&dmatrix![1.0; 2.0]), dmatrix![9.0; 18.0]);
    /// ```
    pub fn apply_right(&self, y: &DMatrix<f64>) -> DMatrix<f64> {
        (y * &self.root) * self.root.transpose()
    }

    /// $`S^+`$ itself.
    ///
    /// ```
    /// use lora_pro_reference::damping::InverseRoot;
    /// use nalgebra::dmatrix;
    /// assert_eq!(InverseRoot { root: dmatrix![3.0] }.matrix(), dmatrix![9.0]);
    /// ```
    pub fn matrix(&self) -> DMatrix<f64> {
        &self.root * self.root.transpose()
    }
}

/// The damped inverse of a Gram matrix $`S = Q \,\mathrm{diag}(\lambda)\, Q^\top`$ (r x r):
/// ```math
/// S^+ = Q \,\mathrm{diag}(f(\lambda))\, Q^\top = R R^\top , \qquad
/// R = Q \,\mathrm{diag}(\sqrt{f(\lambda)})
/// ```
///
/// | damping | f |
/// |---|---|
/// | `None` | $`1/\lambda`$, 0 for $`\lambda \le 100\, k \varepsilon \lambda_\mathrm{max}`$ ([`NULL_EIGENVALUE`]) |
/// | `Absolute(d)` | $`1/(\lambda + d)`$ |
/// | `Relative(c)` | $`1/(\lambda + c \lambda_\mathrm{max})`$, 0 where $`S = 0`$ |
/// | `Cutoff(c)` | $`1/\lambda`$, 0 for $`\lambda \le c \lambda_\mathrm{max}`$ |
///
/// `k` is the number of products summed in each entry of S (m for S_B, n for S_A): rounding moves
/// each eigenvalue by up to $`k \varepsilon \lambda_\mathrm{max}`$. An eigenvalue up to a hundred times
/// that has less than two digits, and its inverse would make E longer than g. S = 0 has the
/// pseudo-inverse 0, so the first step, where B = 0, needs no case of its own (law 11).
///
/// # Errors
/// As [`symmetric_eigen`].
///
/// ```
/// use lora_pro_core::Damping;
/// use lora_pro_reference::damping::damped_inverse;
/// use nalgebra::dmatrix;
/// let s = dmatrix![4.0, 0.0; 0.0, 0.0];
/// assert_eq!(damped_inverse(&s, Damping::None, 2)?.matrix(), dmatrix![0.25, 0.0; 0.0, 0.0]);
/// let shifted = damped_inverse(&s, Damping::Absolute(1.0), 2)?.matrix();
/// assert!((&shifted - dmatrix![0.2, 0.0; 0.0, 1.0]).norm() < 1e-15);
/// assert_eq!(damped_inverse(&s, Damping::Relative(0.25), 2)?.matrix(), shifted);
/// # Ok::<(), lora_pro_core::Error>(())
/// ```
pub fn damped_inverse(s: &DMatrix<f64>, damping: Damping, k: usize) -> Result<InverseRoot, Error> {
    let eigen = symmetric_eigen(s)?;
    let largest = eigen.values.max().max(0.0);
    let cut = |c: f64| move |l: f64| if l <= c * largest { 0.0 } else { 1.0 / l };
    let shift = |d: f64| move |l: f64| if l + d <= 0.0 { 0.0 } else { 1.0 / (l + d) };
    let inverted = match damping {
        Damping::None => eigen
            .values
            .map(cut(NULL_EIGENVALUE * k as f64 * f64::EPSILON)),
        Damping::Absolute(d) => eigen.values.map(shift(d)),
        Damping::Relative(c) => eigen.values.map(shift(c * largest)),
        Damping::Cutoff(c) => eigen.values.map(cut(c)),
    };
    let root = eigen.vectors * DMatrix::from_diagonal(&inverted.map(f64::sqrt));
    Ok(InverseRoot { root })
}
