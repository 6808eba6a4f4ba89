//! Law 9: $`s \to c s`$ with $`B \to B / c`$ leaves E unchanged; $`g \to c g`$ takes E to c E.
//!
//! Sees a missing or doubled s. c is no power of two, since those commute with every rounding and
//! show nothing.

use lora_pro_core::{Error, Method, XChoice};
use lora_pro_reference::factors::Factors;

use super::{Answer, Applies, CLOSED_FORM, Law};
use crate::residual::{ratio, worst};
use crate::sample::CaseSpec;
use crate::subject::Subject;

/// The factor c.
const C: f64 = 3.7;

pub(super) const LAW: Law = Law {
    number: 9,
    name: "scale",
    formula: "s -> c s with B -> B / c leaves E unchanged; g -> c g takes E to c E",
    cannot_see: "a constant factor on E",
    applies: Applies::FullRank,
    methods: &CLOSED_FORM,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let here = Answer::of(subject, spec, method, XChoice::Sylvester)?;
    let shared = Factors {
        b: &here.factors.b / C,
        a: here.factors.a.clone(),
        s: spec.s * C,
    };
    let shared = Answer::to(subject, method, shared, here.g.clone(), XChoice::Sylvester)?;
    let longer = Answer::to(
        subject,
        method,
        here.factors.clone(),
        &here.g * C,
        XChoice::Sylvester,
    )?;
    Ok(worst([
        ratio(spec, (shared.e - &here.e).norm(), here.g.norm()),
        ratio(spec, (longer.e - &here.e * C).norm(), here.g.norm() * C),
    ]))
}
