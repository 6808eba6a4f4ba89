//! Law 32: the report says what happened: the counter, $`\lVert E \rVert`$ with $`\lVert E
//! \rVert^2 = \langle g_A, U \rangle + \langle g_B, V \rangle`$, the gradients' norms, the lengths of
//! the updates and their shares of the factors.
//!
//! Sees numbers that are squared, taken before the clip or of another step.

use lora_pro_core::backend::{Factor, ratio_or_zero};
use lora_pro_core::{Config, Error, Method};
use lora_pro_reference::equivalent::{equivalent_gradient, tangent_projection};

use super::recurrence::with_condition;
use super::{Applies, Law, METHODS, grams};
use crate::residual::{all_or_nothing, ratio, worst};
use crate::sample::CaseSpec;
use crate::subject::{Subject, exact};

pub(super) const LAW: Law = Law {
    number: 32,
    name: "report",
    formula: "|E|^2 = <gA, U> + <gB, V>; |update| is how far the factors moved",
    cannot_see: "results that are not reported",
    applies: Applies::Trajectory,
    methods: &METHODS,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    // Clips some steps and not others.
    let limit = spec.full_gradient(1).norm() * spec.s;
    let config = Config::from(exact(method)).max_grad_norm(Some(limit));
    let mut run = subject.start(&spec.factors(), config)?;
    let mut ratios = Vec::new();
    for t in 1..=spec.steps.min(4) {
        let old = run.factors();
        let gradients = spec.gradients(&old, t);
        let whole = run.step(&gradients)?;
        let (new, report) = (run.factors(), run.report());
        if report.equivalent_norm.is_nan() {
            return Err(Error::Unsupported {
                subject: "adapter `adapter`".into(),
                backend: subject.name.clone(),
                what: "a report of the norm of E".into(),
            });
        }
        let norm = gradients.a.norm().hypot(gradients.b.norm());
        ratios.push(ratio(spec, (whole.grad_norm - norm).abs(), norm));
        let clip = (limit / norm).min(1.0);
        ratios.push(ratio(spec, (whole.grad_clip - clip).abs(), clip));
        ratios.push(all_or_nothing(
            whole.lr_factor == 1.0 && whole.skipped.is_none(),
        ));
        let spec = with_condition(spec, &[&old]);
        let e = match method {
            Method::Lora => equivalent_gradient(&old, &gradients),
            Method::Sgd | Method::Efficient | Method::Factored | Method::Full => {
                tangent_projection(&old, &grams(&old, method)?, &spec.full_gradient(t))
            }
        } * clip;
        let size = e.norm() + spec.full_gradient(t).norm();
        ratios.push(ratio(
            &spec,
            (report.equivalent_norm - e.norm()).abs(),
            size,
        ));
        ratios.push(all_or_nothing(report.step == t));
        let moved = [(new.a - &old.a).norm(), (new.b - &old.b).norm()];
        let given = [gradients.a.norm(), gradients.b.norm()];
        let sizes = [old.a.norm(), old.b.norm()];
        for (factor, k) in Factor::ALL.into_iter().zip(0..) {
            let update = report.update_norm.of(factor);
            let relative = report.relative_update.of(factor);
            let share = ratio_or_zero(update, sizes[k]);
            // Both are infinite where a factor that was zero has moved.
            let off_share = if share == relative {
                0.0
            } else {
                (share - relative).abs()
            };
            let off_given = (report.grad_norm.of(factor) - given[k]).abs();
            ratios.extend([
                ratio(&spec, (update - moved[k]).abs(), moved[k] + sizes[k]),
                ratio(&spec, off_given, given[k]),
                ratio(&spec, off_share, share),
            ]);
        }
    }
    Ok(worst(ratios))
}
