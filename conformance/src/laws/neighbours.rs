//! Law 29: an adapter is stepped when it is listed, by the hyper-parameters of its own group, and is
//! not touched when it is not listed: beside others it goes the way that it goes alone.
//!
//! Sees counters and moments that are shared, and numbers of the first adapter that are used for
//! all. Law 13 is about adapters that are all stepped, all by the same hyper-parameters.

use lora_pro_core::{Config, Error, Hyper, Method};

use super::{Applies, Law, METHODS};
use crate::residual::all_or_nothing;
use crate::run::Run;
use crate::sample::CaseSpec;
use crate::subject::{Subject, exact};

pub(super) const LAW: Law = Law {
    number: 29,
    name: "neighbours",
    formula: "an adapter that is not listed stays; each follows its own group",
    cannot_see: "what is wrong for an adapter alone",
    applies: Applies::Trajectory,
    methods: &METHODS,
    check,
};

/// Which of the two adapters are listed in each step.
const LISTED: [&[usize]; 4] = [&[0, 1], &[0], &[1, 0], &[1]];

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let twin = CaseSpec {
        s: spec.s * 1.5,
        seed: spec.seed ^ 1,
        ..*spec
    };
    let specs = [*spec, twin];
    // In one group a counter may be shared, in two the hyper-parameters.
    let one = both(subject, &specs, [exact(method), exact(method)])?;
    let two = both(subject, &specs, [exact(method), other(method)])?;
    Ok(all_or_nothing(one && two))
}

/// Whether each of two adapters goes the way that it goes alone.
fn both(subject: &Subject, specs: &[CaseSpec; 2], hypers: [Hyper; 2]) -> Result<bool, Error> {
    let mut config = Config::from(hypers[0]);
    config.groups.insert("other".into(), hypers[1]);
    let apart = hypers[0] != hypers[1];
    let groups = [None, apart.then(|| "other".to_string())];
    let mut both = subject.start_all(&specs.map(|spec| spec.factors()), &groups, config)?;
    for (t, listed) in (1..).zip(LISTED) {
        step(&mut both, specs, t, listed)?;
    }
    let mut held = true;
    for k in 0..2 {
        let mut alone = subject.start(&specs[k].factors(), hypers[k])?;
        for (t, _) in (1..).zip(LISTED).filter(|(_, listed)| listed.contains(&k)) {
            alone.step(&specs[k].gradients(&alone.factors(), t))?;
        }
        held &= alone.factors() == both.adapters[k].factors();
    }
    Ok(held)
}

/// Differs in every number.
fn other(method: Method) -> Hyper {
    exact(method).lr(3e-3).eps(1e-3).beta1(0.5).beta2(0.7)
}

/// One step of the listed adapters, in their order.
fn step(run: &mut Run, specs: &[CaseSpec; 2], t: u64, listed: &[usize]) -> Result<(), Error> {
    let gradients: Vec<_> = run
        .adapters
        .iter()
        .zip(specs)
        .map(|(adapter, spec)| adapter.in_memory(&spec.gradients(&adapter.factors(), t)))
        .collect();
    let mut adapters: Vec<_> = run
        .adapters
        .iter_mut()
        .zip(&gradients)
        .enumerate()
        .filter(|(k, _)| listed.contains(k))
        .map(|(_, (adapter, (a, b)))| adapter.io(a, b))
        .collect();
    if listed.first() > listed.last() {
        adapters.reverse();
    }
    run.optimizer.step(&mut adapters)?;
    Ok(())
}
