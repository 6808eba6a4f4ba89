//! `lora-pro bench` on tiny shapes.

mod common;

use std::fs;

use common::{folder, refusal, succeeds};
use insta::assert_snapshot;
use serde_json::Value;

#[test]
fn a_quick_run_prints_a_table_and_writes_json() {
    let folder = folder();
    let arguments = ["bench", "--quick", "--json=found.json"];
    let said = succeeds(folder.path(), &arguments);
    for word in [
        "GB/s",
        "GFLOP/s",
        "full-r8-f32",
        "proves nothing about the goals",
    ] {
        assert!(said.stdout.contains(word), "{word}: {}", said.stdout);
    }
    let text = fs::read(folder.path().join("found.json")).unwrap();
    let found: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(found["schema"], 1);
    assert_eq!(found["size"], "quick");
    let rows = found["rows"].as_array().unwrap();
    let listed = succeeds(folder.path(), &["bench", "--list"]).stdout;
    for row in rows {
        let id = row["id"].as_str().unwrap();
        assert!(listed.contains(&format!("  {id}: ")), "{id}");
        assert_ne!(row["outcome"]["kind"], "wrong", "{id}");
    }
}

/// The peak is that of a process of its own, which holds a few megabytes here.
#[cfg(target_os = "linux")]
#[test]
fn memory_is_measured_in_a_process_of_its_own() {
    let folder = folder();
    let rows = "--rows=memory-full,memory-efficient";
    succeeds(
        folder.path(),
        &["bench", "--quick", rows, "--json=found.json"],
    );
    let text = fs::read(folder.path().join("found.json")).unwrap();
    let found: Value = serde_json::from_slice(&text).unwrap();
    for row in found["rows"].as_array().unwrap() {
        let peak = row["outcome"]["value"]["median"].as_f64().unwrap();
        assert!(peak > 1e6 && peak < 1e8, "{row}");
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let folder = folder();
    let bench = |option| refusal(folder.path(), &["bench", "--backend=reference", option]);
    assert_snapshot!(bench("--rows=full-r9").split(" full").next().unwrap(), @"error: the benchmark: row is `full-r9`, but it must be one of");
    assert_snapshot!(bench("--json=no/found.json"), @"error: no/found.json: there is no such folder to write it to");
    assert_snapshot!(bench("--seconds=-1"), @r"
    error: invalid value '-1' for '--seconds <S>': it is not a number from 0 to 3600

    For more information, try '--help'.
    ");
    assert_snapshot!(bench("--threads=0"), @r"
    error: invalid value '0' for '--threads <N>': 0 is not in 1..=1024

    For more information, try '--help'.
    ");
}
