//! Law 14: state saved and loaded at any step continues to the last bit.
//!
//! Sees moments that are not saved, counters that start again, and numbers rounded on the way.

use lora_pro_core::{Error, Hyper, Method};

use super::METHODS;
use crate::residual::all_or_nothing;
use crate::sample::CaseSpec;
use crate::subject::{Run, Subject, exact};

/// Steps of a trajectory; it is interrupted before each of them.
const STEPS: u64 = 4;

pub(super) fn check(subject: &Subject, spec: &CaseSpec) -> Result<f64, Error> {
    let mut same = true;
    for method in METHODS {
        let sgd = method == Method::Sgd;
        let momentum = if sgd { 0.9 } else { 0.0 };
        let hyper = Hyper {
            momentum,
            amsgrad: !sgd,
            weight_decay: if sgd { 0.0 } else { 0.1 },
            ..exact(method)
        };
        let mut straight = Run::start(subject, &spec.factors(), hyper)?;
        let mut interrupted = Run::start(subject, &spec.factors(), hyper)?;
        for t in 1..=STEPS {
            straight.step(&spec.gradients(&straight.factors(), t))?;
            interrupted = interrupted.reloaded(subject)?;
            interrupted.step(&spec.gradients(&interrupted.factors(), t))?;
        }
        same &= straight.factors() == interrupted.factors();
        same &= straight.saved()? == interrupted.saved()? && straight.t() == STEPS;
    }
    Ok(all_or_nothing(same))
}
