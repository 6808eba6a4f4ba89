//! The first pass: Gram and cross products of thin matrices, in one read.
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

use super::thin::{Source, widen};
use crate::kernels::{gathered, gram};
use crate::path::{Job, Path};
use crate::scratch::{Pool, Sum, Tiles, padded, sums, total};
use crate::simd::{Isa, Real, WIDTH};
use crate::small::Side;
use crate::spread::{CHUNK, spread};

/// How a pass runs.
pub(crate) struct Crew<'c, T> {
    pub(crate) path: Path,
    /// Whether parts go to several threads.
    pub(crate) parallel: bool,
    pub(crate) pool: &'c Pool<T>,
}

/// Fills a side's products.
pub(crate) fn survey<T: Real>(
    crew: &Crew<'_, T>,
    all: &mut Vec<Sum>,
    f: Source<'_, T>,
    g: Source<'_, T>,
    side: &mut Side,
) {
    let [r, len] = f.shape();
    let tiles = len.div_ceil(WIDTH);
    let parts = sums(all, tiles.div_ceil(CHUNK), 4 * r * r);
    spread(crew.parallel, 0, &mut *parts, &|chunk, sum: &mut [Sum]| {
        let last = tiles.min((chunk + 1) * CHUNK);
        let mut own = crew.pool.tiles(r);
        crew.path.run(Survey {
            f,
            g,
            r,
            range: chunk * CHUNK..last,
            tiles: &mut own,
            sum: &mut sum[0],
        });
    });
    let total = total(parts);
    for i in 0..r {
        for j in 0..r {
            side.ff[(i, j)] = total.products[i * 2 * r + j];
            side.fg[(i, j)] = total.products[i * 2 * r + r + j];
            side.gg[(i, j)] = total.products[(r + i) * 2 * r + r + j];
        }
    }
}

struct Survey<'j, T> {
    f: Source<'j, T>,
    g: Source<'j, T>,
    r: usize,
    range: std::ops::Range<usize>,
    tiles: &'j mut Tiles<T>,
    sum: &'j mut Sum,
}

impl<T: Real> Job for Survey<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let Survey {
            f,
            g,
            r,
            range,
            tiles,
            sum,
        } = self;
        let stacked = padded(2 * r);
        tiles.grams.reset(2 * r, 2 * r, stacked);
        for start in range.clone().step_by(gathered(r)) {
            let count = gathered(r).min(range.end - start);
            for (tile, x) in (start..start + count).zip(tiles.x.chunks_exact_mut(stacked)) {
                f.load(simd, tile, &mut tiles.f);
                g.load(simd, tile, &mut tiles.g);
                widen(&mut x[..r], &tiles.f[..r]);
                widen(&mut x[r..], &tiles.g[..r]);
            }
            let x = &tiles.x[..count * stacked];
            gram(simd, &mut tiles.grams, x, x);
        }
        for (at, x) in sum.products.iter_mut().enumerate() {
            *x = tiles.grams.entry(at / (2 * r), at % (2 * r));
        }
    }
}
