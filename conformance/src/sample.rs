//! Adapters with prescribed spectra. A case is a few numbers, never raw matrices, so that a
//! failure shrinks to something that a person can read.

use lora_pro_core::DType;
use lora_pro_reference::factors::{FactorPair, Factors, factor_gradients};
use nalgebra::{DMatrix, DVector};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Every branch that a coverage table lists, met or not.
pub const FEATURES: [&str; 23] = [
    "branch/A = 0",
    "branch/B = 0",
    "branch/rank-deficient A",
    "branch/rank-deficient B",
    "branch/r = 1",
    "branch/r = min(m, n)",
    "branch/m = 1 or n = 1",
    "steps/1",
    "steps/2 to 5",
    "steps/6 and more",
    "kappa/1e0",
    "kappa/1e2",
    "kappa/1e4",
    "kappa/1e6",
    "kappa/1e8",
    "kappa/1e10",
    "kappa/1e12",
    "kappa/1e14",
    "spectrum/arithmetic",
    "spectrum/geometric",
    "spectrum/onelarge",
    "spectrum/onesmall",
    "spectrum/random",
];

/// How the non-zero singular values lie between the largest and the smallest (LAPACK's dlatms
/// calls these modes 1 to 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spectrum {
    /// In geometric steps.
    #[default]
    Geometric,
    /// In arithmetic steps.
    Arithmetic,
    /// One is large, the others are small.
    OneLarge,
    /// One is small, the others are large.
    OneSmall,
    /// At random, their logarithms uniform.
    Random,
}

impl Spectrum {
    /// All of them, the plainest first.
    pub const ALL: [Spectrum; 5] = [
        Spectrum::Geometric,
        Spectrum::Arithmetic,
        Spectrum::OneLarge,
        Spectrum::OneSmall,
        Spectrum::Random,
    ];

    /// `rank` singular values from 1 to 1 / kappa.
    fn values(self, random: &mut ChaCha8Rng, rank: usize, kappa: f64) -> Vec<f64> {
        let last = rank.saturating_sub(1);
        let share = |i: usize| i as f64 / last.max(1) as f64;
        let value = |i: usize| match self {
            _ if i == 0 => 1.0,
            _ if i == last => 1.0 / kappa,
            Spectrum::Geometric => kappa.powf(-share(i)),
            Spectrum::Arithmetic => 1.0 - share(i) * (1.0 - 1.0 / kappa),
            Spectrum::OneLarge => 1.0 / kappa,
            Spectrum::OneSmall => 1.0,
            Spectrum::Random => kappa.powf(-random.random_range(0.0..1.0)),
        };
        (0..rank).map(value).collect()
    }
}

/// The numbers that fix an adapter and its gradients.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// How the singular values of both lie between.
    pub spectrum: Spectrum,
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
    /// Steps of a trajectory.
    pub steps: u64,
    /// Seed of everything random.
    pub seed: u64,
}

/// The plainest case: what others are described by their difference to.
impl Default for CaseSpec {
    fn default() -> Self {
        CaseSpec {
            m: 4,
            n: 3,
            r: 2,
            rank_a: 2,
            rank_b: 2,
            kappa_a: 1.0,
            kappa_b: 1.0,
            spectrum: Spectrum::Geometric,
            size_a: 1.0,
            size_b: 1.0,
            size_g: 1.0,
            s: 1.0,
            dtype: DType::F64,
            steps: 4,
            seed: 0,
        }
    }
}

impl CaseSpec {
    /// A learning rate at which a step is smaller than B in every direction. The jump of one that is
    /// larger magnifies rounding, and again in each step that follows.
    pub fn gentle_lr(&self) -> f64 {
        if self.rank_b > 0 {
            0.1 * self.size_b / self.kappa_b
        } else {
            1e-3
        }
    }

    /// The branches that this case goes through, for a coverage table; all of them are in
    /// [`FEATURES`].
    pub fn features(&self) -> Vec<String> {
        let kappa = self.kappa_a.max(self.kappa_b).log10().max(0.0) as u32 / 2 * 2;
        let flags = [
            ("A = 0", self.rank_a == 0),
            ("B = 0", self.rank_b == 0),
            ("rank-deficient A", (1..self.r).contains(&self.rank_a)),
            ("rank-deficient B", (1..self.r).contains(&self.rank_b)),
            ("r = 1", self.r == 1),
            ("r = min(m, n)", self.r == self.m.min(self.n)),
            ("m = 1 or n = 1", self.m == 1 || self.n == 1),
        ];
        let steps = match self.steps {
            0..=1 => "1",
            2..=5 => "2 to 5",
            _ => "6 and more",
        };
        let spectrum = format!("{:?}", self.spectrum).to_lowercase();
        let named = [
            format!("kappa/1e{kappa}"),
            format!("spectrum/{spectrum}"),
            format!("steps/{steps}"),
        ];
        let flags = flags.into_iter().filter(|(_, on)| *on);
        named
            .into_iter()
            .chain(flags.map(|(name, _)| format!("branch/{name}")))
            .collect()
    }

    /// The random numbers of this case; `stream` tells its uses apart.
    pub fn random(&self, stream: u64) -> ChaCha8Rng {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(stream);
        random
    }

    /// The factors: `Q S V'` with random Q, V on both sides. A column-graded B would hide errors
    /// that depend on the condition number.
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
            return self.prescribed(random, [rows, self.r], rank, kappa) * size;
        }
        let basis = self.prescribed(random, [rows, rank], rank, kappa) * size;
        let basis = rounded(self.dtype, &basis);
        let signs = uniform(random, self.r, 1).map(f64::signum);
        let columns: Vec<_> = (0..self.r)
            .map(|k| basis.column(k % rank) * signs[k])
            .collect();
        DMatrix::from_columns(&columns)
    }

    /// Q S V' of the given rank, its singular values from 1 to 1 / kappa.
    fn prescribed(
        &self,
        random: &mut ChaCha8Rng,
        [rows, cols]: [usize; 2],
        rank: usize,
        kappa: f64,
    ) -> DMatrix<f64> {
        if rank == 0 {
            return DMatrix::zeros(rows, cols);
        }
        let left = orthonormal(random, rows, rank);
        let right = orthonormal(random, cols, rank);
        let values = DVector::from_vec(self.spectrum.values(random, rank, kappa));
        left * DMatrix::from_diagonal(&values) * right.transpose()
    }

    /// The full gradient of step t, m x n.
    pub fn full_gradient(&self, t: u64) -> DMatrix<f64> {
        uniform(&mut self.random(1 + t), self.m, self.n) * self.size_g
    }

    /// The gradients of given factors in step t.
    pub fn gradients(&self, factors: &Factors, t: u64) -> FactorPair {
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
pub fn rounded_pair(dtype: DType, pair: &FactorPair) -> FactorPair {
    FactorPair {
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
