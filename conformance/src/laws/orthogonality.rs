//! Law 1: $`B^\top (g - E) = 0`$ and $`(g - E) A^\top = 0`$.
//!
//! What is left of g is out of the adapter's reach. Cannot see X.

use lora_pro_core::{Error, Method, XChoice};

use super::{Answer, Applies, CLOSED_FORM, Law};
use crate::residual::{ratio, worst};
use crate::sample::CaseSpec;
use crate::subject::Subject;

pub(super) const LAW: Law = Law {
    number: 1,
    name: "orthogonality",
    formula: "B'(g - E) = 0 and (g - E)A' = 0",
    cannot_see: "X, which cancels in E; a g that was wrong to begin with",
    applies: Applies::FullRank,
    methods: &CLOSED_FORM,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let Answer { factors, g, e, .. } = Answer::of(subject, spec, method, XChoice::Sylvester)?;
    let rest = &g - e;
    let left = (factors.b.transpose() * &rest).norm();
    let right = (&rest * factors.a.transpose()).norm();
    Ok(worst([
        ratio(spec, left, factors.b.norm() * g.norm()),
        ratio(spec, right, g.norm() * factors.a.norm()),
    ]))
}
