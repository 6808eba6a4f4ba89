//! 8-bit moments: a step from decoded codes is the step of f32 moments, and what is stored again is
//! one of the two codes beside it, on average the number itself.

mod common;

use common::quantized::{differs, small_numbers, varies};
use common::{BackendFn, cpu, cuda};
use lora_pro_conformance::sample::CaseSpec;
use lora_pro_conformance::support::quantized_moments::{STEPS, follow, specs};

fn follows(make: BackendFn, spec: CaseSpec, amsgrad: bool) {
    let found = follow(make, spec, amsgrad, STEPS).expect("steps");
    assert_eq!(found.factors, 0.0, "to the last bit");
    assert!(found.codes <= 1.001, "{found:?}");
    assert!(found.bias.abs() < 5.0, "{found:?}");
}

#[test]
fn eight_bit_moments_follow_f32_ones() {
    for amsgrad in [false, true] {
        follows(&cpu, specs()[0], amsgrad);
    }
}

#[test]
fn eight_bit_moments_follow_f32_ones_on_the_cuda_backend() {
    for amsgrad in [false, true] {
        for spec in specs() {
            follows(&cuda, spec, amsgrad);
        }
    }
}

/// On the CUDA backend the battery of `kernel_mutants` looks at these.
#[test]
fn random_numbers_differ() {
    differs(&cpu);
    varies(&cpu);
}

#[test]
fn small_numbers_are_right_on_average() {
    small_numbers(&cpu);
}
