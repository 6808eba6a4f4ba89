//! Law 30: a schedule multiplies the learning rate of step t by its factor, and nothing else.
//!
//! Sees a factor that is left out, applied twice or taken from another step.

use lora_pro_core::{Config, Error, Method, Schedule};

use super::{Applies, Law, METHODS};
use crate::residual::{all_or_nothing, ratio, worst};
use crate::sample::CaseSpec;
use crate::subject::{Subject, exact};

pub(super) const LAW: Law = Law {
    number: 30,
    name: "schedule",
    formula: "a schedule multiplies lr by its factor at t",
    cannot_see: "the direction of the update",
    applies: Applies::Trajectory,
    methods: &METHODS,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let mut ratios = Vec::new();
    // Halves the first step; leaves the first as it is and halves the second.
    for (warmup, halved) in [(2, 1), (1, 2)] {
        let schedule = Schedule::Linear { warmup, total: 3 };
        let scheduled = Config::from(exact(method)).schedule(schedule);
        let mut slow = subject.start(&spec.factors(), scheduled)?;
        let mut constant = subject.start(&spec.factors(), exact(method))?;
        for t in 1..=halved {
            let old = constant.factors();
            ratios.push(all_or_nothing(slow.factors() == old));
            let gradients = spec.gradients(&old, t);
            let report = slow.step(&gradients)?;
            constant.step(&gradients)?;
            let factor = if t == halved { 0.5 } else { 1.0 };
            ratios.push(all_or_nothing(report.lr_factor == factor));
            let (x, y) = (slow.factors(), constant.factors());
            for (old, found, whole) in [(&old.a, x.a, y.a), (&old.b, x.b, y.b)] {
                let update = whole - old;
                let error = found - (old + &update * factor);
                ratios.push(ratio(spec, error.norm(), old.norm() + update.norm()));
            }
        }
    }
    Ok(worst(ratios))
}
