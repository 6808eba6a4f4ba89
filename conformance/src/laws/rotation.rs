//! Law 8: $`(B, A, g) \to (Q_1 B, A Q_2, Q_1 g Q_2)`$ takes E to $`Q_1 E Q_2`$ for orthogonal Q.
//!
//! Sees element-wise operations in the split. Cannot see X.

use lora_pro_core::{Error, XChoice};
use lora_pro_reference::factors::Factors;

use super::Answer;
use crate::residual::ratio;
use crate::sample::{CaseSpec, orthonormal};
use crate::subject::Subject;

pub(super) fn check(subject: &Subject, spec: &CaseSpec) -> Result<f64, Error> {
    let here = Answer::of(subject, spec, XChoice::Sylvester)?;
    let mut random = spec.random(100);
    let q1 = orthonormal(&mut random, spec.m, spec.m);
    let q2 = orthonormal(&mut random, spec.n, spec.n);
    let factors = Factors {
        b: &q1 * &here.factors.b,
        a: &here.factors.a * &q2,
        s: spec.s,
    };
    let there = Answer::to(subject, factors, &q1 * &here.g * &q2, XChoice::Sylvester)?;
    Ok(ratio(
        spec,
        (there.e - q1 * here.e * q2).norm(),
        here.g.norm(),
    ))
}
