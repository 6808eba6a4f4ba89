//! What people look at, made from a small record that has one cell of every verdict.

use std::collections::BTreeMap;

use lora_pro_conformance::record::{Cell, End, Line, Machine, Run, Stability, SubjectInfo};
use lora_pro_conformance::report::{Record, badge, html, junit, markdown, read, write_all};
use lora_pro_conformance::sample::CaseSpec;
use lora_pro_conformance::verdict::Verdict;
use lora_pro_core::{DType, Error, Method};

fn cell(verdict: Verdict, ratio: f64, reason: Option<&str>) -> Cell {
    Cell {
        subject: "mine <&>".into(),
        check: format!("law-{}", verdict.name().to_lowercase()),
        title: "dA A' = B' dB".into(),
        dtype: DType::F32,
        method: Some(Method::Full),
        verdict,
        reason: reason.map(String::from),
        required: true,
        cases: 7,
        ratio,
        worst: (!verdict.is_fine()).then(CaseSpec::default),
        replay: (verdict == Verdict::Fail).then(|| "failures/x.json".into()),
        attained: (verdict == Verdict::Pass).then_some(Stability::KappaSquared),
        coverage: BTreeMap::from([("B = 0".to_string(), 3)]),
        seconds: 0.25,
    }
}

fn lines() -> Vec<Line> {
    let run = Run {
        kit: "1.2.3".into(),
        spec: "the laws".into(),
        vectors: "1".into(),
        protocol: 1,
        machine: Machine {
            os: "linux".into(),
            arch: "x86_64".into(),
            cpu: "a processor".into(),
            threads: 2,
        },
        seed: 0,
        cases: 7,
        command: "lora-pro conform --command 'python \"x\".py'".into(),
        started: 1_790_000_000,
    };
    let subject = SubjectInfo {
        name: "mine <&>".into(),
        version: "0.1".into(),
        command: Some("python x.py </script>".into()),
        manifest: serde_json::json!({ "name": "mine" }),
        class: Stability::Kappa,
    };
    let cells = [
        cell(Verdict::Pass, 1.5, None),
        cell(Verdict::Skipped, 0.0, Some("not today")),
        cell(Verdict::Unsupported, 0.0, Some("no full mode")),
        cell(Verdict::Marginal, 45.0, None),
        cell(Verdict::Fail, f64::INFINITY, None),
        cell(Verdict::Error, f64::INFINITY, Some("it </script> crashed")),
        cell(
            Verdict::Unknown,
            f64::NAN,
            Some("the check itself panicked"),
        ),
    ];
    let counts = Verdict::ALL.map(|verdict| (verdict, 1));
    let end = End {
        verdict: Verdict::Unknown,
        counts: counts.into(),
        seconds: 2.0,
    };
    let head = [Line::Run(run), Line::Subject(subject)];
    let cells = cells.into_iter().map(Line::Cell);
    head.into_iter()
        .chain(cells)
        .chain([Line::End(end)])
        .collect()
}

/// Written as a run writes it, and read again.
fn through_a_file(lines: &[Line]) -> Result<Record, Error> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("record.jsonl");
    let text: Vec<String> = lines
        .iter()
        .map(|line| serde_json::to_string(line).expect("it is JSON"))
        .collect();
    std::fs::write(&path, text.join("\n")).expect("a file");
    read(&path)
}

fn record() -> Record {
    through_a_file(&lines()).expect("a record")
}

#[test]
fn a_record_survives_its_file() {
    let record = record();
    assert_eq!(record.cells.len(), 7);
    assert_eq!(record.cells[4].ratio, f64::INFINITY);
    assert!(record.cells[6].ratio.is_nan());
    assert_eq!(record.verdict(), "UNKNOWN");
}

#[test]
fn as_markdown() {
    insta::assert_snapshot!(markdown(&record()));
}

#[test]
fn as_junit() {
    insta::assert_snapshot!(junit(&record()));
}

#[test]
fn as_a_badge() {
    insta::assert_snapshot!(badge(&record()));
}

#[test]
fn the_page_needs_nothing_else_and_shows_every_verdict() {
    let page = html(&record());
    assert!(!page.contains("http") && !page.contains("<link") && !page.contains("src="));
    // Nothing of a subject's words ends the script or starts a tag.
    assert_eq!(page.matches("</script>").count(), 2);
    assert!(!page.contains("mine <&>"));
    for sign in [
        "p2",
        "marginal",
        "fail",
        "error",
        "unknown",
        "unsupported",
        "skipped",
    ] {
        assert!(page.contains(&format!("class=\"cell {sign}\"")), "{sign}");
    }
    assert!(page.contains("2026-09-21"));
    let row = "<th scope=\"row\">B = 0</th><td class=\"n\"";
    assert!(
        page.contains(row) && page.contains(">21</td>"),
        "coverage adds up"
    );
    assert!(page.contains("<th scope=\"row\">A = 0</th><td class=\"n zero\""));
    assert!(page.contains("weaker than declared"));
}

#[test]
fn a_record_without_an_end_was_interrupted() {
    let mut lines = lines();
    lines.pop();
    let record = through_a_file(&lines).expect("a record");
    assert!(html(&record).contains("INTERRUPTED"));
    assert!(markdown(&record).starts_with("# LoRA-Pro conformance: INTERRUPTED"));
    assert!(badge(&record).contains("interrupted"));
}

#[test]
fn a_damaged_record_is_refused_by_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("record.jsonl");
    let head = serde_json::to_string(&lines()[0]).expect("JSON");
    std::fs::write(&path, format!("{head}\n{{\"kind\":\"cell\"}}\n")).expect("a file");
    let error = read(&path).expect_err("it is damaged").to_string();
    assert!(error.contains("record.jsonl: line 2: "), "{error}");
    std::fs::write(&path, "").expect("a file");
    assert!(read(&path).is_err());
}

#[test]
fn all_reports_are_written() {
    let folder = tempfile::tempdir().expect("a folder");
    write_all(folder.path(), &record()).expect("a folder to write to");
    for name in ["report.html", "report.md", "junit.xml", "badge.svg"] {
        assert!(folder.path().join(name).is_file(), "{name}");
    }
    assert!(write_all(&folder.path().join("none"), &record()).is_err());
}
