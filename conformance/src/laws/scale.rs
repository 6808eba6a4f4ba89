//! Law 9: $`s \to c s`$ with $`B \to B / c`$ leaves E unchanged; $`g \to c g`$ takes E to c E.
//!
//! Sees a missing or doubled s. c is no power of two, since those commute with every rounding and
//! show nothing.

use lora_pro_core::{Error, XChoice};
use lora_pro_reference::factors::Factors;

use super::Answer;
use crate::residual::{ratio, worst};
use crate::sample::CaseSpec;
use crate::subject::Subject;

/// The factor c.
const C: f64 = 3.7;

pub(super) fn check(subject: &Subject, spec: &CaseSpec) -> Result<f64, Error> {
    let here = Answer::of(subject, spec, XChoice::Sylvester)?;
    let shared = Factors {
        b: &here.factors.b / C,
        a: here.factors.a.clone(),
        s: spec.s * C,
    };
    let shared = Answer::to(subject, shared, here.g.clone(), XChoice::Sylvester)?;
    let longer = Answer::to(
        subject,
        here.factors.clone(),
        &here.g * C,
        XChoice::Sylvester,
    )?;
    Ok(worst([
        ratio(spec, (shared.e - &here.e).norm(), here.g.norm()),
        ratio(spec, (longer.e - &here.e * C).norm(), here.g.norm() * C),
    ]))
}
