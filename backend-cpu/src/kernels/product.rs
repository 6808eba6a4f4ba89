//! Small matrices times thin tiles: `out = sum of C_i rows_i`.
//!
//! For each four rows of `out` and each few vectors of columns, the sums stay in registers:
//!
//! ```text
//! acc[4][NV] = 0
//! for each term, for each q:  acc[i][v] += C[i][q] * rows[q][v]
//! ```

use faer::MatRef;

use crate::simd::{Isa, Real, Strip, WIDTH};

/// Rows of `out` at a time.
const BLOCK: usize = 4;

/// A small matrix (rows x inner) in the order in which [`product`] reads it: four rows at a time,
/// column by column.
#[derive(Clone, Debug, Default)]
pub(crate) struct Coefficients<T> {
    inner: usize,
    blocks: Vec<[T; BLOCK]>,
}

impl<T: Real> Coefficients<T> {
    /// Takes over `factor * matrix`, rounded to T.
    pub(crate) fn set(&mut self, matrix: MatRef<'_, f64>, factor: f64) {
        self.set_by(matrix.nrows(), matrix.ncols(), |i, q| {
            factor * matrix[(i, q)]
        });
    }

    /// Takes over `factor * matrix'`.
    pub(crate) fn set_transposed(&mut self, matrix: MatRef<'_, f64>, factor: f64) {
        self.set(matrix.transpose(), factor);
    }

    fn set_by(&mut self, rows: usize, inner: usize, entry: impl Fn(usize, usize) -> f64) {
        self.inner = inner;
        self.blocks.clear();
        for start in (0..rows).step_by(BLOCK) {
            for q in 0..inner {
                let row = |i: usize| {
                    if start + i < rows {
                        entry(start + i, q)
                    } else {
                        0.0
                    }
                };
                self.blocks.push(std::array::from_fn(|i| T::of(row(i))));
            }
        }
    }

    fn block(&self, block: usize) -> &[[T; BLOCK]] {
        &self.blocks[block * self.inner..][..self.inner]
    }
}

/// One term of a product.
pub(crate) type Term<'t, T> = (&'t Coefficients<T>, &'t [Strip<T>]);

/// `out = sum of the terms`, or `out += ` it. Every term has as many rows as `out`.
#[inline(always)]
pub(crate) fn product<S: Isa, T: Real, const N: usize>(
    simd: S,
    out: &mut [Strip<T>],
    add: bool,
    terms: [Term<'_, T>; N],
) {
    // 16 sums, 4 operands and a coefficient fit into 32 registers, half of that into 16.
    if S::REGISTER_COUNT >= 32 {
        product_by::<S, T, N, 4>(simd, out, add, terms);
    } else {
        product_by::<S, T, N, 2>(simd, out, add, terms);
    }
}

#[inline(always)]
fn product_by<S: Isa, T: Real, const N: usize, const NV: usize>(
    simd: S,
    out: &mut [Strip<T>],
    add: bool,
    terms: [Term<'_, T>; N],
) {
    let vectors = WIDTH * size_of::<T>() / size_of::<T::Vector<S>>();
    let zero = T::splat(simd, T::default());
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        for v in (0..vectors).step_by(NV) {
            let mut acc = [[zero; NV]; BLOCK];
            for (coefficients, rows) in terms {
                acc = accumulate::<S, T, NV>(simd, acc, coefficients.block(block), rows, v);
            }
            for (acc, out) in acc.iter().zip(out.iter_mut()) {
                let out = &mut T::vectors_mut::<S>(out)[v..v + NV];
                for (acc, out) in acc.iter().zip(out) {
                    *out = if add { T::add(simd, *out, *acc) } else { *acc };
                }
            }
        }
    }
}

/// One term of a block. The sums are passed by value, so that they stay in registers.
#[inline(always)]
fn accumulate<S: Isa, T: Real, const NV: usize>(
    simd: S,
    mut acc: [[T::Vector<S>; NV]; BLOCK],
    coefficients: &[[T; BLOCK]],
    rows: &[Strip<T>],
    v: usize,
) -> [[T::Vector<S>; NV]; BLOCK] {
    for (c, row) in coefficients.iter().zip(rows) {
        let row = &T::vectors::<S>(row)[v..v + NV];
        let mut x = [T::splat(simd, T::default()); NV];
        x.copy_from_slice(row);
        for i in 0..BLOCK {
            let c = T::splat(simd, c[i]);
            for j in 0..NV {
                acc[i][j] = T::mul_add(simd, c, x[j], acc[i][j]);
            }
        }
    }
    acc
}
