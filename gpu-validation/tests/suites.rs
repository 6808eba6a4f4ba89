//! Every suite on the test device, in miniature; and suites on devices with something wrong.

mod common;

use std::collections::BTreeSet;
use std::time::Instant;

use common::{Emulated, Fault, ctx};
use lora_pro_core::Method;
use lora_pro_gpu_validation::progress::SuiteProgress;
use lora_pro_gpu_validation::result::{Outcome, SuiteResults};
use lora_pro_gpu_validation::suites::Suite;

fn run(suite: Suite, fault: Fault) -> SuiteResults {
    let out = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let found = suite.run(
        &ctx(Emulated::new(fault), out.path()),
        &SuiteProgress::hidden(),
    );
    println!("{}: {:.1} s", suite.name(), start.elapsed().as_secs_f64());
    found
}

fn passes(suite: Suite) -> SuiteResults {
    let found = run(suite, Fault::default());
    let bad = found.findings.iter().filter(|x| x.outcome == Outcome::Fail);
    let bad: Vec<_> = bad.collect();
    assert!(bad.is_empty(), "{bad:#?}");
    found
}

#[test]
fn capture() {
    assert_eq!(passes(Suite::Capture).findings.len(), 10);
}

#[test]
fn endurance() {
    assert_eq!(passes(Suite::Endurance).findings.len(), 15);
}

#[test]
fn timings() {
    let found = passes(Suite::Timings);
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
    for suite in [Suite::Tests, Suite::Sanitizer, Suite::SideBySide] {
        let found = run(suite, Fault::default());
        assert!(found.findings.iter().all(|x| x.outcome == Outcome::Skipped));
        assert!(found.findings[0].detail.contains("no-such-"), "{found:?}");
    }
}

/// What the sanitizer sees is everything.
#[test]
fn small_cases_run_every_kernel() {
    let gpu = Emulated::new(Fault::default());
    let out = tempfile::tempdir().unwrap();
    let found = Suite::SmallCases.run(&ctx(gpu.clone(), out.path()), &SuiteProgress::hidden());
    assert_eq!(found.outcome(), Outcome::Pass, "{found:#?}");
    let table = include_str!("../../backend-cuda/kernels/resources.txt").lines();
    // `layout` tells a test where the fields of the kernels' structures are.
    let table = table.filter(|line| !line.starts_with('#') && !line.starts_with("layout "));
    let all: BTreeSet<&str> = table.filter_map(|line| line.split(' ').next()).collect();
    let seen = gpu.seen();
    let missing: Vec<_> = all.difference(&seen).collect();
    assert!(missing.is_empty() && !all.is_empty(), "{missing:?}");
}

/// A step without one of its kernels.
#[test]
fn what_is_wrong_is_seen() {
    let without = |kernel| Fault {
        skipped_kernel: Some(kernel),
        ..Fault::default()
    };
    let fails = |suite: Suite, fault| {
        let found = run(suite, fault);
        assert_eq!(found.outcome(), Outcome::Fail, "{} {fault:?}", suite.name());
    };
    let shorter = Fault {
        drops_last_node: true,
        ..Fault::default()
    };
    fails(Suite::Capture, shorter);
    fails(Suite::SmallCases, without("wide_f32_quantized"));
    fails(Suite::SmallCases, without("decay_base"));
    fails(Suite::Endurance, without("apply_f32"));
}
