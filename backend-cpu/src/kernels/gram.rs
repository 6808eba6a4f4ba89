//! Gram and cross products of thin tiles in f64: `sums[k][l] += sum over columns of x[k] y[l]`.
//!
//! Blocks of 4 x 4 entries; each entry is kept as eight partial sums (one per lane of the widest
//! register) until all tiles have passed, so that nothing is added across lanes in the loop.

use crate::simd::{Isa, Real, Strip, WIDTH};

/// Entries of a block in each direction.
const BLOCK: usize = 4;

/// LaneSums sums of one entry.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Lanes([f64; 8]);

/// The sums of all entries of X Y' for X of `rows` and Y of `cols` rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Grams {
    rows: usize,
    cols: usize,
    /// So many rows of Y are X, perhaps up to a weight: among these, blocks below the diagonal
    /// mirror those above it and are left out.
    mirrored: usize,
    blocks: Vec<[[Lanes; BLOCK]; BLOCK]>,
}

impl Grams {
    /// All zero.
    pub(crate) fn reset(&mut self, rows: usize, cols: usize, mirrored: usize) {
        self.rows = rows;
        self.cols = cols;
        self.mirrored = mirrored;
        let count = rows.div_ceil(BLOCK) * cols.div_ceil(BLOCK);
        self.blocks.clear();
        self.blocks.resize(count, [[Lanes([0.0; 8]); BLOCK]; BLOCK]);
    }

    /// Whether a block is the mirror image of another.
    #[inline(always)]
    fn left_out(&self, k: usize, l: usize) -> bool {
        l < k && (l + 1) * BLOCK <= self.mirrored
    }

    /// Entry (k, l), summed over the lanes in a fixed order.
    pub(crate) fn entry(&self, k: usize, l: usize) -> f64 {
        let swap = self.left_out(k / BLOCK, l / BLOCK);
        let (k, l) = if swap { (l, k) } else { (k, l) };
        let block = &self.blocks[k / BLOCK * self.cols.div_ceil(BLOCK) + l / BLOCK];
        let lanes = &block[k % BLOCK][l % BLOCK].0;
        let halves: [f64; 4] = std::array::from_fn(|i| lanes[i] + lanes[i + 4]);
        (halves[0] + halves[2]) + (halves[1] + halves[3])
    }
}

/// Tiles that are gathered before they are added: each sum is then loaded and stored once for all
/// of them. At a small rank the tiles are to stay in the first-level cache; at a large one the sums
/// are not there anyway, and fewer passes over them count.
pub(crate) fn gathered(r: usize) -> usize {
    if r < 32 { 2 } else { 4 }
}

/// Adds some tiles. In each, both operands are padded with zero strips to a multiple of four.
#[inline(always)]
pub(crate) fn gram<S: Isa>(simd: S, sums: &mut Grams, x: &[Strip<f64>], y: &[Strip<f64>]) {
    if S::REGISTER_COUNT >= 32 {
        gram_by::<S, 4>(simd, sums, x, y);
    } else {
        gram_by::<S, 2>(simd, sums, x, y);
    }
}

#[inline(always)]
fn gram_by<S: Isa, const NC: usize>(simd: S, sums: &mut Grams, x: &[Strip<f64>], y: &[Strip<f64>]) {
    let (x, y) = (x.as_chunks::<BLOCK>().0, y.as_chunks::<BLOCK>().0);
    let (down, across) = (sums.rows.div_ceil(BLOCK), sums.cols.div_ceil(BLOCK));
    for k in 0..down {
        for l in 0..across {
            if sums.left_out(k, l) {
                continue;
            }
            let block = &mut sums.blocks[k * across + l];
            let x = x[k..].iter().step_by(down);
            let y = y[l..].iter().step_by(across);
            for start in (0..BLOCK).step_by(NC) {
                add_block::<S, NC>(simd, block, x.clone().zip(y.clone()), start);
            }
        }
    }
}

/// Columns `start` to `start + NC` of a block.
#[inline(always)]
fn add_block<'t, S: Isa, const NC: usize>(
    simd: S,
    block: &mut [[Lanes; BLOCK]; BLOCK],
    tiles: impl Iterator<Item = (&'t [Strip<f64>; BLOCK], &'t [Strip<f64>; BLOCK])>,
    start: usize,
) {
    let vectors = WIDTH * size_of::<f64>() / size_of::<<f64 as Real>::Vector<S>>();
    let zero = <f64 as Real>::splat(simd, 0.0);
    let mut acc = [[zero; NC]; BLOCK];
    for (x, y) in tiles {
        for v in 0..vectors {
            let mut right = [zero; NC];
            for (right, y) in right.iter_mut().zip(&y[start..]) {
                *right = <f64 as Real>::vectors::<S>(y)[v];
            }
            for (acc, x) in acc.iter_mut().zip(x) {
                let left = <f64 as Real>::vectors::<S>(x)[v];
                for (acc, right) in acc.iter_mut().zip(right) {
                    *acc = <f64 as Real>::mul_add(simd, left, right, *acc);
                }
            }
        }
    }
    for (acc, lanes) in acc.iter().zip(block) {
        for (acc, lanes) in acc.iter().zip(&mut lanes[start..]) {
            let lanes = &mut <f64 as Real>::vectors_mut::<S>(&mut lanes.0)[0];
            *lanes = <f64 as Real>::add(simd, *lanes, *acc);
        }
    }
}
