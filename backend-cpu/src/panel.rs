//! State and scratch memory, in the order in which it is visited.
//!
//! A thin matrix (r x n, or the transpose of m x r) is a [`Panel`]: tiles of 64 columns one after
//! another, each with its r rows as strips. A matrix of the size of W is a [`WideMatrix`]: tiles of
//! 6 x 64 one after another, row of tiles by row of tiles. What reaches past the end is 0 and stays
//! 0: no kernel needs to know where the matrix ends.

use std::collections::TryReserveError;

use lora_pro_core::backend::MOMENT_BLOCK;

use crate::simd::{Real, Strip, WIDTH};

/// Rows of a wide tile.
pub(crate) const HEIGHT: usize = MOMENT_BLOCK[0];

const _: () = assert!(MOMENT_BLOCK[1] == WIDTH);

/// One tile of a matrix of the size of W.
pub(crate) type WideTile<W> = [Strip<W>; HEIGHT];

/// A thin matrix.
#[derive(Clone, Debug, Default)]
pub(crate) struct Panel<T> {
    /// Rows.
    pub(crate) rows: usize,
    /// Columns.
    pub(crate) len: usize,
    /// The strips of tile 0, of tile 1, ...
    pub(crate) strips: Vec<Strip<T>>,
}

impl<T: Copy + Default> Panel<T> {
    pub(crate) fn zeros(rows: usize, len: usize) -> Self {
        let mut panel = Panel {
            rows: 0,
            len: 0,
            strips: Vec::new(),
        };
        panel.reshape(rows, len);
        panel
    }

    /// Another shape; the values are lost. Allocates only where there was less memory before.
    pub(crate) fn reshape(&mut self, rows: usize, len: usize) {
        self.rows = rows;
        self.len = len;
        self.strips
            .resize(rows * len.div_ceil(WIDTH), Strip::all(T::default()));
    }

    /// Strip and column of an element.
    fn index(&self, row: usize, column: usize) -> (usize, usize) {
        (column / WIDTH * self.rows + row, column % WIDTH)
    }

    pub(crate) fn get(&self, row: usize, column: usize) -> T {
        let (strip, x) = self.index(row, column);
        self.strips[strip][x]
    }

    pub(crate) fn set(&mut self, row: usize, column: usize, value: T) {
        let (strip, x) = self.index(row, column);
        self.strips[strip][x] = value;
    }

    /// The strips of one tile.
    pub(crate) fn tile(&self, tile: usize) -> &[Strip<T>] {
        &self.strips[tile * self.rows..][..self.rows]
    }
}

impl<T: Real> Panel<T> {
    /// For tests: what is read before it is written shows.
    pub(crate) fn poison(&mut self) {
        self.strips.fill(Strip::all(T::of(f64::NAN)));
    }
}

/// The shape in which a vector is stored and stepped: in rows that fill tiles and can be shared out among threads.
/// Elements keep their order. As it is where it is no vector, or too short to matter.
pub(crate) fn folded([rows, cols]: [usize; 2]) -> [usize; 2] {
    if rows != 1 || cols < SHORT {
        return [rows, cols];
    }
    let padded =
        |rows: &usize| rows.next_multiple_of(HEIGHT) * (cols / rows).next_multiple_of(WIDTH);
    let divisors = (1..=MOST_ROWS).rev().filter(|rows| cols % rows == 0);
    let rows = divisors.min_by_key(padded).unwrap_or(1);
    [rows, cols / rows]
}

/// Below this length a row of tiles of padding is no matter, and a step takes less time than to fold.
const SHORT: usize = 1 << 14;

/// 43 rows of tiles.
const MOST_ROWS: usize = 256;

/// A matrix of the size of W.
#[derive(Clone, Debug, Default)]
pub(crate) struct WideMatrix<W> {
    /// Columns.
    pub(crate) n: usize,
    /// The tiles, row of tiles by row of tiles.
    pub(crate) blocks: Vec<WideTile<W>>,
}

impl<W: Copy + Default> WideMatrix<W> {
    /// # Errors
    /// Where there is not enough memory: such a matrix can be large where A and B are not.
    pub(crate) fn zeros([m, n]: [usize; 2]) -> Result<Self, TryReserveError> {
        let count = m.div_ceil(HEIGHT) * n.div_ceil(WIDTH);
        let mut blocks = Vec::new();
        blocks.try_reserve_exact(count)?;
        blocks.resize(count, [Strip::all(W::default()); HEIGHT]);
        Ok(WideMatrix { n, blocks })
    }

    /// Tiles in a row of tiles.
    pub(crate) fn across(&self) -> usize {
        self.n.div_ceil(WIDTH)
    }

    pub(crate) fn get(&self, i: usize, j: usize) -> W {
        self.blocks[i / HEIGHT * self.across() + j / WIDTH][i % HEIGHT][j % WIDTH]
    }

    pub(crate) fn set(&mut self, i: usize, j: usize, value: W) {
        let block = i / HEIGHT * self.across() + j / WIDTH;
        self.blocks[block][i % HEIGHT][j % WIDTH] = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_vector_is_folded_into_full_tiles() {
        for len in [SHORT, 1_000_000, 4096 * 32_003, 3 * 8191 * 64] {
            let [rows, cols] = folded([1, len]);
            assert_eq!(rows * cols, len);
            let blocks = WideMatrix::<u8>::zeros([rows, cols]).unwrap().blocks.len();
            let stored = (blocks * HEIGHT * WIDTH) as f64;
            assert!(
                stored < 1.05 * len as f64,
                "{len} as {rows} x {cols}: {stored}"
            );
        }
        assert_eq!(folded([1, 7]), [1, 7]);
        assert_eq!(folded([2, SHORT]), [2, SHORT]);
    }

    #[test]
    fn too_little_memory_is_an_error() {
        assert!(WideMatrix::<f64>::zeros([1 << 28, 1 << 28]).is_err());
    }
}
