//! What every part of LoRA-Pro shares, and no arithmetic.
//!
//! | module | what |
//! |---|---|
//! | `adapter`, `scale` | what is stepped: shapes, rank, scale |
//! | `hyper`, `presets`, `schedule`, `config` | how: one serde type for files, command line, Python, checkpoints |
//! | `tensor` | borrowed matrices of any strides, dtype and location (the only `unsafe` here) |
//! | `io` | the tensors of one step |
//! | `optimizer`, `check` | the front: owns state and counters, checks before anything is written |
//! | `report` | what a step did |
//! | `tensor_file`, `checkpoint` | saving and loading to the last bit |
//! | `state` | which tensors each method remembers |
//! | [`backend`] | for authors of backends: the contract with what computes, state, rejection |
//!
//! Notation is PEFT's: W = W0 + s B A with A: r x n, B: m x r.

#![warn(missing_debug_implementations)]

mod adapter;
pub mod backend;
mod check;
mod checkpoint;
mod config;
mod error;
mod hyper;
mod io;
mod optimizer;
mod presets;
mod report;
mod scale;
mod schedule;
mod state;
mod tensor;
mod tensor_file;

pub use adapter::{AdapterSpec, ParamSpec};
pub use backend::{Backend, Determinism, Manifest};
pub use checkpoint::FORMAT_VERSION;
pub use config::{Config, OnNonFinite};
pub use error::Error;
pub use hyper::{Damping, Hyper, Method, MomentDType, Rounding, XChoice};
pub use io::{AdapterId, AdapterIo, ParamId, ParamIo};
pub use optimizer::Optimizer;
pub use presets::Preset;
pub use report::{AdapterReport, Parallelism, PerFactor, SkippedStep, StepReport};
pub use scale::Scale;
pub use schedule::Schedule;
pub use state::{Factor, Moment, StateKind};
pub use tensor::{DType, Element, HostTensor, Location, MatMut, MatRef};
pub use tensor_file::{
    TensorData, TensorFile, backup_path, encode_tensors, read_metadata, read_tensors,
    write_atomically,
};
