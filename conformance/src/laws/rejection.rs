//! Law 18: NaN, infinity, mismatched shapes, r = 0, s = 0 and hyper-parameters out of range are
//! refused with an error that names the adapter, and change nothing.

use lora_pro_core::{
    AdapterId, AdapterIo, AdapterSpec, Config, DType, Damping, Error, HostTensor, Method,
    Optimizer, Scale,
};
use lora_pro_reference::factors::FactorPair;

use super::{Applies, Law, METHODS};
use crate::residual::all_or_nothing;
use crate::run::Run;
use crate::sample::CaseSpec;
use crate::subject::{Subject, exact};

pub(super) const LAW: Law = Law {
    number: 18,
    name: "rejection",
    formula: "bad input is refused by an error that names the adapter, and nothing changes",
    cannot_see: "results for good input",
    applies: Applies::Trajectory,
    methods: &METHODS,
    check,
};

pub(super) fn check(subject: &Subject, spec: &CaseSpec, method: Method) -> Result<f64, Error> {
    let mut held = specs_are_refused(subject, spec)? && configurations_are_refused(subject);
    held &= steps_are_refused(subject, spec, method)?;
    Ok(all_or_nothing(held))
}

fn names_the_adapter<T>(result: Result<T, Error>) -> bool {
    result.is_err_and(|error| error.to_string().contains("adapter `adapter`"))
}

fn specs_are_refused(subject: &Subject, case: &CaseSpec) -> Result<bool, Error> {
    let good = subject.spec(&case.factors());
    let with = |change: &dyn Fn(&mut AdapterSpec)| {
        let mut spec = good.clone();
        change(&mut spec);
        spec
    };
    let bad = [
        with(&|spec| spec.r = 0),
        with(&|spec| spec.m = 0),
        with(&|spec| spec.n = 0),
        with(&|spec| spec.r = spec.m.min(spec.n) + 1),
        with(&|spec| spec.scale = Scale::Explicit(0.0)),
        with(&|spec| spec.scale = Scale::Alpha(-8.0)),
        with(&|spec| spec.scale = Scale::Explicit(f64::NAN)),
        with(&|spec| spec.scale = Scale::RsLora(f64::INFINITY)),
        with(&|spec| spec.group = Some("no such group".into())),
    ];
    let mut optimizer = Optimizer::new(subject.backend(), Config::from(exact(Method::Full)))?;
    let mut held = bad
        .into_iter()
        .all(|spec| names_the_adapter(optimizer.add_adapter(spec)));
    held &= optimizer.add_adapter(good.clone()).is_ok();
    Ok(held && names_the_adapter(optimizer.add_adapter(good)))
}

fn configurations_are_refused(subject: &Subject) -> bool {
    let good = exact(Method::Full);
    let bad = [
        good.lr(-1e-3),
        good.lr(f64::NAN),
        good.lr_ratio(0.0),
        good.beta1(1.0),
        good.beta2(-0.1),
        good.eps(0.0),
        good.eps(f64::INFINITY),
        good.weight_decay(-0.1),
        good.lr(1.0).weight_decay(2.0),
        good.momentum(0.9),
        good.method(Method::Sgd).amsgrad(true),
        good.method(Method::Sgd).weight_decay(0.1),
        good.update_clip(Some(0.0)),
        good.damping(Damping::Absolute(-1e-8)),
        good.damping(Damping::Relative(1.0)),
        good.damping(Damping::Cutoff(f64::NAN)),
    ];
    let refused = |hyper| Optimizer::new(subject.backend(), Config::from(hyper)).is_err();
    bad.into_iter().all(refused)
}

/// The tensors of one step, to be spoiled.
struct StepTensors {
    a: HostTensor,
    b: HostTensor,
    grad_a: HostTensor,
    grad_b: HostTensor,
}

fn steps_are_refused(subject: &Subject, case: &CaseSpec, method: Method) -> Result<bool, Error> {
    let mut run = subject.start(&case.factors(), exact(method))?;
    run.step(&case.gradients(&run.factors(), 1))?;
    let gradients = case.gradients(&run.factors(), 2);
    let before = run.snapshot()?;
    let mut held = true;
    for spoil in SPOILS {
        let mut tensors = tensors(subject, &run, &gradients);
        spoil(&mut tensors);
        let (a, b) = (tensors.a.clone(), tensors.b.clone());
        let refused = names_the_adapter(step(&mut run, &mut tensors, AdapterId::from_index(0), 1));
        held &= refused && bits(&tensors.a) == bits(&a) && bits(&tensors.b) == bits(&b);
    }
    let mut good = tensors(subject, &run, &gradients);
    held &= step(&mut run, &mut good, AdapterId::from_index(7), 1).is_err();
    held &= names_the_adapter(step(&mut run, &mut good, AdapterId::from_index(0), 2));
    held &= run.snapshot()? == before;
    Ok(held && step(&mut run, &mut good, AdapterId::from_index(0), 1).is_ok())
}

fn tensors(subject: &Subject, run: &Run, gradients: &FactorPair) -> StepTensors {
    let factors = run.factors();
    StepTensors {
        a: subject.host(&factors.a),
        b: subject.host(&factors.b),
        grad_a: subject.host(&gradients.a),
        grad_b: subject.host(&gradients.b),
    }
}

/// Ways in which a step's tensors can be wrong.
const SPOILS: [fn(&mut StepTensors); 10] = [
    |tensors| last(&mut tensors.a, f64::NAN),
    |tensors| last(&mut tensors.b, f64::INFINITY),
    |tensors| last(&mut tensors.grad_a, f64::NEG_INFINITY),
    |tensors| last(&mut tensors.grad_b, f64::NAN),
    |tensors| tensors.a = wider(&tensors.a),
    |tensors| tensors.b = wider(&tensors.b),
    |tensors| tensors.grad_a = wider(&tensors.grad_a),
    |tensors| tensors.grad_b = wider(&tensors.grad_b),
    |tensors| tensors.a = HostTensor::zeros(DType::F16, tensors.a.shape()),
    |tensors| tensors.grad_b = HostTensor::zeros(DType::Bf16, tensors.grad_b.shape()),
];

fn last(tensor: &mut HostTensor, value: f64) {
    let [rows, cols] = tensor.shape();
    tensor.view_mut().set(rows - 1, cols - 1, value);
}

fn wider(tensor: &HostTensor) -> HostTensor {
    let [rows, cols] = tensor.shape();
    HostTensor::zeros(tensor.dtype(), [rows, cols + 1])
}

fn bits(tensor: &HostTensor) -> &[u8] {
    tensor.bytes()
}

/// A step with the adapter listed once or twice.
fn step(
    run: &mut Run,
    tensors: &mut StepTensors,
    id: AdapterId,
    times: usize,
) -> Result<(), Error> {
    let (mut a, mut b) = (tensors.a.clone(), tensors.b.clone());
    let io = AdapterIo::new(
        id,
        tensors.a.view_mut(),
        tensors.b.view_mut(),
        tensors.grad_a.view(),
        tensors.grad_b.view(),
    );
    let again = AdapterIo::new(
        id,
        a.view_mut(),
        b.view_mut(),
        tensors.grad_a.view(),
        tensors.grad_b.view(),
    );
    let mut adapters = [io, again];
    run.optimizer.step(&mut adapters[..times])?;
    Ok(())
}
