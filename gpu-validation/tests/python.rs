//! The program for torch: a program at all; the methods that others have, as the reference has them.

use std::path::PathBuf;
use std::process::{Command, Output};

use lora_pro_conformance::subject::Subject;
use lora_pro_conformance::support::batch::adapter;
use lora_pro_core::{DType, Method, Preset};
use lora_pro_gpu_validation::suites::side_by_side::SCRIPT;
use lora_pro_reference::ReferenceBackend;
use nalgebra::DMatrix;
use serde_json::{Value, json};

fn python() -> String {
    std::env::var("PYTHON").unwrap_or("python3".into())
}

fn has(modules: &str) -> bool {
    let import = format!("import {modules}");
    let found = Command::new(python()).args(["-c", &import]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: there is no {} with {modules}", python());
    }
    found
}

fn script(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("side_by_side.py");
    std::fs::write(&path, SCRIPT).unwrap();
    path
}

fn ask(what: &str, question: &Value) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(python());
    command
        .arg(script(&folder))
        .args([what, &question.to_string()]);
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    serde_json::from_slice(&stdout).unwrap()
}

#[test]
fn it_compiles() {
    if !has("sys") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(python());
    command.args(["-m", "py_compile"]).arg(script(&folder));
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

fn rows(x: &DMatrix<f64>) -> Value {
    let rows = x.row_iter().map(|row| row.iter().copied().collect());
    json!(rows.collect::<Vec<Vec<f64>>>())
}

fn distance(found: &Value, expected: &DMatrix<f64>) -> f64 {
    let found: Vec<Vec<f64>> = serde_json::from_value(found.clone()).unwrap();
    let found = DMatrix::from_fn(expected.nrows(), expected.ncols(), |i, j| found[i][j]);
    (found - expected).norm() / expected.norm()
}

/// Five steps from the same numbers with the same gradients.
#[test]
fn its_methods_are_the_references() {
    if !has("torch") {
        return;
    }
    for method in [Method::Efficient, Method::Full] {
        let hyper = Preset::Paper.hyper().method(method).lr(1e-3);
        let spec = adapter(9, 7, 3, DType::F64);
        let subject = Subject::new(
            "reference",
            DType::F64,
            || Box::new(ReferenceBackend::new()),
        );
        let start = spec.factors();
        let mut run = subject.start(&start, hyper).unwrap();
        let mut gradients = Vec::new();
        for t in 1..=5 {
            let pair = spec.gradients(&run.factors(), t);
            gradients.push([rows(&pair.a), rows(&pair.b)]);
            run.step(&pair).unwrap();
        }
        let end = run.factors();
        let found = ask(
            "steps",
            &json!({
                "method": method,
                "a": rows(&start.a),
                "b": rows(&start.b),
                "s": start.s,
                "lr": hyper.lr,
                "gradients": gradients,
            }),
        );
        let moved = (&end.b - &start.b).norm() / end.b.norm();
        let off = [distance(&found["a"], &end.a), distance(&found["b"], &end.b)];
        println!("{method}: moved {moved:e}, off {off:?}");
        assert!(
            moved > 1e-3 && off.iter().all(|off| *off < 1e-9),
            "{method}: {off:?}"
        );
    }
}

/// All rows, where there is a CPU alone.
#[test]
fn it_measures() {
    if !has("torch") {
        return;
    }
    let found = ask(
        "measure",
        &json!({
            "device": "cpu",
            "weights": vec![[12, 8]; 14],
            "rank": 2,
            "samples": 2,
            "sample_ms": 0.0,
        }),
    );
    let rows = found["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    for row in rows {
        assert_eq!(row["problem"], Value::Null);
        assert!(row["ms"][1].as_f64().unwrap() > 0.0, "{row}");
    }
    assert_eq!(rows[3]["scaled_by"], 2.0);
}
