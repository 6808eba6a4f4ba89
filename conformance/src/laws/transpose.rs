//! Law 16: (A, B, gA, gB) -> (B', A', gB', gA') swaps and transposes (dA, dB).
//!
//! For the Sylvester and the symmetric X; X = 0 treats the factors differently. Sees every
//! asymmetric bug.

use lora_pro_core::{Error, XChoice};
use lora_pro_reference::factors::Factors;

use super::Answer;
use crate::residual::{ratio, worst};
use crate::sample::CaseSpec;
use crate::subject::Subject;

pub(super) fn check(subject: &Subject, spec: &CaseSpec) -> Result<f64, Error> {
    let mut ratios = Vec::new();
    for x in [XChoice::Sylvester, XChoice::Symmetric] {
        let here = Answer::of(subject, spec, x)?;
        let factors = Factors {
            b: here.factors.a.transpose(),
            a: here.factors.b.transpose(),
            s: spec.s,
        };
        let there = Answer::to(subject, factors, here.g.transpose(), x)?;
        let (a, b) = (&here.adjusted.a, &here.adjusted.b);
        let [size_a, size_b] = here.sizes(spec);
        ratios.push(ratio(
            spec,
            (there.adjusted.b.transpose() - a).norm(),
            size_a,
        ));
        ratios.push(ratio(
            spec,
            (there.adjusted.a.transpose() - b).norm(),
            size_b,
        ));
    }
    Ok(worst(ratios))
}
