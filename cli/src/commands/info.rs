//! `lora-pro info`: what is here.

use lora_pro_core::Manifest;

use crate::backends::{BACKENDS, Choice};
use crate::failure::Failure;
use crate::output::say;

/// Prints versions, this machine, and every backend's manifest.
pub fn run() -> Result<(), Failure> {
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    let automatic = Choice::automatic()?.manifest()?;
    let mut lines = vec![
        format!("lora-pro {}", env!("CARGO_PKG_VERSION")),
        format!(
            "machine: {} {}",
            std::env::consts::ARCH,
            std::env::consts::OS
        ),
        format!("threads: {threads}"),
        format!("SIMD detected: {}", or_none(simd().join(" "))),
        format!(
            "backend by default: {} ({})",
            automatic.name, automatic.selection
        ),
    ];
    for entry in BACKENDS {
        lines.push(format!("backend {}:", entry.name));
        lines.extend(Choice::of(entry.name)?.manifest().map_or_else(
            |error| vec![format!("  not available: {error}")],
            |manifest| describe(&manifest),
        ));
    }
    say(&lines.join("\n"))
}

fn describe(manifest: &Manifest) -> Vec<String> {
    vec![
        format!("  version: {}", manifest.version),
        format!(
            "  device: {} ({:?} memory)",
            manifest.device, manifest.location
        ),
        format!("  dtypes: {}", list(&manifest.dtypes)),
        format!("  moment dtypes: {}", list(&manifest.state_dtypes)),
        format!("  roundings: {}", list(&manifest.roundings)),
        format!("  accumulates in: {}", manifest.accumulator_dtype),
        format!("  SIMD: {}", manifest.code_path),
        format!("  threads: {}", manifest.threads),
        format!("  determinism: {:?}", manifest.determinism),
    ]
}

fn list<T: ToString>(items: &[T]) -> String {
    let names: Vec<String> = items.iter().map(T::to_string).collect();
    names.join(" ")
}

fn or_none(text: String) -> String {
    if text.is_empty() { "none".into() } else { text }
}

/// The instruction sets that this processor has, of those that matter here.
#[cfg(target_arch = "x86_64")]
fn simd() -> Vec<&'static str> {
    use std::arch::is_x86_feature_detected as has;
    let known = [
        ("sse4.2", has!("sse4.2")),
        ("avx", has!("avx")),
        ("avx2", has!("avx2")),
        ("fma", has!("fma")),
        ("f16c", has!("f16c")),
        ("avx512f", has!("avx512f")),
        ("avx512bf16", has!("avx512bf16")),
    ];
    known
        .into_iter()
        .filter(|known| known.1)
        .map(|known| known.0)
        .collect()
}

/// The instruction sets that this processor has, of those that matter here.
#[cfg(target_arch = "aarch64")]
fn simd() -> Vec<&'static str> {
    use std::arch::is_aarch64_feature_detected as has;
    let known = [
        ("neon", has!("neon")),
        ("bf16", has!("bf16")),
        ("sve", has!("sve")),
    ];
    known
        .into_iter()
        .filter(|known| known.1)
        .map(|known| known.0)
        .collect()
}

/// None that this program knows of.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn simd() -> Vec<&'static str> {
    Vec::new()
}
