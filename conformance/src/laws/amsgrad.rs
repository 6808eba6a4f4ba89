//! Law 24: AMSGrad divides by the largest second moment so far, which never falls.
//!
//! While the second moment rises it changes nothing; after a large gradient and then small ones
//! it holds steps back.

use lora_pro_core::{Error, Hyper, Method};
use lora_pro_reference::factors::Pair;

use crate::residual::{all_or_nothing, worst};
use crate::sample::CaseSpec;
use crate::subject::{Run, Subject, exact};

/// Second moments and their maxima, by method.
fn names(method: Method) -> &'static [[&'static str; 2]] {
    match method {
        Method::Full => &[["exp_avg_sq", "max_exp_avg_sq"]],
        Method::Factored => &[["row_sq", "max_row_sq"], ["col_sq", "max_col_sq"]],
        _ => &[
            ["exp_avg_sq_a", "max_exp_avg_sq_a"],
            ["exp_avg_sq_b", "max_exp_avg_sq_b"],
        ],
    }
}

pub(super) fn check(subject: &Subject, spec: &CaseSpec) -> Result<f64, Error> {
    let mut held = Vec::new();
    for method in [
        Method::Lora,
        Method::Efficient,
        Method::Factored,
        Method::Full,
    ] {
        let hyper = Hyper {
            amsgrad: true,
            beta2: 0.5,
            lr: 1e-5,
            ..exact(method)
        };
        let plain = Hyper {
            amsgrad: false,
            ..hyper
        };
        let mut run = Run::start(subject, &spec.factors(), hyper)?;
        let mut without = Run::start(subject, &spec.factors(), plain)?;
        let mut largest = Vec::new();
        for t in 1..=4 {
            let size = if t == 1 { 1.0 } else { 1e-3 };
            let gradients = |run: &Run| -> Pair { spec.gradients(&run.factors(), t).scaled(size) };
            run.step(&gradients(&run))?;
            without.step(&gradients(&without))?;
            if t == 1 {
                held.push(run.factors() == without.factors());
            }
            for (k, [now, max]) in names(method).iter().enumerate() {
                let (now, max) = (run.state(now)?, run.state(max)?);
                let before = if t == 1 {
                    now.clone()
                } else {
                    std::mem::take(&mut largest[k])
                };
                let expected = before.sup(&now);
                held.push(max == expected);
                if t == 1 {
                    largest.push(max);
                } else {
                    largest[k] = max;
                }
            }
        }
        held.push(run.report().update_norm[1] < without.report().update_norm[1]);
    }
    Ok(worst(held.into_iter().map(all_or_nothing)))
}
