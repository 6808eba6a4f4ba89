//! JUnit's XML: a suite for each subject and storage type, a test for each check and method.

use std::fmt::Write;

use super::table::Table;
use super::{Record, escaped};
use crate::record::Cell;
use crate::verdict::Verdict;

/// The record as CI servers read it.
pub fn junit(record: &Record) -> String {
    let table = Table::of(record);
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for column in &table.columns {
        let here = |cell: &&Cell| cell.subject == column.subject && cell.dtype == column.dtype;
        let cells: Vec<&Cell> = record.cells.iter().filter(here).collect();
        let count = |kinds: &[Verdict]| cells.iter().filter(|c| kinds.contains(&c.verdict)).count();
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  <testsuite name=\"{} {}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{:.3}\">",
            escaped(column.subject),
            column.dtype,
            cells.len(),
            count(&[Verdict::Marginal, Verdict::Fail]),
            count(&[Verdict::Error, Verdict::Unknown]),
            count(&[Verdict::Skipped, Verdict::Unsupported]),
            cells.iter().map(|cell| cell.seconds).sum::<f64>(),
        );
        cells.iter().for_each(|cell| text += &test(cell));
        text += "  </testsuite>\n";
    }
    text + "</testsuites>\n"
}

fn test(cell: &Cell) -> String {
    let method = cell
        .method
        .map_or_else(|| "all".to_string(), |method| method.to_string());
    let open = format!(
        "    <testcase classname=\"{}\" name=\"{method}\" time=\"{:.3}\"",
        escaped(&cell.check),
        cell.seconds
    );
    let tag = match cell.verdict {
        Verdict::Pass => return open + "/>\n",
        Verdict::Skipped | Verdict::Unsupported => "skipped",
        Verdict::Marginal | Verdict::Fail => "failure",
        Verdict::Error | Verdict::Unknown => "error",
    };
    let reason = cell
        .reason
        .as_deref()
        .unwrap_or("a ratio is past the threshold");
    let message = format!("{}: {reason}, ratio {}", cell.verdict.name(), cell.ratio);
    format!(
        "{open}><{tag} message=\"{}\"/></testcase>\n",
        escaped(&message)
    )
}
