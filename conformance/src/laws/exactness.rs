//! Law 10: g in the tangent space gives E = g; so does any g at r = min(m, n) and full rank.
//!
//! Cannot see a component of g that is wrongly kept.

use lora_pro_core::{Error, Method, XChoice};

use super::{Answer, Applies, CLOSED_FORM, Law};
use crate::residual::{ratio, worst};
use crate::sample::{CaseSpec, uniform};
use crate::subject::Subject;

pub(super) const LAW: Law = Law {
    number: 10,
    name: "exactness",
    formula: "g in the tangent space gives E = g; so does any g at r = min(m, n)",
    cannot_see: "X; a component of g that is wrongly kept",
    applies: Applies::FullRank,
    methods: &CLOSED_FORM,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let factors = spec.factors();
    let mut random = spec.random(100);
    let tangent = &factors.b * uniform(&mut random, spec.r, spec.n) / spec.size_b
        + uniform(&mut random, spec.m, spec.r) / spec.size_a * &factors.a;
    let inside = Answer::to(subject, method, factors, tangent, XChoice::Sylvester)?;

    let r = spec.m.min(spec.n);
    let square = CaseSpec {
        r,
        rank_a: r,
        rank_b: r,
        ..*spec
    };
    let all = Answer::of(subject, &square, method, XChoice::Sylvester)?;
    Ok(worst([
        ratio(spec, (&inside.e - &inside.g).norm(), inside.g.norm()),
        ratio(&square, (&all.e - &all.g).norm(), all.g.norm()),
    ]))
}
