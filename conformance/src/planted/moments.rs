//! The moments of all methods, as in the reference's `adamw`, `efficient`, `full` and `factored`,
//! each equation looked up in the table.

use lora_pro_core::Hyper;
use lora_pro_reference::closed_form::Split;
use lora_pro_reference::factored::first_moment;
use lora_pro_reference::factors::{FactorPair, Factors};
use lora_pro_reference::state::{FactorMoments, FactoredMoments, Means, Moments};
use nalgebra::{DMatrix, RowDVector};

use super::adapter::Setting;
use super::equations::{Equations, Matrix};

impl Equations {
    /// Adam on both matrices of a pair; what is averaged and what is squared may differ.
    pub(super) fn adam_on_factors(
        &self,
        hyper: &Hyper,
        old: &FactorMoments,
        [averaged, squared]: [&FactorPair; 2],
        t: u64,
    ) -> (FactorMoments, FactorPair) {
        let (a, direction_a) = self.adam(hyper, &old.a, [&averaged.a, &squared.a], t);
        let (b, direction_b) = self.adam(hyper, &old.b, [&averaged.b, &squared.b], t);
        let direction = FactorPair {
            a: direction_a,
            b: direction_b,
        };
        (FactorMoments { a, b }, direction)
    }

    /// Adam on a matrix: the new moments and N.
    pub(super) fn adam(
        &self,
        hyper: &Hyper,
        old: &Moments,
        [averaged, squared]: [&Matrix; 2],
        t: u64,
    ) -> (Moments, Matrix) {
        let (c1, c2) = self.corrections(hyper, t);
        let first = (self.first_mean)(hyper.beta1, &old.first, averaged);
        let second = (self.second_mean)(hyper.beta2, &old.second, &(self.square)(squared));
        let largest = old.largest.as_ref();
        let largest = largest.map(|largest| (self.largest)(largest, &second, c2));
        let root = (self.second)(largest.as_ref(), &second).map(|v| (self.root)(v, c2, hyper.eps));
        let n = ((self.numerator)(&old.first, &first) / c1).component_div(&root);
        let new = Moments {
            first,
            second,
            largest,
        };
        (new, n)
    }

    /// The factored mode's moments after step t.
    pub(super) fn factored_moments(
        &self,
        &Setting { hyper, t, .. }: &Setting<'_>,
        factors: &Factors,
        old: &FactoredMoments,
        split: &Split,
        e: &Matrix,
    ) -> FactoredMoments {
        let (_, c2) = self.corrections(hyper, t);
        let tangent = (self.tangent)(factors.s, split);
        let parts = [&factors.b * &split.u, &split.v * &factors.a].map(|part| part * factors.s);
        let new = (self.mean_squares)(e, parts.each_ref());
        let means = both(&old.means, &new, |old, new| {
            (self.second_mean)(hyper.beta2, old, new)
        });
        let largest = old.largest.as_ref();
        let largest = largest.map(|largest| {
            both(largest, &means, |largest, now| {
                (self.largest)(largest, now, c2)
            })
        });
        FactoredMoments {
            y: (self.first_mean)(hyper.beta1, &old.y, &tangent.u),
            z: (self.first_mean)(hyper.beta1, &old.z, &tangent.v),
            means,
            largest,
        }
    }

    /// The factored mode's N.
    pub(super) fn factored_n(
        &self,
        hyper: &Hyper,
        factors: &Factors,
        [old, new]: [&FactoredMoments; 2],
        t: u64,
    ) -> Matrix {
        let (c1, c2) = self.corrections(hyper, t);
        let largest = new.largest.as_ref().map(matrices);
        let second = |k: usize| {
            let largest = largest.as_ref().map(|largest| &largest[k]);
            (self.second)(largest, &matrices(&new.means)[k])
        };
        let (row, col) = (second(0), second(1));
        let mean = (self.overall)(row.mean(), c2);
        let a = row.map(|v| 1.0 / (self.root)(v, c2, hyper.eps));
        let b = col.map(|v| mean / (self.column_root)(v, c2, hyper.eps));
        let used = FactoredMoments {
            y: (self.numerator)(&old.y, &new.y),
            z: (self.numerator)(&old.z, &new.z),
            ..new.clone()
        };
        let m = first_moment(factors, &used);
        DMatrix::from_fn(m.nrows(), m.ncols(), |i, j| a[i] * (m[(i, j)] / c1) * b[j])
    }

    fn corrections(&self, hyper: &Hyper, t: u64) -> (f64, f64) {
        let c1 = (self.first_correction)(hyper.beta1, t);
        (c1, (self.second_correction)(hyper.beta2, t))
    }
}

/// The row means, m x 1, and the column means, 1 x n.
fn matrices(means: &Means) -> [Matrix; 2] {
    let (row, col) = (&means.row, &means.col);
    [
        DMatrix::from_column_slice(row.len(), 1, row.as_slice()),
        DMatrix::from_row_slice(1, col.len(), col.as_slice()),
    ]
}

/// Means made of two others.
fn both(old: &Means, new: &Means, of: impl Fn(&Matrix, &Matrix) -> Matrix) -> Means {
    let (old, new) = (matrices(old), matrices(new));
    let [row, col] = [0, 1].map(|k| of(&old[k], &new[k]));
    Means {
        row: row.column(0).into_owned(),
        col: RowDVector::from_row_slice(col.as_slice()),
    }
}
