//! Borrowed matrices.

use lora_pro_core::{DType, Error, MatRef};

use crate::constants::{BF16, BY_COLUMNS, BY_ROWS, F16, F32, F64, SCATTERED, U8};
use crate::{NAME, model};

/// The kernels' number of a storage type.
pub(super) fn dtype_code(dtype: DType) -> i32 {
    match dtype {
        DType::F64 => F64,
        DType::F32 => F32,
        DType::Bf16 => BF16,
        DType::F16 => F16,
        DType::U8 => U8,
    }
}

/// Rejects elements that no load instruction of a GPU reaches.
pub(super) fn check_aligned(
    of: &MatRef<'_>,
    subject: impl Fn() -> String,
    tensor: &str,
) -> Result<(), Error> {
    let (at, size) = (of.as_ptr() as usize, of.dtype().size());
    if at.is_multiple_of(size) {
        return Ok(());
    }
    let what = format!("{tensor} at the address {at:#x}, which is not aligned to {size} bytes");
    Err(Error::Unsupported {
        subject: subject(),
        backend: NAME.into(),
        what,
    })
}

/// A borrowed matrix.
pub(super) fn view(of: &MatRef<'_>) -> model::View {
    describe(of, of.shape(), of.strides())
}

/// The transpose of a borrowed matrix.
pub(super) fn transposed_view(of: &MatRef<'_>) -> model::View {
    let ([rows, cols], [row, col]) = (of.shape(), of.strides());
    describe(of, [cols, rows], [col, row])
}

fn describe(of: &MatRef<'_>, shape: [usize; 2], strides: [isize; 2]) -> model::View {
    model::View {
        at: of.as_ptr() as u64,
        row: strides[0] as i64,
        col: strides[1] as i64,
        dtype: dtype_code(of.dtype()),
        contiguity: contiguity(of, shape, strides),
    }
}

/// How the kernels may read it sixteen bytes at a time. A tile starts at a multiple of eight columns.
fn contiguity(of: &MatRef<'_>, [rows, cols]: [usize; 2], [row, col]: [isize; 2]) -> i32 {
    let aligned = |x: usize| x.is_multiple_of(16);
    let size = of.dtype().size();
    if !aligned(of.as_ptr() as usize) {
        SCATTERED
    } else if col == 1 && row >= cols as isize && aligned(row.unsigned_abs() * size) {
        BY_ROWS
    } else if row == 1 && col == rows as isize {
        BY_COLUMNS
    } else {
        SCATTERED
    }
}
