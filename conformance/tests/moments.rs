//! 8-bit moments: a step from decoded codes is the step of f32 moments, and what is stored again is
//! one of the two codes beside it, on average the number itself.

mod common;

use common::coded::{differs, follows, small_numbers, varies};
use common::{adapter, cpu};
use lora_pro_core::DType;

/// Steps of a trajectory.
const STEPS: u64 = 12;

#[test]
fn eight_bit_moments_follow_f32_ones() {
    follows(&cpu, adapter(45, 150, 3, DType::F32), false, STEPS);
}

#[test]
fn eight_bit_moments_follow_f32_ones_with_amsgrad() {
    follows(&cpu, adapter(45, 150, 3, DType::F32), true, STEPS);
}

#[test]
fn random_numbers_differ() {
    differs(&cpu);
    varies(&cpu);
}

#[test]
fn small_numbers_are_right_on_average() {
    small_numbers(&cpu);
}
