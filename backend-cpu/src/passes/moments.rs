//! How a tile of the full mode's moments comes from its memory and goes back.

use half::bf16;

use crate::codes::Code;
use crate::panel::{Block, HEIGHT};
use crate::rounding::{Seed, nearest_bf16};
use crate::simd::{Real, WIDTH};
use crate::spread::{Parts, Slices};

/// Tiles of one moment.
pub(crate) trait Moments<T>: Parts {
    /// The tile to work on: in place, or decoded into `buffer`.
    fn open<'b>(&'b mut self, tile: usize, buffer: &'b mut Block<T>) -> &'b mut Block<T>;

    /// Encodes `buffer` where `open` decoded into it.
    fn close(&mut self, tile: usize, buffer: &Block<T>);
}

/// Stored as computed.
impl<T: Real> Moments<T> for Slices<'_, Block<T>> {
    #[inline(always)]
    fn open<'b>(&'b mut self, tile: usize, _: &'b mut Block<T>) -> &'b mut Block<T> {
        &mut self.items[tile]
    }

    #[inline(always)]
    fn close(&mut self, _: usize, _: &Block<T>) {}
}

/// Stored in a shorter type, rounded to nearest.
pub(crate) struct Shorter<'p, W>(pub(crate) Slices<'p, Block<W>>);

/// A type that moments are rounded to.
pub(crate) trait Short: Copy + Default + Send {
    fn widen(self) -> f32;
    fn round(x: f32) -> Self;
}

impl Short for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn round(x: f32) -> f32 {
        x
    }
}

impl Short for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn round(x: f32) -> bf16 {
        nearest_bf16(x)
    }
}

impl<W: Short> Parts for Shorter<'_, W> {
    fn count(&self) -> usize {
        self.0.count()
    }

    fn split(self, at: usize) -> (Self, Self) {
        let (left, right) = self.0.split(at);
        (Shorter(left), Shorter(right))
    }
}

impl<T: Real, W: Short> Moments<T> for Shorter<'_, W> {
    #[inline(always)]
    fn open<'b>(&'b mut self, tile: usize, buffer: &'b mut Block<T>) -> &'b mut Block<T> {
        for (out, strip) in buffer.iter_mut().zip(&self.0.items[tile]) {
            for (out, x) in out.iter_mut().zip(strip) {
                *out = T::of_f32(x.widen());
            }
        }
        buffer
    }

    #[inline(always)]
    fn close(&mut self, tile: usize, buffer: &Block<T>) {
        for (out, strip) in self.0.items[tile].iter_mut().zip(buffer) {
            for (out, x) in out.iter_mut().zip(strip) {
                *out = W::round(x.narrow());
            }
        }
    }
}

/// Stored as 8-bit codes with a scale for each tile, rounded stochastically.
pub(crate) struct Coded<'p> {
    pub(crate) codes: Slices<'p, Block<u8>>,
    pub(crate) scales: Slices<'p, f32>,
    pub(crate) code: Code,
    pub(crate) seed: Seed,
    /// Number of the first tile, in the whole matrix.
    pub(crate) first: usize,
}

impl Parts for Coded<'_> {
    fn count(&self) -> usize {
        self.codes.count()
    }

    fn split(self, at: usize) -> (Self, Self) {
        let Coded {
            codes,
            scales,
            code,
            seed,
            first,
        } = self;
        let (codes, rest) = codes.split(at);
        let (scales, scales_rest) = scales.split(at);
        let after = first + codes.items.len();
        let left = Coded {
            codes,
            scales,
            code,
            seed,
            first,
        };
        (
            left,
            Coded {
                codes: rest,
                scales: scales_rest,
                code,
                seed,
                first: after,
            },
        )
    }
}

impl<T: Real> Moments<T> for Coded<'_> {
    #[inline(always)]
    fn open<'b>(&'b mut self, tile: usize, buffer: &'b mut Block<T>) -> &'b mut Block<T> {
        let scale = self.scales.items[tile];
        for (out, codes) in buffer.iter_mut().zip(&self.codes.items[tile]) {
            for (out, code) in out.iter_mut().zip(codes) {
                *out = T::of_f32(self.code.decode(*code) * scale);
            }
        }
        buffer
    }

    #[inline(always)]
    fn close(&mut self, tile: usize, buffer: &Block<T>) {
        let mut lanes = [0.0f32; 16];
        for strip in buffer {
            for chunk in strip.chunks_exact(16) {
                for (lane, x) in lanes.iter_mut().zip(chunk) {
                    *lane = lane.max(x.narrow().abs());
                }
            }
        }
        let largest = lanes.into_iter().fold(0.0, f32::max);
        let (scale, inverse) = self.code.scale(largest);
        self.scales.items[tile] = scale;
        let start = (self.first + tile) * HEIGHT * WIDTH;
        for (i, (codes, strip)) in self.codes.items[tile].iter_mut().zip(buffer).enumerate() {
            for (j, (code, x)) in codes.iter_mut().zip(strip).enumerate() {
                let random = self.seed.at(start + i * WIDTH + j);
                *code = self.code.encode(x.narrow() * inverse, random);
            }
        }
    }
}
