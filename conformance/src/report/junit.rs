//! JUnit's XML, which every service that runs tests can show.

use crate::record::Cell;
use crate::residual::THRESHOLD;
use crate::verdict::Verdict;

use super::matrix::{Column, Matrix};
use super::read::Record;
use super::wording;
use lora_pro_report::escape::markup;

/// One suite for each subject and storage type, one case for each check and method.
///
/// What is not required and not fine counts as skipped, since the run does not fail by it either.
/// A run without an end is an error of its own.
pub fn junit(record: &Record) -> String {
    let matrix = Matrix::of(record);
    let mut suites: Vec<Suite> = (0..matrix.columns.len())
        .map(|column| suite(&matrix, column))
        .collect();
    suites.extend(record.interrupted().then(interrupted));
    let body: String = suites.iter().map(Suite::xml).collect();
    let totals = attributes(suites.iter().flat_map(|suite| &suite.cases));
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuites name=\"LoRA-Pro conformance\" {totals}>\n{body}</testsuites>\n"
    )
}

struct Suite {
    name: String,
    cases: Vec<Case>,
}

struct Case {
    name: String,
    class: String,
    seconds: f64,
    outcome: TestOutcome,
}

#[derive(PartialEq)]
enum TestOutcome {
    Pass,
    Skipped {
        message: String,
    },
    Failure {
        kind: &'static str,
        message: String,
        body: String,
    },
    Error {
        kind: &'static str,
        message: String,
        body: String,
    },
}

fn suite(matrix: &Matrix, column: usize) -> Suite {
    let Column { subject, dtype } = matrix.columns[column];
    let name = format!("{subject} {dtype}");
    let cells = matrix.rows.iter().flat_map(|row| &row.places[column]);
    let cases = cells.map(|cell| Case::of(cell, &name)).collect();
    Suite { name, cases }
}

fn interrupted() -> Suite {
    let message = "Interrupted: the record has no end.".to_string();
    let case = Case {
        name: "end".into(),
        class: "record".into(),
        seconds: 0.0,
        outcome: TestOutcome::Error {
            kind: "INTERRUPTED",
            message,
            body: String::new(),
        },
    };
    Suite {
        name: "record".into(),
        cases: vec![case],
    }
}

impl Case {
    fn of(cell: &Cell, suite: &str) -> Self {
        let name = match cell.method {
            Some(method) => format!("{} {method}", cell.check),
            None => cell.check.clone(),
        };
        Case {
            name,
            class: suite.into(),
            seconds: cell.seconds,
            outcome: outcome(cell),
        }
    }

    fn xml(&self) -> String {
        let inner = match &self.outcome {
            TestOutcome::Pass => return format!("    <testcase {}/>\n", self.attributes()),
            TestOutcome::Skipped { message } => {
                format!("<skipped message=\"{}\"/>", markup(message))
            }
            TestOutcome::Failure {
                kind,
                message,
                body,
            } => problem("failure", kind, message, body),
            TestOutcome::Error {
                kind,
                message,
                body,
            } => problem("error", kind, message, body),
        };
        format!(
            "    <testcase {}>\n      {inner}\n    </testcase>\n",
            self.attributes()
        )
    }

    fn attributes(&self) -> String {
        format!(
            "name=\"{}\" classname=\"{}\" time=\"{:.3}\"",
            markup(&self.name),
            markup(&self.class),
            self.seconds
        )
    }
}

fn problem(tag: &str, kind: &str, message: &str, body: &str) -> String {
    let (message, body) = (markup(message), markup(body));
    format!("<{tag} type=\"{kind}\" message=\"{message}\">{body}</{tag}>")
}

fn outcome(cell: &Cell) -> TestOutcome {
    let kind = cell.verdict.name();
    let reason = wording::finding(cell);
    let (message, body) = (message(cell), body(cell));
    match cell.verdict {
        Verdict::Pass => TestOutcome::Pass,
        Verdict::Skipped | Verdict::Unsupported => TestOutcome::Skipped { message: reason },
        _ if !cell.required => TestOutcome::Skipped {
            message: format!("not required: {reason}"),
        },
        Verdict::Marginal | Verdict::Fail => TestOutcome::Failure {
            kind,
            message,
            body,
        },
        Verdict::Error | Verdict::Unknown => TestOutcome::Error {
            kind,
            message,
            body,
        },
    }
}

fn message(cell: &Cell) -> String {
    match (wording::measured(cell), &cell.reason) {
        (true, Some(reason)) => format!("ratio {}: {reason}", wording::ratio(cell.ratio)),
        (true, None) => format!(
            "ratio {}, threshold {THRESHOLD}",
            wording::ratio(cell.ratio)
        ),
        (false, reason) => reason.clone().unwrap_or_default(),
    }
}

/// The check, the case and how to see it again, one a line.
fn body(cell: &Cell) -> String {
    let case = cell.worst.as_ref().map(wording::case_line);
    let lines = [Some(cell.title.clone()), case, wording::replay(cell)];
    lines.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

impl Suite {
    fn xml(&self) -> String {
        let cases: String = self.cases.iter().map(Case::xml).collect();
        let (name, totals) = (markup(&self.name), attributes(self.cases.iter()));
        format!("  <testsuite name=\"{name}\" {totals}>\n{cases}  </testsuite>\n")
    }
}

fn attributes<'c>(cases: impl Iterator<Item = &'c Case>) -> String {
    let [mut tests, mut failures, mut errors, mut skipped] = [0; 4];
    let mut seconds = 0.0;
    for case in cases {
        tests += 1;
        seconds += case.seconds;
        match case.outcome {
            TestOutcome::Pass => (),
            TestOutcome::Skipped { .. } => skipped += 1,
            TestOutcome::Failure { .. } => failures += 1,
            TestOutcome::Error { .. } => errors += 1,
        }
    }
    format!(
        "tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" skipped=\"{skipped}\" \
         time=\"{seconds:.3}\""
    )
}
