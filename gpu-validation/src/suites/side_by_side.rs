//! Torch on the same device: its fused AdamW, and LoRA-Pro as a loop over adapters, which is how
//! public code has it. The Python program comes along, and is left beside the results.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use lora_pro_bench::shapes::ModelShape;
use lora_pro_bench::stats::Samples;
use lora_pro_core::Error;
use serde::Deserialize;
use serde_json::json;

use super::timings::LLAMA;
use crate::ctx::Ctx;
use crate::progress::SuiteProgress;
use crate::result::{Finding, Other, SuiteResults};

/// The program.
pub const SCRIPT: &str = include_str!("side_by_side.py");

/// AdamW over A and B of all adapters.
pub const ADAMW_FACTORS: &str = "adamw-factors";
/// AdamW over the weights themselves.
pub const ADAMW_WEIGHTS: &str = "adamw-weights";
/// The efficient mode, adapter by adapter.
pub const EFFICIENT_LOOP: &str = "efficient-loop";
/// The full mode, adapter by adapter.
pub const FULL_LOOP: &str = "full-loop";

/// The rank that is compared.
pub const RANK: usize = 8;

/// What the program prints.
#[derive(Deserialize)]
struct Printed {
    versions: String,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    name: String,
    what: String,
    #[serde(default)]
    ms: Vec<f64>,
    scaled_by: f64,
    problem: Option<String>,
}

/// See the module's head.
///
/// # Errors
/// Where the program cannot be written.
pub fn run(ctx: &Ctx, progress: &SuiteProgress, found: &mut SuiteResults) -> Result<(), Error> {
    progress.set(0, 1, "torch");
    let script = write(ctx)?;
    if let Err(why) = usable(ctx) {
        found.findings.push(Finding::skipped("torch", why));
        return Ok(());
    }
    let output = Command::new(&ctx.python)
        .arg(script)
        .arg("measure")
        .arg(question(ctx)?.to_string())
        .output()
        .map_err(|error| Error::file(&ctx.python, error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next_back().unwrap_or_default();
    match serde_json::from_str(line) {
        Ok(printed) if output.status.success() => take(printed, found),
        _ => {
            let errors = String::from_utf8_lossy(&output.stderr);
            let last = errors.lines().next_back().unwrap_or("no result");
            found.check("torch", false, last);
        }
    }
    Ok(())
}

fn write(ctx: &Ctx) -> Result<PathBuf, Error> {
    let path = ctx.beside("torch")?.join("side_by_side.py");
    fs::write(&path, SCRIPT).map_err(|error| Error::file(&path, error))?;
    Ok(path)
}

/// Whether there is a torch that knows a GPU.
fn usable(ctx: &Ctx) -> Result<(), String> {
    let python = ctx.python.display();
    let asked = Command::new(&ctx.python)
        .args(["-c", "import torch; print(torch.cuda.is_available())"])
        .output()
        .map_err(|error| format!("{python}: {error}"))?;
    match String::from_utf8_lossy(&asked.stdout).trim() {
        "True" => Ok(()),
        "False" => Err(format!("{python} has a torch that sees no GPU")),
        _ => Err(format!("{python} has no torch")),
    }
}

fn question(ctx: &Ctx) -> Result<serde_json::Value, Error> {
    let weights = ModelShape::named(LLAMA)?
        .shrunk(ctx.effort.divisor)
        .weights();
    let weights: Vec<[usize; 2]> = weights.into_iter().map(|(_, shape)| shape).collect();
    Ok(json!({
        "device": format!("cuda:{}", ctx.device.info().ordinal),
        "weights": weights,
        "rank": RANK,
        "samples": ctx.effort.samples,
        "sample_ms": ctx.effort.sample_ms,
    }))
}

fn take(printed: Printed, found: &mut SuiteResults) {
    found.versions = Some(printed.versions);
    for row in printed.rows {
        found.others.push(Other {
            name: row.name,
            what: row.what,
            ms: (!row.ms.is_empty()).then(|| Samples::of(row.ms)),
            scaled_by: row.scaled_by,
            problem: row.problem,
        });
    }
    let count = found
        .others
        .iter()
        .filter(|other| other.ms.is_some())
        .count();
    found.check("torch", count > 0, format!("{count} times taken"));
}
