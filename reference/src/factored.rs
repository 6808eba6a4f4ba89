//! The factored mode: the full mode's quality without anything of size m n.
//!
//! The functions here form m x n matrices where that is what the formula says: this is the
//! reference. A backend does the same with thin products only.

use lora_pro_core::{Damping, Error, Hyper};
use nalgebra::DMatrix;

use crate::adamw::{bias_correction, ema};
use crate::closed_form::{Split, project_out_columns_of_b, split};
use crate::damping::Grams;
use crate::direction::closed_form_for_full_gradient;
use crate::factors::{FactorPair, Factors};
use crate::state::{FactoredMoments, Means, OptimizerState};
use crate::update::{StepOutcome, StepParams, Update};

/// One step of the factored mode from the gradients (gA, gB). State r (m + n) + m + n.
/// ```text
/// (U, V)   = closed_form(gA, gB)
/// Y        = beta1 Y + (1 - beta1) s U
/// Z        = beta1 Z + (1 - beta1) s V         so that M = B Y + Z A
/// row      = beta2 row + (1 - beta2) (mean over j of E_ij^2)
/// col      = beta2 col + (1 - beta2) (mean over i of E_ij^2)
/// c1, c2   = 1 - beta1^t, 1 - beta2^t
/// a_i      = 1 / (sqrt(row_i / c2) + eps)
/// b_j      = sqrt(mean(row) / c2) / (sqrt(col_j / c2) + eps)
/// N        = diag(a) (M / c1) diag(b)          of rank at most 2r
/// (DA, DB) = closed_form(s B'N, s N A')
///
/// after the update, with the new A, B and the old ones in M:
/// Y        = SB^+ B'M
/// Z        = (I - PB) M A' SA^+
/// ```
///
/// # Errors
/// As [`Grams::of`].
///
/// ```
/// use lora_pro_core::{Damping, Method, Preset};
/// use lora_pro_reference::factored::{self, mean_squares};
/// use lora_pro_reference::factors::{Factors, factor_gradients};
/// use lora_pro_reference::{state::FactoredMoments, update::StepParams};
/// use nalgebra::dmatrix;
/// let hyper = Preset::Paper.hyper().method(Method::Factored).damping(Damping::None);
/// let params = StepParams { hyper: &hyper, lr: 0.5, t: 1, quirk: Default::default() };
/// let factors = Factors { b: dmatrix![0.0; 0.0], a: dmatrix![1.0], s: 1.0 };
/// let (y, z) = (dmatrix![0.0], dmatrix![0.0; 0.0]);
/// let old = FactoredMoments { y, z, means: mean_squares(&dmatrix![0.0; 0.0]), largest: None };
/// let gradients = factor_gradients(&factors, &dmatrix![-4.0; 0.1]);
/// let new = factored::step(&params, &factors, &gradients, &old)?.update.factors;
/// // With a single column the factored second moment is exact: the same step as the full mode's.
/// assert!((&new.b * &new.a - dmatrix![0.5; -0.5]).norm() < 1e-7);
/// # Ok::<(), lora_pro_core::Error>(())
/// ```
pub fn step(
    params: &StepParams<'_>,
    factors: &Factors,
    gradients: &FactorPair,
    old: &FactoredMoments,
) -> Result<StepOutcome, Error> {
    let StepParams { hyper, t, .. } = *params;
    // SA^+, SB^+, damped
    let grams = Grams::of(factors, hyper.damping)?;
    // U, V of (gA, gB)
    let split = split(factors, &grams, gradients);
    // Y, Z, row, col
    let moments = update_moments(hyper, factors, old, &split);
    // N = diag(a) (M / c1) diag(b)
    let n = normalized_gradient(hyper, factors, &moments, t);
    // (DA, DB) = closed_form(s B'N, s N A')
    let direction = closed_form_for_full_gradient(hyper, factors, &grams, &n)?;
    // UA, UB = lr DA, lr lr_ratio DB, clipped;  A = decay_A A - UA,  B = decay_B B - UB
    let update = Update::along(params, factors, &direction);
    // Y = SB^+ B'M, Z = (I - PB) M A' SA^+
    let moments = transported(factors, &moments, &update.factors, hyper.damping)?;
    Ok(StepOutcome {
        update,
        state: OptimizerState::Factored(moments),
        equivalent_norm: split.equivalent_gradient(factors).norm(),
    })
}

/// The mean square of each row and of each column of E, m x n:
/// ```math
/// \mathrm{row}_i = \frac{1}{n} \sum_j E_{ij}^2 \qquad
/// \mathrm{col}_j = \frac{1}{m} \sum_i E_{ij}^2
/// ```
/// A backend uses $`E = L_e R_e`$, $`L_e = [B \; sV]`$, $`R_e = [sU ; A]`$ and 2r x 2r Gram
/// matrices. Source: 1804.04235, algorithm 4.
///
/// ```
/// use lora_pro_reference::factored::mean_squares;
/// use nalgebra::{dmatrix, dvector};
/// let means = mean_squares(&dmatrix![1.0, 3.0; 1.0, 1.0]);
/// assert_eq!(means.row, dvector![5.0, 1.0]);
/// assert_eq!(means.col.transpose(), dvector![1.0, 5.0]);
/// ```
pub fn mean_squares(e: &DMatrix<f64>) -> Means {
    let square = e.component_mul(e);
    Means {
        row: square.column_sum() / e.ncols() as f64,
        col: square.row_sum() / e.nrows() as f64,
    }
}

/// The moments with this step's U and V:
/// ```math
/// Y \leftarrow \beta_1 Y + (1-\beta_1)\, sU , \quad Z \leftarrow \beta_1 Z + (1-\beta_1)\, sV ,
/// ```
/// and the running means of E's mean squares with $`\beta_2`$. (Y, Z) must already belong to the
/// present factors: see [`transported`].
///
/// ```
/// use lora_pro_core::Preset;
/// use lora_pro_reference::closed_form::Split;
/// use lora_pro_reference::factored::{mean_squares, update_moments};
/// use lora_pro_reference::{factors::Factors, state::FactoredMoments};
/// use nalgebra::{dmatrix, dvector};
/// let hyper = Preset::Paper.hyper().beta1(0.5).beta2(0.75);
/// let factors = Factors { b: dmatrix![1.0; 0.0], a: dmatrix![1.0, 0.0], s: 2.0 };
/// let zero = FactoredMoments {
///     y: dmatrix![0.0, 0.0],
///     z: dmatrix![0.0; 0.0],
///     means: mean_squares(&dmatrix![0.0, 0.0; 0.0, 0.0]),
///     largest: None,
/// };
/// let split = Split { u: dmatrix![1.0, 2.0], v: dmatrix![0.0; 3.0] };
/// let new = update_moments(&hyper, &factors, &zero, &split);
/// assert_eq!((new.y, new.z), (dmatrix![1.0, 2.0], dmatrix![0.0; 3.0]));
/// // E = [2 4; 6 0], so that its rows have mean squares 10 and 18.
/// assert_eq!(new.means.row, dvector![2.5, 4.5]);
/// ```
pub fn update_moments(
    hyper: &Hyper,
    factors: &Factors,
    old: &FactoredMoments,
    split: &Split,
) -> FactoredMoments {
    // Y = beta1 Y + (1 - beta1) s U, Z = beta1 Z + (1 - beta1) s V
    let y = ema(hyper.beta1, &old.y, &(&split.u * factors.s));
    let z = ema(hyper.beta1, &old.z, &(&split.v * factors.s));
    // row, col = beta2 row, col + (1 - beta2) (mean squares of E's rows, columns)
    let new = mean_squares(&split.equivalent_gradient(factors));
    let means = Means {
        row: &old.means.row * hyper.beta2 + new.row * (1.0 - hyper.beta2),
        col: &old.means.col * hyper.beta2 + new.col * (1.0 - hyper.beta2),
    };
    // AMSGrad: the largest so far take their place in N
    let largest = old.largest.as_ref().map(|largest| Means {
        row: largest.row.sup(&means.row),
        col: largest.col.sup(&means.col),
    });
    FactoredMoments {
        y,
        z,
        means,
        largest,
    }
}

/// The first moment as a matrix, m x n: $`M = B Y + Z A`$.
///
/// ```
/// use lora_pro_reference::factored::{first_moment, mean_squares};
/// use lora_pro_reference::{factors::Factors, state::FactoredMoments};
/// use nalgebra::dmatrix;
/// let factors = Factors { b: dmatrix![1.0; 0.0], a: dmatrix![0.0, 1.0], s: 9.0 };
/// let (y, z) = (dmatrix![3.0, 0.0], dmatrix![0.0; 5.0]);
/// let means = mean_squares(&dmatrix![0.0, 0.0; 0.0, 0.0]);
/// let moments = FactoredMoments { y, z, means, largest: None };
/// assert_eq!(first_moment(&factors, &moments), dmatrix![3.0, 0.0; 0.0, 5.0]);
/// ```
pub fn first_moment(factors: &Factors, moments: &FactoredMoments) -> DMatrix<f64> {
    &factors.b * &moments.y + &moments.z * &factors.a
}

/// N, m x n, of rank at most 2r:
/// ```math
/// N = D_a \frac{M}{c_1} D_b , \quad
/// a_i = \frac{1}{\sqrt{\mathrm{row}_i / c_2} + \varepsilon} , \quad
/// b_j = \frac{\sqrt{\overline{\mathrm{row}} / c_2}}{\sqrt{\mathrm{col}_j / c_2} + \varepsilon} , \quad
/// c_k = 1 - \beta_k^t
/// ```
/// Source: Adafactor's estimate $`\mathrm{row}_i \mathrm{col}_j / \overline{\mathrm{row}}`$ of the
/// second moment (1804.04235).
///
/// ```
/// use lora_pro_core::Preset;
/// use lora_pro_reference::factored::{mean_squares, normalized_gradient};
/// use lora_pro_reference::{factors::Factors, state::FactoredMoments};
/// use nalgebra::dmatrix;
/// let hyper = Preset::Paper.hyper().beta1(0.0).beta2(0.0);
/// let factors = Factors { b: dmatrix![1.0; 2.0], a: dmatrix![1.0, 1.0], s: 1.0 };
/// // M has rank 1, so that the estimate is exact and N is the sign of M.
/// let moments = FactoredMoments {
///     y: dmatrix![3.0, -1.0],
///     z: dmatrix![0.0; 0.0],
///     means: mean_squares(&dmatrix![3.0, -1.0; 6.0, -2.0]),
///     largest: None,
/// };
/// let n = normalized_gradient(&hyper, &factors, &moments, 1);
/// assert!((n - dmatrix![1.0, -1.0; 1.0, -1.0]).norm() < 1e-7);
/// ```
pub fn normalized_gradient(
    hyper: &Hyper,
    factors: &Factors,
    moments: &FactoredMoments,
    t: u64,
) -> DMatrix<f64> {
    let Means { row, col } = moments.largest.as_ref().unwrap_or(&moments.means);
    // c1, c2 = 1 - beta1^t, 1 - beta2^t
    let c1 = bias_correction(hyper.beta1, t);
    let c2 = bias_correction(hyper.beta2, t);
    // a_i = 1 / (sqrt(row_i / c2) + eps)
    let a = row.map(|x| 1.0 / ((x / c2).sqrt() + hyper.eps));
    // b_j = sqrt(mean(row) / c2) / (sqrt(col_j / c2) + eps)
    let mean = (row.mean() / c2).sqrt();
    let b = col.map(|x| mean / ((x / c2).sqrt() + hyper.eps));
    // N = diag(a) (M / c1) diag(b)
    let m = first_moment(factors, moments);
    DMatrix::from_fn(m.nrows(), m.ncols(), |i, j| a[i] * (m[(i, j)] / c1) * b[j])
}

/// The first moment carried to the tangent space of the new factors, by projection:
/// ```math
/// Y \leftarrow S_B^+ B^\top M , \quad Z \leftarrow (I - P_B)\, M A^\top S_A^+
/// ```
/// with $`M = B_{old} Y + Z A_{old}`$ and everything else of the new factors. Done at the end of a
/// step, while both are at hand.
///
/// # Errors
/// As [`Grams::of`].
///
/// ```
/// use lora_pro_core::Damping;
/// use lora_pro_reference::factored::{first_moment, mean_squares, transported};
/// use lora_pro_reference::{factors::Factors, state::FactoredMoments};
/// use nalgebra::dmatrix;
/// let old = Factors { b: dmatrix![1.0; 0.0], a: dmatrix![0.0, 1.0], s: 1.0 };
/// let new = Factors { b: dmatrix![0.0; 2.0], ..old.clone() };
/// let (y, z) = (dmatrix![3.0, 4.0], dmatrix![0.0; 5.0]);
/// let means = mean_squares(&dmatrix![0.0, 0.0; 0.0, 0.0]);
/// let moments = FactoredMoments { y, z, means, largest: None };
/// let carried = transported(&old, &moments, &new, Damping::None)?;
/// // M = [3 4; 0 5]. The 3 is outside of the new columns and rows, and is lost.
/// assert_eq!(first_moment(&new, &carried), dmatrix![0.0, 4.0; 0.0, 5.0]);
/// # Ok::<(), lora_pro_core::Error>(())
/// ```
pub fn transported(
    old_factors: &Factors,
    moments: &FactoredMoments,
    new_factors: &Factors,
    damping: Damping,
) -> Result<FactoredMoments, Error> {
    let Factors { b, a, .. } = new_factors;
    // SA^+, SB^+ of the new factors
    let grams = Grams::of(new_factors, damping)?;
    // M = B Y + Z A of the old factors
    let m = first_moment(old_factors, moments);
    // Y = SB^+ B'M
    let y = grams.sb_inverse.apply(&(b.transpose() * &m));
    // Z = (I - PB) M A' SA^+
    let unprojected = grams.sa_inverse.apply_right(&(&m * a.transpose()));
    let z = project_out_columns_of_b(b, &grams.sb_inverse, &unprojected);
    Ok(FactoredMoments {
        y,
        z,
        means: moments.means.clone(),
        largest: moments.largest.clone(),
    })
}
