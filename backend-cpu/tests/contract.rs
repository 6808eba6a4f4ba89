//! What the contract asks besides results: an error changes nothing, not even a report;
//! hyper-parameters act in the step after they were set; state that is missing is an error.

use lora_pro_core::backend::{
    AdapterSlot, Control, ParamSlot, Slots, State, StateTensor, StepIo, adapter_layout,
    param_layout,
};
use lora_pro_core::{
    AdapterId, AdapterIo, AdapterReport, AdapterSpec, Backend, Config, DType, Damping, Error,
    HostTensor, Hyper, Method, OnNonFinite, Optimizer, ParamId, ParamIo, ParamSpec, Preset,
    Rounding, StateKind, XChoice,
};
use lora_pro_cpu::CpuBackend;

const METHODS: [Method; 5] = [
    Method::Lora,
    Method::Sgd,
    Method::Efficient,
    Method::Factored,
    Method::Full,
];

const M: usize = 9;
const N: usize = 70;
const R: usize = 3;

/// A, B, their gradients, and an unpaired parameter with its gradient.
#[derive(Clone, PartialEq)]
struct AdapterTensors {
    a: HostTensor,
    b: HostTensor,
    grad_a: HostTensor,
    grad_b: HostTensor,
    value: HostTensor,
    grad: HostTensor,
}

impl AdapterTensors {
    fn new(dtype: DType) -> Self {
        let tensor = |shape, size: f64, phase: f64| {
            HostTensor::from_fn(dtype, shape, move |i, j| {
                // Of full rank: the phase is not a sum of one of i and one of j.
                size * ((3 * i * i + 5 * j + 7 * i * j) as f64 + phase).sin()
            })
        };
        AdapterTensors {
            a: tensor([R, N], 0.5, 1.0),
            b: tensor([M, R], 0.1, 2.0),
            grad_a: tensor([R, N], 0.3, 3.0),
            grad_b: tensor([M, R], 0.2, 4.0),
            value: tensor([1, N], 1.0, 5.0),
            grad: tensor([1, N], 0.1, 6.0),
        }
    }

    fn io(&mut self, id: AdapterId, param: ParamId) -> (AdapterIo<'_>, ParamIo<'_>) {
        let (a, b) = (self.a.view_mut(), self.b.view_mut());
        let adapter = AdapterIo::new(id, a, b, self.grad_a.view(), self.grad_b.view());
        let param = ParamIo::new(param, self.value.view_mut(), self.grad.view());
        (adapter, param)
    }
}

fn spec(name: &str, dtype: DType) -> AdapterSpec {
    AdapterSpec::new(name, M, N, R).alpha(6.0).dtype(dtype)
}

fn hyper(method: Method) -> Hyper {
    let sgd = method == Method::Sgd;
    Preset::Recommended
        .hyper()
        .method(method)
        .lr(1e-2)
        .momentum(if sgd { 0.5 } else { 0.0 })
        .amsgrad(!sgd)
        .weight_decay(0.0)
}

#[test]
fn a_step_that_overflows_changes_no_report() {
    for method in METHODS {
        let mut optimizer =
            Optimizer::new(CpuBackend::new(), Config::from(hyper(method))).expect("valid");
        let add = |name| {
            optimizer
                .add_adapter(spec(name, DType::F16))
                .expect("valid")
        };
        let ids = ["first", "second"].map(add);
        let param = ParamSpec::new("bias", 1, N).dtype(DType::F16);
        let param = optimizer.add_param(param).expect("valid");
        let mut tensors = [
            AdapterTensors::new(DType::F16),
            AdapterTensors::new(DType::F16),
        ];
        // The first adapter can be stepped and is restored; the second overflows.
        tensors[0].grad_a = HostTensor::zeros(DType::F16, [R, N]);
        tensors[0].grad_b = HostTensor::zeros(DType::F16, [M, R]);
        let step = |optimizer: &mut Optimizer, tensors: &mut [AdapterTensors; 2]| {
            let [first, second] = tensors;
            let (first, _) = first.io(ids[0], param);
            let (second, param) = second.io(ids[1], param);
            optimizer.step_with_params(&mut [first, second], &mut [param])
        };
        step(&mut optimizer, &mut tensors).expect("a step");
        let reports = |optimizer: &Optimizer| {
            ids.map(|id| -> AdapterReport { *optimizer.report(id).expect("registered") })
        };
        let (before, reported) = (tensors.clone(), reports(&optimizer));
        assert!(reported.iter().all(|report| report.step == 1));

        optimizer.set_lr(1e9).expect("valid");
        let error = step(&mut optimizer, &mut tensors).expect_err("f16 overflows");
        assert!(
            matches!(&error, Error::NonFinite { subject, .. } if subject.contains("second")),
            "{method}: {error}"
        );
        assert_eq!(reports(&optimizer), reported, "{method}");
        assert!(tensors == before, "{method}");

        optimizer.set_lr(1e-2).expect("valid");
        step(&mut optimizer, &mut tensors).expect("a step");
        assert!(reports(&optimizer).iter().all(|report| report.step == 2));
    }
}

/// Everything that may change between steps.
fn changed(hyper: Hyper) -> Hyper {
    let sgd = hyper.method == Method::Sgd;
    hyper
        .lr(3e-2)
        .lr_ratio(2.0)
        .x(XChoice::Symmetric)
        .damping(Damping::Relative(1e-2))
        .beta1(0.8)
        .beta2(0.95)
        .eps(1e-6)
        .weight_decay(if sgd { 0.0 } else { 0.1 })
        .momentum(if sgd { 0.9 } else { 0.0 })
        .maximize(true)
        .update_clip(Some(1e-3))
}

/// All state of an optimizer, by kind.
fn copy_state(from: &Optimizer, to: &mut Optimizer, id: AdapterId, param: ParamId) {
    let kinds = |state: &State| -> Vec<StateKind> {
        let tensors = state.tensors.iter();
        tensors.map(|(tensor, _)| tensor.kind).collect()
    };
    let adapter = from.adapter(id).expect("registered");
    for kind in kinds(&adapter.state) {
        let data = from.adapter_state(id, kind).expect("its own");
        to.set_adapter_state(id, kind, &data).expect("same layout");
    }
    to.set_adapter_steps(id, adapter.state.step)
        .expect("registered");
    let slot = from.param(param).expect("registered");
    for kind in kinds(&slot.state) {
        let data = from.param_state(param, kind).expect("its own");
        to.set_param_state(param, kind, &data).expect("same layout");
    }
    to.set_param_steps(param, slot.state.step)
        .expect("registered");
}

#[test]
fn hyper_parameters_act_in_the_step_after_they_were_set() {
    for method in METHODS {
        let start = |hyper: Hyper| {
            let mut optimizer =
                Optimizer::new(CpuBackend::new(), Config::from(hyper)).expect("valid");
            let id = optimizer.add_adapter(spec("q", DType::F32)).expect("valid");
            let param = ParamSpec::new("bias", 1, N).dtype(DType::F32);
            let param = optimizer.add_param(param).expect("valid");
            (optimizer, id, param)
        };
        let (mut optimizer, id, param) = start(hyper(method));
        let mut tensors = AdapterTensors::new(DType::F32);
        let step = |optimizer: &mut Optimizer, tensors: &mut AdapterTensors| {
            let (adapter, param) = tensors.io(id, param);
            let stepped = optimizer.step_with_params(&mut [adapter], &mut [param]);
            stepped.expect("a step");
        };
        step(&mut optimizer, &mut tensors);
        let (mut fresh, _, _) = start(changed(hyper(method)));
        copy_state(&optimizer, &mut fresh, id, param);
        let mut expected = tensors.clone();
        let mut unchanged = tensors.clone();

        optimizer
            .set_hyper(None, changed(hyper(method)))
            .expect("the same state");
        step(&mut optimizer, &mut tensors);
        step(&mut fresh, &mut expected);
        assert!(tensors == expected, "{method}: set_hyper");

        optimizer.set_lr_factor(0.0).expect("valid");
        let hyper = hyper(method).weight_decay(0.0);
        optimizer.set_hyper(None, hyper).expect("the same state");
        unchanged.clone_from(&tensors);
        step(&mut optimizer, &mut tensors);
        assert!(tensors == unchanged, "{method}: set_lr_factor");
    }
}

fn control() -> Control {
    Control {
        lr_factor: 1.0,
        grad_scale: 1.0,
        max_grad_norm: None,
        on_non_finite: OnNonFinite::Error,
        stream: 0,
    }
}

/// A state without the tensor at `left_out`.
fn state_without(backend: &mut CpuBackend, layout: &[StateTensor], left_out: usize) -> State {
    let tensors = layout.iter().enumerate().filter(|(k, _)| *k != left_out);
    let allocated = tensors.map(|(_, tensor)| {
        let buffer = backend.allocate(tensor).expect("a layout of core's");
        (*tensor, buffer)
    });
    State {
        step: 0,
        tensors: allocated.collect(),
    }
}

#[test]
fn state_that_is_missing_is_an_error_before_anything_is_written() {
    for method in METHODS {
        let hyper = hyper(method).rounding(Rounding::MasterCopy);
        let spec = spec("q", DType::Bf16);
        let layout = adapter_layout(&spec, &hyper);
        let of_param = ParamSpec::new("bias", 1, N).dtype(DType::Bf16);
        let param_layout = param_layout(&of_param, &hyper);
        let (adapter_all, param_all) = (layout.len(), param_layout.len());
        let missing_of_adapter = (0..adapter_all).map(|k| (k, param_all));
        let missing_of_param = (0..param_all).map(|k| (adapter_all, k));
        for (k, l) in missing_of_adapter.chain(missing_of_param) {
            let mut backend = CpuBackend::new();
            let mut adapters = [AdapterSlot {
                spec: spec.clone(),
                hyper,
                state: state_without(&mut backend, &layout, k),
                report: AdapterReport::default(),
            }];
            let mut params = [ParamSlot {
                spec: of_param.clone(),
                hyper,
                state: state_without(&mut backend, &param_layout, l),
            }];
            let mut tensors = AdapterTensors::new(DType::Bf16);
            let before = tensors.clone();
            let (adapter, param) = tensors.io(AdapterId::from_index(0), ParamId::from_index(0));
            let slots = Slots {
                adapters: &mut adapters,
                params: &mut params,
            };
            let io = StepIo {
                adapters: &mut [adapter],
                params: &mut [param],
            };
            let error = backend.step(slots, io, &control()).expect_err("incomplete");
            let missing = layout.get(k).or(param_layout.get(l)).expect("one of both");
            let name = format!("`{}`", missing.kind);
            assert!(error.to_string().contains(&name), "{method}: {error}");
            assert!(tensors == before, "{method} without {name}");
            assert_eq!((adapters[0].state.step, params[0].state.step), (0, 0));
        }
    }
}

/// Steps a parameter three times, the last time from a copy of its state and after a step that was refused;
/// gives its bytes and those of its state.
fn bytes_of_a_parameter(shape: [usize; 2], dtype: DType, rounding: Rounding) -> Vec<Vec<u8>> {
    let [_, cols] = shape;
    let new = |phase: f64| {
        HostTensor::from_fn(dtype, shape, |i, j| ((i * cols + j) as f64 + phase).sin())
    };
    let (mut value, grad, mut large) = (new(1.0), new(2.0), new(3.0));
    let config = Config::from(hyper(Method::Lora).rounding(rounding).weight_decay(0.1));
    let make = || {
        let mut optimizer = Optimizer::new(CpuBackend::new(), config.clone()).expect("valid");
        let spec = ParamSpec::new("head", shape[0], cols).dtype(dtype);
        let id = optimizer.add_param(spec).expect("valid");
        (optimizer, id)
    };
    let kinds = |optimizer: &Optimizer, id| -> Vec<StateKind> {
        let tensors = &optimizer.param(id).expect("registered").state.tensors;
        tensors.iter().map(|(tensor, _)| tensor.kind).collect()
    };
    let (mut optimizer, id) = make();
    for _ in 0..2 {
        let io = ParamIo::new(id, value.view_mut(), grad.view());
        optimizer
            .step_with_params(&mut [], &mut [io])
            .expect("finite");
    }
    large.view_mut().set(shape[0] - 1, cols - 1, f64::INFINITY);
    let io = ParamIo::new(id, value.view_mut(), large.view());
    let error = optimizer
        .step_with_params(&mut [], &mut [io])
        .expect_err("not finite");
    let at = format!("grad[{}, {}]", shape[0] - 1, cols - 1);
    assert!(error.to_string().contains(&at), "{error}");
    let (mut copy, same) = make();
    for kind in kinds(&optimizer, id) {
        let data = optimizer.param_state(id, kind).expect("its own");
        copy.set_param_state(same, kind, &data)
            .expect("same layout");
    }
    copy.set_param_steps(same, 2).expect("registered");
    let io = ParamIo::new(same, value.view_mut(), grad.view());
    copy.step_with_params(&mut [], &mut [io]).expect("finite");
    let state = kinds(&copy, same)
        .into_iter()
        .map(|kind| copy.param_state(same, kind).expect("its own").bytes);
    [value.bytes().to_vec()].into_iter().chain(state).collect()
}

#[test]
fn a_long_vector_is_stepped_as_a_matrix_of_the_same_elements() {
    for (dtype, rounding) in [
        (DType::F32, Rounding::Nearest),
        (DType::F64, Rounding::Nearest),
        (DType::Bf16, Rounding::Stochastic),
        (DType::F16, Rounding::MasterCopy),
    ] {
        let of_matrix = bytes_of_a_parameter([150, 200], dtype, rounding);
        for shape in [[1, 30_000], [30_000, 1]] {
            let of_vector = bytes_of_a_parameter(shape, dtype, rounding);
            assert!(of_vector == of_matrix, "{dtype} {rounding:?} {shape:?}");
        }
    }
}
