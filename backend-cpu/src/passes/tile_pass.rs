//! A loop over the tiles of thin matrices, for every instruction set and on several threads.

use std::ops::Range;

use crate::parallel::{CHUNK, ParallelCtx, Splittable, parallel_for};
use crate::simd::{Isa, Real};
use crate::simd_level::Kernel;
use crate::workspace::ThreadWorkspace;

/// What a pass does with a chunk of tiles. The pass itself is what it reads.
pub(crate) trait TilePass<T: Real>: Sync {
    /// What it writes, cut into chunks of tiles.
    type Parts<'k>: Splittable;

    /// The loop over the tiles of a chunk; `range` has their numbers in the whole matrix. To be
    /// marked `#[inline(always)]`.
    fn run<S: Isa>(
        &self,
        simd: S,
        parts: Self::Parts<'_>,
        range: Range<usize>,
        workspace: &mut ThreadWorkspace<T>,
    );
}

impl<T: Real> ParallelCtx<'_, T> {
    /// Runs a pass over all tiles of matrices of r rows.
    pub(crate) fn run<P: TilePass<T>>(
        &self,
        pass: &P,
        r: usize,
        tiles: usize,
        parts: P::Parts<'_>,
    ) {
        parallel_for(self.parallel, 0, parts, &|chunk, parts| {
            self.level.run(Chunk {
                pass,
                parts,
                range: chunk * CHUNK..tiles.min((chunk + 1) * CHUNK),
                workspace: &mut self.workspaces.thread(r),
            });
        });
    }
}

struct Chunk<'k, 'p, T: Real, P: TilePass<T>> {
    pass: &'k P,
    parts: P::Parts<'p>,
    range: Range<usize>,
    workspace: &'k mut ThreadWorkspace<T>,
}

impl<T: Real, P: TilePass<T>> Kernel for Chunk<'_, '_, T, P> {
    #[inline(always)]
    fn run<S: Isa>(self, simd: S) {
        self.pass.run(simd, self.parts, self.range, self.workspace);
    }
}
