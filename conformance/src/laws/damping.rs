//! Law 31: damping d is added to the eigenvalues of S_A and S_B wherever they are inverted: with
//! X = 0, $`s^2 (S_B + d I)\, \mathrm{d}A = g_A`$ and $`s^2\, \mathrm{d}B\, (S_A + d I) = (I - B
//! (S_B + d I)^{-1} B^\top)\, g_B`$. `absolute` has d as it is given, `relative` a share of the
//! largest eigenvalue; `cutoff` inverts what is above its share and nothing else.
//!
//! Sees damping that is left out, in one Gram matrix only, squared, or of another kind. All other
//! laws are about the exact inverse.

use lora_pro_core::{Damping, Error, Method, XChoice};
use lora_pro_reference::damping::Grams;
use lora_pro_reference::factors::{gram_a, gram_b};
use nalgebra::DMatrix;

use super::{Applies, Law};
use crate::residual::{ratio, worst};
use crate::sample::{CaseSpec, rounded_pair};
use crate::subject::Subject;

pub(super) const LAW: Law = Law {
    number: 31,
    name: "damping",
    formula: "s^2 (SB + d I) dA = gA; s^2 dB (SA + d I) = (I - B (SB + d I)^-1 B') gB",
    cannot_see: "X",
    applies: Applies::FullRank,
    methods: &[Method::Sgd, Method::Efficient],
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let factors = subject.stored(&spec.factors());
    let g = spec.full_gradient(1);
    let gradients = rounded_pair(
        subject.dtype,
        &lora_pro_reference::factors::factor_gradients(&factors, &g),
    );
    let (sb, sa) = (gram_b(&factors.b), gram_a(&factors.a));
    let largest = |s: &DMatrix<f64>| s.clone().symmetric_eigenvalues().max();
    let (most_b, most_a) = (largest(&sb), largest(&sa));
    let (b, s2) = (&factors.b, factors.s * factors.s);
    let middle = (most_b * most_a).sqrt() * 0.01;
    let mut ratios = Vec::new();
    for (damping, shift_b, shift_a) in [
        (Damping::Absolute(middle), middle, middle),
        (Damping::Relative(0.1), 0.1 * most_b, 0.1 * most_a),
    ] {
        let d = subject.adjusted_with(&factors, &gradients, method, XChoice::Zero, damping)?;
        let shifted = |s: &DMatrix<f64>, d: f64| s + DMatrix::identity(s.nrows(), s.ncols()) * d;
        let (of_b, of_a) = (shifted(&sb, shift_b), shifted(&sa, shift_a));
        let error = &of_b * &d.a * s2 - &gradients.a;
        let size = of_b.norm() * d.a.norm() * s2 + gradients.a.norm();
        ratios.push(ratio(spec, error.norm(), size));
        let inside = of_b
            .clone()
            .cholesky()
            .map(|c| b * c.solve(&(b.transpose() * &gradients.b)));
        let inside = inside.unwrap_or_else(|| &gradients.b * f64::NAN);
        let error = &d.b * &of_a * s2 - (&gradients.b - inside);
        let size = of_a.norm() * d.b.norm() * s2 + gradients.b.norm();
        ratios.push(ratio(spec, error.norm(), size));
    }
    let some = Damping::Absolute(middle);
    ratios.push(sylvester(subject, spec, method, some)?);
    ratios.push(cutoff(subject, spec, method)?);
    Ok(worst(ratios))
}

/// Damping is for inverses: the Sylvester equation has the Gram matrices as they are (law 5).
fn sylvester(
    subject: &Subject,
    spec: &CaseSpec,
    method: Method,
    damping: Damping,
) -> Result<f64, Error> {
    let factors = subject.stored(&spec.factors());
    let gradients = spec.gradients(&factors, 1);
    let answer = |x| subject.adjusted_with(&factors, &gradients, method, x, damping);
    let (zero, chosen) = (answer(XChoice::Zero)?, answer(XChoice::Sylvester)?);
    let (b, a) = (&factors.b, &factors.a);
    let (b_x, x_a) = (&zero.b - &chosen.b, &chosen.a - &zero.a);
    let residual = b.transpose() * &b_x + &x_a * a.transpose() + &zero.a * a.transpose();
    let whole = gradients.b.norm() / (factors.s * a.norm()).powi(2) * spec.kappa_a.powi(2);
    let size = b.norm() * (b_x.norm() + whole) + (x_a.norm() + zero.a.norm()) * a.norm();
    Ok(ratio(spec, residual.norm(), size))
}

/// With a factor whose singular values are 1 and 1e-3, a cut-off between their squares leaves the
/// pseudo-inverse of the larger ones.
fn cutoff(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let cut = Damping::Cutoff(1e-4);
    let apart = CaseSpec {
        spectrum: crate::sample::Spectrum::OneLarge,
        kappa_a: 1e3,
        kappa_b: 1e3,
        ..*spec
    };
    let factors = subject.stored(&apart.factors());
    let gradients = apart.gradients(&factors, 1);
    let d = subject.adjusted_with(&factors, &gradients, method, XChoice::Zero, cut)?;
    let grams = Grams::of(&factors, cut)?;
    let expected = grams.sb_inverse.apply(&gradients.a) / (factors.s * factors.s);
    // What is kept is well-conditioned.
    let kept = CaseSpec {
        kappa_a: 1.0,
        kappa_b: 1.0,
        ..apart
    };
    let size = expected.norm() + gradients.a.norm() * grams.sb_inverse.matrix().norm();
    Ok(ratio(&kept, (d.a - expected).norm(), size))
}
