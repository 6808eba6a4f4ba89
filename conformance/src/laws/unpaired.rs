//! Law 25: unpaired parameters take ordinary AdamW steps; the global-norm clip counts their
//! gradients with the adapters', and a gradient of theirs that is not finite stops the whole step.

use lora_pro_core::{Config, Error, Method, ParamSpec, Schedule};
use lora_pro_reference::factors::FactorPair;
use lora_pro_reference::storage::matrix;
use nalgebra::DMatrix;

use super::{Applies, Law, METHODS};
use crate::methods::has_moments;
use crate::residual::{all_or_nothing, ratio, worst};
use crate::run::Run;
use crate::sample::{CaseSpec, rounded, uniform};
use crate::subject::{Subject, exact};

/// What a loss scale is undone by.
const GRAD_SCALE: f64 = 0.1;

/// The rate is not the same in every step.
const SCHEDULE: Schedule = Schedule::Linear {
    warmup: 3,
    total: 50,
};

pub(super) const LAW: Law = Law {
    number: 25,
    name: "unpaired",
    formula: "unpaired parameters take AdamW steps and count in the global clip",
    cannot_see: "the adapters",
    applies: Applies::Trajectory,
    methods: &METHODS,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let hyper = exact(method)
        .weight_decay(if has_moments(method) { 0.1 } else { 0.0 })
        .amsgrad(has_moments(method) && spec.seed.is_multiple_of(2))
        .maximize(spec.seed.is_multiple_of(3))
        .lr(0.01);
    let limit = spec.size_g;
    let config = Config::from(hyper)
        .max_grad_norm(Some(limit))
        .schedule(SCHEDULE);
    let mut run = subject.start(&spec.factors(), config)?;
    run.optimizer.set_grad_scale(GRAD_SCALE)?;
    let mut random = spec.random(100);
    let start = rounded(subject.dtype, &uniform(&mut random, spec.m, spec.n));
    let bias = ParamSpec::new("bias", spec.m, spec.n).dtype(spec.dtype);
    run.add_param(bias, &start)?;

    let zero = DMatrix::zeros(spec.m, spec.n);
    let (mut expected, mut first, mut second) = (start, zero.clone(), zero.clone());
    let mut largest = zero;
    let mut ratios = Vec::new();
    for t in 1..=spec.steps {
        let pair = spec.gradients(&run.factors(), t);
        let gradient = rounded(
            subject.dtype,
            // Ever smaller, so that the largest second moment is not the last.
            &(uniform(&mut random, spec.m, spec.n) * (spec.size_g / (t * t) as f64)),
        );
        let mut broken = gradient.clone();
        broken[0] = f64::NAN;
        let before = (run.snapshot()?, run.params[0].value.clone());
        ratios.push(all_or_nothing(
            step(subject, &mut run, &pair, &broken).is_err(),
        ));
        let after = (run.snapshot()?, run.params[0].value.clone());
        ratios.push(all_or_nothing(before == after));

        step(subject, &mut run, &pair, &gradient)?;
        let (pair, gradient) = (pair.scaled(GRAD_SCALE), gradient * GRAD_SCALE);
        let lr = hyper.lr * SCHEDULE.factor(t);
        let squares = pair.a.norm_squared() + pair.b.norm_squared() + gradient.norm_squared();
        let sign = if hyper.maximize { -1.0 } else { 1.0 };
        let g = gradient * (limit / squares.sqrt()).min(1.0) * sign;
        first = &first * hyper.beta1 + &g * (1.0 - hyper.beta1);
        second = &second * hyper.beta2 + g.component_mul(&g) * (1.0 - hyper.beta2);
        let c1 = 1.0 - hyper.beta1.powf(t as f64);
        let c2 = 1.0 - hyper.beta2.powf(t as f64);
        largest = if hyper.amsgrad {
            largest.sup(&second)
        } else {
            second.clone()
        };
        let root = largest.map(|v| (v / c2).sqrt() + hyper.eps);
        let n = (&first / c1).component_div(&root);
        expected = expected * (1.0 - lr * hyper.weight_decay) - n * lr;
        let error = (matrix(&run.params[0].value.view()) - &expected).norm();
        ratios.push(ratio(spec, error, expected.norm() + hyper.lr));
    }
    Ok(worst(ratios))
}

/// One step of the adapter and of the parameter.
fn step(
    subject: &Subject,
    run: &mut Run,
    pair: &FactorPair,
    gradient: &DMatrix<f64>,
) -> Result<(), Error> {
    let gradients = [(subject.host(&pair.a), subject.host(&pair.b))];
    run.step_tensors(&gradients, &[subject.host(gradient)])?;
    Ok(())
}
