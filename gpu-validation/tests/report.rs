//! The page and the JSON of results that are made up.

use lora_pro_bench::stats::Samples;
use lora_pro_core::{DType, Method, MomentDType};
use lora_pro_gpu_validation::goals::goals;
use lora_pro_gpu_validation::report::{Results, page};
use lora_pro_gpu_validation::result::{Finding, Other, Outcome, SuiteResults, Timing};
use lora_pro_gpu_validation::store::{Environment, Store, Stored};
use lora_pro_gpu_validation::suites::Suite;

fn environment() -> Environment {
    Environment {
        commit: "0123abc".into(),
        effort: "full".into(),
        device: "Made-up GPU (80 GB)".into(),
        code: "cubin sm_90".into(),
        facts: vec![
            ("device".into(), "Made-up GPU (80 GB)".into()),
            ("driver".into(), "CUDA 13.0".into()),
        ],
    }
}

fn stored(suite: Suite, found: SuiteResults) -> Stored {
    Stored {
        suite,
        environment: environment(),
        started: 1_764_000_000,
        seconds: 12.5,
        outcome: found.outcome(),
        found,
    }
}

fn timing(model: &str, method: Method, moments: Option<MomentDType>, rank: usize) -> Timing {
    Timing {
        model: model.into(),
        method,
        moments,
        rank,
        dtype: DType::F32,
        adapters: 224,
        bytes: 268_435_456,
        launches: 9,
        step_ms: Some(Samples::of(vec![0.1, 0.1, 0.104])),
        graph_ms: Some(Samples::of(vec![0.098; 3])),
        by_device: true,
        problem: None,
    }
}

fn other(name: &str, ms: f64, scaled_by: f64) -> Other {
    Other {
        name: name.into(),
        what: format!("what `{name}` is"),
        ms: Some(Samples::of(vec![ms; 3])),
        scaled_by,
        problem: None,
    }
}

fn results() -> Results {
    let mut tests = SuiteResults::default();
    tests.check("law-01 in f64", true, "24 cases");
    tests.check("law-01 in f32", false, "ratio 1e3\nin two lines");
    let sanitizer = SuiteResults {
        findings: vec![Finding::skipped("memcheck", "no such program")],
        ..SuiteResults::default()
    };
    let (f32, bf16) = (Some(MomentDType::F32), Some(MomentDType::Bf16));
    let full = Method::Full;
    let timings = SuiteResults {
        copy_rate: Some(Samples::of(vec![3e9; 3])),
        timings: vec![
            timing("square-4096", full, f32, 8),
            Timing {
                step_ms: None,
                problem: Some("out of memory".into()),
                ..timing("llama-2-7b", full, bf16, 8)
            },
            timing("llama-2-7b", full, f32, 8),
            timing("llama-2-7b", Method::Efficient, None, 8),
            Timing {
                by_device: false,
                ..timing("llama-2-7b", Method::Factored, None, 8)
            },
        ],
        ..SuiteResults::default()
    };
    let others = SuiteResults {
        others: vec![
            other("adamw-factors", 0.05, 1.0),
            other("efficient-loop", 700.0, 1.0),
            Other {
                ms: None,
                problem: Some("CUDA out of memory".into()),
                ..other("full-loop", 0.0, 32.0)
            },
        ],
        versions: Some("torch 2.9, CUDA 13.0".into()),
        ..SuiteResults::default()
    };
    let suites = vec![
        stored(Suite::Tests, tests),
        stored(Suite::Sanitizer, sanitizer),
        stored(Suite::Timings, timings),
        stored(Suite::SideBySide, others),
    ];
    let goals = goals(&suites);
    Results::of(environment(), suites, goals)
}

#[test]
fn the_page() {
    insta::assert_snapshot!(page(&results()));
}

#[test]
fn the_numbers() {
    let results = results();
    assert_eq!(results.outcome, Outcome::Fail);
    let json = serde_json::to_value(&results).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&json["goals"]).unwrap());
    let read: Results = serde_json::from_value(json).unwrap();
    assert_eq!(read, results);
}

/// What was found before counts where nothing has changed.
#[test]
fn results_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path()).unwrap();
    let results = results();
    for stored in &results.suites {
        assert_eq!(store.load(stored.suite, &environment()), None);
        store.save(stored).unwrap();
        assert_eq!(
            store.load(stored.suite, &environment()).as_ref(),
            Some(stored)
        );
    }
    let other = |change: fn(&mut Environment)| {
        let mut other = environment();
        change(&mut other);
        store.load(Suite::Timings, &other)
    };
    assert_eq!(
        other(|environment| environment.commit = "4567def".into()),
        None
    );
    assert_eq!(
        other(|environment| environment.effort = "quick".into()),
        None
    );
    assert_eq!(
        other(|environment| environment.device = "Another".into()),
        None
    );
    let half = folder.path().join("suites/timings.json");
    std::fs::write(&half, "{\"suite\":").unwrap();
    assert_eq!(store.load(Suite::Timings, &environment()), None);

    let path = store.write("results.json", b"{}").unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"{}");
    assert_eq!(environment().slug(), "made-up-gpu-80-gb");
}
