//! The matrix: checks down, subjects and storage types across, the worst of all methods in a place.

use lora_pro_core::DType;

use super::Record;
use crate::record::Cell;

/// One column.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Column<'r> {
    pub(super) subject: &'r str,
    pub(super) dtype: DType,
}

/// Columns and rows, in the order of the record.
pub(super) struct Table<'r> {
    pub(super) columns: Vec<Column<'r>>,
    /// Check and title.
    pub(super) rows: Vec<(&'r str, &'r str)>,
    cells: &'r [Cell],
}

impl<'r> Table<'r> {
    pub(super) fn of(record: &'r Record) -> Self {
        let (mut columns, mut rows) = (Vec::new(), Vec::new());
        for cell in &record.cells {
            let column = Column {
                subject: &cell.subject,
                dtype: cell.dtype,
            };
            let row = (cell.check.as_str(), cell.title.as_str());
            if !columns.contains(&column) {
                columns.push(column);
            }
            if !rows.contains(&row) {
                rows.push(row);
            }
        }
        Table {
            columns,
            rows,
            cells: &record.cells,
        }
    }

    /// The cells of a place, one for each method.
    pub(super) fn at(&self, check: &str, column: &Column<'_>) -> Vec<&'r Cell> {
        let here = |cell: &&Cell| {
            cell.check == check && cell.subject == column.subject && cell.dtype == column.dtype
        };
        self.cells.iter().filter(here).collect()
    }
}

/// The worst cell of a place: by verdict, then by ratio.
pub(super) fn worst<'c>(cells: &[&'c Cell]) -> Option<&'c Cell> {
    let key = |cell: &&Cell| (cell.verdict, cell.ratio);
    let all = cells.iter().copied();
    all.max_by(|x, y| {
        let ((v, x), (w, y)) = (key(x), key(y));
        v.cmp(&w).then(x.total_cmp(&y))
    })
}

/// Short enough for a matrix.
pub(super) fn short(ratio: f64) -> String {
    if ratio.is_nan() {
        "nan".into()
    } else if ratio.is_infinite() {
        "inf".into()
    } else if ratio == 0.0 {
        "0".into()
    } else if (0.01..1000.0).contains(&ratio) {
        let digits = if ratio < 1.0 {
            2
        } else {
            usize::from(ratio < 10.0)
        };
        format!("{ratio:.digits$}")
    } else {
        format!("{ratio:.0e}")
    }
}
