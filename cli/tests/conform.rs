//! `lora-pro conform`: the matrix, its reports, failures and how they are repeated.

mod common;

use std::fs;
use std::path::Path;

use common::{folder, lora_pro, refusal, succeeds};

/// A quick run; no regressions are at hand in a folder of its own.
fn quick<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["conform", "--cases", "8", "--check", "balance"];
    all.extend(more);
    all
}

#[test]
fn a_subject_that_is_right_passes_and_is_reported() {
    let folder = folder();
    let arguments = quick(&["--subject", "cpu", "--report", "out"]);
    let said = succeeds(folder.path(), &arguments);
    // 3 smoke checks with 5 methods and 1 law with 4, in f64 and f32.
    assert!(said.stdout.starts_with("38 PASS in "), "{}", said.stdout);
    assert!(
        said.stderr.contains("report: out/report.html"),
        "{}",
        said.stderr
    );
    for name in ["record.jsonl", "report.html", "junit.xml"] {
        assert!(folder.path().join("out").join(name).is_file(), "{name}");
    }
    assert!(!folder.path().join("out/failures").exists());
    let record = fs::read_to_string(folder.path().join("out/record.jsonl")).unwrap();
    assert_eq!(record.lines().count(), 1 + 1 + 38 + 1);
}

/// The one failure of a folder.
fn failure(folder: &Path) -> String {
    let files = fs::read_dir(folder.join("out/failures")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".json")).collect();
    names.sort();
    format!("out/failures/{}", names[0])
}

#[test]
fn a_bug_fails_is_stored_and_repeated() {
    let folder = folder();
    let bug = "fault:sylvester-sides-swapped";
    let narrow = [
        "--subject",
        bug,
        "--dtype",
        "f64",
        "--method",
        "sgd",
        "--report",
        "out",
    ];
    let said = lora_pro(folder.path(), &quick(&narrow));
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.stdout.contains("law-15-balance f64 sgd"),
        "{}",
        said.stdout
    );
    assert!(
        said.stderr.contains("error: the worst verdict is "),
        "{}",
        said.stderr
    );

    let file = failure(folder.path());
    let again = lora_pro(folder.path(), &["conform", "replay", &file]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(
        again.stdout.contains("fault:sylvester-sides-swapped found"),
        "{again:?}"
    );
    let right = succeeds(
        folder.path(),
        &["conform", "replay", &file, "--subject", "reference"],
    );
    assert!(right.stdout.contains("now: PASS"), "{right:?}");

    // `lora-pro replay` reads both files of a failure.
    let same = lora_pro(folder.path(), &["replay", &file]);
    assert_eq!((same.code, &same.stdout), (again.code, &again.stdout));
    let right = succeeds(folder.path(), &["replay", &file, "--backend", "reference"]);
    assert!(right.stdout.contains("now: PASS"), "{right:?}");
    let case = file.replace(".json", ".safetensors");
    let said = succeeds(folder.path(), &["replay", &case]);
    assert!(said.stdout.contains(" steps; "), "{said:?}");
}

#[test]
fn the_list_names_subjects_checks_and_bugs() {
    let folder = folder();
    let said = succeeds(folder.path(), &["conform", "--list"]).stdout;
    for word in [
        "subjects: reference cpu",
        "law-15-balance",
        "differential",
        "u-over-s",
    ] {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[test]
fn bad_usage_is_refused_by_name() {
    let folder = folder();
    for (more, words) in [
        (
            vec!["--subject", "gpu"],
            "there is no subject `gpu`: use one of reference cpu",
        ),
        (vec!["--subject", "fault:none"], "there is no fault `none`"),
        (vec!["--check", "no-such-law"], ""),
        (vec!["--skip", "none.json"], "none.json"),
        (vec!["--command", "exit 3"], "exit 3"),
    ] {
        let mut arguments = vec!["conform", "--cases", "1"];
        arguments.extend(more);
        let said = lora_pro(folder.path(), &arguments);
        assert_ne!(said.code, Some(0), "{arguments:?}");
        assert!(
            said.stderr.contains(words),
            "{arguments:?}: {}",
            said.stderr
        );
    }
    let nothing = refusal(folder.path(), &["conform", "--check", "no-such-law"]);
    assert!(
        nothing.contains("no check has a name with no-such-law"),
        "{nothing}"
    );
    fs::write(
        folder.path().join("skips.json"),
        r#"[{ "check": "law-99", "reason": "gone" }]"#,
    )
    .unwrap();
    let dead = refusal(
        folder.path(),
        &quick(&["--subject", "cpu", "--skip", "skips.json"]),
    );
    assert!(dead.contains("number 1 (gone)"), "{dead}");
}
