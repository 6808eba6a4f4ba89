//! The page and the JSON of results that are made up.

use lora_pro_bench::stats::Samples;
use lora_pro_core::{DType, Method, MomentDType};
use lora_pro_gpu_validation::parts::Part;
use lora_pro_gpu_validation::report::page;
use lora_pro_gpu_validation::result::{Finding, Found, Other, Outcome, Timing};
use lora_pro_gpu_validation::store::{About, Results, Store, Stored};

fn about() -> About {
    About {
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

fn stored(part: Part, found: Found) -> Stored {
    Stored {
        part,
        about: about(),
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
    let mut conformance = Found::default();
    conformance.check("law-01 in f64", true, "24 cases");
    conformance.check("law-01 in f32", false, "ratio 1e3\nin two lines");
    let sanitizer = Found {
        findings: vec![Finding::skipped("memcheck", "no such program")],
        ..Found::default()
    };
    let (f32, bf16) = (Some(MomentDType::F32), Some(MomentDType::Bf16));
    let full = Method::Full;
    let timings = Found {
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
        ..Found::default()
    };
    let others = Found {
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
        ..Found::default()
    };
    let parts = vec![
        stored(Part::Conformance, conformance),
        stored(Part::Sanitizer, sanitizer),
        stored(Part::Timings, timings),
        stored(Part::SideBySide, others),
    ];
    Results::of(about(), parts)
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
    for stored in &results.parts {
        assert_eq!(store.load(stored.part, &about()), None);
        store.save(stored).unwrap();
        assert_eq!(store.load(stored.part, &about()).as_ref(), Some(stored));
    }
    let other = |change: fn(&mut About)| {
        let mut about = about();
        change(&mut about);
        store.load(Part::Timings, &about)
    };
    assert_eq!(other(|about| about.commit = "4567def".into()), None);
    assert_eq!(other(|about| about.effort = "quick".into()), None);
    assert_eq!(other(|about| about.device = "Another".into()), None);
    let half = folder.path().join("parts/timings.json");
    std::fs::write(&half, "{\"part\":").unwrap();
    assert_eq!(store.load(Part::Timings, &about()), None);

    let [json, page] = store.publish(&results).unwrap();
    assert!(page.ends_with("made-up-gpu-80-gb.md") && page.exists());
    let text = std::fs::read_to_string(json).unwrap();
    assert_eq!(serde_json::from_str::<Results>(&text).unwrap(), results);
}
