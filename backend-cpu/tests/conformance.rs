//! The conformance kit on this backend, as any crate with a backend of its own uses it.

use lora_pro_core::Backend;
use lora_pro_cpu::CpuBackend;

fn make() -> Box<dyn Backend> {
    Box::new(CpuBackend::new())
}

lora_pro_conformance::conformance_tests!(cpu: make, [f64, f32]);
