//! From lines to what was run, on whom, and what it found.

use std::path::Path;

use lora_pro_core::Error;

use crate::record::{Cell, End, Line, Run, SubjectInfo};
use crate::verdict::Verdict;

/// A whole record.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What was run.
    pub run: Run,
    /// On whom.
    pub subjects: Vec<SubjectInfo>,
    /// What it found.
    pub cells: Vec<Cell>,
    /// How it ended; none where it was interrupted.
    pub end: Option<End>,
}

impl Record {
    /// How it ended, in a word.
    pub fn verdict(&self) -> &'static str {
        match &self.end {
            Some(end) => end.verdict.name(),
            None => "INTERRUPTED",
        }
    }

    /// Cells of a verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.cells
            .iter()
            .filter(|cell| cell.verdict == verdict)
            .count()
    }

    /// Cells that are a reason to worry, the worst first.
    pub fn not_fine(&self) -> Vec<&Cell> {
        let mut bad: Vec<&Cell> = self
            .cells
            .iter()
            .filter(|cell| !cell.verdict.is_fine())
            .collect();
        bad.sort_by_key(|cell| std::cmp::Reverse(cell.verdict));
        bad
    }
}

/// Reads `record.jsonl`.
///
/// # Errors
/// [`Error::File`] with the line that cannot be read.
pub fn read(path: &Path) -> Result<Record, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, error))?;
    parse(&text).map_err(|reason| Error::file(path, reason))
}

fn parse(text: &str) -> Result<Record, String> {
    let (mut run, mut subjects, mut cells, mut end) = (None, vec![], vec![], None);
    let lines = text.lines().enumerate();
    for (k, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let line =
            serde_json::from_str(line).map_err(|error| format!("line {}: {error}", k + 1))?;
        match line {
            Line::Run(head) => run = Some(head),
            Line::Subject(subject) => subjects.push(subject),
            Line::Cell(cell) => cells.push(cell),
            Line::End(last) => end = Some(last),
        }
    }
    Ok(Record {
        run: run.ok_or("it has no line of kind `run`")?,
        subjects,
        cells,
        end,
    })
}
