//! Every part on the test device, in miniature; and parts on devices with something wrong.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use common::{Emulated, Fault, bench};
use lora_pro_core::Method;
use lora_pro_gpu_validation::parts::Part;
use lora_pro_gpu_validation::progress::Progress;
use lora_pro_gpu_validation::result::{Found, Outcome};

fn run(part: Part, fault: Fault) -> Found {
    let out = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let found = part.run(
        &bench(Arc::new(Emulated::new(fault)), out.path()),
        &Progress::hidden(),
    );
    println!("{}: {:.1} s", part.name(), start.elapsed().as_secs_f64());
    found
}

fn passes(part: Part) -> Found {
    let found = run(part, Fault::default());
    let bad = found.findings.iter().filter(|x| x.outcome == Outcome::Fail);
    let bad: Vec<_> = bad.collect();
    assert!(bad.is_empty(), "{bad:#?}");
    found
}

#[test]
fn determinism() {
    assert_eq!(passes(Part::Determinism).findings.len(), 20);
}

#[test]
fn capture() {
    assert_eq!(passes(Part::Capture).findings.len(), 10);
}

#[test]
fn memory() {
    assert_eq!(passes(Part::Memory).findings.len(), 12);
}

#[test]
fn endurance() {
    assert_eq!(passes(Part::Endurance).findings.len(), 15);
}

#[test]
fn conformance() {
    let found = passes(Part::Conformance);
    let of = |what: &str| {
        found
            .findings
            .iter()
            .filter(|x| x.what.contains(what))
            .count()
    };
    assert_eq!(of("law-"), 64);
    assert_eq!(of("vectors in f64"), 1);
    assert_eq!(of("differential in "), 4);
    assert_eq!(of("wild cases"), 4);
    assert_eq!(of("8-bit moments"), 2);
    assert_eq!(of("stochastic rounding"), 2);
}

#[test]
fn timings() {
    let found = passes(Part::Timings);
    assert!(found.copy_rate.unwrap().median > 0.0);
    assert_eq!(found.timings.len(), 9 + 2 * 4 * 7);
    for timing in &found.timings {
        assert_eq!(timing.problem, None);
        assert!(timing.step_ms.as_ref().unwrap().median > 0.0);
        assert!(timing.graph_ms.is_some() && !timing.by_device);
        // A handful of launches, whatever the number of adapters.
        let most = if timing.method == Method::Factored {
            13
        } else {
            11
        };
        assert!((3..=most).contains(&timing.launches), "{timing:?}");
    }
}

#[test]
fn tools_that_are_not_there_are_skipped() {
    for part in [Part::Sanitizer, Part::SideBySide] {
        let found = run(part, Fault::default());
        assert!(found.findings.iter().all(|x| x.outcome == Outcome::Skipped));
        assert!(found.findings[0].detail.contains("no-such-"), "{found:?}");
    }
}

/// What the sanitizer sees is everything.
#[test]
fn small_cases_run_every_kernel() {
    let gpu = Arc::new(Emulated::new(Fault::default()));
    let out = tempfile::tempdir().unwrap();
    let found = Part::SmallCases.run(&bench(gpu.clone(), out.path()), &Progress::hidden());
    assert_eq!(found.outcome(), Outcome::Pass, "{found:#?}");
    let table = include_str!("../../backend-cuda/kernels/resources.txt").lines();
    // `sizes` tells tests how large the structures of the kernels are.
    let table = table.filter(|line| !line.starts_with('#') && !line.starts_with("sizes "));
    let all: BTreeSet<&str> = table.filter_map(|line| line.split(' ').next()).collect();
    let seen = gpu.seen();
    let missing: Vec<_> = all.difference(&seen).collect();
    assert!(missing.is_empty() && !all.is_empty(), "{missing:?}");
}

/// A step without one of its kernels.
#[test]
fn what_is_wrong_is_seen() {
    let lame = |kernel| Fault {
        lame: Some(kernel),
        ..Fault::default()
    };
    let fails = |part: Part, fault| {
        let found = run(part, fault);
        assert_eq!(found.outcome(), Outcome::Fail, "{} {fault:?}", part.name());
    };
    let forgetful = Fault {
        forgetful: true,
        ..Fault::default()
    };
    fails(Part::Capture, forgetful);
    fails(Part::SmallCases, lame("wide_f32_coded"));
    fails(Part::SmallCases, lame("decay_base"));
    fails(Part::Endurance, lame("apply_f32"));
}
