//! The Gram pass: Gram and cross products of thin matrices, in one read.
//!
//! F and G (r x len each) are stacked, and one symmetric product in f64 gives all:
//!
//! ```text
//! [F; G] [F; G]' = [F F'  F G']
//!                  [G F'  G G']
//! ```
//!
//! F F' is the Gram matrix, the trace of G G' the gradient's norm. An entry of F or G that is not
//! finite shows in the diagonal: so the same read is the check of law 18.

use std::ops::Range;

use super::thin::{ThinInput, widen};
use super::tile_pass::TilePass;
use crate::kernels::{gathered, gram};
use crate::parallel::{CHUNK, ParallelCtx};
use crate::rank_sized::GramProducts;
use crate::simd::{Isa, Real, WIDTH};
use crate::workspace::{Sum, ThreadWorkspace, padded, sums, total};

/// Fills a side's products.
pub(crate) fn gram_pass<T: Real>(
    ctx: &ParallelCtx<'_, T>,
    all: &mut Vec<Sum>,
    f: ThinInput<'_, T>,
    g: ThinInput<'_, T>,
    out: &mut GramProducts,
) {
    let [r, len] = f.shape();
    out.reserve(r);
    let tiles = len.div_ceil(WIDTH);
    let parts = sums(all, tiles.div_ceil(CHUNK), 4 * r * r);
    ctx.run(&GramPass { f, g }, r, tiles, &mut *parts);
    let total = total(parts);
    for i in 0..r {
        for j in 0..r {
            out.ff[(i, j)] = total.products[i * 2 * r + j];
            out.fg[(i, j)] = total.products[i * 2 * r + r + j];
            out.gg[(i, j)] = total.products[(r + i) * 2 * r + r + j];
        }
    }
}

struct GramPass<'a, T> {
    f: ThinInput<'a, T>,
    g: ThinInput<'a, T>,
}

impl<T: Real> TilePass<T> for GramPass<'_, T> {
    type Parts<'k> = &'k mut [Sum];

    #[inline(always)]
    fn run<S: Isa>(
        &self,
        simd: S,
        sums: &mut [Sum],
        range: Range<usize>,
        workspace: &mut ThreadWorkspace<T>,
    ) {
        let r = self.f.shape()[0];
        let ThreadWorkspace {
            f: values,
            g: gradients,
            left: stacks,
            grams,
            ..
        } = workspace;
        let stacked = padded(2 * r);
        grams.reset(2 * r, 2 * r, stacked);
        for start in range.clone().step_by(gathered(r)) {
            let count = gathered(r).min(range.end - start);
            for (tile, stack) in (start..start + count).zip(stacks.chunks_exact_mut(stacked)) {
                self.f.load(simd, tile, values);
                self.g.load(simd, tile, gradients);
                widen(&mut stack[..r], &values[..r]);
                widen(&mut stack[r..], &gradients[..r]);
            }
            let stacks = &stacks[..count * stacked];
            gram(simd, grams, stacks, stacks);
        }
        for (at, x) in sums[0].products.iter_mut().enumerate() {
            *x = grams.entry(at / (2 * r), at % (2 * r));
        }
    }
}
