//! State and scratch memory, in the order in which it is visited.
//!
//! A thin matrix (r x n, or the transpose of m x r) is a [`Panel`]: tiles of 64 columns one after
//! another, each with its r rows as strips. A matrix of the size of W is a [`WideMatrix`]: tiles of
//! 6 x 64 one after another, row of tiles by row of tiles. What reaches past the end is 0 and stays
//! 0: no kernel needs to know where the matrix ends.

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

/// A matrix of the size of W.
#[derive(Clone, Debug, Default)]
pub(crate) struct WideMatrix<W> {
    /// Columns.
    pub(crate) n: usize,
    /// The tiles, row of tiles by row of tiles.
    pub(crate) blocks: Vec<WideTile<W>>,
}

impl<W: Copy + Default> WideMatrix<W> {
    pub(crate) fn zeros(m: usize, n: usize) -> Self {
        let count = m.div_ceil(HEIGHT) * n.div_ceil(WIDTH);
        WideMatrix {
            n,
            blocks: vec![[Strip::all(W::default()); HEIGHT]; count],
        }
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
