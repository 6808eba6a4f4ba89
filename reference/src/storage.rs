//! Between borrowed tensors, state buffers and matrices.

use lora_pro_core::backend::{State, foreign_buffer};
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

/// An adapter's memory from its state; which one it is shows in the tensors' names.
pub fn load_memory(state: &State) -> Result<Memory, Error> {
    if let Some(y) = tensor(state, "exp_avg_y")? {
        return Ok(Memory::Factored(Factored {
            y,
            z: required(state, "exp_avg_z")?,
            means: load_means(state, ["row_sq", "col_sq"])?.ok_or_else(|| missing("row_sq"))?,
            largest: load_means(state, ["max_row_sq", "max_col_sq"])?,
        }));
    }
    if let Some(a) = load_moments(state, ["exp_avg_a", "exp_avg_sq_a", "max_exp_avg_sq_a"])? {
        let b = load_moments(state, ["exp_avg_b", "exp_avg_sq_b", "max_exp_avg_sq_b"])?;
        let b = b.ok_or_else(|| missing("exp_avg_b"))?;
        return Ok(Memory::Factors(FactorMoments { a, b }));
    }
    if let Some(moments) = load_moments(state, MOMENTS)? {
        return Ok(Memory::Full(moments));
    }
    match tensor(state, "momentum_a")? {
        Some(a) => Ok(Memory::Momentum(Pair {
            a,
            b: required(state, "momentum_b")?,
        })),
        None => Ok(Memory::Nothing),
    }
}

/// Names of the moments of a single matrix.
pub const MOMENTS: [&str; 3] = ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];

/// First, second and largest second moment, where the first is there.
pub fn load_moments(state: &State, names: [&str; 3]) -> Result<Option<Moments>, Error> {
    let Some(first) = tensor(state, names[0])? else {
        return Ok(None);
    };
    let second = required(state, names[1])?;
    let largest = tensor(state, names[2])?;
    Ok(Some(Moments {
        first,
        second,
        largest,
    }))
}

fn load_means(state: &State, names: [&str; 2]) -> Result<Option<Means>, Error> {
    let Some(row) = tensor(state, names[0])? else {
        return Ok(None);
    };
    let col = required(state, names[1])?;
    Ok(Some(Means {
        row: row.column(0).into_owned(),
        col: RowDVector::from_iterator(col.ncols(), col.iter().copied()),
    }))
}

/// An adapter's memory as named tensors.
pub fn memory_tensors(memory: &Memory) -> Vec<(&'static str, DMatrix<f64>)> {
    match memory {
        Memory::Nothing => vec![],
        Memory::Momentum(pair) => {
            vec![
                ("momentum_a", pair.a.clone()),
                ("momentum_b", pair.b.clone()),
            ]
        }
        Memory::Full(moments) => moment_tensors(moments, MOMENTS),
        Memory::Factors(FactorMoments { a, b }) => {
            let mut all = moment_tensors(a, ["exp_avg_a", "exp_avg_sq_a", "max_exp_avg_sq_a"]);
            all.extend(moment_tensors(
                b,
                ["exp_avg_b", "exp_avg_sq_b", "max_exp_avg_sq_b"],
            ));
            all
        }
        Memory::Factored(state) => {
            let mut all = vec![
                ("exp_avg_y", state.y.clone()),
                ("exp_avg_z", state.z.clone()),
            ];
            all.extend(mean_tensors(&state.means, ["row_sq", "col_sq"]));
            if let Some(largest) = &state.largest {
                all.extend(mean_tensors(largest, ["max_row_sq", "max_col_sq"]));
            }
            all
        }
    }
}

/// The moments of a single matrix as named tensors.
pub fn moment_tensors(
    moments: &Moments,
    names: [&'static str; 3],
) -> Vec<(&'static str, DMatrix<f64>)> {
    let mut all = vec![
        (names[0], moments.first.clone()),
        (names[1], moments.second.clone()),
    ];
    all.extend(
        moments
            .largest
            .iter()
            .map(|largest| (names[2], largest.clone())),
    );
    all
}

fn mean_tensors(means: &Means, names: [&'static str; 2]) -> [(&'static str, DMatrix<f64>); 2] {
    let row = DMatrix::from_column_slice(means.row.len(), 1, means.row.as_slice());
    let col = DMatrix::from_row_slice(1, means.col.len(), means.col.as_slice());
    [(names[0], row), (names[1], col)]
}

/// Writes named tensors into the state's buffers.
pub fn save_tensors(
    state: &mut State,
    tensors: &[(&'static str, DMatrix<f64>)],
) -> Result<(), Error> {
    for (name, values) in tensors {
        let buffer = state.buffer_mut(name).ok_or_else(|| missing(name))?;
        let host = buffer
            .get_mut::<HostTensor>()
            .ok_or_else(|| foreign_buffer(NAME, name))?;
        store(values, &mut host.view_mut());
    }
    Ok(())
}

/// A parameter's values, or those of its master copy where there is one: the parameter is the
/// copy's rounding, and an entry that is not has been changed by somebody else.
pub fn with_master(
    values: DMatrix<f64>,
    state: &State,
    name: &str,
    dtype: DType,
) -> Result<DMatrix<f64>, Error> {
    let Some(master) = tensor(state, name)? else {
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
pub fn through_master(values: DMatrix<f64>, state: &State, name: &str) -> DMatrix<f64> {
    match state.dtype(name) {
        Some(dtype) => values.map(|x| dtype.round(x)),
        None => values,
    }
}

/// Writes a master copy, where there is one.
pub fn save_master(
    state: &mut State,
    name: &'static str,
    values: &DMatrix<f64>,
) -> Result<(), Error> {
    match state.buffer(name) {
        Some(_) => save_tensors(state, &[(name, values.clone())]),
        None => Ok(()),
    }
}

fn tensor(state: &State, name: &str) -> Result<Option<DMatrix<f64>>, Error> {
    let Some(buffer) = state.buffer(name) else {
        return Ok(None);
    };
    let host = buffer
        .get::<HostTensor>()
        .ok_or_else(|| foreign_buffer(NAME, name))?;
    Ok(Some(matrix(&host.view())))
}

fn required(state: &State, name: &str) -> Result<DMatrix<f64>, Error> {
    tensor(state, name)?.ok_or_else(|| missing(name))
}

fn missing(name: &str) -> Error {
    Error::Backend {
        backend: NAME.into(),
        reason: format!("state tensor `{name}` is missing"),
    }
}
