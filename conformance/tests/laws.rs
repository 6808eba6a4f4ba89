//! Every check on every backend: `conformance_tests` as other crates use it.

use lora_pro_core::Backend;
use lora_pro_cpu::CpuBackend;
use lora_pro_reference::ReferenceBackend;

fn reference_backend() -> Box<dyn Backend> {
    Box::new(ReferenceBackend::new())
}

fn cpu_backend() -> Box<dyn Backend> {
    Box::new(CpuBackend::new())
}

lora_pro_conformance::conformance_tests!(reference: reference_backend, [f64, f32]);
lora_pro_conformance::conformance_tests!(cpu: cpu_backend, [f64, f32]);
