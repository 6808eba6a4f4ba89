//! The reference behind core's contract: tensors and state in, tensors and state out.

mod adapter;
mod backend;
mod gradients;
pub mod moments;
mod param;
pub mod storage;

pub use backend::ReferenceBackend;
