//! Law 21: the update clip scales the updates of both factors by the same number, and brings that
//! of the factor with the larger norm down to the limit; where nothing exceeds the limit it does
//! nothing. The report says what happened.

use lora_pro_core::{Error, Factor, Hyper, Method, PerFactor};

use super::{Applies, Law, METHODS};
use crate::residual::{all_or_nothing, ratio, worst};
use crate::sample::CaseSpec;
use crate::subject::{Subject, exact};

/// Steps of a trajectory: the second is the large one.
const STEPS: u64 = 3;

pub(super) const LAW: Law = Law {
    number: 21,
    name: "clip",
    formula: "|update| <= c |factor| on the larger factor, and the same factor on both",
    cannot_see: "the update's direction",
    applies: Applies::Trajectory,
    methods: &METHODS,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let mut ratios = Vec::new();
    let free = exact(method);
    for limit in [1e-4, 1e9] {
        let clipped = free.update_clip(Some(limit));
        let mut run = subject.start(&spec.factors(), clipped)?;
        for t in 1..=STEPS {
            let old = run.factors();
            let gradients = spec.gradients(&old, t);
            run.step(&gradients)?;
            let new = run.factors();
            let report = run.report();
            let sizes = PerFactor::from([old.a.norm(), old.b.norm()]);
            let moved = PerFactor::from([(new.a - &old.a).norm(), (new.b - &old.b).norm()]);
            let larger = if sizes.a >= sizes.b {
                Factor::A
            } else {
                Factor::B
            };
            let over = (report.relative_update.of(larger) - limit).max(0.0);
            ratios.push(ratio(spec, over, limit));
            ratios.push(all_or_nothing(report.clip <= 1.0 && report.clip > 0.0));
            ratios.push(all_or_nothing(report.clip == 1.0 || limit < 1.0));
            for factor in Factor::ALL {
                let (moved, size) = (moved.of(factor), sizes.of(factor));
                let error = (report.update_norm.of(factor) - moved).abs();
                ratios.push(ratio(spec, error, moved + size));
            }
        }
    }
    ratios.push(same_direction(subject, spec, free)?);
    Ok(worst(ratios))
}

/// A clipped first step is the free one times what the report says.
fn same_direction(subject: &Subject, spec: &CaseSpec, free: Hyper) -> Result<f64, Error> {
    let start = spec.factors();
    let one_step = |hyper: Hyper| {
        let mut run = subject.start(&start, hyper)?;
        run.step(&spec.gradients(&start, 1))?;
        Ok::<_, Error>((run.factors(), run.report()))
    };
    let (whole, _) = one_step(free)?;
    let (part, report) = one_step(free.update_clip(Some(1e-4)))?;
    let error_a = (part.a - &start.a) - (whole.a - &start.a) * report.clip;
    let error_b = (part.b - &start.b) - (whole.b - &start.b) * report.clip;
    Ok(worst([
        ratio(spec, error_a.norm(), start.a.norm()),
        ratio(spec, error_b.norm(), start.b.norm() + report.update_norm.b),
    ]))
}
