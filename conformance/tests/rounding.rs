//! How updates reach 16-bit parameters: master copies and stochastic rounding.

mod common;

use common::rounding::{differs, master, small_lr, unbiased};
use common::{Batch, METHODS, adapter, cpu, hyper, reference};
use lora_pro_core::{DType, Hyper, Method, Rounding};

/// Steps of a trajectory.
const STEPS: u64 = 5;

const SHORT: [DType; 2] = [DType::Bf16, DType::F16];

fn everywhere(check: impl Fn(DType, Method)) {
    for dtype in SHORT {
        for method in METHODS {
            check(dtype, method);
        }
    }
}

#[test]
fn master_copies_on_the_reference() {
    everywhere(|dtype, method| master(&reference, adapter(9, 70, 3, dtype), method, STEPS));
}

#[test]
fn master_copies_on_the_cpu_backend() {
    everywhere(|dtype, method| master(&cpu, adapter(9, 70, 3, dtype), method, STEPS));
}

/// In f32 the choice of rounding changes nothing.
#[test]
fn long_parameters_are_rounded_to_nearest() {
    for rounding in [Rounding::Stochastic, Rounding::Master] {
        let spec = adapter(9, 70, 3, DType::F32);
        let finish = |rounding| {
            let hyper = Hyper {
                rounding,
                ..hyper(Method::Full)
            };
            let batch = Batch::start(&cpu, &[spec], hyper).expect("valid");
            batch.finish(STEPS).expect("steps")
        };
        assert!(finish(rounding) == finish(Rounding::Nearest));
    }
}

#[test]
fn stochastic_rounding_is_unbiased() {
    everywhere(|dtype, method| {
        let spec = adapter(300, 500, 16, dtype);
        unbiased(&cpu, spec, method, small_lr(dtype));
    });
}

#[test]
fn stochastic_rounding_differs_between_steps_and_adapters() {
    differs(&cpu);
}
