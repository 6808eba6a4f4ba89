//! The factored mode: the full mode's quality without anything of size m n.
//!
//! The functions here form m x n matrices where that is what the formula says: this is the
//! reference. A backend does the same with thin products only.

use lora_pro_core::{Damping, Error, Hyper};
use nalgebra::{DMatrix, DVector, RowDVector};

use crate::adamw::{bias_correction, running_mean};
use crate::closed_form::{Split, outside_columns};
use crate::damping::Grams;
use crate::equivalent::of_split;
use crate::factors::Factors;

/// State r (m + n) + m + n.
#[derive(Clone, Debug, PartialEq)]
pub struct Factored {
    /// Y, r x n: the first moment is $`M = B Y + Z A`$.
    pub y: DMatrix<f64>,
    /// Z, m x r, with $`B^\top Z = 0`$.
    pub z: DMatrix<f64>,
    /// Running mean of E.E over each row, m x 1, and over each column, 1 x n.
    pub means: Means,
    /// The largest `means` so far, where AMSGrad is on.
    pub largest: Option<Means>,
}

/// One number per row and one per column.
#[derive(Clone, Debug, PartialEq)]
pub struct Means {
    /// m x 1.
    pub row: DVector<f64>,
    /// 1 x n.
    pub col: RowDVector<f64>,
}

/// The mean square of each row and of each column of E, from its factors:
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

/// The moments after step t:
/// ```math
/// Y \leftarrow \beta_1 Y + (1-\beta_1)\, sU , \quad Z \leftarrow \beta_1 Z + (1-\beta_1)\, sV ,
/// ```
/// and the running means of E's mean squares with $`\beta_2`$. (Y, Z) must already belong to the
/// present factors: see [`transported`].
///
/// ```
/// use lora_pro_core::{Hyper, Preset};
/// use lora_pro_reference::closed_form::Split;
/// use lora_pro_reference::factored::{Factored, Means, averaged};
/// use lora_pro_reference::factors::Factors;
/// use nalgebra::{dmatrix, dvector};
/// let hyper = Preset::Paper.hyper().beta1(0.5).beta2(0.75);
/// let factors = Factors { b: dmatrix![1.0; 0.0], a: dmatrix![1.0, 0.0], s: 2.0 };
/// let zero = Factored {
///     y: dmatrix![0.0, 0.0],
///     z: dmatrix![0.0; 0.0],
///     means: Means { row: dvector![0.0, 0.0], col: dmatrix![0.0, 0.0].row(0).into() },
///     largest: None,
/// };
/// let split = Split { u: dmatrix![1.0, 2.0], v: dmatrix![0.0; 3.0] };
/// let new = averaged(&hyper, &factors, &zero, &split);
/// assert_eq!((new.y, new.z), (dmatrix![1.0, 2.0], dmatrix![0.0; 3.0]));
/// // E = [2 4; 6 0], so that its rows have mean squares 10 and 18.
/// assert_eq!(new.means.row, dvector![2.5, 4.5]);
/// ```
pub fn averaged(hyper: &Hyper, factors: &Factors, old: &Factored, split: &Split) -> Factored {
    let new = mean_squares(&of_split(factors, split));
    let means = Means {
        row: &old.means.row * hyper.beta2 + new.row * (1.0 - hyper.beta2),
        col: &old.means.col * hyper.beta2 + new.col * (1.0 - hyper.beta2),
    };
    let largest = old.largest.as_ref().map(|largest| Means {
        row: largest.row.sup(&means.row),
        col: largest.col.sup(&means.col),
    });
    Factored {
        y: running_mean(hyper.beta1, &old.y, &(&split.u * factors.s)),
        z: running_mean(hyper.beta1, &old.z, &(&split.v * factors.s)),
        means,
        largest,
    }
}

/// The first moment as a matrix, m x n: $`M = B Y + Z A`$.
///
/// ```
/// use lora_pro_reference::factored::{Factored, first_moment, mean_squares};
/// use lora_pro_reference::factors::Factors;
/// use nalgebra::dmatrix;
/// let factors = Factors { b: dmatrix![1.0; 0.0], a: dmatrix![0.0, 1.0], s: 9.0 };
/// let (y, z) = (dmatrix![3.0, 0.0], dmatrix![0.0; 5.0]);
/// let means = mean_squares(&dmatrix![0.0, 0.0; 0.0, 0.0]);
/// let state = Factored { y, z, means, largest: None };
/// assert_eq!(first_moment(&factors, &state), dmatrix![3.0, 0.0; 0.0, 5.0]);
/// ```
pub fn first_moment(factors: &Factors, state: &Factored) -> DMatrix<f64> {
    &factors.b * &state.y + &state.z * &factors.a
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
/// use lora_pro_reference::factored::{normalized, mean_squares, Factored, Means};
/// use lora_pro_reference::factors::Factors;
/// use nalgebra::{dmatrix, dvector};
/// let hyper = lora_pro_core::Hyper { beta1: 0.0, beta2: 0.0, ..Preset::Paper.hyper() };
/// let factors = Factors { b: dmatrix![1.0; 2.0], a: dmatrix![1.0, 1.0], s: 1.0 };
/// // M has rank 1, so that the estimate is exact and N is the sign of M.
/// let state = Factored {
///     y: dmatrix![3.0, -1.0],
///     z: dmatrix![0.0; 0.0],
///     means: mean_squares(&dmatrix![3.0, -1.0; 6.0, -2.0]),
///     largest: None,
/// };
/// let n = normalized(&hyper, &factors, &state, 1);
/// assert!((n - dmatrix![1.0, -1.0; 1.0, -1.0]).norm() < 1e-7);
/// ```
pub fn normalized(hyper: &Hyper, factors: &Factors, state: &Factored, t: u64) -> DMatrix<f64> {
    let c1 = bias_correction(hyper.beta1, t);
    let c2 = bias_correction(hyper.beta2, t);
    let Means { row, col } = state.largest.as_ref().unwrap_or(&state.means);
    let mean = (row.mean() / c2).sqrt();
    let a = row.map(|x| 1.0 / ((x / c2).sqrt() + hyper.eps));
    let b = col.map(|x| mean / ((x / c2).sqrt() + hyper.eps));
    let m = first_moment(factors, state);
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
/// use lora_pro_reference::factored::{Factored, first_moment, mean_squares, transported};
/// use lora_pro_reference::factors::Factors;
/// use nalgebra::dmatrix;
/// let old = Factors { b: dmatrix![1.0; 0.0], a: dmatrix![0.0, 1.0], s: 1.0 };
/// let new = Factors { b: dmatrix![0.0; 2.0], ..old.clone() };
/// let (y, z) = (dmatrix![3.0, 4.0], dmatrix![0.0; 5.0]);
/// let means = mean_squares(&dmatrix![0.0, 0.0; 0.0, 0.0]);
/// let state = Factored { y, z, means, largest: None };
/// let carried = transported(&old, &state, &new, Damping::None)?;
/// // M = [3 4; 0 5]. The 3 is outside of the new columns and rows, and is lost.
/// assert_eq!(first_moment(&new, &carried), dmatrix![0.0, 4.0; 0.0, 5.0]);
/// # Ok::<(), lora_pro_core::Error>(())
/// ```
pub fn transported(
    old_factors: &Factors,
    state: &Factored,
    new_factors: &Factors,
    damping: Damping,
) -> Result<Factored, Error> {
    let m = first_moment(old_factors, state);
    let grams = Grams::of(new_factors, damping)?;
    let (b, a) = (&new_factors.b, &new_factors.a);
    let carried = grams.sa_inverse.times_left(&(&m * a.transpose()));
    Ok(Factored {
        y: grams.sb_inverse.times(&(b.transpose() * &m)),
        z: outside_columns(b, &grams.sb_inverse, &carried),
        means: state.means.clone(),
        largest: state.largest.clone(),
    })
}
