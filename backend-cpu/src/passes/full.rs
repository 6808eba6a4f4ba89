//! The passes of the full mode.
//!
//! ```text
//! form_equivalent:  right = [sU; A] by tiles of columns, left = [B sV] by rows of tiles
//! wide_pass:        E, M, V2, N tile by tile; B'N and (N A')' on the way
//! ```
//!
//! The wide pass goes through the moments once, in the order in which they lie. Groups of rows are
//! its parts: at most 16, a number that depends on m alone, each with its own B'N.

use std::ops::Range;

use super::factored::equivalent_part;
use super::moments::MomentTiles;
use super::thin::ThinInput;
use super::tile_pass::TilePass;
use crate::kernels::{AdamNumbers, LaneSums, TileOperands, wide_tile};
use crate::panel::{HEIGHT, Panel};
use crate::parallel::{ParallelCtx, Slices, Strips, parallel_for, splittable};
use crate::simd::{Isa, Real, Strip, WIDTH};
use crate::simd_level::Kernel;
use crate::typed_state::AdamMoments;
use crate::workspace::{EquivalentCoefficients, ThreadWorkspace, padded};

/// Which of a side's two matrices comes first where they are stacked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stacking {
    /// [sU; A].
    EquivalentFirst,
    /// [B sV]'.
    FactorFirst,
}

/// What forming a side's part of E reads.
pub(crate) struct EquivalentPass<'a, T> {
    pub(crate) f: ThinInput<'a, T>,
    pub(crate) g: ThinInput<'a, T>,
    pub(crate) coefficients: &'a EquivalentCoefficients<T>,
    /// Whether H has a term of F: on side 1.
    pub(crate) has_f_term: bool,
    pub(crate) stacking: Stacking,
}

/// Forms H = Hg G + Hf F and stacks it on F, or F on it.
pub(crate) fn form_equivalent<T: Real>(
    ctx: &ParallelCtx<'_, T>,
    out: &mut Panel<T>,
    pass: &EquivalentPass<'_, T>,
) {
    let [r, len] = pass.f.shape();
    out.reshape(2 * r, len);
    ctx.run(pass, r, len.div_ceil(WIDTH), Strips::of(out));
}

impl<T: Real> TilePass<T> for EquivalentPass<'_, T> {
    type Parts<'k> = Strips<'k, T>;

    #[inline(always)]
    fn run<S: Isa>(
        &self,
        simd: S,
        mut out: Strips<'_, T>,
        range: Range<usize>,
        workspace: &mut ThreadWorkspace<T>,
    ) {
        let r = self.f.shape()[0];
        let ThreadWorkspace { f, g, d: h, .. } = workspace;
        for (local, tile) in range.enumerate() {
            self.f.load(simd, tile, f);
            self.g.load(simd, tile, g);
            let h = &mut h[..padded(r)];
            equivalent_part(
                simd,
                self.coefficients,
                self.has_f_term,
                &g[..r],
                &f[..r],
                h,
            );
            let (first, second) = out.tile(local).split_at_mut(r);
            let (of_h, of_f) = match self.stacking {
                Stacking::EquivalentFirst => (first, second),
                Stacking::FactorFirst => (second, first),
            };
            of_h.copy_from_slice(&h[..r]);
            of_f.copy_from_slice(&f[..r]);
        }
    }
}

/// A panel of `rows` strips as blocks of six columns: what a row of tiles broadcasts.
pub(crate) fn by_rows<T: Real>(panel: &Panel<T>, out: &mut Vec<[T; HEIGHT]>) {
    out.clear();
    for start in (0..panel.len).step_by(HEIGHT) {
        for q in 0..panel.rows {
            let entry = |i: usize| {
                if start + i < panel.len {
                    panel.get(q, start + i)
                } else {
                    T::default()
                }
            };
            out.push(std::array::from_fn(entry));
        }
    }
}

/// The other way round, for a panel of its shape.
pub(crate) fn to_panel<T: Real>(blocks: &[[T; HEIGHT]], out: &mut Panel<T>) {
    out.strips.fill(Strip::all(T::default()));
    let rows = out.rows;
    for (at, block) in blocks.iter().enumerate() {
        let (start, q) = (at / rows * HEIGHT, at % rows);
        for (i, x) in block.iter().enumerate().take(out.len - start) {
            out.set(q, start + i, *x);
        }
    }
}

/// Rows of tiles that make a part of the wide pass over m rows.
pub(crate) fn group(m: usize) -> usize {
    let rows = m.div_ceil(HEIGHT);
    rows.div_ceil(rows.div_ceil(32).clamp(1, 16))
}

/// What the wide pass reads and adds up, besides the moments.
pub(crate) struct WideOperands<'w, T> {
    /// Rows of W.
    pub(crate) m: usize,
    pub(crate) numbers: AdamNumbers<T>,
    /// [B sV], 2r blocks for each row of tiles.
    pub(crate) left: &'w [[T; HEIGHT]],
    /// [sU; A].
    pub(crate) right: &'w Panel<T>,
    /// B'N of each part.
    pub(crate) bt_n: &'w mut [Panel<T>],
    /// (N A')', r blocks for each row of tiles.
    pub(crate) n_at: &'w mut [[T; HEIGHT]],
}

/// The wide pass.
pub(crate) fn wide_pass<T: Real, M: MomentTiles<T>>(
    ctx: &ParallelCtx<'_, T>,
    operands: WideOperands<'_, T>,
    moments: AdamMoments<M>,
) {
    let WideOperands {
        m,
        numbers,
        left,
        right,
        bt_n,
        n_at,
    } = operands;
    let r = right.rows / 2;
    let rows = group(m);
    let parts = WideParts {
        bt_n,
        n_at: Slices::new(n_at, rows * r),
        moments,
    };
    parallel_for(ctx.parallel, 0, parts, &|part, parts| {
        ctx.level.run(WideKernel {
            parts,
            numbers: &numbers,
            left: &left[part * rows * 2 * r..],
            right,
            workspace: &mut ctx.workspaces.thread(r),
        });
    });
}

/// What a part of the wide pass writes.
struct WideParts<'k, T, M> {
    bt_n: &'k mut [Panel<T>],
    n_at: Slices<'k, [T; HEIGHT]>,
    moments: AdamMoments<M>,
}

splittable!([T: Real, M: MomentTiles<T>] WideParts<'_, T, M> { bt_n, n_at, moments });

struct WideKernel<'k, T, M> {
    parts: WideParts<'k, T, M>,
    numbers: &'k AdamNumbers<T>,
    left: &'k [[T; HEIGHT]],
    right: &'k Panel<T>,
    workspace: &'k mut ThreadWorkspace<T>,
}

impl<T: Real, M: MomentTiles<T>> Kernel for WideKernel<'_, T, M> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        let WideKernel {
            parts:
                WideParts {
                    bt_n,
                    n_at,
                    moments,
                },
            numbers,
            left,
            right,
            workspace,
        } = self;
        let AdamMoments {
            mut first,
            mut second,
            mut max_second,
        } = moments;
        let bt_n = &mut bt_n[0];
        let r = right.rows / 2;
        let across = right.len.div_ceil(WIDTH);
        let zero = [Strip::all(T::default()); HEIGHT];
        let (mut buffer1, mut buffer2, mut buffer3) = (zero, zero, zero);
        let lane_sums = &mut workspace.n_at[..r];
        bt_n.strips.fill(Strip::all(T::default()));
        n_at.items.fill([T::default(); HEIGHT]);
        let columns = block_of_columns(r);
        for start in (0..across).step_by(columns) {
            for (row, n_at) in n_at.items.chunks_mut(r).enumerate() {
                let left = &left[row * 2 * r..][..2 * r];
                lane_sums.fill([LaneSums([T::default(); 16]); HEIGHT]);
                for column in start..across.min(start + columns) {
                    let tile = row * across + column;
                    let operands = TileOperands {
                        left,
                        right: right.tile(column),
                        bt_n: &mut bt_n.strips[column * r..][..r],
                        n_at: lane_sums,
                    };
                    let one = first.open(tile, &mut buffer1);
                    let two = second.open(tile, &mut buffer2);
                    match &mut max_second {
                        None => wide_tile(simd, numbers, operands, one, two, None),
                        Some(max_second) => {
                            let three = max_second.open(tile, &mut buffer3);
                            wide_tile(simd, numbers, operands, one, two, Some(three));
                            max_second.close(tile, &buffer3);
                        }
                    }
                    first.close(tile, &buffer1);
                    second.close(tile, &buffer2);
                }
                for (n_at, lane_sums) in n_at.iter_mut().zip(lane_sums.iter()) {
                    for (x, lanes) in n_at.iter_mut().zip(lane_sums) {
                        let sum = T::sum(simd, T::vectors::<S>(&lanes.0)[0]);
                        *x = T::of(x.wide() + sum.wide());
                    }
                }
            }
        }
    }
}

/// Tiles of columns that are done for all rows of a part before the next ones: their share of
/// `right` and of B'N, 768 r bytes a tile in f32, is to stay in a core's cache.
fn block_of_columns(r: usize) -> usize {
    (512 / r).clamp(4, 64)
}

/// Adds the parts' B'N up, in f64 and in their order.
pub(crate) fn gather<T: Real>(parts: &[Panel<T>], out: &mut Panel<T>) {
    for (at, out) in out.strips.iter_mut().enumerate() {
        let mut sums = [0.0f64; WIDTH];
        for part in parts {
            for (sum, x) in sums.iter_mut().zip(part.strips[at].iter()) {
                *sum += x.wide();
            }
        }
        *out = Strip(sums.map(T::of));
    }
}
