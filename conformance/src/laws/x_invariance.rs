//! Law 3: E is the same for every X. Cannot see anything else.

use lora_pro_core::{Error, XChoice};

use super::{Answer, XS};
use crate::residual::{ratio, worst};
use crate::sample::CaseSpec;
use crate::subject::Subject;

pub(super) fn check(subject: &Subject, spec: &CaseSpec) -> Result<f64, Error> {
    let zero = Answer::of(subject, spec, XChoice::Zero)?;
    let mut ratios = Vec::new();
    for x in XS {
        let other = Answer::of(subject, spec, x)?;
        ratios.push(ratio(spec, (&other.e - &zero.e).norm(), zero.g.norm()));
    }
    Ok(worst(ratios))
}
