//! Law 15: with the Sylvester X, $`\mathrm{d}A\, A^\top = B^\top \mathrm{d}B`$.
//!
//! Together with law 1 it sees every known bug in X.

use lora_pro_core::{Error, Method, XChoice};

use super::{Answer, Applies, CLOSED_FORM, Law};
use crate::residual::ratio;
use crate::sample::CaseSpec;
use crate::subject::Subject;

pub(super) const LAW: Law = Law {
    number: 15,
    name: "balance",
    formula: "dA A' = B' dB",
    cannot_see: "an E that keeps B'V = 0 and the Sylvester equation true",
    applies: Applies::AnyRank,
    methods: &CLOSED_FORM,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let answer = Answer::of(subject, spec, method, XChoice::Sylvester)?;
    let (b, a) = (&answer.factors.b, &answer.factors.a);
    let left = &answer.adjusted.a * a.transpose();
    let right = b.transpose() * &answer.adjusted.b;
    // At r = n, dA is what is left of U and X A, which cancel almost wholly where B is small.
    let [size_a, size_b] = answer.sizes(spec);
    let size = size_a * a.norm() + b.norm() * size_b;
    Ok(ratio(spec, (left - right).norm(), size))
}
