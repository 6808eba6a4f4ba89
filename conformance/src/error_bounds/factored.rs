//! ErrorBound of the factored mode: its moments, N, and what is carried to the new tangent space.

use lora_pro_core::backend::ratio_or_zero;
use lora_pro_core::{Error, Hyper};
use lora_pro_reference::adamw::bias_correction;
use lora_pro_reference::factored;
use lora_pro_reference::factors::Factors;
use lora_pro_reference::state::FactoredMoments;
use nalgebra::{DMatrix, DVector};

use super::closed_form::{ConditionedAdapter, PerColumn, Solved, W};
use super::norms::{columns, outer, rows};

/// The moments after averaging, N, and their noise.
pub(super) struct Averaged {
    pub(super) state: FactoredMoments,
    pub(super) n: DMatrix<f64>,
    /// Of N's entries.
    pub(super) n_noise: DMatrix<f64>,
    /// Of s B'N and s N A', from sums in which Y's and Z's parts may cancel.
    pub(super) direct: PerColumn,
    /// Of Y and Z.
    pub(super) yz: PerColumn,
    /// Of the means of columns (a) and rows (b).
    pub(super) means: PerColumn,
}

pub(super) fn averaged(
    place: &ConditionedAdapter<'_>,
    hyper: &Hyper,
    old: &FactoredMoments,
    solved: &Solved,
    t: u64,
) -> Averaged {
    let (u, factors) = (place.u, place.factors);
    let (m, n) = (factors.b.nrows() as f64, factors.a.ncols() as f64);
    let state = factored::update_moments(hyper, factors, old, &solved.split);
    let yz = yz_noise(place, hyper, old, &state, solved);
    let means = means_noise(place, hyper, &state, solved);
    let normalized = factored::normalized_gradient(hyper, factors, &state, t);

    let (c1, c2) = (
        bias_correction(hyper.beta1, t),
        bias_correction(hyper.beta2, t),
    );
    let used = state.largest.as_ref().unwrap_or(&state.means);
    let row = Root::of(&used.row, &means.b, hyper.eps, c2);
    let col = Root::of(&used.col.transpose(), &means.a, hyper.eps, c2);
    let mean = (used.row.mean() / c2).sqrt();
    let mean_noise = ratio_or_zero(means.b.mean(), 2.0 * used.row.mean());

    let y = &yz.a + columns(&state.y) * u;
    let z = &yz.b + rows(&state.z) * u;
    let m_noise = outer(&place.b_rows, &y, &z, &place.a_columns);
    let weight = |i: usize, j: usize| ratio_or_zero(mean, c1 * row.root[i] * col.root[j]);
    let n_noise = DMatrix::from_fn(m as usize, n as usize, |i, j| {
        let of_weight = row.relative(i) + col.relative(j) + mean_noise + 8.0 * u;
        m_noise[(i, j)] * weight(i, j) + normalized[(i, j)].abs() * of_weight
    });
    let direct = direct_noise(place, &state, &row.root, &col.root, mean / c1);
    Averaged {
        n: normalized,
        n_noise,
        direct,
        yz,
        means,
        state,
    }
}

fn yz_noise(
    place: &ConditionedAdapter<'_>,
    hyper: &Hyper,
    old: &FactoredMoments,
    new: &FactoredMoments,
    solved: &Solved,
) -> PerColumn {
    let (u, fresh) = (place.u, (1.0 - hyper.beta1) * place.factors.s);
    let (noise, split) = (&solved.split_noise, &solved.split);
    PerColumn {
        a: (&noise.a + columns(&split.u) * u) * fresh + (columns(&new.y) + columns(&old.y)) * u,
        b: (&noise.b + rows(&split.v) * u) * fresh + (rows(&new.z) + rows(&old.z)) * u,
    }
}

/// The mean of a row of E.E is a sum of squares of r x r matrices by that row of B and gB. Rounding in these
/// matrices, in f64, is relative to what the parts B U and V A contribute by themselves, which may
/// cancel; what is multiplied in the thin matrices' type is not larger than E.
fn means_noise(
    place: &ConditionedAdapter<'_>,
    hyper: &Hyper,
    new: &FactoredMoments,
    solved: &Solved,
) -> PerColumn {
    let (u, s, fresh) = (place.u, place.factors.s, 1.0 - hyper.beta2);
    let (e, e_noise) = place.equivalent(solved);
    let (m, n) = (e.nrows() as f64, e.ncols() as f64);
    let split = &solved.split;
    let parts_row = (&place.b_rows * split.u.norm() + rows(&split.v) * place.a) * s;
    let parts_col = (columns(&split.u) * place.b + &place.a_columns * split.v.norm()) * s;
    let noise = |e: DVector<f64>, noise: DVector<f64>, parts: DVector<f64>, share: f64| {
        DVector::from_fn(e.len(), |k, _| {
            share * (noise[k] * (2.0 * e[k] + noise[k]) + W * parts[k].powi(2))
        })
    };
    let used = new.largest.as_ref().unwrap_or(&new.means);
    PerColumn {
        a: noise(columns(&e), columns(&e_noise), parts_col, fresh / m)
            + used.col.transpose() * (4.0 * u),
        b: noise(rows(&e), rows(&e_noise), parts_row, fresh / n) + &used.row * (4.0 * u),
    }
}

/// `sqrt(x / c2) + eps` and its noise.
struct Root {
    root: DVector<f64>,
    noise: DVector<f64>,
}

impl Root {
    /// |sqrt(x + d) - sqrt(x)| is at most d / sqrt(x) and at most sqrt(d).
    fn of(x: &DVector<f64>, noise: &DVector<f64>, eps: f64, c2: f64) -> Self {
        let of_root = |x: f64, d: f64| (ratio_or_zero(d, x.sqrt()).min(d.sqrt())) / c2.sqrt();
        Root {
            root: x.map(|x| (x / c2).sqrt() + eps),
            noise: x.zip_map(noise, of_root),
        }
    }

    fn relative(&self, k: usize) -> f64 {
        self.noise[k] / self.root[k]
    }
}

fn direct_noise(
    place: &ConditionedAdapter<'_>,
    state: &FactoredMoments,
    row: &DVector<f64>,
    col: &DVector<f64>,
    weight: f64,
) -> PerColumn {
    let Factors { b, a, s } = place.factors;
    let by_row =
        |x: &DMatrix<f64>| DMatrix::from_fn(x.nrows(), x.ncols(), |i, k| x[(i, k)] / row[i]);
    let by_col =
        |x: &DMatrix<f64>| DMatrix::from_fn(x.nrows(), x.ncols(), |k, j| x[(k, j)] / col[j]);
    let (b_left, z_left) = (by_row(b).norm(), by_row(&state.z).norm());
    let (y_right, a_right) = (by_col(&state.y).norm(), by_col(a).norm());
    let of_a = columns(&state.y) * b_left + &place.a_columns * z_left;
    let of_b = &place.b_rows * y_right + rows(&state.z) * a_right;
    let scale = place.u * s * weight;
    PerColumn {
        a: of_a.component_div(col) * (place.b * scale),
        b: of_b.component_div(row) * (place.a * scale),
    }
}

/// ErrorBound of Y and Z after they are carried to the new factors, which have noise of their own.
///
/// The change of `SB^+ B'M` with B is `SB^+ dB'(M - B Y) - SB^+ B'dB Y`. None where the new factors
/// are not known well enough for a first order: no digit of a tangent space is then due.
pub(super) fn carried(
    place: &ConditionedAdapter<'_>,
    hyper: &Hyper,
    average: &Averaged,
    new: &Factors,
    new_noise: [f64; 2],
) -> Result<Option<PerColumn>, Error> {
    let there = ConditionedAdapter::of(new, hyper.damping, place.u)?;
    let ConditionedAdapter {
        p, q, wp, wq, u, ..
    } = there;
    let [of_a, of_b] = new_noise;
    if p.sqrt() * of_b > 0.1
        || q.sqrt() * of_a > 0.1
        || there.at_the_cut(hyper.damping, new_noise)?
    {
        return Ok(None);
    }
    let (old, state) = (place.factors, &average.state);
    let moment = factored::first_moment(old, state);
    let y = &average.yz.a + columns(&state.y) * u;
    let z = &average.yz.b + rows(&state.z) * u;
    let noise = outer(&place.b_rows, &y, &z, &place.a_columns);

    let left = |x: &DMatrix<f64>| there.grams.sb_inverse.apply(&(new.b.transpose() * x));
    let right = |x: &DMatrix<f64>| there.grams.sa_inverse.apply_right(&(x * new.a.transpose()));
    let (y_new, unprojected) = (left(&moment), right(&moment));
    let coefficient = left(&unprojected).norm();

    let terms_y =
        columns(&state.y) * left(&old.b).norm() + &place.a_columns * left(&state.z).norm();
    let terms_z = &place.b_rows * right(&state.y).norm() + rows(&state.z) * right(&old.a).norm();
    let a = columns(&noise) * p.sqrt()
        + terms_y * (u + wp)
        + columns(&moment) * (p * of_b)
        + columns(&y_new) * (2.0 * p.sqrt() * of_b);
    let b = rows(&noise) * q.sqrt()
        + terms_z * (u + wp + wq)
        + rows(&moment) * (q * of_a)
        + rows(&unprojected) * (2.0 * q.sqrt() * of_a + p.sqrt() * of_b)
        + &there.b_rows
            * ((p * q).sqrt() * noise.norm()
                + (u + wp + wq + p.sqrt() * of_b) * coefficient
                + p * of_b * unprojected.norm()
                + p.sqrt() * of_a * (q * moment.norm() + 2.0 * q.sqrt() * unprojected.norm()))
        + DVector::from_element(new.b.nrows(), of_b * coefficient);
    Ok(Some(PerColumn { a, b }))
}
