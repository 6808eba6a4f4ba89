//! Law 19: SGD's momentum is $`D \leftarrow \mu D + (\mathrm{d}A, \mathrm{d}B)`$, and the factors
//! move by $`-\eta D`$; with $`\mu = 0`$ by $`-\eta (\mathrm{d}A, \mathrm{d}B)`$.

use lora_pro_core::{Error, Method, XChoice};

use super::{Applies, Law};
use crate::residual::{ratio, worst};
use crate::sample::CaseSpec;
use crate::subject::{Subject, exact};

pub(super) const LAW: Law = Law {
    number: 19,
    name: "momentum",
    formula: "D <- mu D + (dA, dB)",
    cannot_see: "a wrong (dA, dB)",
    applies: Applies::Trajectory,
    methods: &[Method::Sgd],
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let mut ratios = Vec::new();
    for mu in [0.0, 0.9] {
        let hyper = exact(method).momentum(mu).lr(1e-6);
        let mut run = subject.start(&spec.factors(), hyper)?;
        let mut momentum = None;
        for t in 1..=spec.steps {
            let old = run.factors();
            let gradients = spec.gradients(&old, t);
            let new = subject.adjusted(&old, &gradients, method, XChoice::Sylvester)?;
            let (a, b) = match momentum.take() {
                None => (new.a, new.b),
                Some((a, b)) => (a * mu + new.a, b * mu + new.b),
            };
            run.step(&gradients)?;
            for (found, old, d) in [(run.factors().a, &old.a, &a), (run.factors().b, &old.b, &b)] {
                let step = d * hyper.lr;
                let size = old.norm() + step.norm();
                ratios.push(ratio(spec, (found - (old - step)).norm(), size));
            }
            momentum = Some((a, b));
        }
    }
    Ok(worst(ratios))
}
