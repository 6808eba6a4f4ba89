//! The compiled part of the Python package `lorapro`: core's optimizer front, with the CPU, CUDA and
//! reference backends, on the memory of torch's tensors.
//!
//! | module | what |
//! |---|---|
//! | `backend` | the class `CompiledBackend`: registration, step, state |
//! | `tensor` | torch's tensors as core's views (the only `unsafe` here) |
//! | `cpu` | the CPU backend with torch's number of threads, safe after a fork |
//! | `error` | core's errors as Python's exceptions |
//!
//! Neither torch nor CUDA is linked. Whatever a step needs of Python objects is read into plain
//! structs while the interpreter is attached; the step itself runs detached from it, and no Python
//! object is touched by a thread of ours.

mod backend;
mod cpu;
mod error;
mod tensor;

use std::collections::HashMap;

use lora_pro::StateKind;
use lora_pro::backend::StateForm;
use pyo3::prelude::*;

use crate::error::{NonFiniteError, exception};

/// A configuration with all fields filled in, as JSON.
///
/// Takes JSON with any of the fields of core's `Config`: those of `Hyper`, `preset`, `groups`,
/// `max_grad_norm`, `on_non_finite`. An unknown field or a value out of range is a `ValueError` that
/// names it.
#[pyfunction]
fn resolve_config(config: &str) -> PyResult<String> {
    let config = backend::parse_config(config)?;
    serde_json::to_string(&config).map_err(|error| exception(error.to_string()))
}

/// For each state tensor of an adapter, the factor (`"a"` or `"b"`) under whose parameter it is kept:
/// the one along which it lies, B for what is m x n.
#[pyfunction]
fn state_factors() -> HashMap<&'static str, &'static str> {
    let factor = |kind: StateKind| match kind.form() {
        StateForm::A | StateForm::Row => Some((kind.name(), "a")),
        StateForm::B | StateForm::Column | StateForm::Weight | StateForm::WeightBlocks => {
            Some((kind.name(), "b"))
        }
        StateForm::Param => None,
    };
    StateKind::ALL.into_iter().filter_map(factor).collect()
}

/// Names of the backends that are compiled in.
#[pyfunction]
fn backends() -> [&'static str; 3] {
    [
        lora_pro::cpu::NAME,
        lora_pro::cuda::NAME,
        lora_pro::reference::NAME,
    ]
}

#[pymodule]
fn _lorapro(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("NonFiniteError", py.get_type::<NonFiniteError>())?;
    module.add_class::<backend::CompiledBackend>()?;
    module.add_function(wrap_pyfunction!(resolve_config, module)?)?;
    module.add_function(wrap_pyfunction!(state_factors, module)?)?;
    module.add_function(wrap_pyfunction!(backends, module)?)?;
    Ok(())
}
