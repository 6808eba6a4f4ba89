//! Law 14: state saved and loaded at any step continues to the last bit.
//!
//! Sees moments that are not saved, counters that start again, and numbers rounded on the way.

use lora_pro_core::{Error, Method};

use super::{Applies, Law, METHODS};
use crate::methods::has_moments;
use crate::residual::all_or_nothing;
use crate::sample::CaseSpec;
use crate::subject::{Subject, exact};

pub(super) const LAW: Law = Law {
    number: 14,
    name: "resume",
    formula: "saved and loaded at any step, a run continues to the last bit",
    cannot_see: "what is wrong every time",
    applies: Applies::Trajectory,
    methods: &METHODS,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let adaptive = has_moments(method);
    let momentum = if adaptive { 0.0 } else { 0.9 };
    let hyper = exact(method)
        .momentum(momentum)
        .amsgrad(adaptive)
        .weight_decay(if adaptive { 0.1 } else { 0.0 });
    let mut straight = subject.start(&spec.factors(), hyper)?;
    let mut interrupted = subject.start(&spec.factors(), hyper)?;
    for t in 1..=spec.steps {
        straight.step(&spec.gradients(&straight.factors(), t))?;
        interrupted = interrupted.moved_to(subject.backend())?;
        interrupted.step(&spec.gradients(&interrupted.factors(), t))?;
    }
    let same =
        straight.factors() == interrupted.factors() && straight.saved()? == interrupted.saved()?;
    Ok(all_or_nothing(same && straight.t() == spec.steps))
}
