//! Law 23: where gradients that are not finite are to be skipped, a step with one changes nothing,
//! counts for nothing and says why; the run then goes on as if it had not been.

use lora_pro_core::{Config, Error, Method, OnNonFinite};

use super::{Applies, Law, METHODS};
use crate::residual::all_or_nothing;
use crate::sample::CaseSpec;
use crate::subject::{Subject, exact};

pub(super) const LAW: Law = Law {
    number: 23,
    name: "skip",
    formula: "a skipped step changes nothing and counts for nothing",
    cannot_see: "results for good input",
    applies: Applies::Trajectory,
    methods: &METHODS,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let mut held = true;
    let skip = OnNonFinite::Skip;
    let config = Config::from(exact(method)).on_non_finite(skip);
    let mut disturbed = subject.start(&spec.factors(), config.clone())?;
    let mut straight = subject.start(&spec.factors(), config)?;
    for t in 1..=3 {
        let gradients = spec.gradients(&disturbed.factors(), t);
        let mut overflowed = gradients.clone();
        overflowed.b[0] = f64::INFINITY;
        let before = disturbed.snapshot()?;
        let report = disturbed.step(&overflowed)?;
        let named = report
            .skipped
            .is_some_and(|skip| skip.subject == "adapter `adapter`");
        held &= named && before == disturbed.snapshot()?;
        held &= disturbed.step(&gradients)?.skipped.is_none();
        straight.step(&gradients)?;
    }
    held &= disturbed.factors() == straight.factors() && disturbed.t() == 3;
    Ok(all_or_nothing(held))
}
