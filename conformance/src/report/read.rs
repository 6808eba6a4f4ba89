//! A record in memory.

use std::collections::BTreeMap;
use std::path::Path;

use lora_pro_core::Error;

use crate::record::{Cell, End, Line, RunInfo, Stability, SubjectInfo};
use crate::verdict::Verdict;

/// Everything that a run has written down.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// What was run.
    pub run: RunInfo,
    /// The implementations under test, in the order of the record.
    pub subjects: Vec<SubjectInfo>,
    /// What was found, in the order of the record.
    pub cells: Vec<Cell>,
    /// How it ended; none where it was interrupted.
    pub end: Option<End>,
}

/// Reads a record file.
///
/// # Errors
/// A file that cannot be read, or a line that does not belong in a record, with its number.
pub fn read(path: &Path) -> Result<Record, Error> {
    let bytes = std::fs::read(path).map_err(|error| Error::file(path, error))?;
    // An interrupted run may leave half a character behind.
    parse(&String::from_utf8_lossy(&bytes)).map_err(|reason| Error::file(path, reason))
}

/// Reads a record from its text. A last line that was cut off while it was written counts as not
/// written.
///
/// # Errors
/// The number of the first line that does not belong in a record, and why.
pub fn parse(text: &str) -> Result<Record, String> {
    let mut draft = Draft::default();
    let mut lines = text.lines().enumerate().peekable();
    while let Some((k, line)) = lines.next() {
        let cut_off = lines.peek().is_none() && !text.ends_with('\n');
        let added = match serde_json::from_str(line) {
            Err(error) if error.is_eof() && cut_off => break,
            Err(error) => Err(reason(&error)),
            Ok(line) => draft.add(line),
        };
        added.map_err(|reason| format!("line {}: {reason}", k + 1))?;
    }
    draft.finish()
}

/// What is wrong with a line. Serde counts lines itself, but sees only one.
fn reason(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let position = format!(" at line {line} column {column}");
    match error.to_string().strip_suffix(&position) {
        Some(reason) => format!("{reason} (column {column})"),
        None => error.to_string(),
    }
}

/// A record while it is read.
#[derive(Default)]
struct Draft {
    run: Option<RunInfo>,
    subjects: Vec<SubjectInfo>,
    cells: Vec<Cell>,
    end: Option<End>,
}

impl Draft {
    fn add(&mut self, line: Line) -> Result<(), String> {
        if self.end.is_some() {
            return Err("nothing may follow the line of kind `end`".into());
        }
        match (line, &self.run) {
            (Line::Run(run), None) => self.run = Some(run),
            (Line::Run(_), Some(_)) => return Err("a record has one line of kind `run`".into()),
            (_, None) => return Err("the first line must be of kind `run`".into()),
            (Line::Subject(subject), _) => self.add_subject(subject)?,
            (Line::Cell(cell), _) => self.add_cell(cell)?,
            (Line::End(end), _) => self.add_end(end)?,
        }
        Ok(())
    }

    fn knows(&self, name: &str) -> bool {
        self.subjects.iter().any(|subject| subject.name == name)
    }

    fn add_subject(&mut self, subject: SubjectInfo) -> Result<(), String> {
        if self.knows(&subject.name) {
            return Err(format!("there is another subject `{}`", subject.name));
        }
        self.subjects.push(subject);
        Ok(())
    }

    fn add_cell(&mut self, cell: Cell) -> Result<(), String> {
        if !self.knows(&cell.subject) {
            return Err(format!("no line above is the subject `{}`", cell.subject));
        }
        self.cells.push(cell);
        Ok(())
    }

    fn add_end(&mut self, end: End) -> Result<(), String> {
        let (counted, found) = (end.counts.values().sum::<u32>(), self.cells.len());
        if counted as usize != found {
            return Err(format!(
                "the end counts {counted} cells, but {found} are recorded"
            ));
        }
        self.end = Some(end);
        Ok(())
    }

    fn finish(self) -> Result<Record, String> {
        let run = self
            .run
            .ok_or("line 1: the first line must be of kind `run`")?;
        Ok(Record {
            run,
            subjects: self.subjects,
            cells: self.cells,
            end: self.end,
        })
    }
}

impl Record {
    /// Whether the run did not come to its end.
    pub fn interrupted(&self) -> bool {
        self.end.is_none()
    }

    /// Cells by verdict.
    pub fn counts(&self) -> BTreeMap<Verdict, u32> {
        count(self.cells.iter())
    }

    /// Required cells that are not fine, by verdict. Empty where the run passes.
    pub fn failures(&self) -> BTreeMap<Verdict, u32> {
        count(self.not_fine().into_iter().filter(|cell| cell.required))
    }

    /// All cells that are not fine, the worst first.
    pub fn not_fine(&self) -> Vec<&Cell> {
        let cells = self.cells.iter();
        let mut cells: Vec<_> = cells.filter(|cell| !cell.verdict.is_fine()).collect();
        cells.sort_by(|a, b| {
            let verdicts = b.verdict.cmp(&a.verdict);
            verdicts.then(b.ratio.total_cmp(&a.ratio))
        });
        cells
    }

    /// The cells of one subject.
    pub fn cells_of(&self, subject: &str) -> impl Iterator<Item = &Cell> {
        self.cells
            .iter()
            .filter(move |cell| cell.subject == subject)
    }

    /// The stability that a subject shows: the worst one of its cells.
    pub fn measured_stability(&self, subject: &str) -> Option<Stability> {
        self.cells_of(subject)
            .filter_map(|cell| cell.measured_stability)
            .max()
    }
}

fn count<'r>(cells: impl Iterator<Item = &'r Cell>) -> BTreeMap<Verdict, u32> {
    let mut counts = BTreeMap::new();
    for cell in cells {
        *counts.entry(cell.verdict).or_default() += 1;
    }
    counts
}
