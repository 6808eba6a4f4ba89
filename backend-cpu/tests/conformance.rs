//! The conformance kit on this backend, as any crate with a backend of its own uses it.

use lora_pro_conformance::testing::{Suite, run};
use lora_pro_cpu::CpuBackend;

fn main() {
    run(&[Suite::new("cpu", || Box::new(CpuBackend::new()))]);
}
