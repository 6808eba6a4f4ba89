//! The damped inverses of the Gram matrices: the one place where anything is added to them or cut.

use faer::{MatMut, MatRef};
use lora_pro_core::Damping;

use super::eigen::Eigen;
use super::scratch::{RankScratch, multiply};
use super::square::Square;

/// `S = Q diag(values) Q'` and `S^+ = R R'` with the root `R = Q diag(sqrt(f(values)))`.
///
/// Everything r x r is multiplied by R' first and by R last: products with S^+ itself would lose
/// the square of the condition number.
#[derive(Clone, Debug, Default)]
pub(crate) struct GramInverse {
    pub(crate) eigen: Eigen,
    /// R.
    pub(crate) root: Square,
    /// S^+, for thin passes.
    pub(crate) inverse: Square,
}

impl GramInverse {
    pub(crate) fn reserve(&mut self, r: usize) {
        self.eigen.reserve(r);
        self.root.reserve(r);
        self.inverse.reserve(r);
    }

    /// For tests: what is read before it is written shows.
    pub(crate) fn poison(&mut self) {
        self.eigen.values.fill(f64::NAN);
        let all = [&mut self.eigen.vectors, &mut self.root, &mut self.inverse];
        all.into_iter().for_each(|matrix| matrix.fill(f64::NAN));
    }

    /// Decomposes and inverts a Gram matrix whose entries are sums of `len` products.
    pub(crate) fn compute(
        &mut self,
        scratch: &mut RankScratch,
        gram: MatRef<'_, f64>,
        len: usize,
        damping: Damping,
    ) {
        self.reserve(gram.nrows());
        self.eigen.decompose(scratch.stack(), gram);
        let inverted = inverted_eigenvalue(&self.eigen, damping, len);
        for (j, value) in self.eigen.values.iter().enumerate() {
            let scale = inverted(*value).sqrt();
            for i in 0..self.root.nrows() {
                self.root[(i, j)] = self.eigen.vectors[(i, j)] * scale;
            }
        }
        let root = self.root.as_ref();
        multiply(self.inverse.as_mut(), 1.0, root, root.transpose());
    }

    /// `out = factor * S^+ y`.
    pub(crate) fn apply(
        &self,
        scratch: &mut RankScratch,
        out: MatMut<'_, f64>,
        factor: f64,
        y: MatRef<'_, f64>,
    ) {
        let root = self.root.as_ref();
        let [_, _, mut inner] = scratch.matrices(y.nrows());
        multiply(inner.as_mut(), 1.0, root.transpose(), y);
        multiply(out, factor, root, inner.as_ref());
    }
}

/// What an eigenvalue of a sum of `len` products becomes in the damped inverse.
///
/// Without damping, one with less than two digits after the rounding of the sum counts as zero
/// ([`Eigen::null_share`]).
fn inverted_eigenvalue(eigen: &Eigen, damping: Damping, len: usize) -> impl Fn(f64) -> f64 {
    let largest = eigen.largest();
    let cut = move |share: f64, l: f64| if l <= share * largest { 0.0 } else { 1.0 / l };
    let shift = |d: f64, l: f64| if l + d <= 0.0 { 0.0 } else { 1.0 / (l + d) };
    move |l| match damping {
        Damping::None => cut(Eigen::null_share(len), l),
        Damping::Absolute(d) => shift(d, l),
        Damping::Relative(c) => shift(c * largest, l),
        Damping::Cutoff(c) => cut(c, l),
    }
}
