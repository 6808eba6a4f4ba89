//! Bytes of shared memory of a block.

use crate::constants::{
    BF16, F16, F32, F64, F64_RANKS, F64_WARP_ROWS, OCTET, QUANT_RANKS, QUANT_WARP_ROWS, R8_RANKS,
    R8_WARP_ROWS, R32_RANKS, R32_WARP_ROWS, SHARED_EIGEN, STRIP, SUM_ROOM, TILE_PAD, U8, WARPS,
};
use crate::model::{Adapter, Precision};

/// Room for the sums of a block.
pub(super) fn sums(_: &Adapter) -> usize {
    SUM_ROOM * 8
}

/// So many tiles of r rows.
fn tiles(adapter: &Adapter, count: usize) -> usize {
    let (r, width) = (adapter.r as usize, adapter.width as usize);
    count * r * (width + TILE_PAD) * adapter.hyper.precision().size()
}

/// A thin pass: three tiles, the squares of octets, weights, a sum.
pub(super) fn thin(adapter: &Adapter) -> usize {
    let (r, width) = (adapter.r as usize, adapter.width as usize);
    let numbers = (r.div_ceil(OCTET) + 1) * width;
    tiles(adapter, 3) + numbers * adapter.hyper.precision().size() + sums(adapter)
}

/// The pass that steps a factor: two more tiles for moments.
pub(super) fn with_moments(adapter: &Adapter) -> usize {
    tiles(adapter, 5) + sums(adapter)
}

/// The r x r kernels that decompose: rotations, and two matrices where they fit.
pub(super) fn eigen(adapter: &Adapter) -> usize {
    let r = adapter.r as usize;
    let kept = if r <= SHARED_EIGEN { 2 * r * r } else { 0 };
    (SUM_ROOM + 2 * r.div_ceil(2) + kept) * 8
}

/// A kernel of the wide pass with its tile (`WideTile` of `kernels/wide.cu`).
#[derive(Debug, PartialEq)]
pub(super) struct WideKernel {
    pub(super) name: &'static str,
    warp_rows: usize,
    ranks: usize,
}

const fn wide(name: &'static str, warp_rows: usize, ranks: usize) -> WideKernel {
    WideKernel {
        name,
        warp_rows,
        ranks,
    }
}

static R8: WideKernel = wide("wide_f32_r8", R8_WARP_ROWS, R8_RANKS);
static R32: WideKernel = wide("wide_f32_r32", R32_WARP_ROWS, R32_RANKS);
static IN_F64: WideKernel = wide("wide_f64_r16", F64_WARP_ROWS, F64_RANKS);
static QUANTIZED: WideKernel = wide("wide_f32_quantized", QUANT_WARP_ROWS, QUANT_RANKS);

impl WideKernel {
    pub(super) fn all() -> [&'static WideKernel; 4] {
        [&R8, &R32, &IN_F64, &QUANTIZED]
    }

    pub(super) fn of(adapter: &Adapter) -> &'static WideKernel {
        match adapter.hyper.precision() {
            Precision::F64 => &IN_F64,
            Precision::F32 if adapter.wide_dtype == U8 => &QUANTIZED,
            Precision::F32 if adapter.r as usize <= R8_RANKS => &R8,
            Precision::F32 => &R32,
        }
    }

    /// The next moments, and of the rows that a block has at once N and so many numbers of B.
    pub(super) fn shared(&self, adapter: &Adapter) -> usize {
        let moments = 2 * moment_size(adapter.wide_dtype);
        let number = adapter.hyper.precision().size();
        self.warp_rows * WARPS * (STRIP * (moments + number) + self.ranks * number)
    }
}

/// Bytes of a stored moment.
fn moment_size(dtype: i32) -> usize {
    const SIZES: [(i32, usize); 5] = [(F64, 8), (F32, 4), (BF16, 2), (F16, 2), (U8, 1)];
    SIZES
        .iter()
        .find(|(code, _)| *code == dtype)
        .map_or(8, |(_, size)| *size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constants::{MAX_RANK, MAX_SHARED};
    use crate::descriptors::width;

    #[test]
    fn every_pass_fits_into_shared_memory() {
        let precisions = [
            (Precision::F32, [F32, BF16, U8]),
            (Precision::F64, [F64, F32, BF16]),
        ];
        for (r, (precision, dtypes)) in (1..=MAX_RANK).flat_map(|r| precisions.map(|x| (r, x))) {
            for wide_dtype in dtypes {
                let mut adapter = Adapter {
                    r: r as i32,
                    width: width(r, precision) as i32,
                    wide_dtype,
                    ..Adapter::default()
                };
                adapter.hyper.in_f64 = i32::from(precision == Precision::F64);
                let wide = WideKernel::of(&adapter).shared(&adapter);
                let all = [
                    thin(&adapter),
                    with_moments(&adapter),
                    eigen(&adapter),
                    wide,
                ];
                assert!(
                    all.iter().all(|bytes| *bytes <= MAX_SHARED),
                    "rank {r}, {precision:?}: {all:?}"
                );
            }
        }
    }
}
