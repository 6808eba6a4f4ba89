//! Norms of rows and columns, and how noise on them spreads.

use nalgebra::{DMatrix, DVector};

/// The norm of each column.
pub(super) fn columns(x: &DMatrix<f64>) -> DVector<f64> {
    DVector::from_iterator(x.ncols(), x.column_iter().map(|column| column.norm()))
}

/// The norm of each row.
pub(super) fn rows(x: &DMatrix<f64>) -> DVector<f64> {
    DVector::from_iterator(x.nrows(), x.row_iter().map(|row| row.norm()))
}

/// ErrorBound on each column, as entries of a matrix of `count` rows.
pub(super) fn down(count: usize, noise: &DVector<f64>) -> DMatrix<f64> {
    DMatrix::from_fn(count, noise.len(), |_, j| noise[j])
}

/// ErrorBound on each row, as entries of a matrix of `count` columns.
pub(super) fn across(count: usize, noise: &DVector<f64>) -> DMatrix<f64> {
    DMatrix::from_fn(noise.len(), count, |i, _| noise[i])
}

/// The noise of `B Y + Z A` (m x n): B's rows meet Y's columns, Z's rows meet A's.
pub(super) fn outer(
    b: &DVector<f64>,
    y: &DVector<f64>,
    z: &DVector<f64>,
    a: &DVector<f64>,
) -> DMatrix<f64> {
    b * y.transpose() + z * a.transpose()
}
