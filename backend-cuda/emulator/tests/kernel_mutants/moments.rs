//! 8-bit moments, and bf16 ones.

use lora_pro_conformance::support::quantized_moments::follow;
use lora_pro_core::{DType, Method, MomentDType};

use crate::battery::{cuda, next};
use crate::common::quantized::{differs, small_numbers, varies};
use crate::common::{Batch, adapter, hyper};

/// More rows than a block's warps have at once, and more columns than a strip; then more rows than a
/// block goes down.
pub fn check() {
    for (amsgrad, (m, n)) in [(false, (90, 300)), (true, (500, 70))] {
        next(&format!("8-bit moments, amsgrad {amsgrad}"));
        let found = follow(&cuda, adapter(m, n, 3, DType::F32), amsgrad, 3).expect("steps");
        assert_eq!(found.factors, 0.0, "to the last bit");
        assert!(found.codes <= 1.001 && found.bias.abs() < 5.0, "{found:?}");
    }
    next("small 8-bit moments");
    small_numbers(&cuda);
    next("random numbers of codes differ");
    differs(&cuda);
    varies(&cuda);
    short();
}

/// bf16 moments are f32 ones rounded to the nearest.
fn short() {
    next("bf16 moments");
    let spec = adapter(21, 70, 5, DType::F32);
    let [short, long] = [MomentDType::Bf16, MomentDType::F32].map(|moment_dtype| {
        let hyper = hyper(Method::Full).moment_dtype(moment_dtype);
        let mut batch = Batch::start(&cuda, &[spec], hyper).expect("valid");
        batch.step(1).expect("a step");
        batch.saved().expect("saves").tensors
    });
    for (name, short) in short {
        let bf16 = |x: &[u8]| half::bf16::from_f32(f32::from_le_bytes([x[0], x[1], x[2], x[3]]));
        let long = long[&name].bytes.chunks(4).map(bf16);
        let bytes: Vec<u8> = long.flat_map(|x| x.to_le_bytes()).collect();
        assert!(short.bytes == bytes, "{name}");
    }
}
