//! Law 7: $`(B, A) \to (B R, R^{-1} A)`$ leaves E unchanged, for every invertible R.
//!
//! Cannot see X, which is not invariant (law 17).

use lora_pro_core::{Error, Method, XChoice};
use lora_pro_reference::factors::Factors;
use nalgebra::{DMatrix, DVector};

use super::{Answer, Applies, CLOSED_FORM, Law};
use crate::residual::ratio;
use crate::sample::{CaseSpec, orthonormal};
use crate::subject::Subject;

/// Condition number of R.
const KAPPA: f64 = 4.0;

pub(super) const LAW: Law = Law {
    number: 7,
    name: "reparametrisation",
    formula: "(B, A) -> (B R, R^-1 A) leaves E unchanged",
    cannot_see: "X; a constant factor on E",
    applies: Applies::FullRank,
    methods: &CLOSED_FORM,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let here = Answer::of(subject, spec, method, XChoice::Sylvester)?;
    let mut random = spec.random(100);
    let (left, right) = (
        orthonormal(&mut random, spec.r, spec.r),
        orthonormal(&mut random, spec.r, spec.r),
    );
    let stretch = DVector::from_fn(spec.r, |i, _| if i == 0 { KAPPA } else { 1.0 });
    let r = &left * DMatrix::from_diagonal(&stretch) * right.transpose();
    let inverse = right * DMatrix::from_diagonal(&stretch.map(|x| 1.0 / x)) * left.transpose();
    let factors = Factors {
        b: &here.factors.b * r,
        a: inverse * &here.factors.a,
        s: spec.s,
    };
    let there = Answer::to(subject, method, factors, here.g.clone(), XChoice::Sylvester)?;
    let wider = CaseSpec {
        kappa_a: spec.kappa_a * KAPPA,
        kappa_b: spec.kappa_b * KAPPA,
        ..*spec
    };
    Ok(ratio(&wider, (there.e - here.e).norm(), here.g.norm()))
}
