//! Law 20: decay w multiplies A and B by $`1 - \eta w`$ (lora, efficient; B by
//! $`1 - \eta \rho w`$ at the learning-rate ratio $`\rho`$) or by $`\sqrt{1 - \eta w}`$ (factored,
//! full), so that B A decays by $`1 - \eta w`$; and $`\rho`$ multiplies B's update.
//!
//! The update itself does not see the decay, so two runs of one step differ by the decay only.

use lora_pro_core::{Error, Hyper, Method};

use crate::residual::{ratio, worst};
use crate::sample::CaseSpec;
use crate::subject::{Run, Subject, exact};

pub(super) fn check(subject: &Subject, spec: &CaseSpec) -> Result<f64, Error> {
    let mut ratios = Vec::new();
    for method in [
        Method::Lora,
        Method::Efficient,
        Method::Factored,
        Method::Full,
    ] {
        let plain = Hyper {
            lr: 0.01,
            ..exact(method)
        };
        let decayed = Hyper {
            weight_decay: 5.0,
            lr_ratio: 4.0,
            ..plain
        };
        let whole = 1.0 - decayed.lr * decayed.weight_decay;
        let (decay_a, decay_b) = match method {
            Method::Factored | Method::Full => (whole.sqrt(), whole.sqrt()),
            _ => (whole, 1.0 - 4.0 * decayed.lr * decayed.weight_decay),
        };
        let start = spec.factors();
        let one_step = |hyper: Hyper| {
            let mut run = Run::start(subject, &start, hyper)?;
            run.step(&spec.gradients(&start, 1))?;
            Ok::<_, Error>(run.factors())
        };
        let (without, with) = (one_step(plain)?, one_step(decayed)?);
        let a = &start.a * decay_a + (without.a - &start.a);
        let b = &start.b * decay_b + (without.b - &start.b) * 4.0;
        ratios.push(ratio(spec, (with.a - &a).norm(), a.norm() + start.a.norm()));
        ratios.push(ratio(spec, (with.b - &b).norm(), b.norm() + start.b.norm()));
    }
    Ok(worst(ratios))
}
