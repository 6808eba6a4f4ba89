//! Law 22: what acts on the raw gradients acts before everything else. A global-norm clip, a factor
//! for loss scaling and `maximize` do what scaling the gradients by hand does.

use lora_pro_core::{Config, Error, Method, PerFactor};
use lora_pro_reference::factors::Factors;

use super::{Applies, Law, METHODS};
use crate::residual::{ratio, worst};
use crate::sample::CaseSpec;
use crate::subject::{Subject, exact};

/// Loss scale: no power of two.
const LOSS_SCALE: f64 = 1000.0;

pub(super) const LAW: Law = Law {
    number: 22,
    name: "gradients",
    formula: "loss scale, global clip and maximize act on the raw gradients",
    cannot_see: "whatever does not depend on their length",
    applies: Applies::Trajectory,
    methods: &METHODS,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let mut ratios = Vec::new();
    // A large eps, so that the method sees how long gradients are and is smooth.
    let hyper = exact(method).eps(spec.size_g).lr(spec.gentle_lr());
    let plain = |factor: &dyn Fn(f64) -> f64| run(subject, spec, hyper.into(), 1.0, factor);

    let ascent = hyper.maximize(true);
    let ascended = run(subject, spec, ascent.into(), 1.0, |_| 1.0)?;
    ratios.extend(differ(spec, &ascended, &plain(&|_| -1.0)?));

    let scaled = run(subject, spec, hyper.into(), LOSS_SCALE.recip(), |_| {
        LOSS_SCALE
    })?;
    ratios.extend(differ(spec, &scaled, &plain(&|_| 1.0)?));

    let limit = spec.size_g * spec.s * 0.1;
    let clip = Config::from(hyper).max_grad_norm(Some(limit));
    let clipped = run(subject, spec, clip, 1.0, |_| 1.0)?;
    ratios.extend(differ(
        spec,
        &clipped,
        &plain(&|norm| (limit / norm).min(1.0))?,
    ));
    Ok(worst(ratios))
}

/// Factors and path after one step, whose gradients are multiplied by a factor of their global
/// norm. A second step would magnify the rounding of the first.
fn run(
    subject: &Subject,
    spec: &CaseSpec,
    config: Config,
    grad_scale: f64,
    factor: impl Fn(f64) -> f64,
) -> Result<End, Error> {
    let mut run = subject.start(&spec.factors(), config)?;
    run.optimizer.set_grad_scale(grad_scale)?;
    let gradients = spec.gradients(&run.factors(), 1);
    let norm = gradients.a.norm().hypot(gradients.b.norm());
    run.step(&gradients.scaled(factor(norm)))?;
    Ok((run.factors(), run.path))
}

type End = (Factors, PerFactor);

fn differ(spec: &CaseSpec, (found, _): &End, (expected, path): &End) -> [f64; 2] {
    [
        ratio(spec, (&found.a - &expected.a).norm(), path.a),
        ratio(spec, (&found.b - &expected.b).norm(), path.b),
    ]
}
