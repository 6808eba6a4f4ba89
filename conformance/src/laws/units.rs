//! Law 27: the unit of the loss does not matter: $`g \to c g`$ with $`\varepsilon \to c
//! \varepsilon`$ (SGD: with $`\eta \to \eta / c`$) leaves the factors' path as it is.
//!
//! Sees an eps that is squared, under the root or left out where it should be inside, a constant
//! that is hidden in the code, and moments of the wrong power. eps is as large as E here.

use lora_pro_core::{Error, Method};

use super::recurrence::with_condition;
use super::{Applies, Law, METHODS};
use crate::residual::{ratio, worst};
use crate::sample::CaseSpec;
use crate::subject::{Subject, exact};

/// The factor c: no power of two.
const C: f64 = 37.0;

/// Steps of a trajectory: more would magnify rounding.
const STEPS: u64 = 3;

pub(super) const LAW: Law = Law {
    number: 27,
    name: "units",
    formula: "g -> c g with eps -> c eps (sgd: lr -> lr / c) leaves the path unchanged",
    cannot_see: "a constant factor on the update",
    applies: Applies::Trajectory,
    methods: &METHODS,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let hyper = exact(method).eps(spec.size_g).lr(spec.gentle_lr());
    let longer = match method {
        Method::Sgd => hyper.lr(hyper.lr / C),
        Method::Lora | Method::Efficient | Method::Factored | Method::Full => {
            hyper.eps(hyper.eps * C)
        }
    };
    let mut here = subject.start(&spec.factors(), hyper)?;
    let mut there = subject.start(&spec.factors(), longer)?;
    let mut ratios = Vec::new();
    let mut spec = *spec;
    for t in 1..=spec.steps.min(STEPS) {
        here.step(&spec.gradients(&here.factors(), t))?;
        there.step(&spec.gradients(&there.factors(), t).scaled(C))?;
        let (x, y) = (here.factors(), there.factors());
        spec = with_condition(&spec, &[&x]);
        let path = here.path;
        ratios.push(ratio(&spec, (x.a - y.a).norm(), path.a));
        ratios.push(ratio(&spec, (x.b - y.b).norm(), path.b));
    }
    Ok(worst(ratios))
}
