//! How thin matrices are cut: tiles of so many columns in shared memory, chunks of so many columns to
//! a block.

use crate::constants::{GRAM, OCTET, WARPS};
use crate::model::Precision;

/// Columns of a tile: what lets five tiles of r rows fit into shared memory.
pub(crate) fn width(r: usize, precision: Precision) -> usize {
    let numbers = match precision {
        Precision::F32 => 2048,
        Precision::F64 => 1024,
    };
    numbers / r.max(OCTET).next_power_of_two()
}

/// Columns that a block visits: more for larger ranks, whose products are larger. A multiple of
/// every width.
pub(super) fn chunk(r: usize) -> usize {
    (32 * r.max(16)).next_multiple_of(256)
}

/// How many numbers a chunk leaves of products of `rows` by `cols` entries: `products_of` of
/// `kernels/gram.cuh`.
pub(super) fn products(rows: usize, cols: usize) -> usize {
    let squares = rows.div_ceil(GRAM) * cols.div_ceil(GRAM);
    let sharers = (WARPS / squares).max(1);
    squares * sharers * GRAM * GRAM
}
