//! Law 16: (A, B, gA, gB) -> (B', A', gB', gA') swaps and transposes (dA, dB).
//!
//! For the Sylvester and the symmetric X; X = 0 treats the factors differently. Sees every
//! asymmetric bug.

use lora_pro_core::{Error, Method, XChoice};
use lora_pro_reference::factors::Factors;

use super::{Answer, Applies, CLOSED_FORM, Law};
use crate::residual::{ratio, worst};
use crate::sample::CaseSpec;
use crate::subject::Subject;

pub(super) const LAW: Law = Law {
    number: 16,
    name: "transpose",
    formula: "(A, B, gA, gB) -> (B', A', gB', gA') swaps and transposes (dA, dB)",
    cannot_see: "what is wrong for both factors alike",
    applies: Applies::FullRank,
    methods: &CLOSED_FORM,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let mut ratios = Vec::new();
    for x in [XChoice::Sylvester, XChoice::Symmetric] {
        let here = Answer::of(subject, spec, method, x)?;
        let factors = Factors {
            b: here.factors.a.transpose(),
            a: here.factors.b.transpose(),
            s: spec.s,
        };
        let there = Answer::to(subject, method, factors, here.g.transpose(), x)?;
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
