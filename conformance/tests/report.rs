//! Reports on a made-up record with every verdict, and what a record must look like to be read.

use std::collections::BTreeMap;

use lora_pro_conformance::record::{Cell, End, Line, Machine, RunInfo, Stability, SubjectInfo};
use lora_pro_conformance::report::{Record, html, junit, parse, read, write_all};
use lora_pro_conformance::sample::CaseSpec;
use lora_pro_conformance::verdict::Verdict;
use lora_pro_core::{DType, Method};

/// Text that would turn into markup, were it not escaped.
const NASTY: &str = "</script><script>alert(\"1\")</script> & 'b' `c` | *d*\u{7}";

fn run() -> RunInfo {
    RunInfo {
        kit: "0.1.0".into(),
        spec: "derivation 1".into(),
        vectors: "1".into(),
        protocol: 1,
        machine: Machine {
            os: "linux".into(),
            arch: "x86_64".into(),
            cpu: "Some CPU".into(),
            threads: 8,
        },
        seed: 42,
        cases: 20,
        command: "lora-pro conform --seed 42".into(),
        started: 1_767_225_599,
    }
}

fn subject(name: &str, command: Option<&str>) -> SubjectInfo {
    SubjectInfo {
        name: name.into(),
        version: "1.2".into(),
        command: command.map(String::from),
        manifest: serde_json::json!({ "methods": ["full"], "note": NASTY }),
        stability: Stability::Kappa,
    }
}

fn cell(check: &str, method: Option<Method>, ratio: f64) -> Cell {
    let verdict = Verdict::of(ratio);
    Cell {
        subject: "port".into(),
        check: check.into(),
        title: "|a| = |b|".into(),
        dtype: DType::F32,
        method,
        verdict,
        reason: None,
        required: true,
        cases: 20,
        ratio,
        worst: Some(CaseSpec::default()),
        replay: (!verdict.is_fine()).then(|| format!("out/{check} 1.json")),
        measured_stability: None,
        coverage: BTreeMap::new(),
        seconds: 0.25,
    }
}

fn without_ratio(check: &str, verdict: Verdict, reason: &str) -> Cell {
    Cell {
        verdict,
        reason: Some(reason.into()),
        worst: None,
        replay: None,
        ..cell(check, Some(Method::Full), 0.0)
    }
}

fn coverage(counts: &[(&str, u32)]) -> BTreeMap<String, u32> {
    let counts = counts.iter();
    counts
        .map(|(name, count)| (name.to_string(), *count))
        .collect()
}

/// Every verdict, ratios that are no numbers, two subjects, a cell that is not required.
fn cells() -> Vec<Cell> {
    let zero = CaseSpec {
        rank_b: 0,
        kappa_a: 12_345.6,
        ..CaseSpec::default()
    };
    vec![
        Cell {
            subject: "reference".into(),
            dtype: DType::F64,
            coverage: coverage(&[("kappa/1e2", 3), ("kappa/1e10", 1), ("branch/rank cut", 0)]),
            measured_stability: Some(Stability::Kappa),
            ..cell("law-15-balance", Some(Method::Full), 0.5)
        },
        Cell {
            coverage: coverage(&[("kappa/1e2", 4), ("plain", 2)]),
            measured_stability: Some(Stability::KappaSquared),
            worst: Some(zero),
            ..cell("law-15-balance", Some(Method::Full), 45.6)
        },
        cell("law-2-optimality", None, 1.25),
        cell("law-15-balance", Some(Method::Efficient), f64::INFINITY),
        Cell {
            reason: Some(NASTY.into()),
            ..cell("vector-003", Some(Method::Full), f64::NAN)
        },
        Cell {
            required: false,
            ..cell("vector-010", Some(Method::Full), 1e4)
        },
        without_ratio("law-20-decay", Verdict::Skipped, "not today"),
        without_ratio("law-21-clip", Verdict::Unsupported, "no clipping"),
        without_ratio(
            "law-22-gradients",
            Verdict::Error,
            "it ended with signal 11",
        ),
        without_ratio("law-23-skip", Verdict::Unknown, "the checker panicked"),
    ]
}

fn record() -> Record {
    Record {
        run: run(),
        subjects: vec![
            subject("reference", None),
            subject("port", Some("python port.py | tee log")),
        ],
        cells: cells(),
        end: Some(End {
            verdict: Verdict::Unknown,
            counts: BTreeMap::from([(Verdict::Pass, 2), (Verdict::Unknown, 8)]),
            seconds: 75.0,
        }),
    }
}

fn interrupted() -> Record {
    Record {
        cells: cells().into_iter().take(1).collect(),
        end: None,
        ..record()
    }
}

fn lines(record: &Record) -> String {
    let run = [Line::Run(record.run.clone())].into_iter();
    let subjects = record.subjects.iter().cloned().map(Line::Subject);
    let cells = record.cells.iter().cloned().map(Line::Cell);
    let end = record.end.iter().cloned().map(Line::End);
    let lines = run.chain(subjects).chain(cells).chain(end);
    let text = lines.map(|line| serde_json::to_string(&line).expect("a line") + "\n");
    text.collect()
}

#[test]
fn what_was_written_is_read() {
    let text = lines(&record());
    let read = parse(&text).expect("a record");
    assert!(!read.interrupted());
    // A NaN is not equal to itself, its line is.
    assert_eq!(lines(&read), text);
}

#[test]
fn a_record_without_an_end_is_interrupted() {
    let whole = lines(&interrupted());
    let cut_off = format!("{whole}{{\"kind\":\"cell\",\"sub");
    for text in [&whole, &cut_off] {
        assert_eq!(parse(text), Ok(interrupted()));
    }
}

#[test]
fn reading_errors() {
    let text = lines(&record());
    let all: Vec<&str> = text.lines().collect();
    let records = [
        String::new(),
        "{\"kind\":\"run\",".into(),
        format!("{}\n", all[1]),
        format!("{}\n{}\n", all[0], all[0]),
        format!("{}\n{}\n", all[0], all[3]),
        format!("{}\n{}\n{}\n", all[0], all[1], all[1]),
        format!("{}\n{}\n", all[0], all[13]),
        format!("{text}{}\n", all[1]),
        format!("{}\n{{\"kind\":\"subject\",\n{}\n", all[0], all[1]),
        format!("{}\n{{\"kind\":\"cel\"}}\n", all[0]),
        format!("{}\n{{\"kind\":\"subject\"}}\n", all[0]),
        format!("{}\n\n", all[0]),
        text.replace("\"nan\"", "\"huge\""),
    ];
    let errors = records.map(|text| parse(&text).expect_err("no record"));
    insta::assert_snapshot!(errors.join("\n"));
}

#[test]
fn errors_name_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("record.jsonl");
    std::fs::write(&path, "[]\n").expect("written");
    let error = read(&path).expect_err("no record").to_string();
    assert!(
        error.contains("record.jsonl") && error.contains("line 1: "),
        "{error}"
    );
}

#[test]
fn junit_of_every_verdict() {
    insta::assert_snapshot!(junit(&record()));
}

#[test]
fn junit_of_an_interrupted_run() {
    insta::assert_snapshot!(junit(&interrupted()));
}

/// The part of the page that a test can be about: neither style nor script.
fn body(page: &str) -> &str {
    let start = page.find("<main>").expect("a start");
    let end = page.rfind("<script>").expect("an end");
    &page[start..end]
}

#[test]
fn the_matrix_of_the_page() {
    let page = html(&record());
    let start = page.find("<tbody>").expect("a matrix");
    let end = page.find("</tbody>").expect("its end");
    insta::assert_snapshot!(&page[start..end]);
}

#[test]
fn the_page_says_what_was_run_and_what_went_wrong() {
    let page = html(&record());
    for words in [
        "5 of 9 required checks failed.",
        "2025-12-31 23:59 UTC",
        "lora-pro conform --seed 42",
        "lora-pro conform replay &#39;out/law-15-balance 1.json&#39;",
        "worse than declared",
        "rank cut <small>never</small>",
    ] {
        assert!(body(&page).contains(words), "{words}");
    }
    assert!(html(&interrupted()).contains("Interrupted: the record has no end."));
}

#[test]
fn the_page_loads_nothing() {
    let page = html(&record());
    for loader in [
        "src=", "url(", "://", "@import", "<link", "<iframe", "<img", "fetch(",
    ] {
        assert!(!page.contains(loader), "{loader}");
    }
}

#[test]
fn text_does_not_turn_into_markup() {
    let mut record = record();
    record.run.command = NASTY.into();
    record.run.machine.cpu = NASTY.into();
    for subject in &mut record.subjects {
        subject.version = NASTY.into();
        subject.command = Some(NASTY.into());
    }
    for cell in &mut record.cells {
        cell.title = NASTY.into();
        cell.check = NASTY.into();
        cell.reason = Some(NASTY.into());
        cell.replay = Some(NASTY.into());
        cell.coverage = coverage(&[(NASTY, 1)]);
    }
    let page = html(&record);
    assert!(!page.contains("alert(\"1\")</script>"));
    // The page's own: the details and the script.
    assert_eq!(page.matches("<script").count(), 2);
    assert_eq!(page.matches("</script").count(), 2);
    assert!(!junit(&record).contains("<script"));
}

#[test]
fn all_reports_are_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("new");
    let paths = write_all(&folder, &record()).expect("written");
    let names = ["report.html", "junit.xml"];
    assert_eq!(paths, names.map(|name| folder.join(name)));
    let page = std::fs::read_to_string(&paths[0]).expect("a page");
    assert_eq!(page, html(&record()));
}
