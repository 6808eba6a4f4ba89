//! Matrices for one thread.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Layout, Result};

/// A matrix of its own, row by row.
pub(super) struct Matrix {
    storage: CpuStorage,
    layout: Layout,
}

impl Matrix {
    pub(super) fn new(entries: Vec<f32>, [rows, columns]: [usize; 2]) -> Self {
        Matrix {
            storage: CpuStorage::F32(entries),
            layout: Layout::contiguous((rows, columns)),
        }
    }

    /// A B.
    pub(super) fn times(&self, b: &Matrix) -> Result<Vec<f32>> {
        product((&self.storage, &self.layout), (&b.storage, &b.layout))
    }

    /// A B'.
    pub(super) fn times_transposed(&self, b: &Matrix) -> Result<Vec<f32>> {
        let turned = b.layout.transpose(0, 1)?;
        product((&self.storage, &self.layout), (&b.storage, &turned))
    }

    /// A' B.
    pub(super) fn transposed_times(&self, b: &Matrix) -> Result<Vec<f32>> {
        let turned = self.layout.transpose(0, 1)?;
        product((&self.storage, &turned), (&b.storage, &b.layout))
    }

    /// A B for a matrix that candle has.
    pub(super) fn times_stored(&self, b: &CpuStorage, layout: &Layout) -> Result<Vec<f32>> {
        product((&self.storage, &self.layout), (b, layout))
    }
}

fn product(a: (&CpuStorage, &Layout), b: (&CpuStorage, &Layout)) -> Result<Vec<f32>> {
    let ((rows, inner), (other, columns)) = (a.1.shape().dims2()?, b.1.shape().dims2()?);
    if inner != other {
        candle_core::bail!("a matrix with {inner} columns times one with {other} rows");
    }
    match a.0.matmul(b.0, (1, rows, columns, inner), a.1, b.1)? {
        CpuStorage::F32(entries) => Ok(entries),
        _ => candle_core::bail!("a product of another type than f32"),
    }
}
