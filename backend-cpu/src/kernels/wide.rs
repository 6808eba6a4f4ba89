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
use crate::panel::{Block, HEIGHT};
use crate::simd::{Isa, Real, Strip, WIDTH};

/// Partial sums of one entry of N A': as many as the widest register has lanes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Partial<T>(pub(crate) [T; 16]);

/// What a row of tiles is formed from and reduced to.
pub(crate) struct Thin<'t, T> {
    /// B and sV of these six rows: 2r x 6.
    pub(crate) left: &'t [[T; HEIGHT]],
    /// sU and A of one tile of columns: 2r strips.
    pub(crate) right: &'t [Strip<T>],
    /// B'N of one tile of columns: r strips.
    pub(crate) gan: &'t mut [Strip<T>],
    /// (N A')' of these six rows: r x 6.
    pub(crate) gbn: &'t mut [[Partial<T>; HEIGHT]],
}

/// One tile; `largest` with AMSGrad.
#[inline(always)]
pub(crate) fn wide_tile<S: Isa, T: Real>(
    simd: S,
    numbers: &AdamNumbers<T>,
    thin: Thin<'_, T>,
    first: &mut Block<T>,
    second: &mut Block<T>,
    largest: Option<&mut Block<T>>,
) {
    // 24 sums, 4 operands and a coefficient fit into 32 registers, half of that into 16.
    if S::REGISTER_COUNT >= 32 {
        tile_by::<S, T, 4>(simd, numbers, thin, first, second, largest);
    } else {
        tile_by::<S, T, 2>(simd, numbers, thin, first, second, largest);
    }
}

#[inline(always)]
fn tile_by<S: Isa, T: Real, const NV: usize>(
    simd: S,
    numbers: &AdamNumbers<T>,
    thin: Thin<'_, T>,
    first: &mut Block<T>,
    second: &mut Block<T>,
    mut largest: Option<&mut Block<T>>,
) {
    let rank = thin.gan.len();
    let vectors = WIDTH * size_of::<T>() / size_of::<T::Vector<S>>();
    let zero = T::splat(simd, T::default());
    for start in (0..vectors).step_by(NV) {
        let mut acc = [[zero; NV]; HEIGHT];
        for (left, right) in thin.left.iter().zip(thin.right) {
            let right = few::<S, T, NV>(zero, right, start);
            for (acc, left) in acc.iter_mut().zip(left) {
                let left = T::splat(simd, *left);
                for (acc, right) in acc.iter_mut().zip(right) {
                    *acc = T::mul_add(simd, left, right, *acc);
                }
            }
        }
        for i in 0..HEIGHT {
            let m = &mut T::vectors_mut::<S>(&mut first[i])[start..start + NV];
            let v2 = &mut T::vectors_mut::<S>(&mut second[i])[start..start + NV];
            let l = largest
                .as_mut()
                .map(|block| &mut T::vectors_mut::<S>(&mut block[i])[start..start + NV]);
            normalize::<S, T, NV>(simd, numbers, &mut acc[i], m, v2, l);
        }
        for (left, gan) in thin.left.iter().zip(thin.gan.iter_mut()) {
            let mut sums = few::<S, T, NV>(zero, gan, start);
            for (acc, left) in acc.iter().zip(left) {
                let left = T::splat(simd, *left);
                for (sum, acc) in sums.iter_mut().zip(acc) {
                    *sum = T::mul_add(simd, left, *acc, *sum);
                }
            }
            T::vectors_mut::<S>(gan)[start..start + NV].copy_from_slice(&sums);
        }
        for (right, gbn) in thin.right[rank..].iter().zip(thin.gbn.iter_mut()) {
            let right = few::<S, T, NV>(zero, right, start);
            for (acc, sum) in acc.iter().zip(gbn) {
                let sum = &mut T::vectors_mut::<S>(&mut sum.0)[0];
                let mut x = *sum;
                for (acc, right) in acc.iter().zip(right) {
                    x = T::mul_add(simd, *acc, right, x);
                }
                *sum = x;
            }
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

/// Averages E into the moments and replaces it by N, for a few vectors of one row.
#[inline(always)]
fn normalize<S: Isa, T: Real, const NV: usize>(
    simd: S,
    numbers: &AdamNumbers<T>,
    e: &mut [T::Vector<S>; NV],
    first: &mut [T::Vector<S>],
    second: &mut [T::Vector<S>],
    largest: Option<&mut [T::Vector<S>]>,
) {
    let splat = |number| T::splat(simd, number);
    let (beta1, new1) = (splat(numbers.beta1), splat(numbers.new1));
    let (beta2, new2) = (splat(numbers.beta2), splat(numbers.new2));
    let mut roots = [splat(T::default()); NV];
    for v in 0..NV {
        first[v] = T::mul_add(simd, new1, e[v], T::mul(simd, beta1, first[v]));
        let square = T::mul(simd, T::mul(simd, new2, e[v]), e[v]);
        second[v] = T::mul_add(simd, beta2, second[v], square);
        roots[v] = second[v];
    }
    if let Some(largest) = largest {
        for v in 0..NV {
            largest[v] = T::max(simd, largest[v], roots[v]);
            roots[v] = largest[v];
        }
    }
    let (k, eps) = (splat(numbers.k), splat(numbers.eps));
    for v in 0..NV {
        let root = T::add(simd, T::sqrt(simd, roots[v]), eps);
        e[v] = T::div(simd, T::mul(simd, k, first[v]), root);
    }
}
