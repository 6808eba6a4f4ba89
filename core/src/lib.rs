//! The words that every part of LoRA-Pro shares, and no arithmetic.
//!
//! | module | what |
//! |---|---|
//! | `adapter`, `scale` | what is stepped: shapes, rank, scale |
//! | `hyper`, `presets`, `schedule`, `config` | how: one serde type for files, command line, Python, checkpoints |
//! | `tensor` | borrowed matrices of any strides, dtype and place (the only `unsafe` here) |
//! | `state` | which tensors each method remembers |
//! | `backend` | the contract with what computes |
//! | `optimizer`, `check` | the front: owns state and counters, checks before anything is written |
//! | `finite` | which entry of what came in is not finite, for backends |
//! | `report` | what a step did |
//! | `tensor_file`, `checkpoint` | saving and loading to the last bit |
//!
//! Notation is PEFT's: W = W0 + s B A with A: r x n, B: m x r.

mod adapter;
mod backend;
mod check;
mod checkpoint;
mod config;
mod error;
mod finite;
mod hyper;
mod optimizer;
mod presets;
mod report;
mod scale;
mod schedule;
mod state;
mod tensor;
mod tensor_file;

pub use adapter::{AdapterSpec, ParamSpec};
pub use backend::{
    AdapterId, Backend, Control, Determinism, Manifest, PairIo, PairSlot, ParamId, ParamIo,
    ParamSlot, Slots, StepIo,
};
pub use checkpoint::FORMAT_VERSION;
pub use config::{Config, NonFinite};
pub use error::Error;
pub use finite::{Find, Refusal, find_non_finite, refusal};
pub use hyper::{Damping, Hyper, Method, MomentDType, Rounding, XChoice};
pub use optimizer::Optimizer;
pub use presets::Preset;
pub use report::{AdapterReport, Plan, Skip, StepReport, relative};
pub use scale::Scale;
pub use schedule::Schedule;
pub use state::{
    Buffer, MOMENT_BLOCK, State, StateTensor, adapter_layout, foreign_buffer, param_layout,
};
pub use tensor::{DType, Element, HostTensor, MatMut, MatRef, Memory};
pub use tensor_file::{
    TensorData, TensorFile, encode_tensors, previous, read_metadata, read_tensors, write_atomically,
};
