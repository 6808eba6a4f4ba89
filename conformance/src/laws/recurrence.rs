//! Law 12: the moments follow their recurrences.
//!
//! - Full: M and V2 follow Adam on E, and the step moves W by the projection of N. At t = 1 that
//!   is $`N = E / (|E| + \varepsilon)`$.
//! - Factored: the row and column means are those of E.E; M is the running mean of E, projected
//!   on each new tangent space; the step moves W by the projection of N. At r = min(m, n) and full
//!   rank the projections do nothing, and this is AdamW with a factored second moment on W.
//! - Efficient and lora: the same for each factor by itself.
//! - With b1 = b2 = 0 nothing of the past is left.
//!
//! Sees time: bias correction, stale or shared moments, the order of averaging and transport.
//! Cannot see X in the full and factored mode.

use lora_pro_core::backend::{Factor, Moment, StateKind};
use lora_pro_core::{Damping, Error, Hyper, Method, XChoice};
use lora_pro_reference::damping::Grams;
use lora_pro_reference::equivalent::{equivalent_gradient, tangent_projection};
use lora_pro_reference::factors::{FactorPair, Factors, factor_gradients};
use nalgebra::DMatrix;

use super::{Answer, Applies, Law, WITH_MOMENTS};
use crate::residual::{all_or_nothing, ratio, worst};
use crate::run::Run;
use crate::sample::CaseSpec;
use crate::subject::{Subject, exact};

/// Steps that a run without memory forgets.
const FORGOTTEN: u64 = 4;

pub(super) const LAW: Law = Law {
    number: 12,
    name: "recurrence",
    formula: "the moments follow Adam's recurrence on E, or on the factors",
    cannot_see: "X in the full and factored mode; an E that is wrong to begin with",
    applies: Applies::Trajectory,
    methods: &WITH_MOMENTS,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let square = CaseSpec {
        r: spec.m.min(spec.n),
        ..*spec
    };
    let square = CaseSpec {
        rank_a: square.r,
        rank_b: square.rank_b.min(1) * square.r,
        ..square
    };
    let damped = exact(method).damping(Damping::Relative(0.1));
    let forgets = forgets(subject, spec, method)?;
    Ok(match method {
        Method::Full | Method::Factored => worst([
            forgets,
            in_weight_space(subject, spec, exact(method))?,
            in_weight_space(subject, &square, exact(method))?,
            in_weight_space(subject, spec, damped)?,
        ]),
        Method::Lora | Method::Sgd | Method::Efficient => {
            worst([forgets, on_factors(subject, spec, method)?])
        }
    })
}

/// Running means of X and of a measure of X.X, independent of the subject's.
struct RunningMeans {
    first: DMatrix<f64>,
    second: DMatrix<f64>,
    /// Running mean of |X|: what rounding of M is relative to, since X and the past may cancel.
    size: f64,
}

impl RunningMeans {
    fn zero(rows: usize, cols: usize) -> Self {
        let zero = DMatrix::zeros(rows, cols);
        RunningMeans {
            first: zero.clone(),
            second: zero,
            size: 0.0,
        }
    }

    fn average(&mut self, hyper: &Hyper, x: &DMatrix<f64>, square: &DMatrix<f64>) {
        self.first = &self.first * hyper.beta1 + x * (1.0 - hyper.beta1);
        self.second = &self.second * hyper.beta2 + square * (1.0 - hyper.beta2);
        self.size = self.size * hyper.beta1 + x.norm() * (1.0 - hyper.beta1);
    }

    /// N, and the root that M is divided by, for a second moment of M's shape.
    fn normalized(&self, hyper: &Hyper, t: u64) -> (DMatrix<f64>, DMatrix<f64>) {
        let c1 = 1.0 - hyper.beta1.powf(t as f64);
        let c2 = 1.0 - hyper.beta2.powf(t as f64);
        let root = self.second.map(|v| (v / c2).sqrt() + hyper.eps);
        ((&self.first / c1).component_div(&root), root)
    }
}

fn in_weight_space(subject: &Subject, spec: &CaseSpec, hyper: Hyper) -> Result<f64, Error> {
    let method = hyper.method;
    let mut run = subject.start(&spec.factors(), hyper)?;
    let mut means = RunningMeans::zero(spec.m, spec.n);
    let mut ratios = Vec::new();
    let mut spec = *spec;
    for t in 1..=spec.steps {
        let old = run.factors();
        let g = spec.full_gradient(t);
        let grams_old = Grams::of(&old, hyper.damping)?;
        let e = tangent_projection(&old, &grams_old, &g);
        if method == Method::Factored {
            // The moment belongs to the present tangent space.
            means.first = tangent_projection(&old, &grams_old, &means.first);
        }
        means.average(&hyper, &e, &e.component_mul(&e));
        run.step(&factor_gradients(&old, &g))?;
        let new = run.factors();
        // What went into the moments at the worst condition stays there.
        spec = with_condition(&spec, &[&old, &new]);
        ratios.extend(moments(&mut run, &hyper, &spec, &means, &new)?);
        ratios.push(update(&spec, &hyper, t, &means, &old, &new)?);
    }
    Ok(worst(ratios))
}

/// The subject's moments against the means.
fn moments(
    run: &mut Run,
    hyper: &Hyper,
    spec: &CaseSpec,
    means: &RunningMeans,
    new: &Factors,
) -> Result<Vec<f64>, Error> {
    let (m, v) = (&means.first, &means.second);
    if hyper.method == Method::Full {
        let first = run.state(StateKind::Weight(Moment::First))?;
        let second = run.state(StateKind::Weight(Moment::Second))?;
        let first = first.map(|first| ratio(spec, (first - m).norm(), means.size));
        let second = second.map(|second| of_squares(spec, &second, v));
        return Ok(first.into_iter().chain(second).collect());
    }
    let carried = tangent_projection(new, &Grams::of(new, hyper.damping)?, m);
    let (row, col) = factored_means(v);
    let mut ratios = Vec::new();
    for (kind, expected) in [(StateKind::RowMeans, row), (StateKind::ColMeans, col)] {
        let found = run.state(kind)?;
        ratios.extend(found.map(|found| of_squares(spec, &found, &expected)));
    }
    let (y, z) = (
        run.state(StateKind::TangentY)?,
        run.state(StateKind::TangentZ)?,
    );
    let (Some(y), Some(z)) = (y, z) else {
        return Ok(ratios);
    };
    // Where r = m, Z is nothing but rounding.
    let size_z = z.norm() + lora_pro_core::backend::ratio_or_zero(means.size, new.a.norm());
    ratios.extend([ratio(
        spec,
        (&new.b * y + &z * &new.a - carried).norm(),
        means.size,
    )]);
    // A damped projection leaves some of B in Z.
    if hyper.damping == Damping::None {
        ratios.push(ratio(
            spec,
            (new.b.transpose() * &z).norm(),
            new.b.norm() * size_z,
        ));
    }
    Ok(ratios)
}

/// The ratio of means of squares. An error d in E moves a mean of E^2 by up to 2 |E| d + d^2: where
/// d is small the first term counts, and squares are compared. In a short storage type and at a
/// large kappa d exceeds E; then roots are, which follow d linearly.
fn of_squares(spec: &CaseSpec, found: &DMatrix<f64>, expected: &DMatrix<f64>) -> f64 {
    let root = |v: &DMatrix<f64>| v.map(f64::sqrt);
    let roots = (root(found) - root(expected)).norm();
    let squares = ratio(spec, (found - expected).norm(), expected.norm());
    squares.min(ratio(spec, roots, root(expected).norm()))
}

/// RunningMeans of the rows (m x 1) and of the columns (1 x n). Averaging over time and over rows
/// commute, so those of the running mean are the running means of those.
fn factored_means(v: &DMatrix<f64>) -> (DMatrix<f64>, DMatrix<f64>) {
    let (m, n) = v.shape();
    let row = DMatrix::from_fn(m, 1, |i, _| v.row(i).sum() / n as f64);
    let col = DMatrix::from_fn(1, n, |_, j| v.column(j).sum() / m as f64);
    (row, col)
}

/// The step has moved W, to first order, by -lr times the projection of N.
///
/// N divides by a root that may be small, where an error in E is magnified: so the error is
/// compared with the largest entry of M (and with one of its size, where M cancels) over that root.
fn update(
    spec: &CaseSpec,
    hyper: &Hyper,
    t: u64,
    means: &RunningMeans,
    old: &Factors,
    new: &Factors,
) -> Result<f64, Error> {
    let (n, root) = match hyper.method {
        Method::Full => means.normalized(hyper, t),
        Method::Lora | Method::Sgd | Method::Efficient | Method::Factored => {
            factored_normalized(means, hyper, t)
        }
    };
    let moved = FactorPair {
        a: &old.a - &new.a,
        b: &old.b - &new.b,
    };
    let moved = equivalent_gradient(old, &moved);
    let expected = tangent_projection(old, &Grams::of(old, hyper.damping)?, &n) * hyper.lr;
    let entry = means.first.amax() + means.size / (root.len() as f64).sqrt();
    let magnified = root.map(|x| 1.0 / x).norm() * entry + n.norm();
    let stored = old.s * (old.a.norm() * new.b.norm().max(old.b.norm()));
    Ok(ratio(
        spec,
        (moved - expected).norm(),
        hyper.lr * magnified + stored,
    ))
}

/// N with the second moment replaced by (row mean) (column mean) / (mean), and eps added to the
/// root of each of the two.
fn factored_normalized(
    means: &RunningMeans,
    hyper: &Hyper,
    t: u64,
) -> (DMatrix<f64>, DMatrix<f64>) {
    let c1 = 1.0 - hyper.beta1.powf(t as f64);
    let c2 = 1.0 - hyper.beta2.powf(t as f64);
    let (row, col) = factored_means(&means.second);
    let mean = (row.mean() / c2).sqrt();
    let (m, n) = means.first.shape();
    let root = DMatrix::from_fn(m, n, |i, j| {
        ((row[i] / c2).sqrt() + hyper.eps) * ((col[j] / c2).sqrt() + hyper.eps) / mean
    });
    ((&means.first / c1).component_div(&root), root)
}

/// The efficient mode's means take what one step from scratch shows. U and X A may cancel in it, so that its
/// rounding is relative to their sizes; from there it goes into the moments as it does.
fn on_factors(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let hyper = exact(method);
    let mut run = subject.start(&spec.factors(), hyper)?;
    let (mut a, mut b) = (
        RunningMeans::zero(spec.r, spec.n),
        RunningMeans::zero(spec.m, spec.r),
    );
    let mut sizes = [[0.0; 3]; 2];
    let mut ratios = Vec::new();
    let mut spec = *spec;
    for t in 1..=spec.steps {
        let old = run.factors();
        let gradients = spec.gradients(&old, t);
        let (fed, of_parts) = match method {
            Method::Lora => (gradients.clone(), [0.0; 2]),
            Method::Sgd | Method::Efficient | Method::Factored | Method::Full => {
                spec = with_condition(&spec, &[&old]);
                let answer = Answer::to(
                    subject,
                    method,
                    old,
                    spec.full_gradient(t),
                    XChoice::Sylvester,
                )?;
                let of_parts = answer.sizes(&spec);
                (answer.adjusted, of_parts)
            }
        };
        a.average(&hyper, &fed.a, &fed.a.component_mul(&fed.a));
        b.average(&hyper, &fed.b, &fed.b.component_mul(&fed.b));
        let old = run.factors();
        run.step(&gradients)?;
        let new = run.factors();
        for (k, factor, means, fed, old, new) in [
            (0, Factor::A, &a, &fed.a, &old.a, &new.a),
            (1, Factor::B, &b, &fed.b, &old.b, &new.b),
        ] {
            let [first, second, second_root] = &mut sizes[k];
            *first = *first * hyper.beta1 + of_parts[k] * (1.0 - hyper.beta1);
            *second = *second * hyper.beta2 + fed.norm() * of_parts[k] * (1.0 - hyper.beta2);
            *second_root = *second_root * hyper.beta2 + of_parts[k].powi(2) * (1.0 - hyper.beta2);
            let (n, root) = means.normalized(&hyper, t);
            // Into N it comes with M, and with the root: sqrt(1 - b2) of it, times |N|.
            let c1 = 1.0 - hyper.beta1.powf(t as f64);
            let c2 = 1.0 - hyper.beta2.powf(t as f64);
            let of_root = n.amax() * (*second_root / c2).sqrt();
            let magnified = root.map(|x| 1.0 / x).amax() * (*first / c1 + of_root);
            let expected = old - n * hyper.lr;
            let size = expected.norm() + hyper.lr * (1.0 + magnified);
            ratios.push(ratio(&spec, (new - &expected).norm(), size));
            let of_first = means.size + *first;
            let of_second = means.second.norm() + *second;
            for (moment, mean, size) in [
                (Moment::First, &means.first, of_first),
                (Moment::Second, &means.second, of_second),
            ] {
                let found = run.state(StateKind::Factor(moment, factor))?;
                ratios.extend(found.map(|found| ratio(&spec, (found - mean).norm(), size)));
            }
        }
    }
    Ok(worst(ratios))
}

/// Without memory, a run that has a past steps like one that has none.
fn forgets(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let hyper = exact(method).beta1(0.0).beta2(0.0);
    let mut old = subject.start(&spec.factors(), hyper)?;
    for t in 1..=FORGOTTEN {
        old.step(&spec.gradients(&old.factors(), t))?;
    }
    let mut new = subject.start(&old.factors(), hyper)?;
    let gradients = spec.gradients(&old.factors(), FORGOTTEN + 1);
    old.step(&gradients)?;
    new.step(&gradients)?;
    Ok(all_or_nothing(old.factors() == new.factors()))
}

/// The case with the worst condition number that its factors came to.
pub(super) fn with_condition(spec: &CaseSpec, met: &[&Factors]) -> CaseSpec {
    let mut spec = *spec;
    for factors in met {
        spec.kappa_a = spec.kappa_a.max(condition(&factors.a));
        spec.kappa_b = spec.kappa_b.max(condition(&factors.b));
    }
    spec
}

/// Largest over smallest singular value that is not zero up to rounding.
fn condition(factor: &DMatrix<f64>) -> f64 {
    let values = factor.clone().svd(false, false).singular_values;
    let largest = values.max();
    let smallest = values
        .iter()
        .copied()
        .filter(|x| *x > 1e-14 * largest)
        .fold(largest, f64::min);
    lora_pro_core::backend::ratio_or_zero(largest, smallest).max(1.0)
}
