//! Law 2: no (dA, dB) gives a smaller $`\lVert E - g \rVert`$, and plain LoRA's E does not, at any
//! scale.
//!
//! Along any direction F in the tangent space the best step would shorten the rest g - E by
//! $`|\langle F, g - E \rangle| / \lVert F \rVert`$: this must be nothing. Cannot see X.

use lora_pro_core::{Error, Method, XChoice};
use lora_pro_reference::equivalent::equivalent_gradient;
use lora_pro_reference::factors::FactorPair;
use lora_pro_reference::gap::{gap, gap_after_best_scale};

use super::{Answer, Applies, CLOSED_FORM, Law};
use crate::residual::{ratio, worst};
use crate::sample::{CaseSpec, uniform};
use crate::subject::Subject;

/// Random directions tried.
const DIRECTIONS: usize = 4;

pub(super) const LAW: Law = Law {
    number: 2,
    name: "optimality",
    formula: "no (dA, dB) gives a smaller |E - g|; plain LoRA's E does not, at any scale",
    cannot_see: "X",
    applies: Applies::FullRank,
    methods: &CLOSED_FORM,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let answer = Answer::of(subject, spec, method, XChoice::Sylvester)?;
    let Answer {
        factors,
        g,
        gradients,
        e,
        ..
    } = &answer;
    let rest = g - e;
    let mut random = spec.random(100);
    let ratios = (0..DIRECTIONS).map(|_| {
        let direction = FactorPair {
            a: uniform(&mut random, spec.r, spec.n) * spec.size_a,
            b: uniform(&mut random, spec.m, spec.r) * spec.size_b,
        };
        let f = equivalent_gradient(factors, &direction);
        ratio(spec, f.dot(&rest).abs(), f.norm() * g.norm())
    });
    let lora = equivalent_gradient(factors, gradients);
    let better = gap(g, e) - gap_after_best_scale(g, &lora);
    Ok(worst(ratios.chain([ratio(spec, better.max(0.0), 1.0)])))
}
