//! Vectors of real numbers, for every instruction set.
//!
//! [`Real`] lets a kernel be written once for f32 and f64 over any `pulp::Simd`; [`Isa`] adds what
//! pulp has no generic word for. Kernels are `#[inline(always)]` and reach a machine's instructions
//! through a `SimdLevel` only.

use std::fmt::Debug;
use std::ops::{Deref, DerefMut};

use bytemuck::Pod;
use pulp::Simd;

/// Columns of a tile. A row of a tile is a [`Strip`].
pub(crate) const WIDTH: usize = 64;

/// One row of a tile. Aligned so that no register's load crosses a cache line.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Strip<T>(pub(crate) [T; WIDTH]);

impl<T: Copy> Strip<T> {
    /// The same number everywhere.
    #[inline(always)]
    pub(crate) fn all(x: T) -> Self {
        Strip([x; WIDTH])
    }
}

impl<T> Deref for Strip<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for Strip<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<'s, T> IntoIterator for &'s Strip<T> {
    type Item = &'s T;
    type IntoIter = std::slice::Iter<'s, T>;

    #[inline(always)]
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'s, T> IntoIterator for &'s mut Strip<T> {
    type Item = &'s mut T;
    type IntoIter = std::slice::IterMut<'s, T>;

    #[inline(always)]
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter_mut()
    }
}

/// A number type that kernels compute with.
pub(crate) trait Real: Pod + PartialOrd + Default + Debug + Send + Sync {
    /// As many of them as a register holds.
    type Vector<S: Simd>: Pod;

    fn of(x: f64) -> Self;
    fn wide(self) -> f64;
    fn of_f32(x: f32) -> Self;
    fn narrow(self) -> f32;

    fn vectors<S: Simd>(strip: &[Self]) -> &[Self::Vector<S>];
    fn vectors_mut<S: Simd>(strip: &mut [Self]) -> &mut [Self::Vector<S>];
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;
    fn add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    fn mul<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    fn div<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    fn max<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    fn sqrt<S: Simd>(simd: S, a: Self::Vector<S>) -> Self::Vector<S>;
    /// a b + c, fused where the instruction set can.
    fn mul_add<S: Simd>(
        simd: S,
        a: Self::Vector<S>,
        b: Self::Vector<S>,
        c: Self::Vector<S>,
    ) -> Self::Vector<S>;
    fn sum<S: Simd>(simd: S, a: Self::Vector<S>) -> Self;
    fn transpose<S: Isa>(simd: S, block: [[Self; 8]; 8]) -> [[Self; 8]; 8];
}

macro_rules! real {
    ($type:ident, $vectors:ident, $from:ident, $from_mut:ident, $splat:ident, $add:ident,
     $mul:ident, $div:ident, $max:ident, $sqrt:ident, $mul_add:ident, $sum:ident,
     $transpose:path) => {
        impl Real for $type {
            type Vector<S: Simd> = S::$vectors;

            #[inline(always)]
            fn of(x: f64) -> Self {
                x as $type
            }
            #[inline(always)]
            fn wide(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn of_f32(x: f32) -> Self {
                x as $type
            }
            #[inline(always)]
            fn narrow(self) -> f32 {
                self as f32
            }
            #[inline(always)]
            fn vectors<S: Simd>(strip: &[Self]) -> &[S::$vectors] {
                S::$from(strip).0
            }
            #[inline(always)]
            fn vectors_mut<S: Simd>(strip: &mut [Self]) -> &mut [S::$vectors] {
                S::$from_mut(strip).0
            }
            #[inline(always)]
            fn splat<S: Simd>(simd: S, x: Self) -> S::$vectors {
                simd.$splat(x)
            }
            #[inline(always)]
            fn add<S: Simd>(simd: S, a: S::$vectors, b: S::$vectors) -> S::$vectors {
                simd.$add(a, b)
            }
            #[inline(always)]
            fn mul<S: Simd>(simd: S, a: S::$vectors, b: S::$vectors) -> S::$vectors {
                simd.$mul(a, b)
            }
            #[inline(always)]
            fn div<S: Simd>(simd: S, a: S::$vectors, b: S::$vectors) -> S::$vectors {
                simd.$div(a, b)
            }
            #[inline(always)]
            fn max<S: Simd>(simd: S, a: S::$vectors, b: S::$vectors) -> S::$vectors {
                simd.$max(a, b)
            }
            #[inline(always)]
            fn sqrt<S: Simd>(simd: S, a: S::$vectors) -> S::$vectors {
                simd.$sqrt(a)
            }
            #[inline(always)]
            fn mul_add<S: Simd>(
                simd: S,
                a: S::$vectors,
                b: S::$vectors,
                c: S::$vectors,
            ) -> S::$vectors {
                simd.$mul_add(a, b, c)
            }
            #[inline(always)]
            fn sum<S: Simd>(simd: S, a: S::$vectors) -> Self {
                simd.$sum(a)
            }
            #[inline(always)]
            fn transpose<S: Isa>(simd: S, block: [[Self; 8]; 8]) -> [[Self; 8]; 8] {
                $transpose(simd, block)
            }
        }
    };
}

real!(
    f32,
    f32s,
    as_simd_f32s,
    as_mut_simd_f32s,
    splat_f32s,
    add_f32s,
    mul_f32s,
    div_f32s,
    max_f32s,
    sqrt_f32s,
    mul_add_e_f32s,
    reduce_sum_f32s,
    Isa::transpose_f32
);
real!(
    f64,
    f64s,
    as_simd_f64s,
    as_mut_simd_f64s,
    splat_f64s,
    add_f64s,
    mul_f64s,
    div_f64s,
    max_f64s,
    sqrt_f64s,
    mul_add_e_f64s,
    reduce_sum_f64s,
    transpose_plainly
);

/// An instruction set, with what pulp has no generic word for.
pub(crate) trait Isa: Simd {
    /// The transpose of an 8 x 8 block.
    #[inline(always)]
    fn transpose_f32(self, block: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
        transpose_plainly(self, block)
    }
}

impl Isa for pulp::Scalar {}

#[cfg(target_arch = "aarch64")]
impl Isa for pulp::aarch64::Neon {}

#[cfg(target_arch = "x86_64")]
impl Isa for pulp::x86::V3 {
    #[inline(always)]
    fn transpose_f32(self, block: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
        transpose_avx(self, block)
    }
}

#[cfg(target_arch = "x86_64")]
impl Isa for pulp::x86::V4 {
    #[inline(always)]
    fn transpose_f32(self, block: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
        transpose_avx(*self, block)
    }
}

#[inline(always)]
fn transpose_plainly<T: Copy, S>(_: S, block: [[T; 8]; 8]) -> [[T; 8]; 8] {
    let mut out = block;
    for (i, line) in out.iter_mut().enumerate() {
        for (x, column) in line.iter_mut().zip(&block) {
            *x = column[i];
        }
    }
    out
}

/// Pairs of rows are interleaved, then pairs of pairs, then 128-bit halves are exchanged.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn transpose_avx(simd: pulp::x86::V3, block: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
    use std::arch::x86_64::__m256;
    let avx = simd.avx;
    let mut x: [__m256; 8] = pulp::cast([0.0f32; 64]);
    for (x, line) in x.iter_mut().zip(block) {
        *x = pulp::cast(line);
    }
    let mut y = x;
    for i in (0..8).step_by(2) {
        y[i] = avx._mm256_unpacklo_ps(x[i], x[i + 1]);
        y[i + 1] = avx._mm256_unpackhi_ps(x[i], x[i + 1]);
    }
    for i in (0..8).step_by(4) {
        x[i] = avx._mm256_shuffle_ps::<0x44>(y[i], y[i + 2]);
        x[i + 1] = avx._mm256_shuffle_ps::<0xee>(y[i], y[i + 2]);
        x[i + 2] = avx._mm256_shuffle_ps::<0x44>(y[i + 1], y[i + 3]);
        x[i + 3] = avx._mm256_shuffle_ps::<0xee>(y[i + 1], y[i + 3]);
    }
    for i in 0..4 {
        y[i] = avx._mm256_permute2f128_ps::<0x20>(x[i], x[i + 4]);
        y[i + 4] = avx._mm256_permute2f128_ps::<0x31>(x[i], x[i + 4]);
    }
    pulp::cast(y)
}
