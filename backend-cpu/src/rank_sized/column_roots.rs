//! The squares of E's columns as sums of squares.

use super::eigen::Eigen;
use super::equivalent::EquivalentProducts;
use super::scratch::{RankScratch, multiply};
use super::square::Square;

/// A triangular root of the Gram matrix of [F' C'], the factor of one side and its part H = R C of E:
///
/// ```text
/// [F F'  F C']   [Rs  Rm]'[Rs  Rm]     Rs = sqrt(L) Q' for F F' = Q L Q', Rm = Rs^+' F C',
/// [C F'  C C'] = [0   Rk] [0   Rk]     Rk'Rk = C C' - Rm'Rm
/// ```
///
/// A column of E is F'h + C'R'f, with h and f of the other side, and its square |Rs h + Rm R'f|^2 +
/// |Rk R'f|^2. The same as a quadratic form in h and f loses all digits, and its sign, where a factor is
/// ill-conditioned: h is as large as 1 over F's smallest singular value, and F'h is not.
#[derive(Clone, Debug, Default)]
pub(crate) struct ColumnRoots {
    /// Rs.
    pub(crate) s: Square,
    /// Rm.
    pub(crate) m: Square,
    /// Rk. Its squares are added in the first `positive` rows and subtracted in the others: in these,
    /// rounding in Rm has made C C' - Rm'Rm negative.
    pub(crate) k: Square,
    pub(crate) positive: usize,
    eigen: Eigen,
}

impl ColumnRoots {
    fn reserve(&mut self, r: usize) {
        self.all().for_each(|matrix| matrix.reserve(r));
        self.eigen.reserve(r);
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Square> {
        [&mut self.s, &mut self.m, &mut self.k].into_iter()
    }

    /// For tests: what is read before it is written shows.
    pub(crate) fn poison(&mut self) {
        self.all().for_each(|matrix| matrix.fill(f64::NAN));
    }

    /// From F F' = Q L Q', whose entries are sums of `len` products, and the products with C.
    pub(crate) fn compute(
        &mut self,
        scratch: &mut RankScratch,
        ff: &Eigen,
        len: usize,
        products: &EquivalentProducts,
    ) {
        let r = ff.values.len();
        self.reserve(r);
        root(
            &mut self.s,
            ff,
            ff.values.iter().map(|l| l.max(0.0)).enumerate(),
        );

        let null = Eigen::null_share(len) * ff.largest();
        let q = ff.vectors.as_ref();
        multiply(self.m.as_mut(), 1.0, q.transpose(), products.fc.as_ref());
        for (i, value) in ff.values.iter().enumerate() {
            let scale = if *value > null {
                value.sqrt().recip()
            } else {
                0.0
            };
            for j in 0..r {
                self.m[(i, j)] *= scale;
            }
        }

        let Self { m, k, eigen, .. } = self;
        multiply(k.as_mut(), -1.0, m.transpose(), m.as_ref());
        **k += products.cc.as_ref();
        eigen.decompose(scratch.stack(), k.as_ref());
        let values = eigen.values.iter().copied().enumerate();
        let (plus, minus) = (values.clone(), values);
        let plus = plus.filter(|(_, l)| *l >= 0.0);
        self.positive = plus.clone().count();
        root(k, eigen, plus.chain(minus.filter(|(_, l)| *l < 0.0)));
    }
}

/// Rows `sqrt(|l|) q'` for eigenvalues l and the numbers of their eigenvectors q.
fn root(out: &mut Square, eigen: &Eigen, values: impl Iterator<Item = (usize, f64)>) {
    for (i, (q, value)) in values.enumerate() {
        let scale = value.abs().sqrt();
        for j in 0..eigen.values.len() {
            out[(i, j)] = scale * eigen.vectors[(j, q)];
        }
    }
}
