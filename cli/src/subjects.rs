//! What can be tested: the built-in backends, by name, and commands.

use std::time::Duration;

use lora_pro_conformance::record::Stability;
use lora_pro_conformance::remote::{Limits, Remote};
use lora_pro_conformance::subject::Subject;
use lora_pro_conformance::suite::Implementation;
use lora_pro_core::{Backend, DType};
use lora_pro_cpu::{CpuBackend, CpuOptions, SimdLevel};
use lora_pro_cuda::StagedCudaBackend;
use lora_pro_reference::ReferenceBackend;
use lora_pro_variants::{FAULTS, VariantBackend};

use crate::failure::Failure;

/// Subjects that are built in, the seeded faults aside.
pub fn names() -> Vec<String> {
    let levels = SimdLevel::available().into_iter().map(level_name);
    let gpu = StagedCudaBackend::new(0)
        .is_ok()
        .then(|| "cuda".to_string());
    ["reference".to_string(), "cpu".to_string()]
        .into_iter()
        .chain(levels)
        .chain(gpu)
        .collect()
}

/// `cpu-avx-512`, `cpu-scalar`.
fn level_name(level: SimdLevel) -> String {
    let letters = level.to_string().to_lowercase();
    let end = letters.split(['+', ' ']).next().unwrap_or_default();
    format!("cpu-{end}")
}

/// The subject of this name, or `fault:NAME`.
pub fn built_in(name: &str) -> Result<Implementation, Failure> {
    if let Some(id) = name.strip_prefix("fault:") {
        return match FAULTS.iter().find(|known| known.id == id) {
            Some(fault) => Ok(implementation(name, Stability::Kappa, || {
                Box::new(VariantBackend::new(fault.id))
            })),
            None => Err(Failure::Input(format!(
                "there is no fault `{id}`: `lora-pro conform --list` names them"
            ))),
        };
    }
    if name == "reference" {
        let make = || Box::new(ReferenceBackend::new()) as Box<dyn Backend>;
        return Ok(implementation(name, Stability::Kappa, make));
    }
    if name == "cpu" {
        let make = || Box::new(CpuBackend::new()) as Box<dyn Backend>;
        return Ok(implementation(name, Stability::KappaSquared, make));
    }
    if name == "cuda" {
        StagedCudaBackend::new(0)?;
        let make = || {
            // Another backend in its place would be a lie, and the GPU was there a line ago.
            let backend = StagedCudaBackend::new(0).expect("a GPU that was there");
            Box::new(backend) as Box<dyn Backend>
        };
        return Ok(implementation(name, Stability::KappaSquared, make));
    }
    match SimdLevel::available()
        .into_iter()
        .find(|level| level_name(*level) == name)
    {
        Some(level) => {
            CpuBackend::with(on(level))?;
            let make = move || {
                // Another level in its place would be wrong, and this one was there a line ago.
                let backend = CpuBackend::with(on(level)).expect("a level that is available");
                Box::new(backend) as Box<dyn Backend>
            };
            Ok(implementation(name, Stability::KappaSquared, make))
        }
        None => Err(Failure::Input(format!(
            "there is no subject `{name}`: use one of {}, fault:NAME, or --command",
            names().join(" ")
        ))),
    }
}

fn on(level: SimdLevel) -> CpuOptions {
    CpuOptions::default().simd_level(level)
}

/// A subject behind a command that speaks the protocol.
pub fn command(command: &str, seconds: u64) -> Result<Implementation, Failure> {
    let limits = Limits {
        time: Duration::from_secs(seconds),
        ..Limits::default()
    };
    let remote = Remote::start(command, limits)?;
    let (name, stability) = {
        let description = remote.description();
        (description.name.clone(), description.stability)
    };
    let mut implementation = implementation(&name, stability, move || remote.backend());
    implementation.command = Some(command.into());
    Ok(implementation)
}

fn implementation(
    name: &str,
    stability: Stability,
    make: impl Fn() -> Box<dyn Backend> + Send + Sync + 'static,
) -> Implementation {
    let subject = Subject::new(name, DType::F64, make);
    Implementation {
        name: subject.name,
        command: None,
        make: subject.make,
        stability,
    }
}
