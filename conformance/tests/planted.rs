//! The planted backend with nothing planted is the reference, to the last bit.

use lora_pro_conformance::differential::Case;
use lora_pro_conformance::planted::PlantedBackend;
use lora_pro_conformance::sample::uniform;
use lora_pro_conformance::subject::{Run, Subject};
use lora_pro_conformance::wild::cases;
use lora_pro_core::{
    AdapterReport, Backend, DType, HostTensor, Method, ParamId, ParamIo, ParamSpec, StepReport,
    TensorFile,
};
use lora_pro_reference::ReferenceBackend;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// Random cases per method.
const CASES: usize = 30;

/// Steps of a trajectory.
const STEPS: u64 = 4;

/// Everything that a step leads to.
#[derive(Debug, PartialEq)]
struct Outcome {
    report: StepReport,
    adapter: AdapterReport,
    a: HostTensor,
    b: HostTensor,
    base: Option<HostTensor>,
    bias: HostTensor,
    saved: TensorFile,
}

fn reference() -> Box<dyn Backend> {
    Box::new(ReferenceBackend::new())
}

fn unplanted() -> Box<dyn Backend> {
    Box::new(PlantedBackend::new("reference", |_| {}))
}

/// A trajectory of an adapter, its W0 and a parameter without a pair.
fn trajectory(make: fn() -> Box<dyn Backend>, case: &Case) -> Vec<Outcome> {
    let (spec, config) = (&case.adapter, &case.config);
    let subject = Subject::new("either", spec.dtype, make);
    let mut run = Run::start(&subject, &spec.factors(), config.clone()).expect("a run");
    let mut random = spec.random(100);
    let mut bias = subject.host(&uniform(&mut random, 1, spec.m));
    let mut base = subject.host(&uniform(&mut random, spec.m, spec.n));
    let optimizer = run.parts().0;
    optimizer.set_grad_scale(case.grad_scale).expect("a factor");
    optimizer
        .add_param(ParamSpec::new("bias", 1, spec.m).dtype(spec.dtype))
        .expect("a parameter");
    let mut step = |t| {
        let gradients = spec.gradients(&run.factors(), t);
        let (grad_a, grad_b) = (subject.host(&gradients.a), subject.host(&gradients.b));
        let grad = subject.host(&uniform(&mut random, 1, spec.m));
        let (optimizer, members) = run.parts();
        let mut io = members[0].io(&grad_a, &grad_b);
        io.w0 = config.hyper.decay_base.then(|| base.view_mut());
        let param = ParamIo::new(ParamId::from_index(0), bias.view_mut(), grad.view());
        let report = optimizer
            .step_with_params(&mut [io], &mut [param])
            .expect("a step");
        Outcome {
            report,
            adapter: run.report(),
            a: run.members()[0].a.clone(),
            b: run.members()[0].b.clone(),
            base: config.hyper.decay_base.then(|| base.clone()),
            bias: bias.clone(),
            saved: run.saved().expect("its state"),
        }
    };
    (1..=STEPS).map(&mut step).collect()
}

fn is_the_reference(method: Method) {
    let mut runner = TestRunner::deterministic();
    let dtypes = prop_oneof![Just(DType::F64), Just(DType::Bf16)];
    let cases = dtypes.prop_flat_map(cases);
    let any = std::iter::from_fn(|| Some(cases.new_tree(&mut runner).expect("a case").current()));
    let own = any.filter(|case| case.config.hyper.method == method);
    for case in own.take(CASES) {
        let expected = trajectory(reference, &case);
        assert_eq!(trajectory(unplanted, &case), expected, "{case:?}");
    }
}

macro_rules! methods {
    ($($test:ident: $method:ident),+) => {$(
        #[test]
        fn $test() {
            is_the_reference(Method::$method);
        }
    )+};
}

methods!(lora: Lora, sgd: Sgd, efficient: Efficient, factored: Factored, full: Full);
