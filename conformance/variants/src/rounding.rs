//! What rounding explains, by experiment: the reference with rounding errors in its inputs and in
//! everything that it computes on the way.
//!
//! A backend computes thin matrices with a unit round-off u (f32's, or f64's where anything is
//! stored in f64) and everything r x r with w = 2^-53. Each equation of the reference gets errors
//! of these sizes, with signs that follow from the numbers themselves and from the trial. How far
//! a result of several trials is from the reference's is what rounding explains of it.
//!
//! | where | size of the error |
//! |---|---|
//! | gradients, U, V, Y, Z, N, and each term of a sum of thin matrices | u of each entry |
//! | a matrix of coefficients (r x r) that is applied to a thin matrix | u of its norm |
//! | a Gram matrix, and once more where the Sylvester equation is solved | w of its norm |
//! | a product of thin matrices that is r x r | w of the product of the norms |
//! | a running mean; a square root | u of each term; 4 u |
//! | mean squares and the norm of E, which are quadratic forms | u and w of their terms |
//!
//! Rounding may also decide whether an eigenvalue is cut off. In two of the trials the cut is
//! moved by the rounding of an eigenvalue, up and down.

use std::cell::Cell;

use lora_pro_core::backend::NULL_EIGENVALUE;
use lora_pro_core::{Backend, DType, Damping, Error, Hyper, XChoice};
use nalgebra::allocator::Allocator;
use nalgebra::{DMatrix, DefaultAllocator, Dim, OMatrix, RowDVector};

use crate::backend::{VariantBackend, without_fault};
use crate::reference::adamw::{adam, ema};
use crate::reference::clip;
use crate::reference::closed_form::Split;
use crate::reference::damping::{Grams, InverseRoot, damped_inverse};
use crate::reference::factored;
use crate::reference::factors::{FactorPair, Factors, gram_a, gram_b};
use crate::reference::state::{FactoredMoments, Means, Moments};
use crate::reference::x::sylvester;

type Matrix = DMatrix<f64>;

/// Runs of the experiment.
pub const TRIALS: u64 = 8;

/// Unit round-off of everything r x r.
const W: f64 = f64::EPSILON / 2.0;

/// One run of the experiment.
#[derive(Clone, Copy, Default)]
pub(crate) struct Trial {
    number: u64,
    /// Unit round-off of thin matrices.
    u: f64,
}

thread_local! {
    /// The trial of the backend that is at work.
    pub(crate) static TRIAL: Cell<Trial> = const { Cell::new(Trial { number: 0, u: 0.0 }) };
}

/// The reference with rounding errors, once for each trial, thin matrices in this type.
pub fn rounding_errors(thin: DType) -> impl Iterator<Item = Box<dyn Backend>> {
    let u = thin.unit_roundoff();
    (0..TRIALS).map(move |number| {
        let backend = VariantBackend::with_rounding(Trial { number, u });
        Box::new(backend) as Box<dyn Backend>
    })
}

/// Whether rounding may decide if an eigenvalue is cut off, so that two correct backends may use
/// different tangent spaces. B is m x r, A is r x n.
///
/// # Errors
/// An entry that is not finite.
pub fn at_the_cut(b: &Matrix, a: &Matrix, damping: Damping) -> Result<bool, Error> {
    let cut = |by| inverses(&gram_b(b), &gram_a(a), [b, a], damping, by);
    Ok(cut(1.0)? != cut(-1.0)?)
}

/// The inverses of the Gram matrices with the cut moved `by` the rounding of an eigenvalue.
fn inverses(
    sb: &Matrix,
    sa: &Matrix,
    [b, a]: [&Matrix; 2],
    damping: Damping,
    by: f64,
) -> Result<[InverseRoot; 2], Error> {
    let inverse = |s: &Matrix, k: usize| {
        let rounding = 4.0 * k as f64 * f64::EPSILON;
        let moved = match damping {
            Damping::None => Damping::Cutoff((NULL_EIGENVALUE / 4.0 + by) * rounding),
            Damping::Cutoff(c) => Damping::Cutoff(c + by * rounding),
            Damping::Absolute(_) | Damping::Relative(_) => damping,
        };
        damped_inverse(s, moved, k)
    };
    Ok([inverse(sb, b.nrows())?, inverse(sa, a.ncols())?])
}

pub(crate) fn rounded_grams(factors: &Factors, damping: Damping) -> Result<Grams, Error> {
    let by = match TRIAL.get().number {
        0 => 1.0,
        1 => -1.0,
        _ => 0.0,
    };
    let Factors { b, a, .. } = factors;
    let (sb, sa) = (gram(&gram_b(b)), gram(&gram_a(a)));
    let [sb_inverse, sa_inverse] = inverses(&sb, &sa, [b, a], damping, by)?;
    Ok(Grams {
        sb,
        sa,
        sb_inverse,
        sa_inverse,
    })
}

/// An error of so many roundings in each entry.
pub(crate) fn roundings<R: Dim, C: Dim>(count: f64, x: &OMatrix<f64, R, C>) -> OMatrix<f64, R, C>
where
    DefaultAllocator: Allocator<R, C>,
{
    let size = count * TRIAL.get().u;
    x.map_with_location(|i, j, x| x * (1.0 + size * sign(i << 32 | j, x)))
}

/// A thin matrix that is rounded.
pub(crate) fn thin(x: &Matrix) -> Matrix {
    roundings(1.0, x)
}

/// A number with the error of a few roundings.
pub(crate) fn number(x: f64) -> f64 {
    x * (1.0 + 4.0 * TRIAL.get().u * sign(0, x))
}

/// An error of `size` in the norm, spread over the entries.
fn normwise(size: f64, x: &Matrix) -> Matrix {
    let each = size / (x.len() as f64).sqrt();
    x.map_with_location(|i, j, x| x + each * sign(i << 32 | j, x))
}

/// Coefficients of thin matrices.
pub(crate) fn coefficients(x: &Matrix) -> Matrix {
    normwise(TRIAL.get().u * x.norm(), x)
}

/// A Gram matrix: symmetric, with an error of w in its norm.
fn gram(s: &Matrix) -> Matrix {
    let moved = normwise(W * s.norm(), s);
    (&moved + moved.transpose()) * 0.5
}

/// `(I - P_B) y`, where y and its part in B's columns may cancel.
pub(crate) fn project_out_columns_of_b(b: &Matrix, sb_inverse: &InverseRoot, y: &Matrix) -> Matrix {
    let inside = coefficients(&sb_inverse.apply(&(b.transpose() * y)));
    y - thin(&(b * inside))
}

pub(crate) fn chosen_x(
    choice: XChoice,
    factors: &Factors,
    grams: &Grams,
    gradients: &FactorPair,
) -> Result<Matrix, Error> {
    let Factors { b, a, s } = factors;
    let product = |x: &Matrix, y: &Matrix| normwise(W * x.norm() * y.norm(), &(x * y));
    let x = match choice {
        XChoice::Zero => Matrix::zeros(a.nrows(), a.nrows()),
        XChoice::Symmetric => {
            let inner = product(&b.transpose(), &gradients.b);
            let inner = grams.sa_inverse.apply_right(&inner);
            grams.sb_inverse.apply(&inner) * (-0.5 / (s * s))
        }
        XChoice::Sylvester => {
            let right = product(&gradients.a, &a.transpose());
            let right = grams.sb_inverse.apply(&right) / -(s * s);
            sylvester(&gram(&grams.sb), &gram(&grams.sa), &right)?
        }
    };
    Ok(coefficients(&x))
}

/// The norm of `E = s (B y + z A)`, whose terms may cancel.
pub(crate) fn equivalent_norm(factors: &Factors, y: &Matrix, z: &Matrix, e: &Matrix) -> f64 {
    let Factors { b, a, s } = factors;
    let terms = s * (b.norm() * y.norm() + z.norm() * a.norm());
    let square = e.norm_squared();
    (square + W * terms * terms * sign(0, square))
        .max(0.0)
        .sqrt()
}

pub(crate) fn first_mean(beta: f64, mean: &Matrix, x: &Matrix) -> Matrix {
    thin(&ema(beta, &thin(mean), &thin(x)))
}

/// The mean of a row of E.E is a quadratic form in that row of `[B  sV]`, whose terms may cancel;
/// that of a column one in that column of `[sU; A]`.
pub(crate) fn mean_squares(factors: &Factors, split: &Split) -> Means {
    let Factors { b, a, s } = factors;
    let (m, n) = (b.nrows() as f64, a.ncols() as f64);
    let (all_u, all_v) = (split.u.norm(), split.v.norm());
    let exact = factored::mean_squares(&split.equivalent_gradient(factors));
    let moved = |k: usize, mean: f64, terms: f64, count: f64| {
        let error = TRIAL.get().u * (s * terms).powi(2) / count;
        (mean + error * sign(k, mean)).max(0.0)
    };
    let row = exact.row.map_with_location(|i, _, mean| {
        let terms = b.row(i).norm() * all_u + split.v.row(i).norm() * a.norm();
        moved(i, mean, terms, n)
    });
    let col = RowDVector::from_fn(a.ncols(), |_, j| {
        let terms = split.u.column(j).norm() * b.norm() + a.column(j).norm() * all_v;
        moved(j, exact.col[j], terms, m)
    });
    Means { row, col }
}

/// Y of `M = B Y + Z A` on the new tangent space, each of the two terms carried by itself.
pub(crate) fn transported_y(
    old: &Factors,
    state: &FactoredMoments,
    new: &Factors,
    grams: &Grams,
) -> Matrix {
    let left = |x: &Matrix| coefficients(&grams.sb_inverse.apply(&(new.b.transpose() * x)));
    let (y, z) = (thin(&state.y), thin(&state.z));
    thin(&(left(&old.b) * &y)) + thin(&(left(&z) * &old.a))
}

/// Z, as [`transported_y`].
pub(crate) fn transported_z(
    old: &Factors,
    state: &FactoredMoments,
    new: &Factors,
    grams: &Grams,
) -> Matrix {
    let right = |x: &Matrix| coefficients(&grams.sa_inverse.apply_right(&(x * new.a.transpose())));
    let (y, z) = (thin(&state.y), thin(&state.z));
    let whole = thin(&(&old.b * right(&y))) + thin(&(&z * right(&old.a)));
    project_out_columns_of_b(&new.b, &grams.sb_inverse, &whole)
}

/// Where the factors are equally long, rounding decides which is the longer one.
pub(crate) fn update_clip(limit: Option<f64>, factors: &Factors, update: &FactorPair) -> f64 {
    let u = TRIAL.get().u;
    let (a, b) = (factors.a.norm(), factors.b.norm());
    let mut factors = factors.clone();
    if (a - b).abs() <= 100.0 * u * a.max(b) {
        factors.a *= 1.0 + 200.0 * u * sign(0, 1.0);
    }
    number(clip::update_clip(limit, &factors, update))
}

/// Adam on an unpaired parameter.
pub(crate) fn param_adam(hyper: &Hyper, old: &Moments, x: &Matrix, t: u64) -> (Moments, Matrix) {
    let old = Moments {
        first: thin(&old.first),
        second: thin(&old.second),
        largest: old.largest.as_ref().map(thin),
    };
    let (moments, n) = without_fault(|| adam(hyper, &old, &thin(x), t));
    let first = thin(&moments.first);
    (Moments { first, ..moments }, roundings(8.0, &n))
}

/// 1 or -1, from a number, its place and the trial.
fn sign(place: usize, x: f64) -> f64 {
    let trial = TRIAL.get().number;
    let mut bits = x.to_bits() ^ (place as u64).rotate_left(17) ^ (trial << 56 | trial);
    for factor in [0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb] {
        bits = (bits ^ (bits >> 30)).wrapping_mul(factor);
    }
    if (bits ^ (bits >> 31)) & 1 == 0 {
        1.0
    } else {
        -1.0
    }
}
