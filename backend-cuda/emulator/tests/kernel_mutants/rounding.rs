//! Master copies and stochastic rounding.

use lora_pro_conformance::sample::CaseSpec;
use lora_pro_conformance::support::rounding::{master, small_lr, stochastic};
use lora_pro_core::{DType, HostTensor, Method, Optimizer, ParamIo, ParamSpec, Rounding};

use crate::battery::{cuda, next};
use crate::common::random::{differs, independent};
use crate::common::{METHODS, adapter, hyper};

pub fn check() {
    for (method, dtype) in METHODS
        .into_iter()
        .zip([DType::Bf16, DType::F16].into_iter().cycle())
    {
        next(&format!("master copies, {method} in {dtype}"));
        let wrong = master(&cuda, adapter(9, 270, 3, dtype), method, 3).expect("steps");
        assert_eq!(wrong, None);
    }
    // Every method stores its factors by one of two kernels.
    for (method, dtype) in [(Method::Lora, DType::Bf16), (Method::Factored, DType::F16)] {
        next(&format!("stochastic rounding, {method} in {dtype}"));
        unbiased(adapter(130, 150, 16, dtype), method, small_lr(dtype));
    }
    small_numbers();
    next("random numbers differ");
    differs(&cuda);
    params_differ();
}

/// Right on average, within five standard errors.
fn unbiased(spec: CaseSpec, method: Method, lr: f64) {
    let off = stochastic(&cuda, spec, method, lr).expect("steps");
    assert!(off < 5.0, "{off} standard errors");
}

/// f16 numbers below 2^-14, where they are evenly spaced, and below 2^-24, the smallest of them.
fn small_numbers() {
    next("stochastic rounding of small numbers");
    let ordinary = adapter(130, 150, 16, DType::F16);
    let small = CaseSpec {
        size_a: 3e-4,
        size_b: 3e-4,
        ..ordinary
    };
    unbiased(small, Method::Lora, small_lr(DType::F16));
    let zero = CaseSpec {
        rank_b: 0,
        ..ordinary
    };
    // A third of the smallest number: where A and g are of ordinary size, N is 1 or -1.
    unbiased(zero, Method::Lora, 2e-8);
}

/// A parameter is rounded with other numbers in each step.
fn params_differ() {
    next("random numbers of parameters differ");
    let hyper = hyper(Method::Lora)
        .rounding(Rounding::Stochastic)
        .lr(0.25 * 2f64.powi(-7))
        .weight_decay(0.0);
    let mut optimizer = Optimizer::new(cuda(), hyper.into()).expect("valid");
    let shape = [5, 4000];
    let spec = ParamSpec::new("parameter", shape[0], shape[1]).dtype(DType::Bf16);
    let id = optimizer.add_param(spec).expect("valid");
    let grad = HostTensor::from_fn(DType::Bf16, shape, |_, _| 1.0);
    let mut step = || {
        let mut value = HostTensor::from_fn(DType::Bf16, shape, |_, _| 1.5);
        let io = ParamIo::new(
            lora_pro_core::ParamId::from_index(id.index()),
            value.view_mut(),
            grad.view(),
        );
        optimizer
            .step_with_params(&mut [], &mut [io])
            .expect("a step");
        let values = value.bytes().chunks(2);
        values.map(|x| x != [0xC0, 0x3F]).collect::<Vec<_>>()
    };
    let (first, second) = (step(), step());
    independent(&first, &second, "step");
    independent(&first, &[&first[1..], &first[..1]].concat(), "entry");
}
