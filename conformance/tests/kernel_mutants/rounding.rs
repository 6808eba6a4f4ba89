//! Master copies and stochastic rounding.

use lora_pro_core::{DType, Method};

use crate::battery::{cuda, next};
use crate::common::rounding::{differs, master, unbiased};
use crate::common::{METHODS, adapter};

pub fn check() {
    for (method, dtype) in METHODS.into_iter().zip([DType::Bf16, DType::F16].into_iter().cycle()) {
        next(&format!("master copies, {method} in {dtype}"));
        master(&cuda, adapter(9, 270, 3, dtype), method, 3);
    }
    // Every method stores its factors by one of two kernels.
    for (method, dtype) in [(Method::Lora, DType::Bf16), (Method::Factored, DType::F16)] {
        next(&format!("stochastic rounding, {method} in {dtype}"));
        unbiased(&cuda, adapter(130, 150, 16, dtype), method);
    }
    next("random numbers differ");
    differs(&cuda);
}
