//! Between the tensors of a state and what each method remembers.

use lora_pro_core::backend::{Factor, Moment, State, StateKind};
use lora_pro_core::{Error, Hyper, Method};
use nalgebra::{DMatrix, RowDVector};

use super::storage::{missing, state_tensor};
use crate::factors::FactorPair;
use crate::state::{FactorMoments, FactoredMoments, Means, Moments, OptimizerState};

/// The state of an adapter that is stepped with these hyper-parameters.
///
/// # Errors
/// [`Error::Backend`] where a tensor that the method needs is missing or another backend's.
pub fn load_state(hyper: &Hyper, state: &State) -> Result<OptimizerState, Error> {
    let required = |kind| required(state, kind);
    let amsgrad = hyper.amsgrad;
    Ok(match hyper.method {
        Method::Sgd if hyper.momentum == 0.0 => OptimizerState::Momentum(None),
        Method::Sgd => OptimizerState::Momentum(Some(FactorPair {
            a: required(StateKind::Momentum(Factor::A))?,
            b: required(StateKind::Momentum(Factor::B))?,
        })),
        Method::Lora | Method::Efficient => OptimizerState::Factors(FactorMoments {
            a: load_moments(state, of_factor(Factor::A), amsgrad)?,
            b: load_moments(state, of_factor(Factor::B), amsgrad)?,
        }),
        Method::Factored => OptimizerState::Factored(FactoredMoments {
            y: required(StateKind::TangentY)?,
            z: required(StateKind::TangentZ)?,
            means: load_means(state, StateKind::RowMeans, StateKind::ColMeans)?,
            largest: amsgrad
                .then(|| load_means(state, StateKind::MaxRowMeans, StateKind::MaxColMeans))
                .transpose()?,
        }),
        Method::Full => OptimizerState::Full(load_moments(state, StateKind::Weight, amsgrad)?),
    })
}

/// The kinds of a factor's moments.
fn of_factor(factor: Factor) -> impl Fn(Moment) -> StateKind {
    move |moment| StateKind::Factor(moment, factor)
}

/// First, second and, with AMSGrad, largest second moment of one matrix.
///
/// # Errors
/// As [`load_state`].
pub fn load_moments(
    state: &State,
    kind: impl Fn(Moment) -> StateKind,
    amsgrad: bool,
) -> Result<Moments, Error> {
    Ok(Moments {
        first: required(state, kind(Moment::First))?,
        second: required(state, kind(Moment::Second))?,
        largest: amsgrad
            .then(|| required(state, kind(Moment::MaxSecond)))
            .transpose()?,
    })
}

fn load_means(state: &State, row: StateKind, col: StateKind) -> Result<Means, Error> {
    let (row, col) = (required(state, row)?, required(state, col)?);
    Ok(Means {
        row: row.column(0).into_owned(),
        col: RowDVector::from_iterator(col.ncols(), col.iter().copied()),
    })
}

fn required(state: &State, kind: StateKind) -> Result<DMatrix<f64>, Error> {
    state_tensor(state, kind)?.ok_or_else(|| missing(kind))
}

/// An adapter's state as tensors with their kinds.
pub fn state_tensors(state: &OptimizerState) -> Vec<(StateKind, DMatrix<f64>)> {
    match state {
        OptimizerState::Momentum(None) => vec![],
        OptimizerState::Momentum(Some(FactorPair { a, b })) => vec![
            (StateKind::Momentum(Factor::A), a.clone()),
            (StateKind::Momentum(Factor::B), b.clone()),
        ],
        OptimizerState::Factors(FactorMoments { a, b }) => {
            let mut all = moment_tensors(a, of_factor(Factor::A));
            all.extend(moment_tensors(b, of_factor(Factor::B)));
            all
        }
        OptimizerState::Factored(FactoredMoments {
            y,
            z,
            means,
            largest,
        }) => {
            let mut all = vec![
                (StateKind::TangentY, y.clone()),
                (StateKind::TangentZ, z.clone()),
            ];
            all.extend(mean_tensors(
                means,
                StateKind::RowMeans,
                StateKind::ColMeans,
            ));
            if let Some(largest) = largest {
                let (row, col) = (StateKind::MaxRowMeans, StateKind::MaxColMeans);
                all.extend(mean_tensors(largest, row, col));
            }
            all
        }
        OptimizerState::Full(moments) => moment_tensors(moments, StateKind::Weight),
    }
}

/// The moments of one matrix as tensors with their kinds.
pub fn moment_tensors(
    moments: &Moments,
    kind: impl Fn(Moment) -> StateKind,
) -> Vec<(StateKind, DMatrix<f64>)> {
    let mut all = vec![
        (kind(Moment::First), moments.first.clone()),
        (kind(Moment::Second), moments.second.clone()),
    ];
    if let Some(largest) = &moments.largest {
        all.push((kind(Moment::MaxSecond), largest.clone()));
    }
    all
}

fn mean_tensors(means: &Means, row: StateKind, col: StateKind) -> [(StateKind, DMatrix<f64>); 2] {
    let rows = DMatrix::from_column_slice(means.row.len(), 1, means.row.as_slice());
    let cols = DMatrix::from_row_slice(1, means.col.len(), means.col.as_slice());
    [(row, rows), (col, cols)]
}
