//! Core's errors as Python's exceptions.

use lora_pro::Error;
use pyo3::PyErr;
use pyo3::exceptions::{PyMemoryError, PyNotImplementedError, PyRuntimeError, PyValueError};

pyo3::create_exception!(
    lorapro,
    NonFiniteError,
    PyRuntimeError,
    "A gradient or a factor holds a NaN or an infinity; nothing was changed."
);

/// The exception for one of core's errors, with its words.
pub fn from_core(error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::NonFinite { .. } => NonFiniteError::new_err(message),
        Error::Unsupported { .. } => PyNotImplementedError::new_err(message),
        Error::OutOfMemory { .. } => PyMemoryError::new_err(message),
        Error::Backend { .. } | Error::NotConverged { .. } => PyRuntimeError::new_err(message),
        _ => PyValueError::new_err(message),
    }
}

/// A `ValueError`.
pub fn exception(message: impl Into<String>) -> PyErr {
    PyValueError::new_err(message.into())
}
