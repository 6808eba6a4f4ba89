//! Law 3: E is the same for every X. Cannot see anything else.

use lora_pro_core::{Error, Method, XChoice};

use super::{Answer, Applies, CLOSED_FORM, Law, XS};
use crate::residual::{ratio, worst};
use crate::sample::CaseSpec;
use crate::subject::Subject;

pub(super) const LAW: Law = Law {
    number: 3,
    name: "x-invariance",
    formula: "E is the same for every X",
    cannot_see: "anything but a term of X that does not cancel",
    applies: Applies::FullRank,
    methods: &CLOSED_FORM,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let zero = Answer::of(subject, spec, method, XChoice::Zero)?;
    let mut ratios = Vec::new();
    for x in XS {
        let other = Answer::of(subject, spec, method, x)?;
        ratios.push(ratio(spec, (&other.e - &zero.e).norm(), zero.g.norm()));
    }
    Ok(worst(ratios))
}
