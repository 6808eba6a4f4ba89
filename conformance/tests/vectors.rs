//! The reference follows every recorded trajectory, and the CPU backend every one without a quirk.
//!
//! The files are in `conformance/vectors`. Those with the quirk `bf16_square` came out of the
//! public PyTorch code, the others out of an independent numpy program. Both in f64.

use std::path::{Path, PathBuf};

use lora_pro_conformance::case::{Case, Quirk};
use lora_pro_conformance::replay::{replay, tolerance};
use lora_pro_core::{Backend, DType};
use lora_pro_cpu::{CpuBackend, Options, Path as SimdPath};
use lora_pro_reference::ReferenceBackend;

/// Cases recorded when this test was written; fewer means that files got lost.
const COUNT: usize = 53;

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let entries = std::fs::read_dir(folder).expect("conformance/vectors is part of the project");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "safetensors"))
        .collect();
    files.sort();
    files
}

fn reference_for(case: &Case) -> Box<dyn Backend> {
    Box::new(match case.quirk {
        Some(Quirk::Bf16Square) => ReferenceBackend::with_bf16_square(),
        None => ReferenceBackend::new(),
    })
}

/// The worst deviation over time, and what is allowed.
fn worst(path: &Path, backend: impl Fn(&Case) -> Box<dyn Backend>) -> (f64, f64) {
    let case = Case::read(path).expect("a valid case");
    let trajectory = replay(&case, backend(&case), DType::F64).expect("a valid replay");
    let deviation = trajectory
        .deviation(&case)
        .expect("the case records its factors");
    (deviation.error, tolerance(&case, DType::F64))
}

#[test]
fn every_trajectory_is_followed_to_f64_accuracy() {
    let files = files();
    assert_eq!(files.len(), COUNT);
    for path in files {
        let (error, limit) = worst(&path, reference_for);
        println!("{error:.1e} {}", path.display());
        assert!(error < limit, "{}: {error:e}", path.display());
    }
}

#[test]
fn the_cpu_backend_follows_on_every_path() {
    for simd in SimdPath::available() {
        let options = Options {
            path: Some(simd),
            ..Options::default()
        };
        let cpu = |_: &Case| -> Box<dyn Backend> {
            Box::new(CpuBackend::with(options).expect("available"))
        };
        let files = files();
        let plain = files
            .iter()
            .filter(|path| !path.to_string_lossy().contains("public"));
        for path in plain {
            let (error, limit) = worst(path, cpu);
            assert!(error < limit, "{simd}, {}: {error:e}", path.display());
        }
    }
}

/// The quirk is what tells the public code from the formulas: without it the replay must fail.
#[test]
fn the_public_codes_rounding_is_seen() {
    let exact = |_: &Case| -> Box<dyn Backend> { Box::new(ReferenceBackend::new()) };
    let quirky = files()
        .into_iter()
        .filter(|path| path.to_string_lossy().contains("public"));
    for path in quirky {
        let (error, limit) = worst(&path, exact);
        assert!(error > 10.0 * limit, "{}: {error:e}", path.display());
    }
}
