//! Scratch matrices and the one product.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd_scratch};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use super::square::Square;

/// `out = factor * a b`.
pub(crate) fn multiply(out: MatMut<'_, f64>, factor: f64, a: MatRef<'_, f64>, b: MatRef<'_, f64>) {
    matmul(out, Accum::Replace, a, b, factor, Par::Seq);
}

/// `out = sum of factor * matrix`.
pub(crate) fn combine<const N: usize>(
    mut out: MatMut<'_, f64>,
    terms: [(f64, MatRef<'_, f64>); N],
) {
    for j in 0..out.ncols() {
        for i in 0..out.nrows() {
            out[(i, j)] = terms
                .iter()
                .map(|(factor, matrix)| factor * matrix[(i, j)])
                .sum();
        }
    }
}

/// The Frobenius norm.
pub(crate) fn norm(matrix: &Square) -> f64 {
    trace_product(matrix.as_ref(), matrix.as_ref()).sqrt()
}

/// The sum of the diagonal.
pub(crate) fn trace(matrix: &Square) -> f64 {
    (0..matrix.nrows()).map(|i| matrix[(i, i)]).sum()
}

/// `tr(a b')`: the sum of the products of all entries.
pub(crate) fn trace_product(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> f64 {
    let column = |j: usize| {
        (0..a.nrows())
            .map(move |i| a[(i, j)] * b[(i, j)])
            .sum::<f64>()
    };
    (0..a.ncols()).map(column).sum()
}

/// Temporaries of one thread, for ranks up to `rank`.
pub(crate) struct RankScratch {
    rank: usize,
    temporaries: [Square; 3],
    stack: MemBuffer,
}

impl Default for RankScratch {
    fn default() -> Self {
        RankScratch {
            rank: 0,
            temporaries: Default::default(),
            stack: decomposition_memory(1),
        }
    }
}

impl RankScratch {
    /// Room for a rank. Allocates only where there was less before.
    pub(crate) fn reserve(&mut self, rank: usize) {
        if rank > self.rank {
            self.rank = rank;
            self.temporaries
                .iter_mut()
                .for_each(|matrix| matrix.reserve(rank));
            self.stack = decomposition_memory(rank);
        }
    }

    /// For tests: what is read before it is written shows.
    pub(crate) fn poison(&mut self) {
        for matrix in &mut self.temporaries {
            matrix.fill(f64::NAN);
        }
    }

    /// Three r x r temporaries.
    pub(crate) fn matrices(&mut self, r: usize) -> [MatMut<'_, f64>; 3] {
        self.temporaries
            .each_mut()
            .map(|matrix| matrix.as_mut().submatrix_mut(0, 0, r, r))
    }

    /// Memory for an eigen-decomposition.
    pub(crate) fn stack(&mut self) -> &mut MemStack {
        MemStack::new(&mut self.stack)
    }
}

/// Memory that the eigen-decomposition of matrices up to this size needs.
fn decomposition_memory(size: usize) -> MemBuffer {
    let vectors = ComputeEigenvectors::Yes;
    let need = self_adjoint_evd_scratch::<f64>(size, vectors, Par::Seq, Default::default());
    MemBuffer::new(need)
}
