//! The full mode's pass over its m x n moments, one row of 6 x 64 tiles at a time.
//!
//! ```text
//! E        = [B  sV] [sU; A]          6 rows x a few vectors of columns, in registers
//! M, V2    updated in place
//! N        = k M / (sqrt(V2) + e)     takes E's place in the registers
//! B'N     += B' N                     r strips of columns
//! (N A')' += A N'                     partial sums per lane, added up at the row's end
//! ```
//!
//! Nothing of size m n is read or written besides the moments.

use super::adam::AdamNumbers;
use crate::panel::{HEIGHT, WideTile};
use crate::simd::{Isa, Real, Strip, WIDTH};

/// LaneSums sums of one entry of N A': as many as the widest register has lanes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct LaneSums<T>(pub(crate) [T; 16]);

/// What a row of tiles is formed from and reduced to.
pub(crate) struct TileOperands<'t, T> {
    /// B and sV of these six rows: 2r x 6.
    pub(crate) left: &'t [[T; HEIGHT]],
    /// sU and A of one tile of columns: 2r strips.
    pub(crate) right: &'t [Strip<T>],
    /// B'N of one tile of columns: r strips.
    pub(crate) bt_n: &'t mut [Strip<T>],
    /// (N A')' of these six rows: r x 6.
    pub(crate) n_at: &'t mut [[LaneSums<T>; HEIGHT]],
}

/// An array with an entry for each row, every index a constant: an index that is known at run time
/// only would drive E and N out of the registers.
macro_rules! rows {
    ($i:ident => $body:expr) => {
        [
            {
                const $i: usize = 0;
                $body
            },
            {
                const $i: usize = 1;
                $body
            },
            {
                const $i: usize = 2;
                $body
            },
            {
                const $i: usize = 3;
                $body
            },
            {
                const $i: usize = 4;
                $body
            },
            {
                const $i: usize = 5;
                $body
            },
        ]
    };
}

/// One tile; `largest` with AMSGrad.
#[inline(always)]
pub(crate) fn wide_tile<S: Isa, T: Real>(
    simd: S,
    numbers: &AdamNumbers<T>,
    operands: TileOperands<'_, T>,
    first: &mut WideTile<T>,
    second: &mut WideTile<T>,
    largest: Option<&mut WideTile<T>>,
) {
    // 24 sums, 4 operands and a coefficient fit into 32 registers, half of that into 16.
    if S::REGISTER_COUNT >= 32 {
        tile_by::<S, T, 4>(simd, numbers, operands, first, second, largest);
    } else {
        tile_by::<S, T, 2>(simd, numbers, operands, first, second, largest);
    }
}

#[inline(always)]
fn tile_by<S: Isa, T: Real, const NV: usize>(
    simd: S,
    numbers: &AdamNumbers<T>,
    operands: TileOperands<'_, T>,
    first: &mut WideTile<T>,
    second: &mut WideTile<T>,
    mut largest: Option<&mut WideTile<T>>,
) {
    let rank = operands.bt_n.len();
    let vectors = WIDTH * size_of::<T>() / size_of::<T::Vector<S>>();
    for start in (0..vectors).step_by(NV) {
        let e = form::<S, T, NV>(simd, operands.left, operands.right, start);
        let n = rows!(I => {
            let largest = largest.as_mut().map(|block| &mut block[I]);
            let moments = (&mut first[I], &mut second[I], largest);
            normalize::<S, T, NV>(simd, numbers, e[I], moments, start)
        });
        reduce_rows::<S, T, NV>(simd, n, operands.left, operands.bt_n, start);
        reduce_columns::<S, T, NV>(simd, n, &operands.right[rank..], operands.n_at, start);
    }
}

/// Six rows and a few vectors of columns, one register each.
type Registers<S, T, const NV: usize> = [[<T as Real>::Vector<S>; NV]; HEIGHT];

/// E = [B sV] [sU; A].
#[inline(always)]
fn form<S: Isa, T: Real, const NV: usize>(
    simd: S,
    left: &[[T; HEIGHT]],
    right: &[Strip<T>],
    start: usize,
) -> Registers<S, T, NV> {
    let zero = T::splat(simd, T::default());
    let mut e = [[zero; NV]; HEIGHT];
    for (left, right) in left.iter().zip(right) {
        let right = few::<S, T, NV>(zero, right, start);
        for i in 0..HEIGHT {
            let left = T::splat(simd, left[i]);
            for v in 0..NV {
                e[i][v] = T::mul_add(simd, left, right[v], e[i][v]);
            }
        }
    }
    e
}

/// B'N += B' N. N is taken by value, so that it stays in registers.
#[inline(always)]
fn reduce_rows<S: Isa, T: Real, const NV: usize>(
    simd: S,
    n: Registers<S, T, NV>,
    left: &[[T; HEIGHT]],
    bt_n: &mut [Strip<T>],
    start: usize,
) {
    let zero = T::splat(simd, T::default());
    for (left, bt_n) in left.iter().zip(bt_n) {
        let mut sums = few::<S, T, NV>(zero, bt_n, start);
        for i in 0..HEIGHT {
            let left = T::splat(simd, left[i]);
            for v in 0..NV {
                sums[v] = T::mul_add(simd, left, n[i][v], sums[v]);
            }
        }
        T::vectors_mut::<S>(bt_n)[start..start + NV].copy_from_slice(&sums);
    }
}

/// (N A')' += A N', as partial sums.
#[inline(always)]
fn reduce_columns<S: Isa, T: Real, const NV: usize>(
    simd: S,
    n: Registers<S, T, NV>,
    right: &[Strip<T>],
    n_at: &mut [[LaneSums<T>; HEIGHT]],
    start: usize,
) {
    let zero = T::splat(simd, T::default());
    for (right, n_at) in right.iter().zip(n_at) {
        let right = few::<S, T, NV>(zero, right, start);
        for i in 0..HEIGHT {
            let sum = &mut T::vectors_mut::<S>(&mut n_at[i].0)[0];
            let mut x = *sum;
            for v in 0..NV {
                x = T::mul_add(simd, n[i][v], right[v], x);
            }
            *sum = x;
        }
    }
}

/// A few vectors of a strip.
#[inline(always)]
fn few<S: Isa, T: Real, const NV: usize>(
    zero: T::Vector<S>,
    strip: &Strip<T>,
    start: usize,
) -> [T::Vector<S>; NV] {
    let mut few = [zero; NV];
    few.copy_from_slice(&T::vectors::<S>(strip)[start..start + NV]);
    few
}

/// Averages E into the moments, for a few vectors of one row; returns N.
#[inline(always)]
fn normalize<S: Isa, T: Real, const NV: usize>(
    simd: S,
    numbers: &AdamNumbers<T>,
    e: [T::Vector<S>; NV],
    (first, second, largest): (&mut Strip<T>, &mut Strip<T>, Option<&mut Strip<T>>),
    start: usize,
) -> [T::Vector<S>; NV] {
    let splat = |number| T::splat(simd, number);
    let (beta1, new1) = (splat(numbers.beta1), splat(numbers.new1));
    let (beta2, new2) = (splat(numbers.beta2), splat(numbers.new2));
    let zero = splat(T::default());
    let mut m = few::<S, T, NV>(zero, first, start);
    let mut roots = few::<S, T, NV>(zero, second, start);
    for v in 0..NV {
        m[v] = T::mul_add(simd, new1, e[v], T::mul(simd, beta1, m[v]));
        let square = T::mul(simd, T::mul(simd, new2, e[v]), e[v]);
        roots[v] = T::mul_add(simd, beta2, roots[v], square);
    }
    T::vectors_mut::<S>(first)[start..start + NV].copy_from_slice(&m);
    T::vectors_mut::<S>(second)[start..start + NV].copy_from_slice(&roots);
    if let Some(largest) = largest {
        let old = few::<S, T, NV>(zero, largest, start);
        for v in 0..NV {
            roots[v] = T::max(simd, old[v], roots[v]);
        }
        T::vectors_mut::<S>(largest)[start..start + NV].copy_from_slice(&roots);
    }
    let (k, eps) = (splat(numbers.k), splat(numbers.eps));
    let mut n = m;
    for v in 0..NV {
        let root = T::add(simd, T::sqrt(simd, roots[v]), eps);
        n[v] = T::div(simd, T::mul(simd, k, m[v]), root);
    }
    n
}
