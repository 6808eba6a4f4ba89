//! Law 26: gradients that are all zero move nothing, at the first step and after one; what follows
//! them is finite.
//!
//! Sees 0 / 0, and steps that are not linear in the gradient where they should be. After the first
//! step the moments still move the factors, and only SGD stands still.

use lora_pro_core::{Error, Method};

use super::{Applies, Law, METHODS};
use crate::residual::all_or_nothing;
use crate::sample::CaseSpec;
use crate::subject::{Subject, exact};

pub(super) const LAW: Law = Law {
    number: 26,
    name: "zero-gradient",
    formula: "g = 0 at t = 1 moves nothing; what follows is finite",
    cannot_see: "what gradients that are not zero do",
    applies: Applies::Trajectory,
    methods: &METHODS,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let mut run = subject.start(&spec.factors(), exact(method))?;
    let start = run.factors();
    let mut held = true;
    for t in 1..=4 {
        let old = run.factors();
        // Step 2 is an ordinary one.
        let zero = t != 2;
        let size = if zero { 0.0 } else { 1.0 };
        run.step(&spec.gradients(&old, t).scaled(size))?;
        let new = run.factors();
        held &= new.a.iter().chain(new.b.iter()).all(|x| x.is_finite());
        held &= t != 1 || new == start;
        held &= !(zero && method == Method::Sgd) || new == old;
    }
    Ok(all_or_nothing(held && run.t() == 4))
}
