//! Law 4: $`\langle g, E \rangle = \langle g_A, U \rangle + \langle g_B, V \rangle
//! = \lVert E \rVert^2 \ge 0`$.
//!
//! U and V are the answer with X = 0. Cannot see X, nor a change that keeps E a projection of g.

use lora_pro_core::{Error, Method, XChoice};
use lora_pro_reference::closed_form::Split;
use lora_pro_reference::descent::decrease;

use super::{Answer, Applies, CLOSED_FORM, Law};
use crate::residual::{ratio, worst};
use crate::sample::CaseSpec;
use crate::subject::Subject;

pub(super) const LAW: Law = Law {
    number: 4,
    name: "descent",
    formula: "<g, E> = <gA, U> + <gB, V> = |E|^2 >= 0",
    cannot_see: "X; whatever leaves E a projection of g",
    applies: Applies::FullRank,
    methods: &CLOSED_FORM,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let Answer {
        g,
        gradients,
        adjusted,
        e,
        ..
    } = Answer::of(subject, spec, method, XChoice::Zero)?;
    let decrease = decrease(
        &gradients,
        &Split {
            u: adjusted.a,
            v: adjusted.b,
        },
    );
    let size = g.norm_squared();
    // |E|^2 is off by (|E + dE| + |E|) |dE|, and in a short storage type dE may be the larger one.
    let size_of_square = g.norm() * (g.norm() + e.norm());
    Ok(worst([
        ratio(spec, (decrease - g.dot(&e)).abs(), size),
        ratio(spec, (decrease - e.norm_squared()).abs(), size_of_square),
        ratio(spec, (-decrease).max(0.0), size),
    ]))
}
