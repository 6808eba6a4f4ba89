//! Law 13: an adapter's update is the same alone, in any batch and in any order, to the last bit.
//!
//! Sees state shared between adapters and reductions that depend on the neighbours.

use lora_pro_core::{Config, Error, Hyper, Method};
use lora_pro_reference::factors::{FactorPair, Factors};

use super::{Applies, Law, METHODS};
use crate::residual::all_or_nothing;
use crate::sample::CaseSpec;
use crate::subject::{Subject, exact};

/// Steps of a trajectory.
const STEPS: u64 = 3;

pub(super) const LAW: Law = Law {
    number: 13,
    name: "independence",
    formula: "the same bits alone, in any batch, in any order",
    cannot_see: "what is wrong every time",
    applies: Applies::Trajectory,
    methods: &METHODS,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let tall = CaseSpec {
        m: spec.m + 3,
        seed: spec.seed ^ 1,
        ..*spec
    };
    let wide = CaseSpec {
        n: spec.n + 5,
        s: spec.s * 2.0,
        seed: spec.seed ^ 2,
        ..*spec
    };
    let twin = CaseSpec {
        s: spec.s * 3.0,
        seed: spec.seed ^ 3,
        ..*spec
    };
    let batch = [*spec, tall, wide, twin];
    let mut same = true;
    let together = finish(subject, &batch, method)?;
    let permuted = finish(subject, &[wide, *spec, twin, tall], method)?;
    same &= together[0] == permuted[1] && together[1] == permuted[3];
    same &= together[2] == permuted[0] && together[3] == permuted[2];
    for (spec, result) in batch.iter().zip(&together) {
        same &= finish(subject, &[*spec], method)?[0] == *result;
    }
    Ok(all_or_nothing(same))
}

/// The hyper-parameters of a group.
fn faster(method: Method) -> Hyper {
    exact(method).lr(5e-3)
}

/// The factors of every adapter after some steps of all.
fn finish(
    subject: &Subject,
    specs: &[CaseSpec],
    method: lora_pro_core::Method,
) -> Result<Vec<Factors>, Error> {
    let config = Config::from(exact(method)).group("faster", faster(method));
    // Every second shape, wherever it stands in the batch.
    let group = |spec: &CaseSpec| (spec.seed & 1 == 1).then(|| "faster".to_string());
    let groups: Vec<_> = specs.iter().map(group).collect();
    let start: Vec<Factors> = specs.iter().map(CaseSpec::factors).collect();
    let mut run = subject.start_all(&start, &groups, config)?;
    for t in 1..=STEPS {
        let adapters = run.adapters.iter().zip(specs);
        let gradients: Vec<FactorPair> = adapters
            .map(|(adapter, spec)| spec.gradients(&adapter.factors(), t))
            .collect();
        run.step_all(&gradients)?;
    }
    Ok(run
        .adapters
        .iter()
        .map(|adapter| adapter.factors())
        .collect())
}
