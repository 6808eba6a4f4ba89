//! 8-bit moments.

use lora_pro_core::DType;

use crate::battery::{cuda, next};
use crate::common::adapter;
use crate::common::coded::{differs, follows, small_numbers};

/// More rows than a block's warps have at once, and more columns than a strip; then more rows than a
/// block goes down.
pub fn check() {
    for (amsgrad, (m, n)) in [(false, (90, 300)), (true, (500, 70))] {
        next(&format!("8-bit moments, amsgrad {amsgrad}"));
        follows(&cuda, adapter(m, n, 3, DType::F32), amsgrad, 3);
    }
    next("small 8-bit moments");
    small_numbers(&cuda);
    next("random numbers of codes differ");
    differs(&cuda);
}
