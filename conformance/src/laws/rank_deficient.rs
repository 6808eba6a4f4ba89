//! Law 11: B = 0, A = 0 and rank-deficient factors obey laws 1 to 4 too.
//!
//! B = 0 is how every adapter starts. Sees a first step that is recognised by a counter instead
//! of by the rank of B.

use lora_pro_core::{Error, Method};

use super::{Applies, CLOSED_FORM, Law, descent, optimality, orthogonality, x_invariance};
use crate::residual::worst;
use crate::sample::CaseSpec;
use crate::subject::Subject;

pub(super) const LAW: Law = Law {
    number: 11,
    name: "rank-deficient",
    formula: "B = 0, A = 0 and rank-deficient factors obey laws 1 to 4",
    cannot_see: "X",
    applies: Applies::AnyRank,
    methods: &CLOSED_FORM,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    Ok(worst([
        orthogonality::check(subject, spec, method)?,
        optimality::check(subject, spec, method)?,
        x_invariance::check(subject, spec, method)?,
        descent::check(subject, spec, method)?,
    ]))
}
