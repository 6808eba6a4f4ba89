//! Cells in rows and columns: a row for each check, a column for each subject and storage type.

use lora_pro_core::{DType, Method};

use crate::record::Cell;

use super::natural;
use super::read::Record;

/// The cells of a record, by check and by subject and storage type.
pub struct Matrix<'r> {
    /// In the order of the record's subjects, then by storage type.
    pub columns: Vec<Column<'r>>,
    /// By the check's name.
    pub rows: Vec<Row<'r>>,
    /// All methods that were tried.
    pub methods: Vec<Method>,
}

/// A subject and a storage type.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Column<'r> {
    pub subject: &'r str,
    pub dtype: DType,
}

/// A check.
pub struct Row<'r> {
    pub check: &'r str,
    pub title: &'r str,
    /// For each column, its cells by method, those without a method last.
    pub places: Vec<Vec<&'r Cell>>,
}

impl<'r> Column<'r> {
    fn of(cell: &'r Cell) -> Self {
        Column {
            subject: &cell.subject,
            dtype: cell.dtype,
        }
    }
}

impl<'r> Matrix<'r> {
    pub fn of(record: &'r Record) -> Self {
        let columns = columns(record);
        let mut rows = rows(record, columns.len());
        for cell in &record.cells {
            let row = rows.iter_mut().find(|row| row.check == cell.check);
            let column = columns
                .iter()
                .position(|column| *column == Column::of(cell));
            if let (Some(row), Some(column)) = (row, column) {
                row.places[column].push(cell);
            }
        }
        for place in rows.iter_mut().flat_map(|row| &mut row.places) {
            place.sort_by_key(|cell| cell.method.map_or(usize::MAX, |method| method as usize));
        }
        let methods = record.cells.iter().filter_map(|cell| cell.method);
        Matrix {
            columns,
            rows,
            methods: distinct(methods, |method| *method as usize),
        }
    }

    /// Subjects with at least one column, each with its number of columns.
    pub fn subjects(&self) -> Vec<(&'r str, usize)> {
        let mut subjects: Vec<(&str, usize)> = Vec::new();
        for column in &self.columns {
            match subjects.last_mut() {
                Some((subject, columns)) if *subject == column.subject => *columns += 1,
                _ => subjects.push((column.subject, 1)),
            }
        }
        subjects
    }
}

fn columns(record: &Record) -> Vec<Column<'_>> {
    let of_subject = |name| distinct(record.cells_of(name).map(Column::of), |c| c.dtype as usize);
    let subjects = record.subjects.iter();
    subjects
        .flat_map(|subject| of_subject(&subject.name))
        .collect()
}

fn rows(record: &Record, columns: usize) -> Vec<Row<'_>> {
    let mut rows: Vec<Row> = Vec::new();
    for cell in &record.cells {
        if !rows.iter().any(|row| row.check == cell.check) {
            rows.push(Row {
                check: &cell.check,
                title: &cell.title,
                places: vec![Vec::new(); columns],
            });
        }
    }
    rows.sort_by(|a, b| natural::compare(a.check, b.check));
    rows
}

/// One for each key, by key.
fn distinct<T>(items: impl Iterator<Item = T>, key: impl Fn(&T) -> usize) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.sort_by_key(&key);
    items.dedup_by_key(|item| key(item));
    items
}
