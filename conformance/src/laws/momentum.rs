//! Law 19: SGD's momentum is $`D \leftarrow \mu D + (\mathrm{d}A, \mathrm{d}B)`$, and the factors
//! move by $`-\eta D`$; with $`\mu = 0`$ by $`-\eta (\mathrm{d}A, \mathrm{d}B)`$.

use lora_pro_core::{Error, Hyper, Method, XChoice};

use crate::residual::{ratio, worst};
use crate::sample::CaseSpec;
use crate::subject::{Run, Subject, exact};

/// Steps of a trajectory.
const STEPS: u64 = 4;

pub(super) fn check(subject: &Subject, spec: &CaseSpec) -> Result<f64, Error> {
    let mut ratios = Vec::new();
    for mu in [0.0, 0.9] {
        let hyper = Hyper {
            momentum: mu,
            lr: 1e-6,
            ..exact(Method::Sgd)
        };
        let mut run = Run::start(subject, &spec.factors(), hyper)?;
        let mut momentum = None;
        for t in 1..=STEPS {
            let old = run.factors();
            let gradients = spec.gradients(&old, t);
            let new = subject.adjusted(&old, &gradients, XChoice::Sylvester)?;
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
