//! ErrorBound of U, V, X and (dA, dB).

use lora_pro_core::{Damping, Error, Hyper, XChoice};
use lora_pro_reference::closed_form::{Split, adjusted, split};
use lora_pro_reference::damping::Grams;
use lora_pro_reference::eigen::symmetric_eigen;
use lora_pro_reference::factors::{FactorPair, Factors};
use lora_pro_reference::x;
use nalgebra::{DMatrix, DVector};

use super::norms::{columns, outer, rows};

/// Unit round-off of everything r x r.
pub(super) const W: f64 = f64::EPSILON / 2.0;

/// An adapter, its inverses and the norms that noise is multiplied by.
pub(super) struct ConditionedAdapter<'f> {
    pub(super) factors: &'f Factors,
    pub(super) grams: Grams,
    /// Unit round-off of thin matrices.
    pub(super) u: f64,
    /// |SB^+| and |SA^+|.
    pub(super) p: f64,
    pub(super) q: f64,
    /// w |SB^+| |SB| and w |SA^+| |SA|.
    pub(super) wp: f64,
    pub(super) wq: f64,
    /// |A| and |B|, of all and of each column of A and row of B.
    pub(super) a: f64,
    pub(super) b: f64,
    pub(super) a_columns: DVector<f64>,
    pub(super) b_rows: DVector<f64>,
}

/// ErrorBound on each column of a matrix of A's shape and each row of one of B's.
#[derive(Clone)]
pub(super) struct PerColumn {
    pub(super) a: DVector<f64>,
    pub(super) b: DVector<f64>,
}

/// The closed form of some gradients, with its noise.
pub(super) struct Solved {
    pub(super) split: Split,
    pub(super) adjusted: FactorPair,
    /// Of U and V.
    pub(super) split_noise: PerColumn,
    /// Of dA and dB.
    pub(super) noise: PerColumn,
}

impl<'f> ConditionedAdapter<'f> {
    pub(super) fn of(factors: &'f Factors, damping: Damping, u: f64) -> Result<Self, Error> {
        let grams = Grams::of(factors, damping)?;
        // R's columns are eigenvectors times the roots of the inverted eigenvalues.
        let largest = |root: &DMatrix<f64>| columns(root).amax().powi(2);
        let (p, q) = (
            largest(&grams.sb_inverse.root),
            largest(&grams.sa_inverse.root),
        );
        Ok(ConditionedAdapter {
            u,
            p,
            q,
            wp: W * p * grams.sb.norm(),
            wq: W * q * grams.sa.norm(),
            a: factors.a.norm(),
            b: factors.b.norm(),
            a_columns: columns(&factors.a),
            b_rows: rows(&factors.b),
            factors,
            grams,
        })
    }

    /// Whether rounding may decide if an eigenvalue is cut off: one that is nearer to the cut than
    /// its own rounding, with a factor to spare, and than what noise of these lengths in A and B makes
    /// of it. (In f32, a backend's noise in a factor that lacks a rank can be above a cut that is meant
    /// for sums in f64.)
    pub(super) fn at_the_cut(&self, damping: Damping, noise: [f64; 2]) -> Result<bool, Error> {
        let near = |s: &DMatrix<f64>, k: usize, noise: f64| {
            let rounding = 4.0 * k as f64 * f64::EPSILON;
            let (cut, margin) = match damping {
                Damping::None => (25.0 * rounding, rounding),
                Damping::Cutoff(c) => (c, rounding),
                Damping::Absolute(_) | Damping::Relative(_) => return Ok(false),
            };
            let values = symmetric_eigen(s)?.values;
            let largest = values.max();
            Ok::<_, Error>(values.iter().any(|l| {
                let moved = noise * (2.0 * l.max(0.0).sqrt() + noise);
                (l - cut * largest).abs() < margin * largest + moved
            }))
        };
        Ok(near(&self.grams.sb, self.factors.b.nrows(), noise[1])?
            || near(&self.grams.sa, self.factors.a.ncols(), noise[0])?)
    }

    /// ErrorBound of gradients that come as they are: their rounding.
    pub(super) fn rounding_of(&self, gradients: &FactorPair) -> PerColumn {
        PerColumn {
            a: columns(&gradients.a) * self.u,
            b: rows(&gradients.b) * self.u,
        }
    }

    /// The closed form of `gradients`, which have the noise `direct`; besides, where they are
    /// `s B'N` and `s N A'`, the noise of N's entries.
    pub(super) fn solve(
        &self,
        hyper: &Hyper,
        gradients: &FactorPair,
        direct: &PerColumn,
        of_n: Option<&DMatrix<f64>>,
    ) -> Result<Solved, Error> {
        let ConditionedAdapter { factors, grams, .. } = self;
        let split = split(factors, grams, gradients);
        let x = x::choose(hyper.x, factors, grams, gradients, &split)?;
        let split_noise = self.of_split(gradients, &split, direct, of_n);
        let [x_a, b_x] = match hyper.x {
            XChoice::Zero => [0.0; 2].map(|zero| (zero, zero)),
            XChoice::Sylvester => self.of_sylvester(&split_noise)?,
            XChoice::Symmetric => self.of_symmetric(gradients, direct, of_n),
        };
        // X's own rounding: of the numbers that are applied, and of the inverses it comes from.
        let own = (self.u + self.wp + self.wq) * x.norm();
        let near =
            |(whole, per_norm): (f64, f64), norm: f64| whole.min(per_norm * norm) + own * norm;
        let noise = PerColumn {
            a: &split_noise.a + self.a_columns.map(|norm| near(x_a, norm)),
            b: &split_noise.b + self.b_rows.map(|norm| near(b_x, norm)),
        };
        let noise = match hyper.x {
            XChoice::Sylvester => self.with_solver(noise, gradients, &split, &x)?,
            _ => noise,
        };
        Ok(Solved {
            adjusted: adjusted(factors, &split, &x),
            split,
            split_noise,
            noise,
        })
    }

    fn of_split(
        &self,
        gradients: &FactorPair,
        split: &Split,
        direct: &PerColumn,
        of_n: Option<&DMatrix<f64>>,
    ) -> PerColumn {
        let ConditionedAdapter {
            p, q, wp, wq, u, ..
        } = *self;
        let s = self.factors.s;
        let b = &self.factors.b;
        let unprojected = self.grams.sa_inverse.apply_right(&gradients.b) / (s * s);
        let coefficient = self
            .grams
            .sb_inverse
            .apply(&(b.transpose() * &unprojected))
            .norm();
        let through = p.sqrt() * direct.b.norm() * q / (s * s);
        let mut a = &direct.a * (p / (s * s)) + columns(&split.u) * wp;
        let mut rows_b = &direct.b * (q / (s * s))
            + rows(&unprojected) * (wp + wq)
            + &self.b_rows * ((u + wp + wq) * coefficient + through);
        if let Some(of_n) = of_n {
            a += columns(of_n) * (p.sqrt() / s);
            rows_b += rows(of_n) * (q.sqrt() / s);
            rows_b += &self.b_rows * ((p * q).sqrt() * of_n.norm() / s);
        }
        PerColumn { a, b: rows_b }
    }

    /// ErrorBound of X A and B X: in all, and per norm of a column of A or row of B.
    fn of_sylvester(&self, split_noise: &PerColumn) -> Result<[(f64, f64); 2], Error> {
        let d = split_noise.a.norm();
        let steepest = self
            .sums()?
            .into_iter()
            .map(|(a, sum)| a.sqrt() / sum)
            .fold(0.0, f64::max);
        Ok([(d, d * steepest), (d / 2.0, d * steepest)])
    }

    /// Rounding of r x r matrices in the Sylvester equation, which the smallest sum magnifies.
    fn with_solver(
        &self,
        noise: PerColumn,
        gradients: &FactorPair,
        split: &Split,
        x: &DMatrix<f64>,
    ) -> Result<PerColumn, Error> {
        let smallest = self
            .sums()?
            .into_iter()
            .map(|(_, sum)| sum)
            .fold(f64::INFINITY, f64::min);
        let s = self.factors.s;
        let right = (self.p * gradients.a.norm() / (s * s) + split.u.norm()) * self.a;
        let left = (self.grams.sb.norm() + self.grams.sa.norm()) * x.norm();
        let of_x = W * (left + right) / smallest;
        Ok(PerColumn {
            a: noise.a + &self.a_columns * of_x,
            b: noise.b + &self.b_rows * of_x,
        })
    }

    /// a_j and b_i + a_j, where either is more than rounding: the others belong to a null space.
    fn sums(&self) -> Result<Vec<(f64, f64)>, Error> {
        let b = symmetric_eigen(&self.grams.sb)?.values;
        let a = symmetric_eigen(&self.grams.sa)?.values;
        let null = 100.0 * f64::EPSILON;
        let (null_b, null_a) = (null * b.max(), null * a.max());
        let rounding = b.len() as f64 * f64::EPSILON * (b.max() + a.max());
        let adapters = b.iter().flat_map(|b| a.iter().map(move |a| (*b, *a)));
        Ok(adapters
            .filter(|(b, a)| *b > null_b || *a > null_a)
            .map(|(b, a)| (a.max(0.0), (a.max(0.0) + b.max(0.0)).max(rounding)))
            .collect())
    }

    /// As [`ConditionedAdapter::of_sylvester`], for `X = -(1 / 2 s^2) SB^+ B' gB SA^+`.
    fn of_symmetric(
        &self,
        gradients: &FactorPair,
        direct: &PerColumn,
        of_n: Option<&DMatrix<f64>>,
    ) -> [(f64, f64); 2] {
        let ConditionedAdapter { p, q, b, .. } = *self;
        let s = self.factors.s;
        let (root_p, root_q) = (p.sqrt(), q.sqrt());
        let d = direct.b.norm() / (2.0 * s * s);
        let inner = W * p * q * b * gradients.b.norm() / (2.0 * s * s);
        let n = of_n.map_or(0.0, |of_n| of_n.norm()) / (2.0 * s);
        let per_norm = root_p * q * d + inner + root_p * root_q * n;
        [
            (root_p * root_q * d + inner * self.a + root_p * n, per_norm),
            (q * d + inner * b + root_q * n, per_norm),
        ]
    }

    /// E, and the noise of its entries.
    pub(super) fn equivalent(&self, solved: &Solved) -> (DMatrix<f64>, DMatrix<f64>) {
        let Solved {
            split, split_noise, ..
        } = solved;
        let y = &split_noise.a + columns(&split.u) * self.u;
        let z = &split_noise.b + rows(&split.v) * self.u;
        let noise = outer(&self.b_rows, &y, &z, &self.a_columns) * self.factors.s;
        (split.equivalent_gradient(self.factors), noise)
    }
}
