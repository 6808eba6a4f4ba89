//! Law 28: what a step does depends on the factors' rank and not on how many steps there were. An
//! adapter whose B is set to zero in the middle of a run moves as at its first step: A stays, where
//! nothing but the present gradient counts.
//!
//! Sees a first step that is recognised by a counter, and inverses kept from earlier steps. (An
//! adapter that starts with B other than zero is what all other laws are about.)

use lora_pro_core::{Error, Method};
use lora_pro_reference::factors::Factors;
use lora_pro_reference::storage::host;

use super::{Applies, CLOSED_FORM, Law};
use crate::residual::all_or_nothing;
use crate::sample::CaseSpec;
use crate::subject::{Subject, exact};

pub(super) const LAW: Law = Law {
    number: 28,
    name: "fresh-start",
    formula: "with B = 0 again, a step is what it is at t = 1",
    cannot_see: "what is wrong at the first step too",
    applies: Applies::Trajectory,
    methods: &CLOSED_FORM,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    // Without memory the past is in the factors alone.
    let hyper = exact(method).beta1(0.0).beta2(0.0);
    let mut old = subject.start(&spec.factors(), hyper)?;
    for t in 1..=3 {
        old.step(&spec.gradients(&old.factors(), t))?;
    }
    let zero = Factors {
        b: old.factors().b * 0.0,
        ..old.factors()
    };
    old.adapters[0].b = host(&zero.b, subject.dtype);
    let mut new = subject.start(&zero, hyper)?;
    let gradients = spec.gradients(&zero, 4);
    old.step(&gradients)?;
    new.step(&gradients)?;
    let same = old.factors() == new.factors();
    Ok(all_or_nothing(same && old.factors().a == zero.a))
}
