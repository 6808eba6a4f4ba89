//! Law 8: $`(B, A, g) \to (Q_1 B, A Q_2, Q_1 g Q_2)`$ takes E to $`Q_1 E Q_2`$ for orthogonal Q.
//!
//! Sees element-wise operations in the split. Cannot see X.

use lora_pro_core::{Error, Method, XChoice};
use lora_pro_reference::factors::Factors;

use super::{Answer, Applies, CLOSED_FORM, Law};
use crate::residual::ratio;
use crate::sample::{CaseSpec, orthonormal};
use crate::subject::Subject;

pub(super) const LAW: Law = Law {
    number: 8,
    name: "rotation",
    formula: "(B, A, g) -> (Q1 B, A Q2, Q1 g Q2) takes E to Q1 E Q2",
    cannot_see: "X; what is wrong in the same way in all coordinates",
    applies: Applies::FullRank,
    methods: &CLOSED_FORM,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let here = Answer::of(subject, spec, method, XChoice::Sylvester)?;
    let mut random = spec.random(100);
    let q1 = orthonormal(&mut random, spec.m, spec.m);
    let q2 = orthonormal(&mut random, spec.n, spec.n);
    let factors = Factors {
        b: &q1 * &here.factors.b,
        a: &here.factors.a * &q2,
        s: spec.s,
    };
    let there = Answer::to(
        subject,
        method,
        factors,
        &q1 * &here.g * &q2,
        XChoice::Sylvester,
    )?;
    Ok(ratio(
        spec,
        (there.e - q1 * here.e * q2).norm(),
        here.g.norm(),
    ))
}
