//! Tables of text: the same cells for a terminal, a page and Markdown.

use std::fmt::Write;
use std::ops::Range;

use crate::escape::markup;

/// One column: its head in two lines, what it means, and how a row's cell is made from what the
/// row is about.
pub struct Column<R> {
    /// First line of the head; neighbours with the same one share it.
    pub over: String,
    /// Second line of the head.
    pub head: String,
    /// The column explained.
    pub meaning: &'static str,
    cell: Box<dyn Fn(&R) -> String>,
}

impl<R> Column<R> {
    /// A column whose cells are made by `cell`.
    pub fn new(
        over: &str,
        head: &str,
        meaning: &'static str,
        cell: impl Fn(&R) -> String + 'static,
    ) -> Self {
        Column {
            over: over.into(),
            head: head.into(),
            meaning,
            cell: Box::new(cell),
        }
    }
}

/// Heads and cells, as text.
pub struct Table<R> {
    /// The columns; the first holds names.
    pub columns: Vec<Column<R>>,
    /// The cells of each row.
    pub rows: Vec<Vec<String>>,
    /// What a mark in a cell means, where there is one.
    pub footnote: Option<&'static str>,
}

impl<R> Table<R> {
    /// One row for each of `about`.
    pub fn new(columns: Vec<Column<R>>, about: &[R]) -> Self {
        let row = |about| columns.iter().map(|column| (column.cell)(about)).collect();
        let rows = about.iter().map(row).collect();
        Table {
            columns,
            rows,
            footnote: None,
        }
    }

    /// With a footnote where a cell ends with its mark.
    pub fn footnote(mut self, mark: &str, meaning: &'static str) -> Self {
        let mut cells = self.rows.iter().flatten();
        if cells.any(|cell| cell.ends_with(mark)) {
            self.footnote = Some(meaning);
        }
        self
    }

    /// Aligned for a terminal: names to the left, numbers to the right.
    pub fn text(&self) -> String {
        let heads: Vec<String> = self
            .columns
            .iter()
            .map(|column| column.head.clone())
            .collect();
        let cells = |k: usize| {
            std::iter::once(&heads)
                .chain(&self.rows)
                .map(move |line| &line[k])
        };
        let width = |k: usize| cells(k).map(|cell| length(cell)).max().unwrap_or(0);
        let mut widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let overs = self.overs(&mut widths);
        let rule = "-".repeat(widths.iter().sum::<usize>() + GUTTER.len() * (widths.len() - 1));
        let mut lines = vec![overs, align(&heads, &widths), rule];
        lines.extend(self.rows.iter().map(|row| align(row, &widths)));
        lines.extend(self.footnote.map(str::to_string));
        lines.join("\n")
    }

    /// In Markdown; both lines of a head in one.
    pub fn markdown(&self) -> String {
        let heads = self.columns.iter().map(|column| {
            let head = format!("{} {}", column.over, column.head);
            head.trim().to_string()
        });
        let heads: Vec<String> = heads.collect();
        let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
        let mut text = markdown(&heads, self.rows.iter().cloned());
        if let Some(footnote) = self.footnote {
            text += &format!("\n{footnote}\n");
        }
        text
    }

    /// For a page; each row's name follows what `mark` gives for its number.
    pub fn html(&self, mark: impl Fn(usize) -> String) -> String {
        let mut html = String::from("<div class=\"scroll\"><table>\n<thead><tr>");
        for (over, range) in self.groups() {
            let (width, over) = (range.len(), markup(over));
            // Writing to a string does not fail.
            let _ = write!(html, "<th colspan=\"{width}\">{over}</th>");
        }
        html.push_str("</tr>\n<tr>");
        for column in &self.columns {
            let (meaning, head) = (markup(column.meaning), markup(&column.head));
            let _ = write!(html, "<th title=\"{meaning}\">{head}</th>");
        }
        html.push_str("</tr></thead>\n<tbody>\n");
        for (k, row) in self.rows.iter().enumerate() {
            let name = format!("{} {}", mark(k), markup(&row[0]));
            let _ = write!(html, "<tr><th scope=\"row\">{name}</th>");
            for cell in &row[1..] {
                let _ = write!(html, "<td>{}</td>", markup(cell));
            }
            html.push_str("</tr>\n");
        }
        html.push_str("</tbody></table></div>\n");
        if let Some(footnote) = self.footnote {
            let _ = writeln!(html, "<p class=\"note\">{}</p>", markup(footnote));
        }
        html
    }

    /// The first line of the heads; widens columns that are too narrow for theirs.
    fn overs(&self, widths: &mut [usize]) -> String {
        let groups = self.groups().map(|(over, range)| {
            let gutters = GUTTER.len() * (range.len() - 1);
            let room = widths[range.clone()].iter().sum::<usize>() + gutters;
            widths[range.start] += length(over).saturating_sub(room);
            let width = room.max(length(over));
            format!("{over:>width$}")
        });
        groups.collect::<Vec<_>>().join(GUTTER)
    }

    /// Neighbouring columns with the same first line.
    pub fn groups(&self) -> impl Iterator<Item = (&str, Range<usize>)> {
        let mut start = 0;
        self.columns
            .chunk_by(|x, y| x.over == y.over)
            .map(move |group| {
                let range = start..start + group.len();
                start = range.end;
                (group[0].over.as_str(), range)
            })
    }
}

/// Between two columns.
const GUTTER: &str = "  ";

/// Characters, not bytes.
fn length(text: &str) -> usize {
    text.chars().count()
}

fn align(cells: &[String], widths: &[usize]) -> String {
    let padded = cells
        .iter()
        .zip(widths)
        .enumerate()
        .map(|(k, (cell, &width))| match k {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
    padded.collect::<Vec<_>>().join(GUTTER)
}

/// A table in Markdown: names to the left, numbers to the right.
///
/// ```
/// use lora_pro_report::table::markdown;
/// let rows = [vec!["a".to_string(), "1".to_string()]];
/// assert_eq!(markdown(&["what", "n"], rows), "| what | n |\n|---|---:|\n| a | 1 |\n");
/// ```
pub fn markdown(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = format!("| {} |\n|---|", heads.join(" | "));
    text += &"---:|".repeat(heads.len() - 1);
    for row in rows {
        text += &format!("\n| {} |", row.join(" | ").replace('\n', " "));
    }
    text + "\n"
}
