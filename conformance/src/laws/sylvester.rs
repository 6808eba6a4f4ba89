//! Law 5: $`S_B X + X S_A + U A^\top = 0`$.
//!
//! X itself is not seen from outside; $`X A`$ and $`B X`$ are, as differences to the answer with
//! X = 0: $`S_B X = B^\top (\mathrm{d}B_0 - \mathrm{d}B)`$, $`X S_A = (\mathrm{d}A - \mathrm{d}A_0)
//! A^\top`$, $`U = \mathrm{d}A_0`$. Cannot see a wrong U or V.

use lora_pro_core::{Error, Method, XChoice};

use super::{Answer, Applies, CLOSED_FORM, Law};
use crate::residual::ratio;
use crate::sample::CaseSpec;
use crate::subject::Subject;

pub(super) const LAW: Law = Law {
    number: 5,
    name: "sylvester",
    formula: "SB X + X SA = -U A'",
    cannot_see: "a wrong U or V",
    applies: Applies::FullRank,
    methods: &CLOSED_FORM,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let zero = Answer::of(subject, spec, method, XChoice::Zero)?;
    let chosen = Answer::of(subject, spec, method, XChoice::Sylvester)?;
    let (b, a) = (&zero.factors.b, &zero.factors.a);
    let b_x = &zero.adjusted.b - &chosen.adjusted.b;
    let x_a = &chosen.adjusted.a - &zero.adjusted.a;
    let residual = b.transpose() * &b_x + &x_a * a.transpose() + &zero.adjusted.a * a.transpose();
    // V is what the projection leaves of gB SA^+, which may be almost nothing: a subject that
    // applies the projection and X at once rounds relative to all of it.
    let [size_a, size_b] = zero.sizes(spec);
    let size = b.norm() * (b_x.norm() + size_b) + (x_a.norm() + size_a) * a.norm();
    Ok(ratio(spec, residual.norm(), size))
}
