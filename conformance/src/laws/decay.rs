//! Law 20: decay w multiplies A and B by $`1 - \eta w`$ (lora, efficient; B by
//! $`1 - \eta \rho w`$ at the learning-rate ratio $`\rho`$) or by $`\sqrt{1 - \eta w}`$ (factored,
//! full), so that B A decays by $`1 - \eta w`$; and $`\rho`$ multiplies B's update. W0 is multiplied
//! by $`1 - \eta w`$ where `decay_base` asks for it, and not touched otherwise.
//!
//! The update itself does not see the decay, so two runs of one step differ by the decay only.

use lora_pro_core::{Error, Hyper, Method};
use lora_pro_reference::storage::matrix;

use super::{Applies, Law, METHODS};
use crate::methods::has_moments;
use crate::residual::{ratio, worst};
use crate::sample::{CaseSpec, rounded};
use crate::subject::{Subject, exact};

pub(super) const LAW: Law = Law {
    number: 20,
    name: "decay",
    formula: "A and B shrink by 1 - lr w or by its root, W0 where it is asked for",
    cannot_see: "the update itself",
    applies: Applies::Trajectory,
    methods: &METHODS,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let mut ratios = Vec::new();
    if has_moments(method) {
        let plain = exact(method).lr(0.01);
        let decayed = plain.weight_decay(5.0).lr_ratio(4.0);
        let whole = 1.0 - decayed.lr * decayed.weight_decay;
        let (decay_a, decay_b) = match method {
            Method::Factored | Method::Full => (whole.sqrt(), whole.sqrt()),
            Method::Lora | Method::Sgd | Method::Efficient => {
                (whole, 1.0 - 4.0 * decayed.lr * decayed.weight_decay)
            }
        };
        let start = spec.factors();
        let one_step = |hyper: Hyper| {
            let mut run = subject.start(&start, hyper)?;
            run.step(&spec.gradients(&start, 1))?;
            Ok::<_, Error>(run.factors())
        };
        let (without, with) = (one_step(plain)?, one_step(decayed)?);
        let a = &start.a * decay_a + (without.a - &start.a);
        let b = &start.b * decay_b + (without.b - &start.b) * 4.0;
        ratios.push(ratio(spec, (with.a - &a).norm(), a.norm() + start.a.norm()));
        ratios.push(ratio(spec, (with.b - &b).norm(), b.norm() + start.b.norm()));
    }
    let base = base(subject, spec, method);
    // A subject that leaves W0 alone is held to the rest of the law all the same.
    if ratios.is_empty() || !matches!(base, Err(Error::Unsupported { .. })) {
        ratios.push(base?);
    }
    Ok(worst(ratios))
}

/// W0 after one step, with and without the option.
fn base(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let weight_decay = if has_moments(method) { 5.0 } else { 0.0 };
    let w0 = rounded(subject.dtype, &spec.full_gradient(2));
    let mut ratios = Vec::new();
    for decay_base in [true, false] {
        let hyper = exact(method)
            .lr(0.01)
            .weight_decay(weight_decay)
            .decay_base(decay_base);
        let start = spec.factors();
        let gradients = spec.gradients(&start, 1);
        let mut run = subject.start(&start, hyper)?;
        run.adapters[0].w0 = Some(subject.host(&w0));
        run.step(&gradients)?;
        let shrink = if decay_base {
            1.0 - hyper.lr * weight_decay
        } else {
            1.0
        };
        if let Some(stored) = &run.adapters[0].w0 {
            let error = (matrix(&stored.view()) - &w0 * shrink).norm();
            ratios.push(ratio(spec, error, w0.norm()));
        }
    }
    Ok(worst(ratios))
}
