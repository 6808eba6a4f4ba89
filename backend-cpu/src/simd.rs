//! Vectors of real numbers, for every instruction set.
//!
//! [`Real`] lets a kernel be written once for f32 and f64 over any `pulp::Simd`; [`Isa`] adds what
//! pulp has no generic word for. Kernels are `#[inline(always)]` and reach a machine's instructions
//! through [`crate::Path::run`] only.

use std::fmt::Debug;

use bytemuck::Pod;
use pulp::Simd;

/// Columns of a tile. A row of a tile is a [`Strip`].
pub(crate) const WIDTH: usize = 64;

/// One row of a tile.
pub(crate) type Strip<T> = [T; WIDTH];

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
    std::array::from_fn(|i| std::array::from_fn(|j| block[j][i]))
}

/// Pairs of rows are interleaved, then pairs of pairs, then 128-bit halves are exchanged.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn transpose_avx(simd: pulp::x86::V3, block: [[f32; 8]; 8]) -> [[f32; 8]; 8] {
    use std::arch::x86_64::__m256;
    let avx = simd.avx;
    let x: [__m256; 8] = block.map(pulp::cast);
    let low = |i: usize| avx._mm256_unpacklo_ps(x[i], x[i + 1]);
    let high = |i: usize| avx._mm256_unpackhi_ps(x[i], x[i + 1]);
    let y = [
        low(0),
        high(0),
        low(2),
        high(2),
        low(4),
        high(4),
        low(6),
        high(6),
    ];
    let first = |i: usize| avx._mm256_shuffle_ps::<0x44>(y[i], y[i + 2]);
    let second = |i: usize| avx._mm256_shuffle_ps::<0xee>(y[i], y[i + 2]);
    let z = [
        first(0),
        second(0),
        first(1),
        second(1),
        first(4),
        second(4),
        first(5),
        second(5),
    ];
    let lower = |i: usize| pulp::cast(avx._mm256_permute2f128_ps::<0x20>(z[i], z[i + 4]));
    let upper = |i: usize| pulp::cast(avx._mm256_permute2f128_ps::<0x31>(z[i], z[i + 4]));
    [
        lower(0),
        lower(1),
        lower(2),
        lower(3),
        upper(0),
        upper(1),
        upper(2),
        upper(3),
    ]
}
