//! What an adapter's optimizer remembers from step to step, by algorithm.

use nalgebra::{DMatrix, DVector, RowDVector};

use crate::factors::FactorPair;

/// The state of one adapter.
#[derive(Clone, Debug, PartialEq)]
pub enum OptimizerState {
    /// SGD: nothing, or its momentum.
    Momentum(Option<FactorPair>),
    /// Plain LoRA and the efficient mode: moments of both factors.
    Factors(FactorMoments),
    /// The factored mode.
    Factored(FactoredMoments),
    /// The full mode: moments of E, m x n.
    Full(Moments),
}

/// Adam's moments of a matrix X, each of its shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    /// M, the running mean of X.
    pub first: DMatrix<f64>,
    /// $`V_2`$, the running mean of $`X \odot X`$.
    pub second: DMatrix<f64>,
    /// The largest $`V_2`$ so far, where AMSGrad is on.
    pub largest: Option<DMatrix<f64>>,
}

/// The moments of both factors: 2 r (m + n) numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct FactorMoments {
    /// Of what A is stepped along, r x n.
    pub a: Moments,
    /// Of what B is stepped along, m x r.
    pub b: Moments,
}

/// The moments of E in the factored mode: r (m + n) + m + n numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct FactoredMoments {
    /// Y, r x n: the first moment is $`M = B Y + Z A`$.
    pub y: DMatrix<f64>,
    /// Z, m x r, with $`B^\top Z = 0`$.
    pub z: DMatrix<f64>,
    /// The running means of $`E \odot E`$ over each row and over each column.
    pub means: Means,
    /// The largest `means` so far, where AMSGrad is on.
    pub largest: Option<Means>,
}

/// One number per row and one per column of an m x n matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Means {
    /// m x 1.
    pub row: DVector<f64>,
    /// 1 x n.
    pub col: RowDVector<f64>,
}
