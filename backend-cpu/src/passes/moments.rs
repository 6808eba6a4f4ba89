//! How a tile of the full mode's moments comes from its memory and goes back.

use half::bf16;

use crate::codes::Code;
use crate::panel::{HEIGHT, WideTile};
use crate::parallel::{Slices, Splittable};
use crate::rounding::{Seed, nearest_bf16};
use crate::simd::{Real, WIDTH};
use crate::typed_state::QuantizedMatrix;

/// Tiles of one moment.
pub(crate) trait MomentTiles<T>: Splittable {
    /// The tile to work on: in place, or decoded into `buffer`.
    fn open<'b>(&'b mut self, tile: usize, buffer: &'b mut WideTile<T>) -> &'b mut WideTile<T>;

    /// Encodes `buffer` where `open` decoded into it.
    fn close(&mut self, tile: usize, buffer: &WideTile<T>);
}

/// Stored as computed.
impl<T: Real> MomentTiles<T> for Slices<'_, WideTile<T>> {
    #[inline(always)]
    fn open<'b>(&'b mut self, tile: usize, _: &'b mut WideTile<T>) -> &'b mut WideTile<T> {
        &mut self.items[tile]
    }

    #[inline(always)]
    fn close(&mut self, _: usize, _: &WideTile<T>) {}
}

/// Stored in a shorter type, rounded to nearest.
pub(crate) struct Narrowed<'p, W>(pub(crate) Slices<'p, WideTile<W>>);

/// A type that moments are rounded to.
pub(crate) trait NarrowType: Copy + Default + Send {
    fn widen(self) -> f32;
    fn round(x: f32) -> Self;
}

impl NarrowType for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn round(x: f32) -> f32 {
        x
    }
}

impl NarrowType for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn round(x: f32) -> bf16 {
        nearest_bf16(x)
    }
}

impl<W: NarrowType> Splittable for Narrowed<'_, W> {
    fn count(&self) -> usize {
        self.0.count()
    }

    fn split(self, at: usize) -> (Self, Self) {
        let (left, right) = self.0.split(at);
        (Narrowed(left), Narrowed(right))
    }
}

impl<T: Real, W: NarrowType> MomentTiles<T> for Narrowed<'_, W> {
    #[inline(always)]
    fn open<'b>(&'b mut self, tile: usize, buffer: &'b mut WideTile<T>) -> &'b mut WideTile<T> {
        for (out, strip) in buffer.iter_mut().zip(&self.0.items[tile]) {
            for (out, x) in out.iter_mut().zip(strip) {
                *out = T::of_f32(x.widen());
            }
        }
        buffer
    }

    #[inline(always)]
    fn close(&mut self, tile: usize, buffer: &WideTile<T>) {
        for (out, strip) in self.0.items[tile].iter_mut().zip(buffer) {
            for (out, x) in out.iter_mut().zip(strip) {
                *out = W::round(x.narrow());
            }
        }
    }
}

/// Stored as 8-bit codes with a scale for each tile, rounded stochastically.
pub(crate) struct Quantized8<'p> {
    codes: Slices<'p, WideTile<u8>>,
    scales: Slices<'p, f32>,
    rounding: CodeRounding,
    /// Number of the first tile, in the whole matrix.
    first: usize,
}

/// How numbers become codes.
#[derive(Clone, Copy)]
struct CodeRounding {
    code: Code,
    seed: Seed,
}

impl<'p> Quantized8<'p> {
    /// A moment, cut into parts of `stride` tiles.
    pub(crate) fn new(matrix: QuantizedMatrix<'p>, stride: usize) -> Self {
        let QuantizedMatrix {
            codes,
            scales,
            code,
            seed,
        } = matrix;
        Quantized8 {
            codes: Slices::new(&mut codes.blocks, stride),
            scales: Slices::new(scales, stride),
            rounding: CodeRounding { code, seed },
            first: 0,
        }
    }
}

impl Splittable for Quantized8<'_> {
    fn count(&self) -> usize {
        self.codes.count()
    }

    fn split(self, at: usize) -> (Self, Self) {
        let (codes, codes_after) = self.codes.split(at);
        let (scales, scales_after) = self.scales.split(at);
        let (rounding, first) = (self.rounding, self.first);
        let after = Quantized8 {
            first: first + codes.items.len(),
            codes: codes_after,
            scales: scales_after,
            rounding,
        };
        let before = Quantized8 {
            codes,
            scales,
            rounding,
            first,
        };
        (before, after)
    }
}

impl<T: Real> MomentTiles<T> for Quantized8<'_> {
    #[inline(always)]
    fn open<'b>(&'b mut self, tile: usize, buffer: &'b mut WideTile<T>) -> &'b mut WideTile<T> {
        let scale = self.scales.items[tile];
        for (out, codes) in buffer.iter_mut().zip(&self.codes.items[tile]) {
            for (out, code) in out.iter_mut().zip(codes) {
                *out = T::of_f32(self.rounding.code.decode(*code) * scale);
            }
        }
        buffer
    }

    #[inline(always)]
    fn close(&mut self, tile: usize, buffer: &WideTile<T>) {
        let mut lanes = [0.0f32; 16];
        for strip in buffer {
            for chunk in strip.chunks_exact(16) {
                for (lane, x) in lanes.iter_mut().zip(chunk) {
                    *lane = lane.max(x.narrow().abs());
                }
            }
        }
        let largest = lanes.into_iter().fold(0.0, f32::max);
        let (scale, inverse) = self.rounding.code.scale(largest);
        self.scales.items[tile] = scale;
        let start = (self.first + tile) * HEIGHT * WIDTH;
        for (i, (codes, strip)) in self.codes.items[tile].iter_mut().zip(buffer).enumerate() {
            for (j, (code, x)) in codes.iter_mut().zip(strip).enumerate() {
                let random = self.rounding.seed.at(start + i * WIDTH + j);
                *code = self.rounding.code.encode(x.narrow() * inverse, random);
            }
        }
    }
}
