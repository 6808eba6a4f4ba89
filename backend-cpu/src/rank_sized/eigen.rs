//! Symmetric eigen-decomposition that always gives an answer.

use faer::dyn_stack::MemStack;
use faer::linalg::evd::self_adjoint_evd;
use faer::{Mat, MatRef, Par};
use lora_pro_core::backend::NULL_EIGENVALUE;

use super::square::Square;

/// `S = Q diag(values) Q'`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Eigen {
    /// The eigenvalues, in no particular order.
    pub(crate) values: Vec<f64>,
    /// Q, one eigenvector per column.
    pub(crate) vectors: Square,
}

impl Eigen {
    pub(crate) fn reserve(&mut self, r: usize) {
        self.values.resize(r, 0.0);
        self.vectors.reserve(r);
    }

    /// The largest eigenvalue, 0 where none is positive.
    pub(crate) fn largest(&self) -> f64 {
        self.values.iter().copied().fold(0.0, f64::max)
    }

    /// What an eigenvalue must be above, as a share of the largest, to have two digits after the rounding
    /// of entries that are sums of `len` products ([`NULL_EIGENVALUE`]).
    pub(crate) fn null_share(len: usize) -> f64 {
        NULL_EIGENVALUE * len as f64 * f64::EPSILON
    }

    /// Decomposes a symmetric matrix of finite entries.
    ///
    /// A step must not fail after it has begun to write, so where faer's QR iteration gives up,
    /// which has not been observed, Jacobi's method takes over: slow, and sure to converge.
    pub(crate) fn decompose(&mut self, stack: &mut MemStack, s: MatRef<'_, f64>) {
        let Eigen { values, vectors } = self;
        let solved = {
            let diagonal = faer::ColMut::from_slice_mut(values).as_diagonal_mut();
            self_adjoint_evd(
                s,
                diagonal,
                Some(vectors.as_mut()),
                Par::Seq,
                stack,
                Default::default(),
            )
        };
        if solved.is_err() {
            jacobi(values, vectors, s);
        }
    }
}

/// Cyclic Jacobi: rotations that set one off-diagonal pair to zero after another.
fn jacobi(values: &mut [f64], vectors: &mut Mat<f64>, s: MatRef<'_, f64>) {
    let r = s.nrows();
    let mut a = s.to_owned();
    vectors.copy_from(Mat::<f64>::identity(r, r));
    // Convergence is quadratic; ten sweeps suffice for any size in use.
    for _ in 0..30 {
        for p in 0..r {
            for q in p + 1..r {
                rotate(&mut a, vectors, p, q);
            }
        }
    }
    for (i, value) in values.iter_mut().enumerate() {
        *value = a[(i, i)];
    }
}

/// The rotation in the plane of p and q that zeroes a_pq.
fn rotate(a: &mut Mat<f64>, vectors: &mut Mat<f64>, p: usize, q: usize) {
    if a[(p, q)] == 0.0 {
        return;
    }
    let theta = (a[(q, q)] - a[(p, p)]) / (2.0 * a[(p, q)]);
    let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let c = 1.0 / t.hypot(1.0);
    let s = t * c;
    let turn = |x: &mut f64, y: &mut f64| (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
    for k in 0..a.nrows() {
        let (mut x, mut y) = (a[(k, p)], a[(k, q)]);
        turn(&mut x, &mut y);
        (a[(k, p)], a[(k, q)]) = (x, y);
        let (mut x, mut y) = (vectors[(k, p)], vectors[(k, q)]);
        turn(&mut x, &mut y);
        (vectors[(k, p)], vectors[(k, q)]) = (x, y);
    }
    for k in 0..a.nrows() {
        let (mut x, mut y) = (a[(p, k)], a[(q, k)]);
        turn(&mut x, &mut y);
        (a[(p, k)], a[(q, k)]) = (x, y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rank_sized::scratch::RankScratch;

    /// `Q diag(values) Q' - S`, relative to S, and `Q'Q - I`.
    fn residuals(eigen: &Eigen, s: &Mat<f64>) -> [f64; 2] {
        let q = &*eigen.vectors;
        let d = Mat::from_fn(q.nrows(), q.ncols(), |i, j| q[(i, j)] * eigen.values[j]);
        let back = (&d * q.transpose() - s).norm_l2() / s.norm_l2();
        let identity = Mat::<f64>::identity(q.ncols(), q.ncols());
        [back, (q.transpose() * q - identity).norm_l2()]
    }

    #[test]
    fn both_methods_decompose() {
        for r in [1, 2, 5, 8, 33] {
            let x = Mat::from_fn(r + 2, r, |i, j| {
                ((i * 7 + j * 3) as f64).sin() * 10f64.powi(-(j as i32 % 6))
            });
            let s = x.transpose() * &x;
            let mut eigen = Eigen::default();
            eigen.reserve(r);
            let mut scratch = RankScratch::default();
            scratch.reserve(r);
            eigen.decompose(scratch.stack(), s.as_ref());
            let [back, orthogonal] = residuals(&eigen, &s);
            assert!(
                back < 1e-14 && orthogonal < 1e-13,
                "faer, r = {r}: {back} {orthogonal}"
            );
            jacobi(&mut eigen.values, &mut eigen.vectors, s.as_ref());
            let [back, orthogonal] = residuals(&eigen, &s);
            assert!(
                back < 1e-14 && orthogonal < 1e-13,
                "Jacobi, r = {r}: {back} {orthogonal}"
            );
        }
    }
}
