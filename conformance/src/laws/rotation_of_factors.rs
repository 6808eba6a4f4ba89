//! Law 17: $`(B, A) \to (B Q, Q^\top A)`$ with Q orthogonal takes (dA, dB) to
//! $`(Q^\top \mathrm{d}A, \mathrm{d}B\, Q)`$; in SGD, full and factored mode whole trajectories
//! follow. X = 0 and the symmetric X do so for every invertible R. Methods that work on entries of
//! A and B (lora, efficient) follow signed permutations only.
//!
//! Sees every wrong X, and moments that do not turn with the factors.

use lora_pro_core::{Error, Method, XChoice};
use lora_pro_reference::factors::Factors;
use nalgebra::DMatrix;
use rand::seq::SliceRandom;

use super::recurrence::with_condition;
use super::{Answer, Applies, Law, METHODS};
use crate::residual::{ratio, worst};
use crate::sample::{CaseSpec, orthonormal, uniform};
use crate::subject::{Subject, exact};

/// Steps of a trajectory: more would magnify rounding.
const STEPS: u64 = 4;

pub(super) const LAW: Law = Law {
    number: 17,
    name: "rotation-of-factors",
    formula: "(B, A) -> (B Q, Q'A) takes (dA, dB) to (Q'dA, dB Q)",
    cannot_see: "a constant factor",
    applies: Applies::Trajectory,
    methods: &METHODS,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let turned = match method {
        Method::Lora | Method::Efficient => signed_permutation(spec),
        Method::Sgd | Method::Factored | Method::Full => {
            orthonormal(&mut spec.random(100), spec.r, spec.r)
        }
    };
    let trajectory = trajectory(subject, spec, method, &turned)?;
    Ok(match method {
        Method::Lora => trajectory,
        Method::Sgd | Method::Efficient | Method::Factored | Method::Full => {
            worst([trajectory, general(subject, spec, method)?])
        }
    })
}

/// A trajectory and its rotated twin. eps is large, so that N is a smooth function of E: at an
/// entry of E that is nearly 0, the sign would turn rounding into a difference of 2.
fn trajectory(
    subject: &Subject,
    spec: &CaseSpec,
    method: Method,
    q: &DMatrix<f64>,
) -> Result<f64, Error> {
    let start = spec.factors();
    let hyper = exact(method).eps(spec.size_g).lr(spec.gentle_lr());
    let mut here = subject.start(&start, hyper)?;
    let mut there = subject.start(&rotated(&start, q), hyper)?;
    let mut ratios = Vec::new();
    let mut spec = *spec;
    for t in 1..=spec.steps.min(STEPS) {
        here.step(&spec.gradients(&here.factors(), t))?;
        there.step(&spec.gradients(&there.factors(), t))?;
        let (expected, found) = (rotated(&here.factors(), q), there.factors());
        spec = with_condition(&spec, &[&here.factors()]);
        let path = here.path;
        ratios.push(ratio(&spec, (found.a - expected.a).norm(), path.a));
        ratios.push(ratio(&spec, (found.b - expected.b).norm(), path.b));
    }
    Ok(worst(ratios))
}

fn rotated(factors: &Factors, q: &DMatrix<f64>) -> Factors {
    Factors {
        b: &factors.b * q,
        a: q.transpose() * &factors.a,
        s: factors.s,
    }
}

/// One answer under a general R, for the X that allow it.
fn general(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let mix = DMatrix::identity(spec.r, spec.r) * spec.r as f64
        + uniform(&mut spec.random(101), spec.r, spec.r) * 0.5;
    let inverse = mix.clone().try_inverse();
    let inverse = inverse.ok_or(Error::NotConverged {
        what: "an inverse",
        limit: 1,
    })?;
    let mut ratios = Vec::new();
    for x in [XChoice::Zero, XChoice::Symmetric] {
        let here = Answer::of(subject, spec, method, x)?;
        let factors = Factors {
            b: &here.factors.b * &mix,
            a: &inverse * &here.factors.a,
            s: spec.s,
        };
        let spec = with_condition(spec, &[&factors]);
        let there = Answer::to(subject, method, factors, here.g.clone(), x)?;
        let (a, b) = (&inverse * &here.adjusted.a, &here.adjusted.b * &mix);
        let [size_a, size_b] = there.sizes(&spec);
        ratios.push(ratio(&spec, (&there.adjusted.a - a).norm(), size_a));
        ratios.push(ratio(&spec, (&there.adjusted.b - b).norm(), size_b));
    }
    Ok(worst(ratios))
}

fn signed_permutation(spec: &CaseSpec) -> DMatrix<f64> {
    let mut random = spec.random(102);
    let mut order: Vec<usize> = (0..spec.r).collect();
    order.shuffle(&mut random);
    let signs = uniform(&mut random, spec.r, 1).map(f64::signum);
    DMatrix::from_fn(
        spec.r,
        spec.r,
        |i, j| if order[i] == j { signs[i] } else { 0.0 },
    )
}
