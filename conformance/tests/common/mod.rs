//! Backends, and what the library has for batches of adapters on them.

// Each test binary uses a part of this.
#![allow(dead_code, unused_imports)]

pub mod quantized;
pub mod random;

use lora_pro_core::Backend;
use lora_pro_cpu::{CpuBackend, CpuOptions};
use lora_pro_cuda::StagedCudaBackend;
use lora_pro_cuda_emulator::{Checks, ORDER, test_device};
use lora_pro_reference::ReferenceBackend;

pub use lora_pro_conformance::laws::METHODS;
pub use lora_pro_conformance::support::batch::{
    BackendFn, Batch, Bits, Gradients, adapter, all_variants, differing, hyper, in_memory, mixed,
    name, state_key, variants,
};
pub use lora_pro_conformance::support::layout;

pub fn reference() -> Box<dyn Backend> {
    Box::new(ReferenceBackend::new())
}

pub fn cpu() -> Box<dyn Backend> {
    Box::new(CpuBackend::new())
}

pub fn cpu_with(options: CpuOptions) -> Box<dyn Backend> {
    Box::new(CpuBackend::with(options).expect("options that this machine can do"))
}

/// The CUDA backend, its kernels on the CPU or on the GPU that `LORA_PRO_DEVICE` numbers.
pub fn cuda() -> Box<dyn Backend> {
    let device = test_device(Checks::Off, ORDER).unwrap_or_else(|error| panic!("{error}"));
    Box::new(StagedCudaBackend::on(device))
}
