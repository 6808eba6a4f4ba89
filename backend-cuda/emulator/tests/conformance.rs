//! Every check on the CUDA backend, whose kernels run on the CPU: the same sources, compiled by a
//! C++ compiler.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use lora_pro_core::Backend;
use lora_pro_cuda::HostTensors;
use lora_pro_cuda_emulator::Emulator;

/// Each backend runs its threads in another order: none may matter, to the last bit.
fn cuda_backend() -> Box<dyn Backend> {
    static ORDER: AtomicI32 = AtomicI32::new(0);
    let device = Emulator::checked().unwrap_or_else(|error| panic!("{error}"));
    let device = device.with_order(ORDER.fetch_add(1, Ordering::Relaxed) % 5);
    Box::new(HostTensors::on(Arc::new(device)))
}

lora_pro_conformance::conformance_tests!(cuda: cuda_backend, [f64, f32], cases = 8);
