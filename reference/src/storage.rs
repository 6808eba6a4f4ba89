//! Between borrowed tensors, state buffers and matrices.

use lora_pro_core::backend::{Factor, Moment, State, StateKind, foreign_buffer};
use lora_pro_core::{DType, Error, HostTensor, MatMut, MatRef};
use nalgebra::{DMatrix, RowDVector};

use crate::adamw::Moments;
use crate::backend::NAME;
use crate::efficient::FactorMoments;
use crate::factored::{Factored, Means};
use crate::factors::Pair;
use crate::step::Memory;

/// A view's values.
pub fn matrix(view: &MatRef<'_>) -> DMatrix<f64> {
    DMatrix::from_fn(view.rows(), view.cols(), |i, j| view.get(i, j))
}

/// Values in host memory of their own, rounded to the storage type.
pub fn host(values: &DMatrix<f64>, dtype: DType) -> HostTensor {
    let shape = [values.nrows(), values.ncols()];
    HostTensor::from_fn(dtype, shape, |i, j| values[(i, j)])
}

/// A view's values, all of them finite.
pub fn finite(
    view: &MatRef<'_>,
    subject: &str,
    tensor: &'static str,
) -> Result<DMatrix<f64>, Error> {
    let values = matrix(view);
    all_finite(&values, subject, tensor)?;
    Ok(values)
}

/// Refuses values that are not finite once they are rounded to the storage type.
pub fn storable(
    values: &DMatrix<f64>,
    dtype: DType,
    subject: &str,
    tensor: &'static str,
) -> Result<(), Error> {
    all_finite(&values.map(|x| dtype.round(x)), subject, tensor)
}

fn all_finite(values: &DMatrix<f64>, subject: &str, tensor: &'static str) -> Result<(), Error> {
    for row in 0..values.nrows() {
        for col in 0..values.ncols() {
            let value = values[(row, col)];
            if !value.is_finite() {
                let subject = subject.into();
                return Err(Error::NonFinite {
                    subject,
                    tensor,
                    row,
                    col,
                    value,
                });
            }
        }
    }
    Ok(())
}

/// Rounds every value into the view.
pub fn store(values: &DMatrix<f64>, view: &mut MatMut<'_>) {
    for i in 0..values.nrows() {
        for j in 0..values.ncols() {
            view.set(i, j, values[(i, j)]);
        }
    }
}

/// An adapter's memory from its state; which one it is shows in the tensors' kinds.
pub fn load_memory(state: &State) -> Result<Memory, Error> {
    use Factor::{A, B};
    let Some((first, _)) = state.tensors.first() else {
        return Ok(Memory::Nothing);
    };
    Ok(match first.kind {
        StateKind::Momentum(_) => Memory::Momentum(Pair {
            a: required(state, StateKind::Momentum(A))?,
            b: required(state, StateKind::Momentum(B))?,
        }),
        StateKind::Factor(..) => Memory::Factors(FactorMoments {
            a: load_moments(state, |moment| StateKind::Factor(moment, A))?,
            b: load_moments(state, |moment| StateKind::Factor(moment, B))?,
        }),
        StateKind::TangentY
        | StateKind::TangentZ
        | StateKind::RowMeans
        | StateKind::ColMeans
        | StateKind::MaxRowMeans
        | StateKind::MaxColMeans => Memory::Factored(Factored {
            y: required(state, StateKind::TangentY)?,
            z: required(state, StateKind::TangentZ)?,
            means: required_means(state)?,
            largest: load_means(state, [StateKind::MaxRowMeans, StateKind::MaxColMeans])?,
        }),
        StateKind::Weight(_) | StateKind::WeightScale(_) => {
            Memory::Full(load_moments(state, StateKind::Weight)?)
        }
        // Master copies come after the method's own tensors, of which there are none here.
        StateKind::Master(_) | StateKind::Param(_) | StateKind::ParamMaster => Memory::Nothing,
    })
}

/// First, second and, with AMSGrad, largest second moment.
pub fn load_moments(state: &State, kind: impl Fn(Moment) -> StateKind) -> Result<Moments, Error> {
    Ok(Moments {
        first: required(state, kind(Moment::First))?,
        second: required(state, kind(Moment::Second))?,
        largest: tensor(state, kind(Moment::MaxSecond))?,
    })
}

fn required_means(state: &State) -> Result<Means, Error> {
    let kinds = [StateKind::RowMeans, StateKind::ColMeans];
    load_means(state, kinds)?.ok_or_else(|| missing(StateKind::RowMeans))
}

fn load_means(state: &State, kinds: [StateKind; 2]) -> Result<Option<Means>, Error> {
    let Some(row) = tensor(state, kinds[0])? else {
        return Ok(None);
    };
    let col = required(state, kinds[1])?;
    Ok(Some(Means {
        row: row.column(0).into_owned(),
        col: RowDVector::from_iterator(col.ncols(), col.iter().copied()),
    }))
}

/// An adapter's memory as tensors with their kinds.
pub fn memory_tensors(memory: &Memory) -> Vec<(StateKind, DMatrix<f64>)> {
    use Factor::{A, B};
    match memory {
        Memory::Nothing => vec![],
        Memory::Momentum(pair) => vec![
            (StateKind::Momentum(A), pair.a.clone()),
            (StateKind::Momentum(B), pair.b.clone()),
        ],
        Memory::Full(moments) => moment_tensors(moments, StateKind::Weight),
        Memory::Factors(FactorMoments { a, b }) => {
            let mut all = moment_tensors(a, |moment| StateKind::Factor(moment, A));
            all.extend(moment_tensors(b, |moment| StateKind::Factor(moment, B)));
            all
        }
        Memory::Factored(state) => {
            let mut all = vec![
                (StateKind::TangentY, state.y.clone()),
                (StateKind::TangentZ, state.z.clone()),
            ];
            let kinds = [StateKind::RowMeans, StateKind::ColMeans];
            all.extend(mean_tensors(&state.means, kinds));
            if let Some(largest) = &state.largest {
                let kinds = [StateKind::MaxRowMeans, StateKind::MaxColMeans];
                all.extend(mean_tensors(largest, kinds));
            }
            all
        }
    }
}

/// The moments of a single matrix as tensors with their kinds.
pub fn moment_tensors(
    moments: &Moments,
    kind: impl Fn(Moment) -> StateKind,
) -> Vec<(StateKind, DMatrix<f64>)> {
    let mut all = vec![
        (kind(Moment::First), moments.first.clone()),
        (kind(Moment::Second), moments.second.clone()),
    ];
    let largest = moments.largest.iter();
    all.extend(largest.map(|largest| (kind(Moment::MaxSecond), largest.clone())));
    all
}

fn mean_tensors(means: &Means, kinds: [StateKind; 2]) -> [(StateKind, DMatrix<f64>); 2] {
    let row = DMatrix::from_column_slice(means.row.len(), 1, means.row.as_slice());
    let col = DMatrix::from_row_slice(1, means.col.len(), means.col.as_slice());
    [(kinds[0], row), (kinds[1], col)]
}

/// Writes tensors into the state's buffers.
pub fn save_tensors(state: &mut State, tensors: &[(StateKind, DMatrix<f64>)]) -> Result<(), Error> {
    for (kind, values) in tensors {
        let host = state
            .buffer_mut(*kind)?
            .get_mut::<HostTensor>()
            .ok_or_else(|| foreign_buffer(NAME, *kind))?;
        store(values, &mut host.view_mut());
    }
    Ok(())
}

/// A parameter's values, or those of its master copy where there is one: the parameter is the
/// copy's rounding, and an entry that differs from it was changed by the caller, and wins.
pub fn with_master(
    values: DMatrix<f64>,
    state: &State,
    kind: StateKind,
    dtype: DType,
) -> Result<DMatrix<f64>, Error> {
    let Some(master) = tensor(state, kind)? else {
        return Ok(values);
    };
    Ok(master.zip_map(&values, |master, value| {
        if dtype.round(master) == value {
            master
        } else {
            value
        }
    }))
}

/// What a parameter is rounded from: the values as their master copy keeps them.
pub fn through_master(values: DMatrix<f64>, state: &State, kind: StateKind) -> DMatrix<f64> {
    match state.find(kind) {
        Some((tensor, _)) => values.map(|x| tensor.dtype.round(x)),
        None => values,
    }
}

/// Writes a master copy, where there is one.
pub fn save_master(state: &mut State, kind: StateKind, values: &DMatrix<f64>) -> Result<(), Error> {
    match state.find(kind) {
        Some(_) => save_tensors(state, &[(kind, values.clone())]),
        None => Ok(()),
    }
}

fn tensor(state: &State, kind: StateKind) -> Result<Option<DMatrix<f64>>, Error> {
    let Some((_, buffer)) = state.find(kind) else {
        return Ok(None);
    };
    let host = buffer
        .get::<HostTensor>()
        .ok_or_else(|| foreign_buffer(NAME, kind))?;
    Ok(Some(matrix(&host.view())))
}

fn required(state: &State, kind: StateKind) -> Result<DMatrix<f64>, Error> {
    tensor(state, kind)?.ok_or_else(|| missing(kind))
}

pub(crate) fn missing(kind: StateKind) -> Error {
    Error::backend(NAME, format!("state tensor `{kind}` is missing"))
}
