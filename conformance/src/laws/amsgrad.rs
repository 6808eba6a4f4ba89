//! Law 24: AMSGrad divides by the largest second moment so far, which never falls.
//!
//! While the second moment rises it changes nothing; where no gradient follows the first it
//! holds steps back: by the square root of 1/2 in the second step, where beta2 is 1/2.

use lora_pro_core::backend::{Factor, Moment, StateKind};
use lora_pro_core::{Error, Method};
use lora_pro_reference::equivalent::equivalent_gradient;
use lora_pro_reference::factors::FactorPair;

use super::recurrence::with_condition;
use super::{Applies, Law, WITH_MOMENTS};
use crate::residual::{all_or_nothing, worst};
use crate::run::Run;
use crate::sample::CaseSpec;
use crate::subject::{Subject, exact};

/// Second moments and their maxima.
fn second_moments(method: Method) -> Vec<[StateKind; 2]> {
    let of_factor =
        |factor| [Moment::Second, Moment::MaxSecond].map(|m| StateKind::Factor(m, factor));
    match method {
        Method::Lora | Method::Efficient => Factor::ALL.map(of_factor).to_vec(),
        Method::Factored => vec![
            [StateKind::RowMeans, StateKind::MaxRowMeans],
            [StateKind::ColMeans, StateKind::MaxColMeans],
        ],
        Method::Full => vec![[Moment::Second, Moment::MaxSecond].map(StateKind::Weight)],
        Method::Sgd => vec![],
    }
}

pub(super) const LAW: Law = Law {
    number: 24,
    name: "amsgrad",
    formula: "AMSGrad divides by the largest second moment so far",
    cannot_see: "the first moment",
    applies: Applies::Trajectory,
    methods: &WITH_MOMENTS,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let mut held = Vec::new();
    let hyper = exact(method).amsgrad(true).beta2(0.5).lr(1e-5);
    let plain = hyper.amsgrad(false);
    let mut run = subject.start(&spec.factors(), hyper)?;
    let mut without = subject.start(&spec.factors(), plain)?;
    let mut largest = Vec::new();
    for t in 1..=4 {
        let size = if t == 1 { 1.0 } else { 0.0 };
        let chaotic = with_condition(spec, &[&run.factors()]).kappa_b > 1e3;
        let moved = moves(&mut run, spec, method, t, size)?;
        let moved_without = moves(&mut without, spec, method, t, size)?;
        held.push(match t {
            1 => run.factors() == without.factors(),
            // After a first step along signs B may have rows that are equal up to rounding.
            2 => chaotic || moved < 0.8 * moved_without,
            // By now the two runs are at different places.
            _ => true,
        });
        for (k, [now, max]) in second_moments(method).into_iter().enumerate() {
            let (Some(now), Some(max)) = (run.state(now)?, run.state(max)?) else {
                continue;
            };
            let before = if t == 1 {
                now.clone()
            } else {
                std::mem::take(&mut largest[k])
            };
            let expected = before.sup(&now);
            held.push(max == expected);
            if t == 1 {
                largest.push(max);
            } else {
                largest[k] = max;
            }
        }
    }
    Ok(worst(held.into_iter().map(all_or_nothing)))
}

/// One step with gradients of a given size; how far it moves B, or W to first order where the
/// moments are those of W.
fn moves(run: &mut Run, spec: &CaseSpec, method: Method, t: u64, size: f64) -> Result<f64, Error> {
    let old = run.factors();
    run.step(&spec.gradients(&old, t).scaled(size))?;
    let new = run.factors();
    let update = FactorPair {
        a: new.a - &old.a,
        b: new.b - &old.b,
    };
    Ok(match method {
        Method::Factored | Method::Full => equivalent_gradient(&old, &update).norm(),
        Method::Lora | Method::Sgd | Method::Efficient => update.b.norm(),
    })
}
