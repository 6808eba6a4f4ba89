//! Between borrowed tensors, state buffers and matrices.

use lora_pro_core::backend::{Buffer, State, StateKind, foreign_buffer};
use lora_pro_core::{DType, Error, HostTensor, MatMut, MatRef};
use nalgebra::DMatrix;

use crate::NAME;

/// A view's values.
pub fn matrix(view: &MatRef<'_>) -> DMatrix<f64> {
    DMatrix::from_fn(view.rows(), view.cols(), |i, j| view.get(i, j))
}

/// Values in host memory of their own, rounded to the storage type.
pub fn host(values: &DMatrix<f64>, dtype: DType) -> HostTensor {
    let shape = [values.nrows(), values.ncols()];
    HostTensor::from_fn(dtype, shape, |i, j| values[(i, j)])
}

/// Rounds every value into the view.
pub fn store(values: &DMatrix<f64>, view: &mut MatMut<'_>) {
    for i in 0..values.nrows() {
        for j in 0..values.ncols() {
            view.set(i, j, values[(i, j)]);
        }
    }
}

/// A view's values.
///
/// # Errors
/// [`Error::NonFinite`] where one is not finite.
pub fn read_finite(
    view: &MatRef<'_>,
    subject: &str,
    tensor: &'static str,
) -> Result<DMatrix<f64>, Error> {
    let values = matrix(view);
    check_finite(&values, subject, tensor)?;
    Ok(values)
}

/// Refuses values that are not finite once they are rounded to the storage type.
///
/// # Errors
/// [`Error::NonFinite`], of `tensor` of `subject`.
pub fn check_representable(
    values: &DMatrix<f64>,
    dtype: DType,
    subject: &str,
    tensor: &'static str,
) -> Result<(), Error> {
    check_finite(&values.map(|x| dtype.round(x)), subject, tensor)
}

fn check_finite(values: &DMatrix<f64>, subject: &str, tensor: &'static str) -> Result<(), Error> {
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

/// The values of a state tensor; `None` where the layout has none of this kind.
///
/// # Errors
/// [`Error::Backend`] where another backend made its buffer.
pub fn state_tensor(state: &State, kind: StateKind) -> Result<Option<DMatrix<f64>>, Error> {
    let Some((_, buffer)) = state.find(kind) else {
        return Ok(None);
    };
    let host = buffer
        .get::<HostTensor>()
        .ok_or_else(|| foreign_buffer(NAME, kind))?;
    Ok(Some(matrix(&host.view())))
}

/// New buffers for all tensors of the state, in its order, from their new values.
///
/// # Errors
/// [`Error::NonFinite`] where a value is not finite in its storage type, [`Error::Backend`] where
/// a tensor of the state has no new values.
pub fn new_buffers(
    state: &State,
    values: &[(StateKind, DMatrix<f64>)],
    subject: &str,
) -> Result<Vec<Buffer>, Error> {
    let new_buffer = |kind: StateKind, dtype: DType| {
        let found = values.iter().find(|(other, _)| *other == kind);
        let (_, values) = found.ok_or_else(|| missing(kind))?;
        check_representable(values, dtype, subject, kind.name())?;
        Ok(Buffer::new(host(values, dtype)))
    };
    let tensors = state.tensors.iter();
    tensors
        .map(|(tensor, _)| new_buffer(tensor.kind, tensor.dtype))
        .collect()
}

/// Puts new buffers in place of all buffers of the state they were made for. Cannot fail.
pub fn replace_buffers(state: &mut State, buffers: Vec<Buffer>) {
    for ((_, old), new) in state.tensors.iter_mut().zip(buffers) {
        *old = new;
    }
}

/// A parameter's values, read through its master copy where there is one: the parameter is the
/// copy's rounding; an entry that differs from the rounded copy was modified by the caller, and
/// wins.
///
/// # Errors
/// As [`state_tensor`].
pub fn read_through_master(
    values: DMatrix<f64>,
    state: &State,
    kind: StateKind,
    dtype: DType,
) -> Result<DMatrix<f64>, Error> {
    let Some(master) = state_tensor(state, kind)? else {
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

/// A parameter's values as its master copy keeps them, where there is one. The parameter is
/// rounded from these.
pub fn round_to_master(values: DMatrix<f64>, state: &State, kind: StateKind) -> DMatrix<f64> {
    match state.find(kind) {
        Some((tensor, _)) => values.map(|x| tensor.dtype.round(x)),
        None => values,
    }
}

pub(super) fn missing(kind: StateKind) -> Error {
    Error::backend(NAME, format!("state tensor `{kind}` is missing"))
}
