//! W0 is rounded once, to the nearest number of its type, to even in a tie.

use lora_pro_core::{DType, HostTensor, Method};

use crate::battery::{cuda, next};
use crate::common::{Batch, adapter, hyper};

/// W0 of one number, and a decay; what becomes of it. First comes the middle of two numbers, once with
/// the even one below and once above; then something a little above the middle and a little below,
/// which f32 does not tell from it.
fn cases() -> [(DType, f64, f64, f64); 8] {
    let tiny = 2f64.powi(-40);
    [
        (DType::Bf16, 174.0, 0.25, 130.0),
        (DType::Bf16, 178.0, 0.25, 134.0),
        (DType::Bf16, 174.0, 0.25 - tiny, 131.0),
        (DType::Bf16, 1.0, 2f64.powi(-9) + tiny, 1.0 - 2f64.powi(-8)),
        (DType::F16, 1366.0, 0.25, 1024.0),
        (DType::F16, 1370.0, 0.25, 1028.0),
        (DType::F16, 1366.0, 0.25 - tiny, 1025.0),
        (DType::F16, 1.0, 2f64.powi(-12) + tiny, 1.0 - 2f64.powi(-11)),
    ]
}

pub fn check() {
    for (dtype, before, lr, after) in cases() {
        next(&format!("{before} to {after} in {dtype}"));
        let hyper = hyper(Method::Lora)
            .lr(lr)
            .weight_decay(1.0)
            .decay_base(true);
        let mut batch = Batch::start(&cuda, &[adapter(5, 7, 2, dtype)], hyper).expect("valid");
        let mut base = HostTensor::from_fn(dtype, [5, 7], |_, _| before);
        let gradients = batch.gradients(1);
        let mut io = batch.run.adapters[0].io(&gradients[0].0, &gradients[0].1);
        io.w0 = Some(base.view_mut());
        batch.run.optimizer.step(&mut [io]).expect("a step");
        assert_eq!(base, HostTensor::from_fn(dtype, [5, 7], |_, _| after));
    }
}
