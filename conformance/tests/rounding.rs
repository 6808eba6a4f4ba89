//! How updates reach 16-bit parameters: master copies and stochastic rounding.

mod common;

use common::random::differs;
use common::{BackendFn, Batch, METHODS, adapter, cpu, cuda, hyper, reference};
use lora_pro_conformance::support::rounding::{SHORT, STEPS, master, small_lr, specs, stochastic};
use lora_pro_core::{DType, Method, Rounding};

fn master_copies(make: BackendFn) {
    for dtype in SHORT {
        for method in METHODS {
            let wrong = master(make, specs(dtype)[0], method, STEPS).expect("steps");
            assert_eq!(wrong, None, "{method} {dtype}");
        }
    }
}

#[test]
fn master_copies_on_the_reference() {
    master_copies(&reference);
}

#[test]
fn master_copies_on_the_cpu_backend() {
    master_copies(&cpu);
}

#[test]
fn master_copies_on_the_cuda_backend() {
    master_copies(&cuda);
}

/// In f32 the choice of rounding changes nothing.
#[test]
fn long_parameters_are_rounded_to_nearest() {
    for make in [&cpu as BackendFn, &cuda] {
        rounded_to_nearest(make);
    }
}

fn rounded_to_nearest(make: BackendFn) {
    for rounding in [Rounding::Stochastic, Rounding::MasterCopy] {
        let spec = adapter(9, 70, 3, DType::F32);
        let finish = |rounding| {
            let hyper = hyper(Method::Full).rounding(rounding);
            let batch = Batch::start(make, &[spec], hyper).expect("valid");
            batch.finish(STEPS).expect("steps")
        };
        assert!(finish(rounding) == finish(Rounding::Nearest));
    }
}

fn unbiased(make: BackendFn) {
    for dtype in SHORT {
        for method in METHODS {
            let errors =
                stochastic(make, specs(dtype)[1], method, small_lr(dtype)).expect("a step");
            assert!(errors < 5.0, "{method} {dtype}: {errors} standard errors");
        }
    }
}

#[test]
fn stochastic_rounding_on_the_cpu_backend() {
    unbiased(&cpu);
}

#[test]
fn stochastic_rounding_on_the_cuda_backend() {
    unbiased(&cuda);
}

#[test]
fn stochastic_rounding_differs_between_steps_and_adapters() {
    for make in [&cpu as BackendFn, &cuda] {
        differs(make);
    }
}
