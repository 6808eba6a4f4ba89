//! The three choices of X, r x r. E is the same for each (law 3); the factors' path is not.

use lora_pro_core::backend::NULL_EIGENVALUE;
use lora_pro_core::{Error, XChoice};
use nalgebra::DMatrix;

use crate::closed_form::Split;
use crate::damping::Grams;
use crate::eigen::symmetric_eigen;
use crate::factors::{FactorPair, Factors};

/// The chosen X: [`sylvester`], [`symmetric`] or 0, r x r.
///
/// # Errors
/// As [`sylvester`].
///
/// ```
/// use lora_pro_core::{Damping, XChoice};
/// use lora_pro_reference::factors::{Factors, factor_gradients};
/// use lora_pro_reference::{closed_form::split, damping::Grams, x::choose};
/// use nalgebra::dmatrix;
/// let factors = Factors { b: dmatrix![1.0; 0.0], a: dmatrix![1.0, 0.0], s: 1.0 };
/// let gradients = factor_gradients(&factors, &dmatrix![6.0, 1.0; 1.0, 1.0]);
/// let grams = Grams::of(&factors, Damping::None)?;
/// let split = split(&factors, &grams, &gradients);
/// let x = |choice| choose(choice, &factors, &grams, &gradients, &split);
/// // With equal Gram matrices the Sylvester X shares P_B g P_A equally, too.
/// assert_eq!(x(XChoice::Sylvester)?, dmatrix![-3.0]);
/// assert_eq!(x(XChoice::Symmetric)?, dmatrix![-3.0]);
/// assert_eq!(x(XChoice::Zero)?, dmatrix![0.0]);
/// # Ok::<(), lora_pro_core::Error>(())
/// ```
pub fn choose(
    choice: XChoice,
    factors: &Factors,
    grams: &Grams,
    gradients: &FactorPair,
    split: &Split,
) -> Result<DMatrix<f64>, Error> {
    match choice {
        XChoice::Sylvester => sylvester(&grams.sb, &grams.sa, &(-&split.u * factors.a.transpose())),
        XChoice::Symmetric => Ok(symmetric(factors, grams, &gradients.b)),
        XChoice::Zero => Ok(DMatrix::zeros(factors.a.nrows(), factors.a.nrows())),
    }
}

/// The X that keeps (dA, dB) nearest to (gA, gB). It solves
/// ```math
/// S_B X + X S_A = C , \qquad C = -U A^\top
/// ```
/// With $`S_B = Q_b \,\mathrm{diag}(b)\, Q_b^\top`$ and $`S_A = Q_a \,\mathrm{diag}(a)\, Q_a^\top`$:
/// ```math
/// X = Q_b \left[ \frac{(Q_b^\top C Q_a)_{ij}}{b_i + a_j} \right] Q_a^\top
/// ```
/// Where $`b_i + a_j \le 100\, r \varepsilon\, (\lambda_\mathrm{max}(S_B) + \lambda_\mathrm{max}(S_A))`$
/// ([`NULL_EIGENVALUE`]) both directions are null. The equation is then consistent only for a zero
/// entry of the numerator, and X takes the solution of least norm, 0. The Gram matrices are not
/// damped here. Source: paper, theorem 2.3; laws 5, 6, 15.
///
/// # Errors
/// As [`symmetric_eigen`].
///
/// ```
/// use lora_pro_reference::x::sylvester;
/// use nalgebra::dmatrix;
/// let x = sylvester(&dmatrix![1.0], &dmatrix![3.0], &dmatrix![8.0])?;
/// assert_eq!(x, dmatrix![2.0]);
/// # Ok::<(), lora_pro_core::Error>(())
/// ```
pub fn sylvester(
    sb: &DMatrix<f64>,
    sa: &DMatrix<f64>,
    c: &DMatrix<f64>,
) -> Result<DMatrix<f64>, Error> {
    let (eb, ea) = (symmetric_eigen(sb)?, symmetric_eigen(sa)?);
    let largest = eb.values.max() + ea.values.max();
    let null_threshold = NULL_EIGENVALUE * sb.nrows() as f64 * f64::EPSILON * largest;
    let rotated = eb.vectors.transpose() * c * &ea.vectors;
    let divided = DMatrix::from_fn(rotated.nrows(), rotated.ncols(), |i, j| {
        let sum = eb.values[i] + ea.values[j];
        if sum <= null_threshold {
            0.0
        } else {
            rotated[(i, j)] / sum
        }
    });
    Ok(&eb.vectors * divided * ea.vectors.transpose())
}

/// The X that shares $`P_B\, g\, P_A`$ equally between the two factors:
/// ```math
/// X = -\frac{1}{2 s^2}\, S_B^+ \, B^\top g_B \, S_A^+
/// ```
/// ```
/// use lora_pro_core::Damping;
/// use lora_pro_reference::{damping::Grams, factors::Factors, x::symmetric};
/// use nalgebra::dmatrix;
/// let factors = Factors { b: dmatrix![1.0; 0.0], a: dmatrix![2.0, 0.0], s: 1.0 };
/// let grams = Grams::of(&factors, Damping::None)?;
/// assert_eq!(symmetric(&factors, &grams, &dmatrix![8.0; 4.0]), dmatrix![-1.0]);
/// # Ok::<(), lora_pro_core::Error>(())
/// ```
pub fn symmetric(factors: &Factors, grams: &Grams, grad_b: &DMatrix<f64>) -> DMatrix<f64> {
    let inner = grams
        .sa_inverse
        .apply_right(&(factors.b.transpose() * grad_b));
    grams.sb_inverse.apply(&inner) * (-0.5 / (factors.s * factors.s))
}
