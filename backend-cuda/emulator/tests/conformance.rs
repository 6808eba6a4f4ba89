//! Every check on the CUDA backend, whose kernels run on the CPU, or on the GPU that `LORA_PRO_DEVICE`
//! numbers.

use std::sync::atomic::{AtomicI32, Ordering};

use lora_pro_conformance::testing::{Suite, run};
use lora_pro_core::Backend;
use lora_pro_cuda::StagedCudaBackend;
use lora_pro_cuda_emulator::{Checks, test_device};

/// Each backend runs its threads in another order: none may matter, to the last bit.
fn cuda_backend() -> Box<dyn Backend> {
    static ORDER: AtomicI32 = AtomicI32::new(0);
    let order = ORDER.fetch_add(1, Ordering::Relaxed) % 5;
    let device = test_device(Checks::On, order).unwrap_or_else(|error| panic!("{error}"));
    Box::new(StagedCudaBackend::on(device))
}

fn main() {
    run(&[Suite::new("cuda", cuda_backend).cases(8)]);
}
