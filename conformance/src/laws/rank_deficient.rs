//! Law 11: B = 0, A = 0 and rank-deficient factors obey laws 1 to 4 too.
//!
//! B = 0 is how every adapter starts. Sees a first step that is recognised by a counter instead
//! of by the rank of B.

use lora_pro_core::Error;

use super::{descent, optimality, orthogonality, x_invariance};
use crate::residual::worst;
use crate::sample::CaseSpec;
use crate::subject::Subject;

pub(super) fn check(subject: &Subject, spec: &CaseSpec) -> Result<f64, Error> {
    Ok(worst([
        orthogonality::check(subject, spec)?,
        optimality::check(subject, spec)?,
        x_invariance::check(subject, spec)?,
        descent::check(subject, spec)?,
    ]))
}
