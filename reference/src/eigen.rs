//! Symmetric eigen-decomposition, guarded.

use lora_pro_core::Error;
use nalgebra::{DMatrix, DVector, SymmetricEigen};

/// Iteration limit of the QR algorithm, which needs two or three per eigenvalue.
const ITERATION_LIMIT: usize = 10_000;

/// $`S = Q \,\mathrm{diag}(\lambda)\, Q^\top`$ of a symmetric r x r matrix.
#[derive(Clone, Debug)]
pub struct Eigen {
    /// The eigenvalues $`\lambda`$, in no particular order.
    pub values: DVector<f64>,
    /// Q: orthogonal, one eigenvector per column.
    pub vectors: DMatrix<f64>,
}

/// $`S = Q \,\mathrm{diag}(\lambda)\, Q^\top`$ for a symmetric r x r matrix.
///
/// # Errors
/// [`Error::Invalid`] where S has a NaN or an infinity (the solver itself would let them pass),
/// [`Error::NotConverged`] at the iteration limit.
///
/// ```
/// use lora_pro_reference::eigen::symmetric_eigen;
/// use nalgebra::{dmatrix, DMatrix};
/// let eigen = symmetric_eigen(&dmatrix![2.0, 1.0; 1.0, 2.0])?;
/// let mut values: Vec<f64> = eigen.values.iter().copied().collect();
/// values.sort_by(f64::total_cmp);
/// assert!((values[0] - 1.0).abs() < 1e-15 && (values[1] - 3.0).abs() < 1e-15);
/// assert!(symmetric_eigen(&dmatrix![f64::NAN]).is_err());
/// # Ok::<(), lora_pro_core::Error>(())
/// ```
pub fn symmetric_eigen(s: &DMatrix<f64>) -> Result<Eigen, Error> {
    if let Some(bad) = s.iter().find(|x| !x.is_finite()) {
        return Err(Error::invalid("a Gram matrix", "entry", bad, "finite"));
    }
    let not_converged = Error::NotConverged {
        what: "the symmetric eigen-decomposition",
        limit: ITERATION_LIMIT,
    };
    let found =
        SymmetricEigen::try_new(s.clone(), f64::EPSILON, ITERATION_LIMIT).ok_or(not_converged)?;
    Ok(Eigen {
        values: found.eigenvalues,
        vectors: found.eigenvectors,
    })
}
