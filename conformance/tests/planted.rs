//! The planted backend with nothing planted is the reference, to the last bit.

use lora_pro_conformance::differential::Case;
use lora_pro_conformance::planted::PlantedBackend;
use lora_pro_conformance::run::{Bits, Tensors};
use lora_pro_conformance::sample::uniform;
use lora_pro_conformance::subject::Subject;
use lora_pro_conformance::support::stress_cases::cases;
use lora_pro_core::{AdapterReport, Backend, DType, Method, ParamSpec, StepReport};
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
    tensors: Tensors,
    bits: Bits,
}

fn reference() -> Box<dyn Backend> {
    Box::new(ReferenceBackend::new())
}

fn unplanted() -> Box<dyn Backend> {
    Box::new(PlantedBackend::new("reference", |_| {}))
}

/// A trajectory of an adapter, its W0 and an unpaired parameter.
fn trajectory(make: fn() -> Box<dyn Backend>, case: &Case) -> Vec<Outcome> {
    let (spec, config) = (&case.adapter, &case.config);
    let subject = Subject::new("either", spec.dtype, make);
    let mut run = subject
        .start(&spec.factors(), config.clone())
        .expect("a run");
    let mut random = spec.random(100);
    let bias = ParamSpec::new("bias", 1, spec.m).dtype(spec.dtype);
    run.add_param(bias, &uniform(&mut random, 1, spec.m))
        .expect("a parameter");
    run.optimizer
        .set_grad_scale(case.grad_scale)
        .expect("a factor");
    let w0 = subject.host(&uniform(&mut random, spec.m, spec.n));
    run.adapters[0].w0 = config.hyper.decay_base.then_some(w0);
    let mut step = |t| {
        let gradients = spec.gradients(&run.factors(), t);
        let gradients = [run.adapters[0].in_memory(&gradients)];
        let grad = subject.host(&uniform(&mut random, 1, spec.m));
        Outcome {
            report: run.step_tensors(&gradients, &[grad]).expect("a step"),
            adapter: run.report(),
            tensors: run.tensors().expect("its state"),
            bits: run.bits().expect("its state"),
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
