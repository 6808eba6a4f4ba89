//! 8-bit moments of the CPU backend.

mod common;

use common::cpu;
use lora_pro_conformance::coded::follow;

fn follows(amsgrad: bool) {
    let found = follow(&cpu, amsgrad).expect("steps");
    assert_eq!(found.factors, 0.0, "to the last bit");
    assert!(found.codes <= 1.001, "{found:?}");
    assert!(found.bias.abs() < 5.0, "{found:?}");
}

#[test]
fn eight_bit_moments_follow_f32_ones() {
    follows(false);
}

#[test]
fn eight_bit_moments_follow_f32_ones_with_amsgrad() {
    follows(true);
}
