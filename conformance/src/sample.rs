//! Adapters with prescribed spectra. A case is a few numbers, never raw matrices, so that a
//! failure shrinks to something that a person can read.

use lora_pro_core::DType;
use lora_pro_reference::factors::{Factors, Pair, factor_gradients};
use nalgebra::DMatrix;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The numbers that fix an adapter and its gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CaseSpec {
    /// Rows of W.
    pub m: usize,
    /// Columns of W.
    pub n: usize,
    /// Columns of B, rows of A.
    pub r: usize,
    /// Rank of A, at most r; 0 makes A zero.
    pub rank_a: usize,
    /// Rank of B, at most r; 0 makes B zero, as adapters start.
    pub rank_b: usize,
    /// Largest over smallest non-zero singular value of A.
    pub kappa_a: f64,
    /// The same of B.
    pub kappa_b: f64,
    /// Largest singular value of A.
    pub size_a: f64,
    /// Largest singular value of B.
    pub size_b: f64,
    /// Size of the entries of the full gradient.
    pub size_g: f64,
    /// The scale s.
    pub s: f64,
    /// Storage type: factors and their gradients are exactly representable in it.
    pub dtype: DType,
    /// Seed of everything random.
    pub seed: u64,
}

impl CaseSpec {
    /// A learning rate at which a step is smaller than B. The jump of one that is larger magnifies
    /// rounding, and again in each step that follows.
    pub fn gentle_lr(&self) -> f64 {
        if self.rank_b > 0 {
            0.1 * self.size_b
        } else {
            1e-3
        }
    }

    /// The random numbers of this case; `stream` tells its uses apart.
    pub fn random(&self, stream: u64) -> ChaCha8Rng {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(stream);
        random
    }

    /// The factors: `Q S V'` with a geometric spectrum and random Q, V on both sides. A
    /// column-graded B would hide errors that depend on the condition number.
    pub fn factors(&self) -> Factors {
        let mut random = self.random(0);
        let b = self.tall(&mut random, self.m, self.rank_b, self.kappa_b, self.size_b);
        let a = self.tall(&mut random, self.n, self.rank_a, self.kappa_a, self.size_a);
        Factors {
            b,
            a: a.transpose(),
            s: self.s,
        }
    }

    /// rows x r, rounded to the storage type.
    ///
    /// A product of short rank has full rank once its entries are rounded. In f64 what rounding
    /// adds is below every cut of a Gram matrix, in a shorter type it is not: there columns are
    /// repeated up to their sign, so that the rank is exact (and kappa larger by up to 2^(1/2)).
    fn tall(
        &self,
        random: &mut ChaCha8Rng,
        rows: usize,
        rank: usize,
        kappa: f64,
        size: f64,
    ) -> DMatrix<f64> {
        if self.dtype == DType::F64 || rank == 0 {
            return prescribed(random, rows, self.r, rank, kappa, size);
        }
        let basis = rounded(
            self.dtype,
            &prescribed(random, rows, rank, rank, kappa, size),
        );
        let signs = uniform(random, self.r, 1).map(f64::signum);
        let columns: Vec<_> = (0..self.r)
            .map(|k| basis.column(k % rank) * signs[k])
            .collect();
        DMatrix::from_columns(&columns)
    }

    /// The full gradient of step t, m x n.
    pub fn full_gradient(&self, t: u64) -> DMatrix<f64> {
        uniform(&mut self.random(1 + t), self.m, self.n) * self.size_g
    }

    /// The gradients of given factors in step t.
    pub fn gradients(&self, factors: &Factors, t: u64) -> Pair {
        rounded_pair(
            self.dtype,
            &factor_gradients(factors, &self.full_gradient(t)),
        )
    }
}

/// Every entry rounded to a storage type.
pub fn rounded(dtype: DType, values: &DMatrix<f64>) -> DMatrix<f64> {
    values.map(|x| dtype.round(x))
}

/// [`rounded`] for both matrices of a pair.
pub fn rounded_pair(dtype: DType, pair: &Pair) -> Pair {
    Pair {
        a: rounded(dtype, &pair.a),
        b: rounded(dtype, &pair.b),
    }
}

/// Entries between -1 and 1.
pub fn uniform(random: &mut ChaCha8Rng, rows: usize, cols: usize) -> DMatrix<f64> {
    DMatrix::from_fn(rows, cols, |_, _| random.random_range(-1.0..1.0))
}

/// A random matrix with orthonormal columns.
pub fn orthonormal(random: &mut ChaCha8Rng, rows: usize, cols: usize) -> DMatrix<f64> {
    uniform(random, rows, cols).qr().q()
}

/// Q S V' of the given rank, its singular values `size` to `size / kappa` in geometric steps.
fn prescribed(
    random: &mut ChaCha8Rng,
    rows: usize,
    cols: usize,
    rank: usize,
    kappa: f64,
    size: f64,
) -> DMatrix<f64> {
    if rank == 0 {
        return DMatrix::zeros(rows, cols);
    }
    let step = if rank > 1 {
        kappa.powf(-1.0 / (rank - 1) as f64)
    } else {
        1.0
    };
    let values = (0..rank).map(|i| size * step.powi(i as i32));
    let s = DMatrix::from_diagonal(&nalgebra::DVector::from_iterator(rank, values));
    orthonormal(random, rows, rank) * s * orthonormal(random, cols, rank).transpose()
}

/// Cases of full rank: shapes from 1 x 1, r up to min(m, n), condition numbers up to `10^decades`.
pub fn full_rank(decades: f64) -> impl Strategy<Value = CaseSpec> {
    (1usize..=20, 1usize..=20)
        .prop_flat_map(|(m, n)| (Just(m), Just(n), 1..=m.min(n)))
        .prop_flat_map(move |(m, n, r)| {
            let numbers = (
                0.0..decades,
                0.0..decades,
                -5.0..3.0,
                -5.0..3.0,
                -6.0..3.0,
                -1.0..1.5,
            );
            (numbers, any::<u64>()).prop_map(move |((ka, kb, a, b, g, s), seed)| CaseSpec {
                m,
                n,
                r,
                rank_a: r,
                rank_b: r,
                kappa_a: 10f64.powf(ka),
                kappa_b: 10f64.powf(kb),
                size_a: 10f64.powf(a),
                size_b: 10f64.powf(b),
                size_g: 10f64.powf(g),
                s: 10f64.powf(s),
                dtype: DType::F64,
                seed,
            })
        })
}

/// As [`full_rank`], with any rank of A and of B from 0 (but not both 0) to r.
pub fn any_rank(decades: f64) -> impl Strategy<Value = CaseSpec> {
    full_rank(decades).prop_flat_map(|spec| {
        (0..=spec.r, 0..=spec.r)
            .prop_filter("an adapter of zeros cannot move", |(a, b)| a + b > 0)
            .prop_map(move |(rank_a, rank_b)| CaseSpec {
                rank_a,
                rank_b,
                ..spec
            })
    })
}

/// As training meets them: A of ordinary size and condition, B zero or as small as a first step.
pub fn early(decades: f64) -> impl Strategy<Value = CaseSpec> {
    (full_rank(decades), -5.0..-1.0, any::<bool>()).prop_map(|(spec, b, zero)| CaseSpec {
        size_a: 1.0,
        size_b: 10f64.powf(b),
        size_g: 1.0,
        rank_b: if zero { 0 } else { spec.r },
        ..spec
    })
}
