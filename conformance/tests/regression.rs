//! Stored failures are cases that any program can follow.

use std::path::PathBuf;

use lora_pro_conformance::case::Case;
use lora_pro_conformance::regression::Regression;
use lora_pro_conformance::replay::replay;
use lora_pro_core::{DType, Method};
use lora_pro_reference::ReferenceBackend;

fn is_followed(file: &PathBuf, known: &Regression) {
    let case = Case::read(&file.with_extension("safetensors")).expect("a case");
    assert_eq!(case.hyper.method, known.method, "{file:?}");
    assert_eq!(case.metadata["check"], known.check, "{file:?}");
    let reference = Box::new(ReferenceBackend::new());
    let trajectory = replay(&case, reference, known.dtype).expect("a trajectory");
    assert_eq!(trajectory.factors.len(), case.steps() + 1, "{file:?}");
}

#[test]
fn a_stored_failure_is_a_case() {
    let folder = tempfile::tempdir().expect("a folder");
    for (check, method) in [
        ("law-15-balance", Method::Sgd),
        ("differential", Method::Full),
    ] {
        let known = Regression {
            check: check.into(),
            method,
            dtype: DType::F32,
            case: Default::default(),
            subject: "a subject".into(),
            found: "nothing".into(),
            kit: "0".into(),
        };
        is_followed(&known.save(folder.path()).expect("saved"), &known);
    }
}

/// Those of the past that every run tries first.
#[test]
fn the_failures_in_the_repository_are_cases() {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/regressions"));
    for known in Regression::load_all(&folder).expect("failures") {
        let file = folder.join(known.name() + ".json");
        if std::env::var_os("LORA_PRO_WRITE").is_some() {
            known.save(&folder).expect("written");
        }
        is_followed(&file, &known);
    }
}
