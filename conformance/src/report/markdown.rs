//! A report for a terminal, a pull request, a diff.

use crate::record::Cell;
use crate::verdict::Verdict;

use super::coverage;
use super::escape::{markdown as escape, markdown_code as code};
use super::matrix::{Matrix, worst};
use super::read::Record;
use super::words;

/// The matrix with the worst verdict over the methods, and everything that is not fine.
pub fn markdown(record: &Record) -> String {
    let sections = [
        head(record),
        matrix(record),
        legend(),
        not_fine(record),
        subjects(record),
        met(record),
    ];
    let sections: Vec<_> = sections
        .into_iter()
        .filter(|text| !text.is_empty())
        .collect();
    sections.join("\n")
}

fn head(record: &Record) -> String {
    let facts: String = words::facts(record)
        .iter()
        .map(|(name, value)| format!("- {name}: {}\n", escape(value)))
        .collect();
    format!(
        "# LoRA-Pro conformance\n\n**{}**\n\n{facts}- command: {}\n",
        words::headline(record),
        code(&record.run.command)
    )
}

fn matrix(record: &Record) -> String {
    let matrix = Matrix::of(record);
    if matrix.rows.is_empty() {
        return "## Verdicts\n\nNothing was checked.\n".into();
    }
    let heads = matrix.columns.iter();
    let heads = heads.map(|column| escape(&format!("{} {}", column.subject, column.dtype)));
    let head: Vec<_> = [String::from("check")].into_iter().chain(heads).collect();
    let rows = matrix.rows.iter().map(|row| {
        let places = row.places.iter().map(|cells| mark(worst(cells)));
        [escape(row.check)].into_iter().chain(places).collect()
    });
    format!(
        "## Verdicts\n\nThe worst over the methods.\n\n{}",
        table(&head, &rows.collect::<Vec<_>>())
    )
}

/// A symbol, and the word where it matters.
fn mark(verdict: Option<Verdict>) -> String {
    match verdict {
        None => String::new(),
        Some(verdict) if verdict.is_fine() => words::symbol(verdict).into(),
        Some(verdict) => format!("{} {}", words::symbol(verdict), verdict.name()),
    }
}

fn legend() -> String {
    let entry = |verdict: Verdict| {
        let (symbol, name) = (words::symbol(verdict), verdict.name());
        format!("- {symbol} {name}: {}\n", words::meaning(verdict))
    };
    let entries: String = Verdict::ALL.into_iter().map(entry).collect();
    format!("{}\n\n{entries}", words::about_ratios())
}

fn not_fine(record: &Record) -> String {
    let cells = record.not_fine();
    if cells.is_empty() {
        return "## Not fine\n\nNothing.\n".into();
    }
    let entries: String = cells.into_iter().map(entry).collect();
    format!("## Not fine\n\n{entries}")
}

fn entry(cell: &Cell) -> String {
    let mut text = format!(
        "- **{} {}**, {}{}: {}\n",
        words::symbol(cell.verdict),
        escape(&cell.check),
        escape(&words::place(cell)),
        if cell.required { "" } else { " (not required)" },
        escape(&words::finding(cell)),
    );
    if let Some(case) = &cell.worst {
        text.push_str(&format!("  - case: {}\n", escape(&words::case_line(case))));
    }
    if let Some(command) = words::replay(cell) {
        text.push_str(&format!("  - replay: {}\n", code(&command)));
    }
    text
}

fn subjects(record: &Record) -> String {
    let head = ["subject", "version", "growth of errors", "shown", "command"].map(String::from);
    let rows: Vec<_> = record
        .subjects
        .iter()
        .map(|subject| {
            let shown = record.attained(&subject.name);
            vec![
                escape(&subject.name),
                escape(&subject.version),
                words::stability(subject.class).into(),
                shown.map_or("", words::stability).into(),
                subject
                    .command
                    .as_deref()
                    .map_or("built in".into(), |command| {
                        // In a table, a bar ends the cell even within code.
                        code(command).replace('|', r"\|")
                    }),
            ]
        })
        .collect();
    format!("## Subjects\n\n{}", table(&head, &rows))
}

fn met(record: &Record) -> String {
    let groups = coverage::groups(record);
    let rows: Vec<_> = groups
        .iter()
        .flat_map(|group| group.rows.iter().map(move |row| (group.name, row)))
        .map(|(group, row)| vec![escape(group), escape(row.name), row.total().to_string()])
        .collect();
    match rows.is_empty() {
        true => String::new(),
        false => {
            let head = ["kind", "what", "times met"].map(String::from);
            format!("## Coverage\n\n{}", table(&head, &rows))
        }
    }
}

/// A table that is one in plain text too: its columns are as wide as their widest cell.
fn table(head: &[String], rows: &[Vec<String>]) -> String {
    let length = |text: &String| text.chars().count();
    let width = |k: usize| {
        let cells = rows.iter().map(|row| length(&row[k]));
        cells.chain([length(&head[k]), 3]).max().unwrap_or(3)
    };
    let widths: Vec<_> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&widths);
        let cells: Vec<_> = cells
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let rule: Vec<_> = widths.iter().map(|&width| "-".repeat(width)).collect();
    let rows: String = rows.iter().map(|row| line(row)).collect();
    format!("{}{}{rows}", line(head), line(&rule))
}
