//! The damped inverse of a Gram matrix, in the one place where anything is added to it or cut.

use lora_pro_core::Damping;

use super::eigen::Eigen;
use super::square::Square;

/// `S^+ = R R'`, kept as its root R = Q diag(sqrt(f)).
///
/// Everything r x r is multiplied by R' first and by R last: products with S^+ itself would lose
/// the square of the condition number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inverse {
    /// R.
    pub(crate) root: Square,
}

impl Inverse {
    pub(crate) fn reserve(&mut self, r: usize) {
        self.root.reserve(r);
    }

    /// Of a decomposed Gram matrix whose entries are sums of `k` products.
    ///
    /// An eigenvalue with less than two digits after the rounding of k products counts as zero
    /// where there is no damping.
    pub(crate) fn of(&mut self, eigen: &Eigen, damping: Damping, k: usize) {
        let largest = eigen.values.iter().copied().fold(0.0, f64::max);
        let cut = |share: f64, l: f64| if l <= share * largest { 0.0 } else { 1.0 / l };
        let shift = |d: f64, l: f64| if l + d <= 0.0 { 0.0 } else { 1.0 / (l + d) };
        let f = |l: f64| match damping {
            Damping::None => cut(100.0 * k as f64 * f64::EPSILON, l),
            Damping::Absolute(d) => shift(d, l),
            Damping::Relative(c) => shift(c * largest, l),
            Damping::Cutoff(c) => cut(c, l),
        };
        for (j, value) in eigen.values.iter().enumerate() {
            let scale = f(*value).sqrt();
            for i in 0..self.root.nrows() {
                self.root[(i, j)] = eigen.vectors[(i, j)] * scale;
            }
        }
    }
}
