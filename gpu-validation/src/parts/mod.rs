//! What is proved and measured, one file each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum;
use lora_pro_core::{Backend, Error};
use lora_pro_cuda::HostTensors;
use serde::{Deserialize, Serialize};

use crate::effort::Effort;
use crate::gpu::Gpu;
use crate::progress::Progress;
use crate::result::Found;

pub mod capture;
pub mod conformance;
pub mod determinism;
pub mod endurance;
pub mod memory;
pub mod sanitizer;
pub mod side_by_side;
pub mod small_cases;
pub mod timings;

/// What all parts have at hand.
pub struct Bench {
    /// What is proved and measured.
    pub gpu: Arc<dyn Gpu>,
    /// How much.
    pub effort: Effort,
    /// Where results go.
    pub out: PathBuf,
    /// A Python with torch.
    pub python: PathBuf,
    /// NVIDIA's `compute-sanitizer`.
    pub sanitizer: PathBuf,
}

impl Bench {
    /// A backend for host tensors on the device.
    pub fn backend(&self) -> Box<dyn Backend> {
        Box::new(HostTensors::on(self.gpu.clone()))
    }

    /// A file or folder beside the results.
    pub fn beside(&self, name: &str) -> Result<PathBuf, Error> {
        let folder = self.out.join(name);
        std::fs::create_dir_all(&folder).map_err(|error| Error::file(&folder, error))?;
        Ok(folder)
    }
}

/// A part, by its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// All laws, recorded trajectories, the reference
    Conformance,
    /// The same bits twice, alone, in a batch, in another order
    Determinism,
    /// A step as a CUDA graph gives the same bits
    Capture,
    /// Streams of the caller's; tensors anywhere in device memory
    Memory,
    /// Thousands of steps
    Endurance,
    /// NVIDIA's compute-sanitizer on small cases
    Sanitizer,
    /// How long a step takes
    Timings,
    /// How long torch takes on the same device
    SideBySide,
    /// Every kernel once, on small cases: what the sanitizer runs
    SmallCases,
}

impl Part {
    /// What runs where nothing is asked for.
    pub const ALL: [Part; 8] = [
        Part::Conformance,
        Part::Determinism,
        Part::Capture,
        Part::Memory,
        Part::Endurance,
        Part::Sanitizer,
        Part::Timings,
        Part::SideBySide,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Part::Conformance => "conformance",
            Part::Determinism => "determinism",
            Part::Capture => "capture",
            Part::Memory => "memory",
            Part::Endurance => "endurance",
            Part::Sanitizer => "sanitizer",
            Part::Timings => "timings",
            Part::SideBySide => "side-by-side",
            Part::SmallCases => "small-cases",
        }
    }

    /// Runs it. What goes wrong in it is a check that failed.
    pub fn run(self, bench: &Bench, progress: &Progress) -> Found {
        let run = match self {
            Part::Conformance => conformance::run,
            Part::Determinism => determinism::run,
            Part::Capture => capture::run,
            Part::Memory => memory::run,
            Part::Endurance => endurance::run,
            Part::Sanitizer => sanitizer::run,
            Part::Timings => timings::run,
            Part::SideBySide => side_by_side::run,
            Part::SmallCases => small_cases::run,
        };
        let mut found = Found::default();
        // What a part has found before it gave up is worth keeping.
        let work = AssertUnwindSafe(|| run(bench, progress, &mut found));
        let problem = match catch_unwind(work) {
            Ok(Ok(())) => return found,
            Ok(Err(error)) => error.to_string(),
            Err(panic) => words(panic.as_ref()),
        };
        found.check("the part comes to its end", false, problem);
        found
    }
}

/// What a panic says.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
    text.unwrap_or_else(|| "a panic".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line_and_of_files() {
        for part in Part::value_variants() {
            let value = part.to_possible_value().unwrap();
            assert_eq!(value.get_name(), part.name());
            assert_eq!(serde_json::to_value(part).unwrap(), part.name());
        }
    }
}
